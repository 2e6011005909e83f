"""A private Slurm for tests: munged, slurmctld and one slurmd per node, from one temporary folder.

As root every node is a namespace of its own (network, host name, processes, /dev/shm) on a bridge inside
one more namespace, so the machine's own network is never touched and two programs on two nodes can hold
the same port. Elsewhere all nodes share 127.0.0.1 and differ in their ports.

Everything it starts is a child that is kept as a `Popen`; `stop` ends those and nothing else. The first
process of a node is the first of its process namespace: when it ends, the kernel ends all that ran there.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel")
FINAL = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE"}
_SUBNET = "10.77.0"
_ENTER_LAB = ("--net", "--uts", "--mount")

# First process of a node: waits until its network device is there, then becomes the node.
_NODE = r"""
echo ready && read -r _ || exit 1
hostname "$NODE" && mount -t tmpfs tmpfs /dev/shm || exit 1
ip link set lo up && ip addr add "$ADDRESS/24" dev eth0 && ip link set eth0 up || exit 1
slurmd -D -f "$SLURM_CONF" -N "$NODE" </dev/null >>"$LOG" 2>&1 &
wait "$!" # of all children: it also collects what jobs leave behind
"""

# First process of the whole lab: the bridge, and names for all addresses. It only holds the namespaces open.
_LAB = r"""
mount --bind "$HOSTS" /etc/hosts && hostname control || exit 1
ip link set lo up && ip link add lab type bridge || exit 1
ip addr add "$ADDRESS/24" dev lab && ip link set lab up || exit 1
echo ready
read -r _
"""


def missing_programs() -> list[str]:
    """Which of Slurm's programs this machine lacks."""
    return [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]


def _path() -> str:
    return os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"


