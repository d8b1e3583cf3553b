"""A real SLURM on one machine, for the length of a test: Debian's slurmctld and slurmd (22.05 in
bookworm), fetched as packages and unpacked into a private folder. Nothing is installed, no munge
(auth/none), no cgroups (proctrack/linuxproc): it runs in a container and leaves nothing behind.

    with Slurm(tmp_path) as slurm:
        job = slurm.run("sbatch", "--parsable", "job.sbatch").strip()
        slurm.wait(job, timeout=60)
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

PACKAGES = (
    "slurmctld slurmd slurm-client slurm-wlm-basic-plugins libmunge2 libhwloc15 liblua5.1-0".split()
)
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "BOOT_FAIL", "OUT_OF_MEMORY"}


class Unavailable(Exception):
    """The packages or the daemons are not to be had here; the test is skipped with this line."""


def unpack() -> Path:
    """The root of the unpacked packages, fetched once per machine (3 MB)."""
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise Unavailable("no apt-get and dpkg on this machine")
    cache = Path(tempfile.gettempdir()) / f"aejax-slurm-{os.getuid()}"
    root = cache / "root"
    if root.is_dir():
        return root
    cache.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as fresh:
        for attempt in ("as it is", "after apt-get update"):
            done = subprocess.run(
                ["apt-get", "download", *PACKAGES], cwd=fresh, capture_output=True, text=True
            )
            if done.returncode == 0:
                break
            if attempt == "as it is":
                subprocess.run(["apt-get", "update"], capture_output=True)
        else:
            raise Unavailable(f"apt-get download failed: {done.stderr.strip().splitlines()[-1:]}")
        for package in Path(fresh).glob("*.deb"):
            subprocess.run(["dpkg", "-x", package, Path(fresh) / "root"], check=True)
        try:
            (Path(fresh) / "root").rename(root)
        except OSError:  # another test run was faster
            if not root.is_dir():
                raise
    return root


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Slurm:
    """One controller, one node `localhost` (a name that JAX can resolve) with `cpus`."""

    def __init__(self, folder: Path, cpus: int = 2):
        self.folder, self.cpus, self.daemons = Path(folder), cpus, []

    def __enter__(self) -> "Slurm":
        root = unpack()
        lib = root / "usr/lib/x86_64-linux-gnu"
        plugins = next(root.glob("usr/lib/*/slurm-wlm"), lib / "slurm-wlm")
        lib = plugins.parent
        for name in ("state", "spool", "log", "bin"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        host = socket.gethostname().split(".")[0]
        user = subprocess.run(["id", "-un"], capture_output=True, text=True).stdout.strip()
        conf = self.folder / "slurm.conf"
        # cred_expire: a requeued job waits so long before it starts again (else two minutes).
        # KillWait: seconds between the SIGTERM and the SIGKILL of a requeue: time to save.
        conf.write_text(
            f"""ClusterName=aejax
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={free_port()}
SlurmdPort={free_port()}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1
SwitchType=switch/none
ReturnToService=2
KillWait=60
MessageTimeout=60
MinJobAge=600
StateSaveLocation={self.folder}/state
SlurmdSpoolDir={self.folder}/spool
SlurmctldPidFile={self.folder}/slurmctld.pid
SlurmdPidFile={self.folder}/slurmd.pid
SlurmctldLogFile={self.folder}/log/slurmctld.log
SlurmdLogFile={self.folder}/log/slurmd.log
PluginDir={plugins}
NodeName=localhost NodeHostname={host} NodeAddr=127.0.0.1 CPUs={self.cpus} State=UNKNOWN
PartitionName=main Nodes=localhost Default=YES MaxTime=INFINITE State=UP
"""
        )
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")} | {
            "SLURM_CONF": str(conf),
            "LD_LIBRARY_PATH": f"{lib}:{plugins}",
            "PATH": f"{root}/usr/bin:{os.environ['PATH']}",
        }
        sbin = root / "usr/sbin"
        self._start([sbin / "slurmctld-wlm", "-D", "-f", conf])
        self._start([sbin / "slurmd-wlm", "-D", "-f", conf, "-N", "localhost", "-d",
                     sbin / "slurmstepd-wlm"])  # fmt: skip
        end = time.monotonic() + 30
        while time.monotonic() < end:
            said = subprocess.run(
                ["sinfo", "-h", "-o", "%T"], env=self.env, capture_output=True, text=True
            )
            if said.stdout.strip() == "idle":
                return self
            time.sleep(0.3)
        self.__exit__()
        raise Unavailable(
            f"slurmd did not come up: {said.stdout}{said.stderr}{self.logs()[-2000:]}"
        )

    def _start(self, command: list) -> None:
        out = open(self.folder / "log" / f"{Path(command[0]).name}.out", "wb")
        self.daemons.append(subprocess.Popen(command, env=self.env, stdout=out, stderr=out))
        out.close()

    def __exit__(self, *_) -> None:
        """Ends the jobs, the daemons, and whatever outlived them."""
        for daemon in reversed(self.daemons):
            daemon.terminate()
        for daemon in reversed(self.daemons):
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
        self.daemons = []
        # Steps are no children of the daemons and go on without them. All have our configuration
        # in their environment, and nothing else has.
        mark = f"SLURM_CONF={self.env['SLURM_CONF']}".encode()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (process / "environ").read_bytes().split(b"\0"):
                    os.kill(int(process.name), signal.SIGKILL)
            except OSError:  # it has ended, or is another user's
                pass

    def logs(self) -> str:
        return "\n".join(
            f"== {p.name}\n{p.read_text(errors='replace')[-1500:]}"
            for p in sorted((self.folder / "log").iterdir())
        )

    def run(self, *command, **kwargs) -> str:
        done = subprocess.run(
            [str(c) for c in command], env=self.env, capture_output=True, text=True, **kwargs
        )
        assert done.returncode == 0, f"{command}: {done.stderr}\n{self.logs()}"
        return done.stdout

    def send_signal(self, task: str, name: str) -> None:
        """Sends a signal to the first step of `task`, "12_0", as before its time limit."""
        raw = self.run("squeue", "-h", "-r", "-j", task, "-o", "%A").strip()
        # The job may be ending because of it when scancel asks how it stands: no error here.
        subprocess.run(
            ["scancel", f"--signal={name}", f"{raw}.0"], env=self.env, capture_output=True
        )

    def states(self, job: str) -> dict[str, str]:
        """{id of the task, "12_0": its state} of job or job array `job`, ended ones included."""
        said = self.run("squeue", "-h", "-r", "-t", "all", "-j", job, "-o", "%i %T")
        return dict(line.split() for line in said.splitlines())

    def wait(self, job: str, timeout: float, until=lambda states: set(states.values()) <= ENDED):
        """The states of the tasks of `job` once `until` of them holds."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            states = self.states(job)
            if states and until(states):
                return states
            time.sleep(0.5)
        raise AssertionError(f"after {timeout} s job {job} is {states}\n{self.logs()}")
