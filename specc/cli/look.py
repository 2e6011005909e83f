"""Whether a stream gets colour, and how wide it is."""

from __future__ import annotations

import os
from typing import TextIO


def colored(stream: TextIO) -> bool:
    """NO_COLOR says no, FORCE_COLOR says yes, else a terminal that is not dumb gets colour."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"
