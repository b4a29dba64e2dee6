# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""A two-node Slurm on this machine, from Debian's packages: started in a separate folder, and stopped again."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

from tests.cpu.support import free_port
from tests.e2e.loopback import Loopback

HERE = Path(__file__).resolve().parent
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "squeue")


def why_not() -> str | None:
    """Return why Slurm cannot run here; None if it can. Installs Debian's packages if needed."""
    if os.geteuid() != 0:
        return "Slurm's daemons start jobs as other users: the test needs root"
    if all(map(shutil.which, PROGRAMS)):
        return None
    if shutil.which("apt-get") is None:
        return "no Slurm here, and no apt-get to install slurm-wlm with"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    # Keeps Debian from starting the unconfigured daemons.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    subprocess.run(["apt-get", "update"], check=False, **quiet)
    install = ["apt-get", "install", "-y", "--no-install-recommends", "slurm-wlm", "slurm-client"]
    subprocess.run(install, env=environment, check=False, timeout=600, **quiet)
    return None if all(map(shutil.which, PROGRAMS)) else "apt-get could not install slurm-wlm"


class Slurm:
    """slurmctld and two slurmd, for the duration of `with`."""

    def __init__(self, folder: Path, network: Loopback) -> None:
        self.folder = folder
        self.network = network
        self.daemons: list[subprocess.Popen[bytes]] = []
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}

    def __enter__(self) -> Slurm:
        (self.folder / "state").mkdir(parents=True)
        ports = {f"{name}_port": free_port() for name in ("controller", "first", "second")}
        host = socket.gethostname().partition(".")[0]
        text = (HERE / "slurm.conf").read_text().format(host=host, folder=self.folder, **ports)
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "gres.conf").write_text("NodeName=first,second Name=gpu File=/dev/null\n")
        # slurmd loads a cgroup plugin though none is used; only later versions can disable it.
        version = tuple(map(int, re.findall(r"\d+", self.call("slurmd", "-V"))[:2]))
        plugin = "disabled" if version >= (23, 11) else "cgroup/v1"
        (self.folder / "cgroup.conf").write_text(f"CgroupPlugin={plugin}\n")
        for name in ("first", "second"):
            (self.folder / f"spool-{name}").mkdir()
        try:
            self._start("slurmctld", "-D", "-i")
            for name in ("first", "second"):
                self._start("slurmd", "-D", "-N", name)
            self.wait(lambda: self.call("sinfo", "--noheader", "--format=%D %t").split() == ["2", "idle"], 60)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for daemon in reversed(self.daemons):
            daemon.terminate()
            try:
                daemon.wait(timeout=30)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def _start(self, *command: str) -> None:
        with open(self.folder / f"{len(self.daemons)}-{command[0]}.out", "wb") as output:
            daemon = subprocess.Popen(
                self.network.inside(*command), env=self.environment, stdout=output, stderr=subprocess.STDOUT
            )
        self.daemons.append(daemon)

    def call(self, *command: str, check: bool = False, **variables: str) -> str:
        """Return the output of a Slurm command, errors included."""
        environment, pipe = {**self.environment, **variables}, subprocess.PIPE
        run = subprocess.run(
            self.network.inside(*command), env=environment, stdout=pipe, stderr=subprocess.STDOUT, text=True, timeout=60
        )
        assert not check or run.returncode == 0, f"{' '.join(command)}: {run.stdout}"
        return run.stdout

    def wait(self, condition, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.call("scontrol", "show", "node") + self.logs()
            assert all(daemon.poll() is None for daemon in self.daemons), self.logs()
            time.sleep(0.5)

    def logs(self) -> str:
        files = [*self.folder.glob("*.log"), *self.folder.glob("*.out")]
        return "\n".join(f"== {file.name}\n{file.read_text(errors='replace')[-2000:]}" for file in files)

    def job(self, number: str) -> dict[str, str]:
        """Return the fields of `scontrol show job`: JobState, ExitCode, Restarts, ..."""
        return dict(re.findall(r"(\w[\w/:]*)=(\S+)", self.call("scontrol", "show", "job", number)))
