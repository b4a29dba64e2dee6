# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Which verl this works with, tried out: the fast tests and one run on the CPU with each version.

    python -m tests.matrix "MARKER EXPRESSION OF THE FAST TESTS" [VERSION ...]

`make matrix` calls it. A version gets an environment `.matrix/<version>` of its own, with that verl in it and, behind
it, all that this environment has. Logs are left in `runs/matrix/<version>/`; the table goes into README.md between the
markers. Rows of versions that were not asked for stay as they are. Exit status 1 if a supported version fails.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from verl_pgrpo.integration.compat import TESTED_VERSIONS

ROOT = Path(__file__).resolve().parent.parent
MARKERS = ("<!-- matrix -->", "<!-- /matrix -->")
HEAD = "| verl | fast tests | CPU run | |\n|---|---|---|---|"
STEPS = 3
# Versions that are tried though they are not supported, and what it would take.
TRIED = {
    "0.8.0": "has no V1 trainers, plugin entry points or platforms: it would take hooks of `main_ppo_sync` and of the "
    "older `main_ppo`, loading by `VERL_USE_EXTERNAL_MODULES`, and the CPU platform as patches",
    "0.7.1": "the same as 0.8.0; its wheel lacks the code of one-step-off and fully-async as well",
}


@dataclass
class Row:
    """One version's line in the table."""

    version: str
    fast: str
    run: str
    passed: bool

    def __str__(self) -> str:
        note = (
            "supported" if self.version in TESTED_VERSIONS else f"not supported: {TRIED.get(self.version, 'unknown')}"
        )
        return f"| {self.version} | {self.fast} | {self.run} | {note} |"


def environment(version: str, home: Path) -> Path:
    """The interpreter of an environment with this verl; made if it is not there.

    Raises:
        subprocess.CalledProcessError: pip cannot install it.
    """
    python = home / "bin" / "python"
    site = home / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    shared = site / "shared.pth"  # written last
    if not shared.exists():
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--clear", home], check=True)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, f"verl=={version}"]
        subprocess.run(pip, check=True)
        # addsitedir and not the bare path: the packages there have .pth files of their own, this project's among them.
        shared.write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    return python


def call(python: Path, arguments: list[str], log: Path, seconds: float) -> tuple[bool, str]:
    """Run it from the repository with its output in `log`: whether it ended well, and the last error in the log."""
    with open(log, "wb") as out:
        try:
            run = subprocess.run([python, *arguments], cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, timeout=seconds)
        except subprocess.TimeoutExpired:
            return False, f"no end within {seconds:.0f} s"
    return run.returncode == 0, last_error(log.read_text(errors="replace"))


def last_error(log: str) -> str:
    """The last exception (or key that hydra refuses) that a log shows, as one line that a table can hold."""
    log = re.sub(r"\x1b\[[0-9;]*m", "", log)  # Ray's colours
    lines = re.findall(
        r"^(?:E  +|\([^)]*\) *)?((?:\w+\.)*\w*(?:Error|Exception): .+|Could not override .+)$", log, re.MULTILINE
    )
    if not lines:
        return "no error message"
    line = re.sub(r" ?\(?/\S+/\S+", "", lines[-1])  # where on this machine
    return re.sub(r"\s+", " ", line)[:160].replace("|", "\\|")


def fast_tests(python: Path, folder: Path, expression: str) -> tuple[bool, str]:
    report = folder / "fast.xml"
    report.unlink(missing_ok=True)
    arguments = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", expression, f"--junitxml={report}"]
    passed, error = call(python, arguments, folder / "fast.log", 1800)
    if not report.exists():
        return False, f"not run: `{error}`"
    suite = next(ElementTree.parse(report).getroot().iter("testsuite"))
    total, bad, skipped = (
        sum(int(suite.get(name, 0)) for name in names) for names in (("tests",), ("failures", "errors"), ("skipped",))
    )
    counts = f"{total - bad - skipped} passed" + (f", {skipped} skipped" if skipped else "")
    return passed, counts if passed else f"{bad} failed, {counts}; the last: `{error}`"


