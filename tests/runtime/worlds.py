"""Ranks as processes: started from the warm fork server, collected, and ended with all they started."""

from __future__ import annotations

import multiprocessing.connection
import os
import pickle
import signal
import socket
import time
import traceback
from collections.abc import Callable
from typing import Any


class WorldFailed(AssertionError):
    """A rank raised, died or hung; the message holds its traceback."""


def environment_of(rank: int, n: int, port: int) -> dict[str, str]:
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(n),
        "LOCAL_WORLD_SIZE": str(n),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def work(sender: Any, environment: dict[str, str], task: Callable[[], Any]) -> None:
    os.setpgid(0, 0)  # so that whatever this rank starts can be stopped with it
    os.environ.update(environment)
    try:
        import torch

        torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
        answer = (True, task())
    except BaseException:
        answer = (False, f"rank {environment['RANK']}:\n{traceback.format_exc()}")
    sender.send_bytes(pickle.dumps(answer))
    sender.close()


def collect(pipes: list[Any], timeout: float) -> list[Any]:
    results: dict[int, Any] = {}
    waiting = dict(zip(pipes, range(len(pipes)), strict=True))
    deadline = time.monotonic() + timeout
    while waiting:
        ready = multiprocessing.connection.wait(list(waiting), max(deadline - time.monotonic(), 0))
        if not ready:
            raise WorldFailed(f"ranks {sorted(waiting.values())} did not finish in {timeout:.0f} s")
        for pipe in ready:
            rank = waiting.pop(pipe)
            try:
                fine, value = pickle.loads(pipe.recv_bytes())  # noqa: S301 - our own children
            except EOFError:
                raise WorldFailed(f"rank {rank} died without a word") from None
            if not fine:
                raise WorldFailed(value)
            results[rank] = value
    return [results[rank] for rank in sorted(results)]


def stop(workers: list[Any]) -> None:
    for worker in workers:
        worker.join(5 if worker.exitcode is None and not _failed(workers) else 0.2)
    for worker in workers:
        if worker.is_alive():
            _kill(worker.pid)
            worker.join(5)


def _failed(workers: list[Any]) -> bool:
    return any(worker.exitcode not in (None, 0) for worker in workers)


def _kill(pid: int) -> None:
    for kill in (os.killpg, os.kill):
        try:
            kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
