"""Who compiled a bundle, from what, when and where. Nothing hashes, compares or reads it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

from specc import __version__


def provenance(spec: Path) -> str:
    """The text of provenance.json."""
    commit, dirty = _git(spec.resolve().parent)
    return (
        json.dumps(
            {
                "spec": str(spec),
                "version": __version__,
                "commit": commit,
                "dirty": dirty,
                "user": _user(),
                "host": os.uname().nodename,
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            },
            indent=2,
            ensure_ascii=False,
        )
        + "\n"
    )


def _git(folder: Path) -> tuple[str, bool]:
    """(commit, do tracked files differ from it) of the repository around a folder; ("", False) without."""
    words = ["git", "-C", str(folder), "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    try:
        said = subprocess.run(words, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "", False
    lines = said.stdout.splitlines() if said.returncode == 0 else []
    commits = [line.removeprefix("# branch.oid ") for line in lines if line.startswith("# branch.oid ")]
    return (commits[0] if commits else ""), any(not line.startswith("#") for line in lines)


def _user() -> str:
    """The login name, as the system knows it."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container without this user
        return str(os.getuid())
