"""`python -m runtime.warm`: imports torch and Megatron once, then forks the ranks of stage after stage.

A launcher on this machine writes requests to stdin, one JSON object a line, and reads answers on stdout:

    <- {"ready": true}                                   the imports are done
    -> {"id": 1, "arguments": [PLAN, JOB, ROLE], "ranks": 2, "port": 29500, "log": FILE, "environment": {..}}
    <- {"id": 1, "pid": 4711}                            a leader watches over the ranks, as torchrun would
    <- {"id": 1, "code": 0}                              it has ended

Every stage runs in processes of its own, forked from one that has run nothing: what a stage leaves in its
memory ends with it. For that this process must stay as it is after its imports: without a torch operation, a
process group or a second thread, since a fork takes over one thread and the locks of all. It ends when stdin
does, a leader when this process does, a rank when its leader does. For a CPU on Linux only.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from runtime.stop import die_with_parent

LOADED = ("model", "engine", "checkpoint", "run", "start", "making", "output")
"""Modules of the runtime that bring in everything slow."""
TICK_SECONDS = 0.05
CLOSE_SECONDS = 5.0
"""How long ranks may take to leave when one of them has failed, before they are killed."""
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
ELASTIC: Mapping[str, str] = {
    "TORCHELASTIC_RESTART_COUNT": "0",
    "TORCHELASTIC_MAX_RESTARTS": "0",
    "TORCHELASTIC_RUN_ID": "none",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
}
"""What torchrun tells every rank of a group on one machine: the leader holds the store where they meet."""


def main() -> int:
    """Serve one launcher; 3 when forks would not be safe."""
    answers = os.dup(1)
    os.dup2(2, 1)  # what an import prints is no answer
    load()
    if (threads := len(os.listdir("/proc/self/task"))) > 1:
        print(f"{threads} threads run after the imports; set OMP_NUM_THREADS=1 to fork", file=sys.stderr)
        return 3
    gc.collect()
    gc.freeze()  # a collection in a fork would copy the pages of everything imported
    say(answers, ready=True)
    serve(0, answers)
    return 0


def load() -> None:
    """Import what every rank needs."""
    from runtime import cpu

    cpu.install()
    for module in LOADED:
        importlib.import_module(f"runtime.{module}")


def say(answers: int, **fact: Any) -> None:
    """One answer."""
    os.write(answers, (json.dumps(fact) + "\n").encode())


def serve(requests: int, answers: int) -> None:
    """Start what is asked for and tell how it ended, until nobody can ask any more."""
    running: dict[int, int] = {}  # process id of a leader -> id of its request
    rest = b""
    while True:
        if select.select([requests], [], [], TICK_SECONDS if running else None)[0]:
            if not (news := os.read(requests, 1 << 16)):
                return
            *lines, rest = (rest + news).split(b"\n")
            for line in lines:
                asked = json.loads(line)
                pid = forked(lambda asked=asked: lead(asked), close=answers)
                running[pid] = asked["id"]
                say(answers, id=asked["id"], pid=pid)
        for pid, code in ended(list(running)).items():
            say(answers, id=running.pop(pid), code=code)


def forked(work: Callable[[], int], close: int | None = None, death: int = signal.SIGTERM) -> int:
    """The process id of a fork that does the work in a session of its own and ends with this process."""
    parent = os.getpid()
    if pid := os.fork():
        return pid
    code = 1
    try:
        die_with_parent(death)
        if os.getppid() == parent:  # else it died before it could be asked for its death
            os.setsid()
            if close is not None:
                os.close(close)
            code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        leave(code)


def leave(code: int) -> NoReturn:
    """End this process without what the interpreter would still do: threads of a group may be stuck."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def ended(pids: list[int]) -> dict[int, int]:
    """The exit codes of those children that have ended; of one that a signal ended its negative number."""
    found = {pid: os.waitpid(pid, os.WNOHANG) for pid in pids}
    return {pid: os.waitstatus_to_exitcode(status) for pid, (done, status) in found.items() if done}


# --- a leader: the ranks of one group


def lead(asked: dict[str, Any]) -> int:
    """Fork the ranks and watch over them as torchrun does: the first that fails ends all. 0 if none did."""
    write_to(Path(asked["log"]))
    world = int(asked["ranks"])
    ranks = {
        forked(lambda rank=rank: work(asked, rank, world), death=signal.SIGKILL): rank
        for rank in range(world)
    }
    told: list[int] = []
    for number in SIGNALS:
        signal.signal(number, lambda got, frame: told.append(got))
    held = store(int(asked["port"]))  # starts threads, so the ranks had to be forked before
    codes: dict[int, int] = {}
    while len(codes) < world and not any(codes.values()) and not told:
        time.sleep(TICK_SECONDS)
        codes |= ended([pid for pid in ranks if pid not in codes])
    later = closed([pid for pid in ranks if pid not in codes])
    codes |= {pid: code for pid, code in later.items() if code > 0}  # not of those that our signals ended
    del held
    for pid, code in codes.items():
        if code:
            print(f"rank {ranks[pid]} failed\n  exitcode  : {code} (pid: {pid})", file=sys.stderr, flush=True)
    return 1 if told or any(codes.values()) else 0


def write_to(log: Path) -> None:
    """From here on nothing is read, and everything is written to the end of this file, whole lines at a time:
    the ranks of a group share it.
    """
    for name, flags, numbers in ((os.devnull, os.O_RDONLY, (0,)), (log, os.O_WRONLY | os.O_APPEND, (1, 2))):
        file = os.open(name, flags | os.O_CREAT, 0o666)
        for number in numbers:
            os.dup2(file, number)
        os.close(file)
    for stream in (sys.stdout, sys.stderr):  # with `-u` each argument of a print would be a write of its own
        stream.reconfigure(line_buffering=True, write_through=False)  # pyright: ignore[reportAttributeAccessIssue]


def store(port: int) -> Any:
    """Where the ranks meet, as torchrun holds it."""
    from torch import distributed

    return distributed.TCPStore("127.0.0.1", port, 1, True, multi_tenant=True)  # pyright: ignore[reportPrivateImportUsage]


def closed(pids: list[int]) -> dict[int, int]:
    """Ask these ranks to leave, kill those that do not; the exit codes."""
    codes: dict[int, int] = {}
    for number in (signal.SIGTERM, signal.SIGKILL):
        until = time.monotonic() + CLOSE_SECONDS
        for pid in pids:
            if pid not in codes:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, number)
        while len(codes) < len(pids) and time.monotonic() < until:
            codes |= ended([pid for pid in pids if pid not in codes])
            time.sleep(TICK_SECONDS)
    return codes


def work(asked: dict[str, Any], rank: int, world: int) -> int:
    """One rank: `python -m runtime` with torchrun's variables; its exit code."""
    import numpy as np

    from runtime import __main__ as program

    os.environ.update({**ELASTIC, **place(rank, world, int(asked["port"])), **asked["environment"]})
    np.random.seed()  # as a new process has it: no other's numbers
    sys.argv = [str(program.__file__), *asked["arguments"]]
    return program.main(asked["arguments"])


def place(rank: int, world: int, port: int) -> dict[str, str]:
    """Which rank of how many this is, all on this machine."""
    own = {"RANK": rank, "LOCAL_RANK": rank, "ROLE_RANK": rank, "GROUP_RANK": 0, "GROUP_WORLD_SIZE": 1}
    sizes = dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE", "ROLE_WORLD_SIZE"), world)
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ROLE_NAME": "default"}
    return {name: str(value) for name, value in {**own, **sizes, **where}.items()}


if __name__ == "__main__":
    sys.exit(main())
