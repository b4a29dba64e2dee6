#!/usr/bin/env bash
# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
#
# What pgrpo.sbatch starts on every node but the first: ../node.sh with what Slurm says of this node.
set -euo pipefail

IFS=, read -r -a pairs <<< "${NODES}"
for pair in "${pairs[@]}"; do
    if [[ ${pair%%=*} == "${SLURMD_NODENAME}" ]]; then
        NODE_ADDRESS=${pair#*=} NODE_GPUS=${SLURM_GPUS_ON_NODE:-${NODE_GPUS}} NODE_CPUS=${SLURM_CPUS_ON_NODE} \
            exec bash "$(dirname "${BASH_SOURCE[0]}")/../node.sh" worker "$1"
    fi
done
echo "launch: this node, ${SLURMD_NODENAME}, is not among ${NODES}" >&2
exit 2
