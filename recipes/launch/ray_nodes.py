#!/usr/bin/env python3
# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Says every few seconds which nodes of a Ray cluster with GPUs are alive: a JSON line, {node id: [address, GPUs]}.

A process of its own, because Ray ends the processes that are connected to it when its head is gone.
"""

import json
import logging
import os
import time

import ray

EVERY = 2.0
"""Seconds between two lines."""


def main() -> None:
    lines = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Ray prints there too, of nodes that fail
    # `auto`: RAY_ADDRESS goes first. A job of `ray job submit` finds it set.
    ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
    while True:
        nodes = {
            node["NodeID"]: [node["NodeManagerAddress"], int(node["Resources"].get("GPU", 0))]
            for node in ray.nodes()
            if node["Alive"] and node["Resources"].get("GPU", 0) >= 1
        }
        print(json.dumps(nodes), file=lines, flush=True)
        time.sleep(EVERY)


if __name__ == "__main__":
    main()
