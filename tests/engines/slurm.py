"""A real SLURM on this machine: munged, slurmctld and slurmd as plain processes on loopback, in a folder of their own.

No systemd, no cgroups, no accounting. `python tests/engines/slurm.py` keeps one up until Ctrl-C, to try things on.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PROGRAMS = ("setpriv", "munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
PACKAGES = ("slurm-wlm", "munge")
PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])  # where Debian puts daemons

CONFIGURATION = """\
ClusterName=vac
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={slurmctld_port}
SlurmdPort={slurmd_port}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=30
MinJobAge=300
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=8000 State=UNKNOWN
PartitionName=low Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


class UnavailableError(RuntimeError):
    """There can be no SLURM on this machine; the message says why."""


@contextmanager
def cluster(cpus: int) -> Iterator[dict[str, str]]:
    """A cluster of one node that says it has so many processors; yields the environment in which it is found.

    Its partition "low" is the default; a job in "high" has jobs of "low" preempted and queued again.

    Raises:
        UnavailableError: it cannot be installed here, or this is not root.
    """
    _install()
    with ExitStack() as stack:
        # Short, because the path of a socket must be.
        folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        for name in ("state", "spool"):
            (folder / name).mkdir()
        configuration = folder / "slurm.conf"
        configuration.write_text(
            CONFIGURATION.format(
                folder=folder,
                host=socket.gethostname().partition(".")[0],
                cpus=cpus,
                slurmctld_port=_free_port(),
                slurmd_port=_free_port(),
            )
        )
        environment = {**os.environ, "PATH": PATH, "SLURM_CONF": str(configuration)}
        key = folder / "munge.key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(128))
        daemons = (
            [
                "munged",
                "--foreground",
                "--force",
                f"--key-file={key}",
                f"--socket={folder}/munge.socket",
                f"--pid-file={folder}/munged.pid",
                f"--log-file={folder}/munged.log",
                f"--seed-file={folder}/munged.seed",
            ],
            ["slurmctld", "-D"],
            ["slurmd", "-D"],
        )
        with (folder / "daemons.log").open("wb") as log:
            for command in daemons:
                process = subprocess.Popen(
                    # Whatever becomes of this process, they end with it.
                    ["setpriv", "--pdeathsig=TERM", *command],
                    env=environment,
                    stdout=log,
                    stderr=log,
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                )
                stack.callback(_end, process)
                if command[0] == "munged":
                    _wait_for((folder / "munge.socket").exists, process, folder)
        _wait_for(lambda: _is_idle(environment), process, folder)
        stack.callback(_end_jobs, environment)  # the first to be called
        yield environment


def _install() -> None:
    """Install Debian's packages where this is Debian and root."""
    if os.name != "posix" or os.geteuid() != 0:
        raise UnavailableError("the daemons of SLURM need root")
    if all(shutil.which(program, path=PATH) for program in PROGRAMS):
        return
    if shutil.which("apt-get") is None:
        raise UnavailableError(f"SLURM is not installed, nor is there apt-get to install {' and '.join(PACKAGES)}")
    install = ["apt-get", "-o", "DPkg::Lock::Timeout=60", "install", "-y", "--no-install-recommends", *PACKAGES]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (install, ["apt-get", "update"], install):
        try:
            subprocess.run(command, env=environment, capture_output=True, timeout=180, check=False)
        except subprocess.TimeoutExpired:
            break
        if all(shutil.which(program, path=PATH) for program in PROGRAMS):
            return
    raise UnavailableError(f"apt-get could not install {' and '.join(PACKAGES)}")


def _is_idle(environment: dict[str, str]) -> bool:
    nodes = subprocess.run(["sinfo", "-h", "-o", "%T"], env=environment, capture_output=True, text=True, check=False)
    return "idle" in nodes.stdout


def _wait_for(happened, process: subprocess.Popen, folder: Path, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        if process.poll() is not None or time.monotonic() > deadline:
            logs = "\n".join(path.read_text(errors="replace")[-1500:] for path in sorted(folder.glob("*.log")))
            raise RuntimeError(f"{process.args} did not come up:\n{logs}")
        time.sleep(0.05)


def _end_jobs(environment: dict[str, str]) -> None:
    """Cancel what still runs, which would outlive the daemons."""
    subprocess.run(
        ["scancel", "--full", "-s", "KILL", "--user=root"], env=environment, capture_output=True, check=False
    )
    subprocess.run(["scancel", "--user=root"], env=environment, capture_output=True, check=False)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        left = subprocess.run(["squeue", "-h"], env=environment, capture_output=True, text=True, check=False)
        if not left.stdout.strip():
            return
        time.sleep(0.1)


def _end(process: subprocess.Popen) -> None:
    """End a daemon, politely and then not."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    with cluster(cpus=4) as found:
        print(f"export SLURM_CONF={found['SLURM_CONF']}", flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            sys.exit(130)
