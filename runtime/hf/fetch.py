"""From the name of a model or tokenizer to a folder on this machine.

A name is a local path, a URL that fsspec understands (copied to the cache once), or a Hugging Face
id `owner/name[@revision]` (the local Hugging Face cache, else a download; `HF_HOME` and
`HF_HUB_OFFLINE` count as usual). Nothing here reads a weight.
"""

from __future__ import annotations

import contextlib
import fcntl
import fnmatch
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runtime.problem import Problem

WEIGHTS = ("model*.safetensors", "model.safetensors.index.json", "config.json", "generation_config.json")
TOKENIZER = (
    "tokenizer*",
    "*.model",
    "*token*.json",
    "*config.json",
    "chat_template*",
    "vocab.*",
    "merges.txt",
)

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def fetch(name: str, revision: str = "", patterns: tuple[str, ...] = WEIGHTS + TOKENIZER) -> Path:
    """The local folder (or file) that `name` means.

    Of a remote folder only files that match `patterns` are copied. Problem R030 when it is not
    there, with what was looked for.
    """
    if not name:
        raise Problem(
            "R030", "no path to read weights or a tokenizer from; give a folder or a Hugging Face id"
        )
    if name.startswith("file://"):
        name = name.removeprefix("file://")
    path = Path(name).expanduser()
    if path.exists():
        return path
    if "://" in name:
        return _copied(name, patterns)
    identity, _, pinned = name.partition("@")
    if _HUB_ID.fullmatch(identity) and not name.endswith((".json", ".model")):
        return _from_hub(identity, revision or pinned, patterns)
    raise Problem(
        "R030", f"`{name}` is not there; give a folder, a URL or a Hugging Face id that exists", outside=True
    )


def _from_hub(identity: str, revision: str, patterns: tuple[str, ...]) -> Path:
    try:
        from huggingface_hub import constants, snapshot_download
    except ImportError:
        raise Problem(
            "R030",
            f"`{identity}` is no folder here and huggingface_hub is not installed; give a local folder",
            outside=True,
        ) from None
    offline = bool(constants.HF_HUB_OFFLINE)
    try:
        folder = snapshot_download(
            identity, revision=revision or None, allow_patterns=list(patterns), local_files_only=offline
        )
    except Exception as error:  # many kinds: not found, gated, offline, no network
        at = f"{identity}@{revision}" if revision else identity
        why = "HF_HUB_OFFLINE is set and it is not in the local cache" if offline else _first_line(error)
        raise Problem(
            "R030",
            f"`{at}` is no folder here and cannot be had from the Hugging Face hub ({why}); "
            f"download it where there is a network (`hf download {identity}`) or give its folder",
            outside=True,
        ) from None
    return Path(folder)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def cache_folder() -> Path:
    """Where copies of remote files lie: `SPECC_CACHE`, else `specc` in the user's cache folder."""
    if named := os.environ.get("SPECC_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "specc"


def _copied(url: str, patterns: tuple[str, ...]) -> Path:
    """The copy of a remote folder or file in the cache; made by one process, waited for by the others."""
    name = url.rstrip("/").rsplit("/", 1)[-1]
    target = cache_folder() / "fetched" / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}" / name
    with _locked(target.parent):
        if not target.exists():
            _download(url, target, patterns)
    return target


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _download(url: str, target: Path, patterns: tuple[str, ...]) -> None:
    import fsspec

    scratch = Path(tempfile.mkdtemp(prefix=".partial-", dir=target.parent))
    try:
        filesystem, root = fsspec.core.url_to_fs(url)
        if filesystem.isfile(root):
            filesystem.get_file(root, str(scratch / "it"))
            (scratch / "it").rename(target)
            return
        chosen = _matching(filesystem, root, patterns)
        if not chosen:
            raise Problem(
                "R030", f"`{url}` holds none of {', '.join(patterns[:2])}; check the address", outside=True
            )
        for remote in chosen:
            filesystem.get_file(remote, str(scratch / remote.rsplit("/", 1)[-1]))
        scratch.rename(target)
    except (OSError, ImportError, ValueError) as error:
        raise Problem(
            "R030",
            f"`{url}` cannot be read ({_first_line(error)}); check the address and its credentials",
            outside=True,
        ) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _matching(filesystem: Any, root: str, patterns: tuple[str, ...]) -> list[str]:
    names = [str(entry) for entry in filesystem.ls(root, detail=False)]
    return sorted(n for n in names if any(fnmatch.fnmatch(n.rsplit("/", 1)[-1], p) for p in patterns))
