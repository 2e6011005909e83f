"""Where the files that ship with specc lie: templates and example specs.

In a checkout they are folders beside the package, where people look for them; in an installed wheel
they are inside it (pyproject's `force-include`). Nothing here depends on the working directory.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def folder(name: str) -> Path:
    """The shipped folder `templates` or `specs`; FileNotFoundError when the installation lacks it."""
    for candidate in (_PACKAGE / name, _PACKAGE.parent / name):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"this installation of specc has no folder `{name}`; install it again")


def templates() -> Path:
    """The folder of the jinja2 templates that bundles are made from."""
    return folder("templates")


def specs() -> Path:
    """The folder of the example specs."""
    return folder("specs")
