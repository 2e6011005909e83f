"""The listening server: a socket bound before anything is loaded, and a thread that answers.

A port that is taken is found in the first second. The thread is uvicorn's loop; it ends with `close`,
which first lets what is being answered go out.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn

from runtime.problem import Problem

START_SECONDS, END_SECONDS = 30.0, 5.0


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens at host:port (0: any free port). Problem R050 when it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # TIME_WAIT only; not a second listener
        sock.bind((host, port))
        sock.listen(1024)
    except OSError as error:
        sock.close()
        message = f"cannot listen at {host}:{port}: {error.strerror}; another server may hold that port"
        raise Problem("R050", message) from None
    return sock


def new_token(file: Path) -> str:
    """A fresh token, kept in `file`, which only its owner can read."""
    token = secrets.token_urlsafe(32)
    fresh = file.with_name(f".{file.name}.new")
    with contextlib.suppress(FileNotFoundError):
        fresh.unlink()
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as out:
        out.write(token)
    fresh.replace(file)
    return token


def shared_token(file: Path) -> str:
    """The token in `file`, made by whichever server of an attempt comes first."""
    fresh = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    new_token(fresh)
    try:
        with contextlib.suppress(FileExistsError):
            os.link(fresh, file)  # there with its whole content, or not at all
    finally:
        fresh.unlink()
    return file.read_text()


@contextlib.contextmanager
def serving(application: Any, sock: socket.socket, http: Any = "auto") -> Iterator[str]:
    """Answer on `sock` while inside; yields the URL. `http`: uvicorn's class for a connection."""
    config = uvicorn.Config(
        application,
        http=http,
        log_level="warning",
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(END_SECONDS),
        h11_max_incomplete_event_size=64 << 10,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, name="http", daemon=True)
    thread.start()
    host, port = sock.getsockname()[:2]
    try:
        _wait_until_started(server, thread)
        yield f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    finally:
        server.should_exit = True
        thread.join(END_SECONDS + 5)
        sock.close()


def _wait_until_started(server: uvicorn.Server, thread: threading.Thread) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise Problem("R050", "the HTTP server did not start; its message stands above")
        time.sleep(0.01)
