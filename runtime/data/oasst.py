"""OpenAssistant's trees of messages as conversations with marks.

`2023-04-12_oasst_all.trees.jsonl.gz` has a tree a line, poor ones too, of which SteerLM learns as well:

    {"prompt": {"text": ..., "role": "prompter", "labels": {"quality": {"value": 0.75, ...}, ...},
                "replies": [{"text": ..., "role": "assistant", "replies": [...]}, ...]}}

Every way from the root to a leaf of at least two messages is a conversation, in the order of the replies.
A mark is round(value x 4), halves to the even neighbour, for the attributes that the answer was judged by.
Trees are shuffled by Python's random with seed 10 and the first 95 % are for training, as in the tutorials;
the data set's own split has the good trees only. Köpf et al. 2023, arXiv:2304.07327.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any

from runtime.data.steerlm import (
    ASSISTANT,
    HIGHEST,
    OPEN_ASSISTANT,
    USER,
    line_of,
    record,
    shortened,
    text_of,
    turn,
)
from runtime.problem import Problem

SEED, TRAIN_SHARE = 10, 0.95
SPEAKERS = {"prompter": USER, "assistant": ASSISTANT}


def order(trees: int, split: str) -> list[int]:
    """Which trees a split has, in which order: the tutorials' shuffle of a list of so many."""
    shuffled = list(range(trees))
    random.Random(SEED).shuffle(shuffled)
    first = int(trees * TRAIN_SHARE)
    return shuffled[:first] if split == "train" else shuffled[first:]


def conversations(tree: Mapping[str, Any], where: str) -> Iterator[dict[str, Any]]:
    """A conversation for each leaf; none where the tree is a question without answers."""
    root = tree.get("prompt", tree)
    for path in _paths(root, where):
        if len(path) > 1:
            yield record(path)


def _paths(root: Any, where: str) -> Iterator[list[dict[str, Any]]]:
    """The turns from the root to each leaf, leftmost first. No recursion: a tree may be deep."""
    waiting: list[tuple[Any, int]] = [(root, 0)]
    path: list[dict[str, Any]] = []
    while waiting:
        message, depth = waiting.pop()
        del path[depth:]
        path.append(_turn(message, where))
        replies = message.get("replies") or []
        if not isinstance(replies, list):
            raise Problem("R010", f"{where}: `replies` is {type(replies).__name__}, expected a list")
        if not replies:
            yield list(path)
        waiting += [(reply, depth + 1) for reply in reversed(replies)]


def _turn(message: Any, where: str) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise Problem("R010", f"{where}: a message is {type(message).__name__}, expected an object")
    text, role = text_of(message, "text", where), text_of(message, "role", where)
    if role not in SPEAKERS:
        raise Problem("R010", f"{where}: role `{shortened(role)}` is neither prompter nor assistant")
    speaker = SPEAKERS[role]
    if speaker == USER or message.get("labels") is None:
        return turn(speaker, text)
    return turn(speaker, text, line_of(_marks(message["labels"], where)))


def _marks(labels: Any, where: str) -> dict[str, int]:
    if not isinstance(labels, Mapping):
        raise Problem("R010", f"{where}: `labels` is {type(labels).__name__}, expected an object")
    return {name: _mark(labels[name], name, where) for name in OPEN_ASSISTANT if name in labels}


def _mark(label: Any, name: str, where: str) -> int:
    value = label.get("value") if isinstance(label, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        said = shortened(repr(value))
        raise Problem("R010", f"{where}: label `{name}` has value `{said}`, expected 0 to 1")
    return round(value * HIGHEST)
