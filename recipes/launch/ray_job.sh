#!/usr/bin/env bash
# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
#
# Run a recipe on an existing Ray cluster. The cluster needs the dashboard (the default of `ray start --head`) and, on
# every node, verl and this package. The recipes are sent with the job.
#
#   RAY_ADDRESS=http://head:8265 bash recipes/launch/ray_job.sh personas/run_qwen3_32b_megatron
#   bash recipes/launch/ray_job.sh --dry-run personas/run_qwen3_32b_megatron
#
# The run uses all nodes with GPUs; with NNODES=4 it waits for four nodes (and a judge's). Relative paths are relative to the current
# folder, which must be the same on every node; otherwise set DIRECTORY, or DATA_DIR and RUN_DIR.
# The log is printed here and kept with the job (`ray job logs <id>`); the exit status is Ray's, 0 or 1. The same command
# again resumes. Ctrl-C leaves the job running; `ray job stop <id>` ends it.
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
    # Recipe and arguments are in the environment: Ray would pass them through a shell here.
    -- python3 recipes/launch/run_on_cluster.py
)
if [[ -n ${dry_run} ]]; then
    printf '%q ' "${submit[@]}"
    printf '\nwhich runs on the cluster, with its number of nodes and GPUs in place of those here:\n'
    exec python3 "${launch}/run_on_cluster.py" --dry-run "$@"
fi
status=0
"${submit[@]}" || status=$?
# A cluster that has just started answers before it accepts jobs.
while ((status)) && ((SECONDS < ${JOIN_LIMIT:-600})) && ray job list > /dev/null 2>&1 &&
    ! ray job status "${id}" > /dev/null 2>&1; do
    echo "launch: Ray did not accept the job (its error is above); retrying in 5 s" >&2
    sleep 5
    status=0
    "${submit[@]}" || status=$?
done
exit "${status}"
