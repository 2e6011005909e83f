"""Texts that end a response, wherever the boundaries of its tokens lie.

A text may begin in the middle of one token and end in the middle of another; a character may be spread
over tokens. So the last tokens are decoded together, as many as the longest text needs, and a text
counts when it ends in what the newest token added.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Decode = Callable[[Sequence[int]], str]

_SEAM = 4  # characters at the cut that may decode differently: three bytes of a character, a space


class StopTexts:
    """Tells after each token whether one of `texts` is complete."""

    def __init__(self, texts: Sequence[str], decode: Decode) -> None:
        self.texts = tuple(texts)
        self.decode = decode
        self._longest = max((len(text) for text in texts), default=0)
        self._window = max((len(text.encode()) for text in texts), default=0) + _SEAM

    def completed_by_last(self, ids: Sequence[int] | np.ndarray) -> bool:
        """Whether the last of the response's tokens completes a text; only their end is looked at."""
        if not self.texts or not len(ids):
            return False
        return self._place(*self._around(ids)) is not None

    def removed(self, ids: Sequence[int]) -> str:
        """The whole response without the text that its last token completed, and what follows that."""
        whole = self.decode(ids)
        return whole[: self._place(self.decode(ids[:-1]), whole)]

    def _place(self, before: str, now: str) -> int | None:
        """Where the first text begins that is in `now` and was not whole before."""
        shared = _shared(before, now)
        places = [now.find(text, max(shared - len(text) + 1, 0)) for text in self.texts]
        return min((place for place in places if place >= 0), default=None)

    def _around(self, ids: Sequence[int] | np.ndarray) -> tuple[str, str]:
        """The end of the decoded response without the last token, and with it."""
        window = self._window
        while True:
            tail = [int(token) for token in ids[-window:]]
            before = self.decode(tail[:-1])
            # tokens that decode to nothing take room in the window
            if len(before) >= self._longest + _SEAM or window >= len(ids):
                return before, self.decode(tail)
            window *= 2


def _shared(one: str, other: str) -> int:
    """Characters that the two have in common from the start."""
    return next(
        (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )
