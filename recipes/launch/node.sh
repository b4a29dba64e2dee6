#!/usr/bin/env bash
# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
#
# One node of a Ray cluster that exists for one run. Called on every node by slurm/pgrpo.sbatch and sky/pgrpo.yaml.
#
#   node.sh [--dry-run] head RECIPE [verl's key=value ...]    # start Ray, wait for the workers, run the recipe, stop Ray
#   node.sh [--dry-run] worker RECIPE                         # join the head's Ray, stay until it ends
#
# Set by the caller, as the scheduler allocated them:
#   NODES           NAME=ADDRESS,... of all nodes, the head first
#   NODE_ADDRESS    address of this node
#   NODE_GPUS       GPUs of this node; NODE_CPUS: CPUs (default: as Ray detects)
#   RAY_PORT        default 6379
#   JOIN_LIMIT      seconds that head and workers wait for each other (default 600)
set -euo pipefail
launch=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

dry_run=()
if [[ ${1:-} == --dry-run ]]; then
    dry_run=(--dry-run)
    shift
fi
role=$1
recipe=$2
shift 2
if [[ ${role} == head || ${#dry_run[@]} == 0 ]]; then
    python3 "${launch}/recipe.py" slug "${recipe}" > /dev/null # an unknown recipe ends here, with a list of recipes
fi

IFS=, read -r -a pairs <<< "${NODES}"
head_address=${pairs[0]#*=}
port=${RAY_PORT:-6379}
limit=${JOIN_LIMIT:-600}

ray=(ray)
if [[ ${recipe%.sh} == *_cpu ]]; then
    ray=(python3 "${launch}/cpu_ray.py")
fi
ray+=(start --block --node-ip-address="${NODE_ADDRESS}" --num-gpus="${NODE_GPUS}")
if [[ -n ${NODE_CPUS:-} ]]; then
    ray+=(--num-cpus="${NODE_CPUS}")
fi
case "${role}" in
head)
    # Only this run uses this Ray. Its client server cannot be disabled; workers use the ports 10002 to 19999.
    client_port=$((port < 50000 ? port + 14000 : port - 14000))
    ray+=(--head --port="${port}" --include-dashboard=false --ray-client-server-port="${client_port}")
    ;;
worker)
    ray+=(--address="${head_address}:${port}")
    ;;
*)
    echo "launch: ${role}: head or worker" >&2
    exit 2
    ;;
esac
export RAY_ADDRESS=${head_address}:${port}
# Set on all nodes: a head with a token in ~/.ray would otherwise reject workers without one.
export RAY_AUTH_MODE=${RAY_AUTH_MODE:-disabled}
# Slurm sets a variable per GPU vendor, and verl rejects this one together with the others.
if [[ -n ${CUDA_VISIBLE_DEVICES:-}${HIP_VISIBLE_DEVICES:-} ]]; then
    unset ROCR_VISIBLE_DEVICES
fi
run=(python3 "${launch}/run_on_cluster.py" --nodes "${NODES}" "${recipe}" "$@")

if ((${#dry_run[@]})); then
    printf '%s on %s:\n ' "${role}" "${NODE_ADDRESS}"
    printf ' %q' "${ray[@]}"
    printf '\n'
    if [[ ${role} == head ]]; then
        if ((${NGPUS_PER_NODE:-0} > NODE_GPUS)); then
            echo "launch: NGPUS_PER_NODE=${NGPUS_PER_NODE}, but a node has ${NODE_GPUS} GPUs" >&2
            exit 69
        fi
        printf '  RAY_ADDRESS=%q' "${RAY_ADDRESS}"
        printf ' %q' "${run[@]}"
        printf '\nthat is, once all nodes have joined:\n'
        NGPUS_PER_NODE=${NGPUS_PER_NODE:-${NODE_GPUS}} exec "${run[0]}" "${run[1]}" --dry-run "${run[@]:2}"
    fi
    exit 0
fi

# Jobs inherit the small limits of login nodes, but Ray and NCCL open thousands of files, and RDMA pins memory.
ulimit -S -n "$(ulimit -H -n)"
ulimit -S -l "$(ulimit -H -l)"
if [[ $(ulimit -n) != unlimited ]] && (($(ulimit -n) < 65536)); then
    echo "launch: warning: ${NODE_ADDRESS} allows $(ulimit -n) open files; large runs need 65536 (ulimit -n)" >&2
fi
if [[ $(ulimit -l) != unlimited ]]; then
    echo "launch: warning: ${NODE_ADDRESS} allows $(ulimit -l) KiB of locked memory; RDMA needs unlimited (ulimit -l)" >&2
fi

answers() { # return whether the head's Ray accepts connections
    (exec 3<> "/dev/tcp/${head_address}/${port}") 2> /dev/null
}

stop() { # end a process and wait for it
    kill -TERM "$1" 2> /dev/null || true
    wait "$1" || true
}

ray_pid=
run_pid=
signalled=
on_signal() { # end the run first; Ray is stopped when it has ended
    signalled=1
    if [[ -n ${run_pid}${ray_pid} ]]; then
        kill -TERM "${run_pid:-${ray_pid}}" 2> /dev/null || true
    fi
}
trap on_signal TERM INT HUP

if [[ ${role} == head ]]; then
    if answers; then
        echo "launch: port ${port} of ${head_address} is taken, so Ray cannot start: set RAY_PORT" >&2
        exit 69
    fi
    env -u RAY_ADDRESS "${ray[@]}" &
    ray_pid=$!
    until answers; do
        if ! kill -0 "${ray_pid}" 2> /dev/null || ((SECONDS > limit)) || [[ -n ${signalled} ]]; then
            echo "launch: Ray did not start on ${head_address} within ${limit} s (its error is above)" >&2
            stop "${ray_pid}"
            exit 69
        fi
        sleep 1
    done
    "${run[@]}" &
    run_pid=$!
    # `wait` returns early on a signal.
    while kill -0 "${run_pid}" 2> /dev/null; do
        wait "${run_pid}" || true
    done
    wait "${run_pid}" && status=0 || status=$?
    run_pid=
    stop "${ray_pid}"
    exit "${status}"
fi

until answers; do
    if [[ -n ${signalled} ]]; then
        exit 143
    elif ((SECONDS > limit)); then
        echo "launch: the head, ${pairs[0]}, did not answer on port ${port} within ${limit} s" >&2
        exit 69
    fi
    sleep 1
done
env -u RAY_ADDRESS "${ray[@]}" &
ray_pid=$!
while kill -0 "${ray_pid}" 2> /dev/null; do
    wait "${ray_pid}" || true
done
wait "${ray_pid}" && status=0 || status=$?
if [[ -n ${signalled} ]]; then
    exit 143
elif answers; then
    echo "launch: Ray ended on ${NODE_ADDRESS} (status ${status}) while the head goes on: this node is lost" >&2
    exit 75
fi
echo "launch: the head has ended, and so does ${NODE_ADDRESS}"
