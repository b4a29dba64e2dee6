#!/usr/bin/env python3
# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Print the live nodes with GPUs of a Ray cluster every two seconds, as JSON lines {node id: [address, GPUs]}.

A process of its own, because Ray ends the processes connected to it when its head is gone.
"""

import json
import logging
import os
import time

import ray


def main() -> None:
    lines = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Ray prints messages about failing nodes to stdout
    # `auto`: the cluster at RAY_ADDRESS, which Ray sets for its jobs.
    ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
    while True:
        nodes = {
            node["NodeID"]: [node["NodeManagerAddress"], int(node["Resources"]["GPU"])]
            for node in ray.nodes()
            if node["Alive"] and node["Resources"].get("GPU", 0) >= 1
        }
        print(json.dumps(nodes), file=lines, flush=True)
        time.sleep(2.0)


if __name__ == "__main__":
    main()