class Cluster:
    """A running private cluster. Use `Cluster.started(...)` as a context."""

    def __init__(self, nodes: int, gpus: int = 4, partitions: Sequence[str] = ("main",)) -> None:
        self.names = [f"node{number}" for number in range(1, nodes + 1)]
        self.cpus, self.gpus, self.partitions = 8, gpus, partitions
        # Not pytest's folder: the path of a unix socket ends at 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="lab-", dir="/tmp"))
        self.conf = self.folder / "slurm.conf"
        self.apart = os.geteuid() == 0 and _may_unshare()
        self._lab: subprocess.Popen[str] | None = None
        self._daemons: dict[str, subprocess.Popen[str]] = {}

    @classmethod
    @contextlib.contextmanager
    def started(cls, nodes: int, **more: Any) -> Iterator[Cluster]:
        """A cluster that answers; ended and removed at the end whatever happened."""
        cluster = cls(nodes, **more)
        try:
            cluster._start()
            yield cluster
        finally:
            cluster.stop()

    # --- starting and ending -------------------------------------------------------------------------

    def _start(self) -> None:
        for name in ("log", "state", "spool", "dev"):
            (self.folder / name).mkdir()
        if self.apart:
            self._open_lab()
        self._write_configuration()
        socket_path = self.folder / "munge.socket"
        self._daemon("munged", "munged", "--foreground", "--force", *(
            f"--{option}={value}"
            for option, value in {
                "socket": socket_path,
                "key-file": self.folder / "munge.key",
                "pid-file": self.folder / "munge.pid",
                "seed-file": self.folder / "munge.seed",
                "log-file": self.folder / "log" / "munged.log",
            }.items()
        ))  # fmt: skip
        until(socket_path.exists, "munged answers", 20)
        self._daemon("slurmctld", "slurmctld", "-D", "-f", str(self.conf))
        for name in self.names:
            self.start_node(name)
        until(lambda: self._nodes_in("idle") == len(self.names), "all nodes are idle", 60)

    def stop(self) -> None:
        """End every process this object started, and remove its folder."""
        if not self.apart and "slurmctld" in self._daemons:  # without namespaces jobs outlive their slurmd
            with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
                self._empty_queue()
        for process in [*reversed(self._daemons.values()), *([self._lab] if self._lab else [])]:
            _end(process)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _open_lab(self) -> None:
        hosts = self.folder / "hosts"
        lines = ["127.0.0.1 localhost", f"{_SUBNET}.254 control"]
        hosts.write_text("\n".join([*lines, *(f"{self.address(n)} {n}" for n in self.names), ""]))
        environment = {**os.environ, "PATH": _path(), "HOSTS": str(hosts), "ADDRESS": f"{_SUBNET}.254"}
        flags = ["--net", "--uts", "--mount"]
        self._lab = subprocess.Popen(
            ["unshare", *flags, "sh", "-c", _LAB],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True, start_new_session=True,
        )  # fmt: skip
        _expect_ready(self._lab, "the lab's namespace")

    def address(self, node: str) -> str:
        return f"{_SUBNET}.{self.names.index(node) + 1}" if self.apart else "127.0.0.1"

    def _write_configuration(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        for number in range(self.gpus):  # a device file that is a character device makes a GPU
            (self.folder / "dev" / f"gpu{number}").symlink_to("/dev/null")
        last = len(self.names)
        (self.folder / "gres.conf").write_text(
            f"NodeName=node[1-{last}] Name=gpu File={self.folder}/dev/gpu[0-{self.gpus - 1}]\n"
        )
        user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
        ports = free_ports(1 + len(self.names))
        if self.apart:
            control, where = f"control({_SUBNET}.254)", [f"NodeAddr={self.address(n)}" for n in self.names]
        else:
            host = socket.gethostname().split(".")[0]
            control = f"{host}(127.0.0.1)"
            where = [f"NodeHostname={host} NodeAddr=127.0.0.1 Port={port}" for port in ports[1:]]
        resources = f"CPUs={self.cpus} RealMemory=64000 Gres=gpu:{self.gpus} State=UNKNOWN"
        settings = {
            "ClusterName": "lab",
            "SlurmctldHost": control,
            "SlurmctldPort": ports[0],
            "SlurmUser": user,
            "SlurmdUser": user,
            "AuthType": "auth/munge",
            "CredType": "cred/munge",
            # a requeued job waits so long before it starts again
            "AuthInfo": f"socket={self.folder}/munge.socket,cred_expire=5",
            "StateSaveLocation": self.folder / "state",
            "SlurmdSpoolDir": f"{self.folder}/spool/%n",
            "SlurmctldPidFile": self.folder / "slurmctld.pid",
            "SlurmdPidFile": f"{self.folder}/slurmd-%n.pid",
            "SlurmctldLogFile": self.folder / "log" / "slurmctld.log",
            "SlurmdLogFile": f"{self.folder}/log/%n.log",
            "ProctrackType": "proctrack/linuxproc",
            "TaskPlugin": "task/none",
            "MpiDefault": "none",
            "SlurmdParameters": "config_overrides",
            "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_Core_Memory",
            "DefMemPerCPU": 1000,
            "GresTypes": "gpu",
            "SchedulerParameters": "bf_interval=1,bf_resolution=1,sched_interval=1,batch_sched_delay=0",
            "EnforcePartLimits": "ALL",
            "ReturnToService": 1,
            "MinJobAge": 3600,
            "KillWait": 4,
            "SlurmdTimeout": 10,
            "MessageTimeout": 3,
            "MailProg": "/bin/true",
        }
        if not self.apart:
            settings["CommunicationParameters"] = "NoInAddrAny"
        lines = [f"{key}={value}" for key, value in settings.items()]
        lines += [
            f"NodeName={name} {place} {resources}" for name, place in zip(self.names, where, strict=True)
        ]
        for name in self.partitions:
            default = "YES" if name == self.partitions[0] else "NO"
            lines.append(f"PartitionName={name} Nodes=node[1-{last}] Default={default} MaxTime=INFINITE")
        self.conf.write_text("\n".join(lines) + "\n")

    def _daemon(self, key: str, *command: str) -> None:
        log = (self.folder / "log" / f"{key}.out").open("a")
        self._daemons[key] = subprocess.Popen(
            [*self._entry(), *command],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment(), text=True,
            start_new_session=True,
        )  # fmt: skip
        log.close()

    def start_node(self, name: str) -> None:
        """Switch a node on."""
        if not self.apart:
            self._daemon(name, "slurmd", "-D", "-f", str(self.conf), "-N", name)
            return
        environment = {"NODE": name, "ADDRESS": self.address(name), "LOG": f"{self.folder}/log/{name}.out"}
        apart = ("--net", "--uts", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
        node = subprocess.Popen(
            [*self._entry(), "unshare", *apart, "sh", "-c", _NODE],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=self.environment(environment), text=True,
            start_new_session=True,
        )  # fmt: skip
        self._daemons[name] = node
        _expect_ready(node, name)
        wire = f"w{self.names.index(name) + 1}"
        # the kernel may still be taking down the lost node, and with it the wire of that name
        subprocess.run(
            [*self._entry(), "ip", "link", "del", wire], capture_output=True, env=self.environment()
        )
        # always the same hardware address: the others may remember the one it had before it was lost
        card = ["name", "eth0", "address", f"02:00:00:00:00:{self.names.index(name) + 1:02x}"]
        self._network("link", "add", wire, "type", "veth", "peer", *card, "netns", str(node.pid))
        self._network("link", "set", wire, "master", "lab", "up")
        assert node.stdin
        node.stdin.write("go\n")
        node.stdin.flush()

    def _network(self, *command: str) -> None:
        subprocess.run([*self._entry(), "ip", *command], check=True, env=self.environment())

    def lose_node(self, name: str, *, noticed: bool) -> None:
        """Cut a node's power. `noticed`: Slurm is told at once; else it needs half a minute."""
        _end(self._daemons.pop(name), at_once=True)
        if noticed:
            self.scontrol("update", f"nodename={name}", "state=down", "reason=lost")

    def recover_node(self, name: str) -> None:
        """Switch a lost node on again, and wait until it takes jobs."""
        self.start_node(name)
        if self._node_state(name).startswith("down"):
            self.run("scontrol", "update", f"nodename={name}", "state=resume", check=False)
        until(lambda: self._node_state(name) in {"idle", "mixed", "allocated"}, f"{name} is back", 60)

    # --- talking to it -------------------------------------------------------------------------------

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """This process's environment, aimed at the private cluster; no other Slurm variable stays."""
        kept = {
            k: v for k, v in os.environ.items() if not re.match(r"(SLURM|SBATCH|SRUN|PET|TORCHELASTIC)_", k)
        }
        return {**kept, "PATH": _path(), "SLURM_CONF": str(self.conf), **(more or {})}

    def _entry(self) -> list[str]:
        return ["nsenter", f"--target={self._lab.pid}", *_ENTER_LAB] if self._lab else []

    def run(
        self, *command: str, cwd: Path | None = None, env: Mapping[str, str] | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command where the cluster's clients run."""
        entry = [*self._entry(), *(["--wdns=" + str(cwd)] if self._lab and cwd else [])]
        done = subprocess.run(
            [*entry, *command],
            cwd=cwd,
            env=self.environment(env),
            capture_output=True,
            text=True,
            timeout=120,
        )
        if check and done.returncode:
            raise AssertionError(
                f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done

    def scontrol(self, *words: str) -> str:
        return self.run("scontrol", *words).stdout

    def _node_state(self, name: str) -> str:
        answer = self.run("sinfo", "--noheader", f"--nodes={name}", "--format=%T", check=False).stdout
        return answer.split("\n")[0].strip()

    def _nodes_in(self, state: str) -> int:
        where = f"--partition={self.partitions[0]}"
        answer = self.run("sinfo", "--noheader", "--Node", where, "--format=%T", check=False).stdout
        return answer.split().count(state)

    def job(self, job_id: str) -> dict[str, str]:
        """What scontrol says of a job: JobState, BatchHost, NodeList, ExitCode, Restarts, ..."""
        text = self.scontrol("--oneliner", "show", "job", job_id)
        return dict(re.findall(r"(\S+?)=(\S*)", text))

    def wait(self, job_id: str, timeout: float = 60) -> dict[str, str]:
        """Wait until a job is over, letting a requeued one start early; its last record."""
        hurried = set()

        def over() -> dict[str, str] | None:
            job = self.job(job_id)
            if job["Reason"] == "BeginTime" and job["Restarts"] not in hurried:
                hurried.add(job["Restarts"])
                # not `now`: within the second of its end a node still refuses the job's credential
                self.run("scontrol", "update", f"jobid={job_id}", "StartTime=now+2", check=False)
            return job if job["JobState"] in FINAL else None

        return until(over, f"job {job_id} is over", timeout)

    def cancel_all(self) -> None:
        """Leave no job behind and all nodes ready for the next test."""
        self.run(
            "scancel", "--full", *self.run("squeue", "--noheader", "--format=%i").stdout.split(), check=False
        )
        for name in self.names:
            if name not in self._daemons:
                self.recover_node(name)
        until(lambda: not self.run("squeue", "--noheader").stdout, "the queue is empty", 60)
        until(lambda: self._nodes_in("idle") == len(self.names), "all nodes are idle", 60)

    def _empty_queue(self) -> None:
        if jobs := self.run("squeue", "--noheader", "--format=%i").stdout.split():
            self.run("scancel", *jobs, check=False)
        until(lambda: not self.run("squeue", "--noheader").stdout, "the queue is empty", 60)


def until(ask: Callable[[], T], what: str, timeout: float) -> T:
    """Ask again and again until the answer is true; AssertionError after `timeout` seconds."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if answer := ask():
            return answer
        time.sleep(0.1)
    raise AssertionError(f"not within {timeout:.0f} s: {what}")


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody holds just now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _may_unshare() -> bool:
    probe = [
        "unshare",
        "--net",
        "--uts",
        "--mount",
        "--pid",
        "--fork",
        "--mount-proc",
        "ip",
        "link",
        "set",
        "lo",
        "up",
    ]
    if not all(shutil.which(name, path=_path()) for name in ("unshare", "nsenter", "ip")):
        return False
    return subprocess.run(probe, capture_output=True, env={**os.environ, "PATH": _path()}).returncode == 0


def _expect_ready(process: subprocess.Popen[str], what: str) -> None:
    assert process.stdout
    if process.stdout.readline() != "ready\n":
        raise AssertionError(f"{what} did not start")


def _end(process: subprocess.Popen[str], at_once: bool = False) -> None:
    """End a process of ours and what it started: the group, or with its first process the whole namespace."""
    group: Sequence[signal.Signals] = (signal.SIGKILL,) if at_once else (signal.SIGTERM, signal.SIGKILL)
    for number in group:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5 if number == signal.SIGTERM else 20)
            break
    for stream in (process.stdin, process.stdout):
        if stream:
            stream.close()
