#!/usr/bin/env bash
# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
#
# Started by pgrpo.sbatch on every node but the first: ../node.sh with this node's address, GPUs and CPUs.
set -euo pipefail

IFS=, read -r -a pairs <<< "${NODES}"
for pair in "${pairs[@]}"; do
    if [[ ${pair%%=*} == "${SLURMD_NODENAME}" ]]; then
        NODE_ADDRESS=${pair#*=} NODE_GPUS=${SLURM_GPUS_ON_NODE:-${NODE_GPUS}} NODE_CPUS=${SLURM_CPUS_ON_NODE} \
            exec bash "$(dirname "${BASH_SOURCE[0]}")/../node.sh" worker "$1"
    fi
done
echo "launch: node ${SLURMD_NODENAME} is not in NODES=${NODES}" >&2
exit 2
