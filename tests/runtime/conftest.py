"""Processes for the distributed tests: forked from a warm server, joined by gloo.

Importing torch and Megatron takes five seconds; a fork of a process that has done so takes none. The
server runs no torch operation itself, so that a fork inherits no threads and no state.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from functools import partial
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest
import worlds

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
        port = worlds.free_port()
        workers, pipes = [], []
        for rank in range(n):
            receiver, sender = forks.Pipe(duplex=False)
            place = worlds.environment_of(rank, n, port) | (env or {})
            worker = forks.Process(target=worlds.work, args=(sender, place, task), daemon=False)
            worker.start()
            sender.close()
            workers.append(worker)
            pipes.append(receiver)
        try:
            return worlds.collect(pipes, timeout)
        finally:
            worlds.stop(workers)

    return run
