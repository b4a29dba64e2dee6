#!/usr/bin/env bash
# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
#
# Any recipe on a Ray cluster that is running, whoever started it. The cluster needs its dashboard (`ray start --head` has
# it) and, on every node, this package and the verl that it hooks; the recipes travel with the job.
#
#   RAY_ADDRESS=http://head:8265 bash recipes/launch/ray_job.sh personas/run_qwen3_32b_megatron
#   bash recipes/launch/ray_job.sh --dry-run personas/run_qwen3_32b_megatron
#
# It takes all nodes that have GPUs; NNODES=4 waits until there are four and takes as many. Relative paths mean the folder
# one is in, as ever: it must be the same on every node, or set DIRECTORY, or DATA_DIR and RUN_DIR.
# The log comes here and stays with the job (`ray job logs <id>`); the exit status is 0 for success and 1 for the rest, as
# is Ray's. The same command again resumes. Ctrl-C leaves the job running; `ray job stop <id>` ends it.
set -euo pipefail
launch=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

dry_run=
if [[ ${1:-} == --dry-run ]]; then
    dry_run=1
    shift
fi
recipe=${1:-}
name=$(python3 "${launch}/recipe.py" slug "${recipe}")
id=${name}-$(date +%Y%m%d-%H%M%S)-$$
export DIRECTORY=${DIRECTORY:-${PWD}}
environment=$(python3 "${launch}/recipe.py" environment "$@")

sent='<a folder with a copy of recipes/>'
if [[ -z ${dry_run} ]]; then
    if [[ -z ${RAY_ADDRESS:-}${RAY_API_SERVER_ADDRESS:-} ]]; then
        echo "launch: which cluster? RAY_ADDRESS=http://<head>:8265 bash $0 ${recipe}" >&2
        exit 2
    fi
    sent=$(mktemp -d)
    trap 'rm -rf "${sent}"' EXIT
    cp -r "${launch}/.." "${sent}/recipes"
fi
submit=(
    ray job submit
    --submission-id "${id}"
    --working-dir "${sent}"
    --runtime-env-json "${environment}"
    # What differs from job to job is in the environment, as Ray would have a shell read it here.
    -- python3 recipes/launch/run_on_cluster.py
)
if [[ -n ${dry_run} ]]; then
    printf '%q ' "${submit[@]}"
    printf '\nthat is, on the cluster (there on the nodes and GPUs that it has; here, unless you say, on those of the recipe):\n'
    exec python3 "${launch}/run_on_cluster.py" --dry-run "$@"
fi
status=0
"${submit[@]}" || status=$?
# A cluster that has just started answers before it takes jobs.
while ((status)) && ((SECONDS < ${JOIN_LIMIT:-600})) && ray job list > /dev/null 2>&1 &&
    ! ray job status "${id}" > /dev/null 2>&1; do
    echo "launch: Ray did not take the job (what it said is above); again in 5 s" >&2
    sleep 5
    status=0
    "${submit[@]}" || status=$?
done
exit "${status}"
