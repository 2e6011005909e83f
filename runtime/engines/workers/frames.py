"""Frames on a pipe: eight bytes of length, then so many bytes. Standard library only."""

from __future__ import annotations

from typing import Any

HEAD = 8


def length(head: bytes) -> int:
    """The length that the first eight bytes of a frame announce."""
    return int.from_bytes(head[:HEAD], "big")


def write(stream: Any, body: bytes) -> None:
    """Send a frame."""
    stream.write(len(body).to_bytes(HEAD, "big") + body)
    stream.flush()


def read(stream: Any) -> bytes | None:
    """The next frame; None when the other side has closed."""
    head = stream.read(HEAD)
    if len(head) < HEAD:
        return None
    body = stream.read(length(head))
    return body if len(body) == length(head) else None
