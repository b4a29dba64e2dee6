# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What the plugin adds to a process's start: milliseconds, each in an interpreter of its own.

    python benchmarks/plugin_import.py [--rounds 5]

verl imports the plugin in each of its processes, as the last thing of `import verl` (`with verl`). `alone`, in an
interpreter that has imported nothing yet, is mostly asyncio, which verl has already: wrapt, the plugin's one dependency
there, imports it. `hooks` is what else is imported where advantages are computed, once verl's trainers are.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

from speed import machine

PLACES = {
    "alone": ("", "verl_pgrpo.integration.plugin"),
    "with verl": ("import verl", "verl_pgrpo.integration.plugin"),
    "hooks": ("import verl.trainer.ppo.v1, verl.trainer.ppo.core_algos", "verl_pgrpo.integration.trainers"),
}


def measure(before: str, module: str) -> tuple[float, float]:
    """Milliseconds of the clock and of the processor that importing `module` takes after `before`."""
    code = (
        f"{before}\nimport importlib, time\nclock, cpu = time.perf_counter(), time.process_time()\n"
        f"importlib.import_module({module!r})\n"
        "print(1e3 * (time.perf_counter() - clock), 1e3 * (time.process_time() - cpu))"
    )
    environment = {**os.environ, "VERL_USE_EXTERNAL_PLUGINS": "none", "VERL_PLATFORM": "", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    clock, cpu = done.stdout.splitlines()[-1].split()
    return float(clock), float(cpu)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    print(f"{args.rounds} interpreters each, after one that warms up; {machine()}")
    print("place     | clock ms: best median | processor ms: best median")
    for place, what in PLACES.items():
        clock, cpu = zip(*[measure(*what) for _ in range(args.rounds + 1)][1:], strict=True)
        print(
            f"{place:<9} | {min(clock):>14.1f} {statistics.median(clock):>6.1f} | "
            f"{min(cpu):>18.1f} {statistics.median(cpu):>6.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
