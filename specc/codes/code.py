"""What one entry of the catalogue holds."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Code:
    """One entry; `specc explain CODE` prints it."""

    code: str
    title: str
    why: str
    example: str
    fix: str
