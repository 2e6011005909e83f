"""One file per algorithm, and the file's name is its name: the folder is the registry.

Each holds `class Spec(Section)`, what a person may say about it, with vetted defaults, and
`lower(spec, name) -> list[Stage]`, which names the roles, their programs (modules of
`runtime/algorithms`) and what they need. To add one, add a file; nothing else lists them.
A file whose name begins with `_` is no algorithm.
"""

from __future__ import annotations

import functools
import importlib
from pathlib import Path
from types import ModuleType


@functools.cache
def names() -> tuple[str, ...]:
    """Every algorithm, sorted."""
    here = Path(__file__).parent
    return tuple(sorted(file.stem for file in here.glob("*.py") if not file.stem.startswith("_")))


def load(name: str) -> ModuleType:
    """The algorithm's module; `name` is one of `names()`."""
    return importlib.import_module(f"{__name__}.{name}")
