"""Processes for the distributed tests: forked from a warm server, joined by gloo.

Importing torch and Megatron takes five seconds; a fork of a process that has done so takes none. The
server runs no torch operation itself, so that a fork inherits no threads and no state.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import socket
import time
import traceback
from collections.abc import Callable
from functools import partial
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest


class WorldFailed(AssertionError):
    """A rank raised, died or hung; the message holds its traceback."""


World = Callable[..., list[Any]]


@pytest.fixture(scope="session")
def forks() -> Any:
    """A fork server that has imported torch, Megatron and the runtime (see warm.py)."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["warm"])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *([before] if before else [])])
    forkserver.ensure_running()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before
    return context


@pytest.fixture(scope="session")
def world(forks: Any) -> World:
    """`world(n, fn, *args, **kwargs)`: run `fn` on n ranks; their results in order of rank.

    `fn` is a module-level function of a test module. Every rank finds torchrun's environment set.
    The first failure stops all ranks and is raised with its traceback. `timeout` is in seconds.
    """

    def run(
        n: int,
        fn: Callable[..., Any],
        *args: Any,
        timeout: float = 120,
        env: dict[str, str] | None = None,
        **kwargs: Any,
    ) -> list[Any]:
        task = partial(fn, *args, **kwargs)
        port = _free_port()
        workers, pipes = [], []
        for rank in range(n):
            receiver, sender = forks.Pipe(duplex=False)
            place = _environment(rank, n, port) | (env or {})
            worker = forks.Process(target=_work, args=(sender, place, task), daemon=False)
            worker.start()
            sender.close()
            workers.append(worker)
            pipes.append(receiver)
        try:
            return _collect(pipes, timeout)
        finally:
            _stop(workers)

    return run


def _environment(rank: int, n: int, port: int) -> dict[str, str]:
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(n),
        "LOCAL_WORLD_SIZE": str(n),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _work(sender: Any, environment: dict[str, str], task: Callable[[], Any]) -> None:
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


def _collect(pipes: list[Any], timeout: float) -> list[Any]:
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


def _stop(workers: list[Any]) -> None:
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