def cpu_run(python: Path, folder: Path) -> tuple[bool, str]:
    passed, error = call(python, ["-m", "tests.matrix", "--run", str(folder / "run")], folder / "run.log", 900)
    log = folder / "run" / "run.log"  # verl's own
    if not passed and log.exists():
        error = last_error(log.read_text(errors="replace"))
    return passed, f"{STEPS} steps" if passed else f"failed: `{error}`"


def real_run(folder: Path) -> None:
    """In a version's own environment: stock verl with one flag, V1 `sync`, and what must come of it."""
    import verl

    from tests.e2e import runs

    shutil.rmtree(folder, ignore_errors=True)
    runs.prepare(folder)
    steps = [f"trainer.total_training_steps={STEPS}", f"trainer.save_freq={STEPS}"]
    log = runs.finish(runs.start(folder, "run", *steps), folder, "run")
    observed = [step["pgrpo/observed_total"] for step in runs.metrics(folder, "run").values()]
    assert observed == [16.0 * (step + 1) for step in range(STEPS)], observed
    assert runs.history_of(folder, STEPS).total_count == 16 * STEPS
    assert "P-GRPO: each response's reward is normalised" in log
    print(json.dumps({"verl": verl.__version__, "observed": observed}))


def try_version(version: str, expression: str, folder: Path, homes: Path) -> Row:
    folder.mkdir(parents=True, exist_ok=True)

    def say(what: str) -> None:
        print(f"matrix: {time.strftime('%H:%M:%S')} verl {version}: {what}", flush=True)

    say("environment")
    try:
        python = environment(version, homes / version)
    except (subprocess.CalledProcessError, OSError) as error:
        say(f"cannot be installed: {error}")
        return Row(version, "not installed", "not installed", False)
    say(f"fast tests (log: {folder / 'fast.log'})")
    fast, fast_cell = fast_tests(python, folder, expression)
    say(fast_cell)
    say(f"CPU run (log: {folder / 'run.log'})")
    run, run_cell = cpu_run(python, folder)
    say(run_cell)
    return Row(version, fast_cell, run_cell, fast and run)


def write_table(rows: list[Row], readme: Path) -> None:
    """Put the rows into the table between the markers, newest version first; other versions keep theirs."""
    text = readme.read_text(encoding="utf-8")
    before, rest = text.split(MARKERS[0] + "\n")
    table, after = rest.split(MARKERS[1])
    lines = {line.split("|")[1].strip(): line for line in table.splitlines()[2:]}
    lines.update({row.version: str(row) for row in rows})
    ordered = sorted(lines, key=lambda version: [int(part) for part in version.split(".")], reverse=True)
    table = "\n".join([HEAD, *(lines[version] for version in ordered)])
    readme.write_text(f"{before}{MARKERS[0]}\n{table}\n{MARKERS[1]}{after}", encoding="utf-8")


def main(
    expression: str,
    versions: list[str],
    readme: Path = ROOT / "README.md",
    folder: Path = ROOT / "runs" / "matrix",
    homes: Path = ROOT / ".matrix",
) -> int:
    rows = []
    for version in versions or [*TESTED_VERSIONS, *TRIED]:
        try:
            rows.append(try_version(version, expression, folder / version, homes))
        except Exception as error:  # one version's trouble is no other's
            rows.append(Row(version, "not run", f"`{type(error).__name__}: {error}`", False))
        write_table(rows, readme)
        print(rows[-1], flush=True)
    failed = [row.version for row in rows if not row.passed and row.version in TESTED_VERSIONS]
    print(f"matrix: supported versions that fail: {', '.join(failed) or 'none'}", flush=True)
    return int(bool(failed))


if __name__ == "__main__":
    if sys.argv[1] == "--run":
        real_run(Path(sys.argv[2]))
    else:
        sys.exit(main(sys.argv[1], sys.argv[2:]))
