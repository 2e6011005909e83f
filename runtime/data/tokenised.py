"""A data set's tokens in flat files that every rank maps into memory.

One rank tokenises the rows once and writes four arrays; the others map them. The folder's name is a
hash of all that decides the tokens, and the folder appears by a rename, so a torn one is never read.

    tokens.npy   int32, the tokens of all kept rows one after another
    mask.npy     uint8, 1 for each token that is to be learnt
    ends.npy     int64, where each kept row ends
    rows.npy     int64, each kept row's index in the data set
    facts.json   how many rows were kept, cut and dropped, and why; a hash of the arrays
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from array import array
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from runtime.batch import Sample
from runtime.data import conversations, prompt_response
from runtime.data.prompt_response import Encoded, Form
from runtime.data.rows import Rows, open_rows
from runtime.problem import Problem

ARRAYS = ("tokens", "mask", "ends", "rows")


class Tokenised:
    """Samples by index, read from a folder that `tokenised` wrote."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.facts: dict[str, Any] = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        loaded = {name: _mapped(folder / f"{name}.npy") for name in ARRAYS}
        self._tokens, self._mask = loaded["tokens"], loaded["mask"]
        self._ends, self._rows = loaded["ends"], loaded["rows"]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        start = int(self._ends[index - 1]) if index else 0
        end = int(self._ends[index])
        tokens, mask = self._tokens[start:end].tolist(), self._mask[start:end].tolist()
        return Sample(int(self._rows[index]), tokens, mask)

    def is_whole(self) -> bool:
        """Are the arrays as long as was written down?"""
        lengths = len(self._tokens), len(self._mask), len(self._ends), len(self._rows)
        tokens, kept = self.facts["tokens"], self.facts["kept"]
        return lengths == (tokens, tokens, kept, kept) and {"hash", "largest"} <= self.facts.keys()

    @property
    def hash(self) -> str:
        """Of all tokens, masks and their order: equal hashes train alike."""
        return self.facts["hash"]

    def summary(self) -> str:
        """`7473 rows: 7460 kept (20 cut), 13 dropped (13 longer than 512 tokens)`."""
        facts = self.facts
        cut = f" ({facts['cut']} cut)" if facts["cut"] else ""
        text = f"{facts['rows']} rows: {facts['kept']} kept{cut}"
        if facts["dropped"]:
            reasons = ", ".join(f"{count} {reason}" for reason, count in facts["dropped"].items())
            text += f", {sum(facts['dropped'].values())} dropped ({reasons})"
        return text


def tokenised(
    data: Mapping[str, Any],
    form: Form,
    tokenizer: Any,
    *,
    tokenizer_name: str,
    template: str,
    seed: int,
    folder: Path,
    alive: Callable[[], object] = lambda: None,
) -> Path:
    """The folder of a data set's tokens below `folder`, written if it is not there yet.

    `alive` is called now and then while it works. Problem R010 names a bad row, R011 a data set
    of which no row is left.
    """
    rows = open_rows(data, seed=seed, cache=folder / "fetched")
    is_chat = _is_chat(data, rows)
    decides = [dict(data), vars(form), tokenizer_name, template, is_chat, rows.fingerprint()]
    key = hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()[:16]
    target = folder / key
    if _is_whole(target):
        return target
    shutil.rmtree(target, ignore_errors=True)
    kept = _Kept(len(rows))
    for index in range(len(rows)):
        if index % 512 == 0:
            alive()
        kept.add(index, _encoded(rows[index], rows.where(index), tokenizer, template, form, is_chat))
    if not kept.rows:
        why = ", ".join(f"{count} {reason}" for reason, count in kept.dropped.items()) or "it is empty"
        raise Problem("R011", f"no row of `{data['path']}` can be used: {why}")
    kept.write(target)
    return target


def form_of(data: Mapping[str, Any], train: Mapping[str, Any], sft: Mapping[str, Any]) -> Form:
    """The form of rows from the plan's sections `data.train`, `train` and `sft`."""
    return Form(
        prompt=data.get("prompt") or "{input}",
        response=data.get("response") or "{output}",
        seq_length=int(train["seq_length"]),
        truncation=sft.get("truncation", "right"),
        answer_only=sft.get("answer_only", True),
        add_bos=sft.get("add_bos", False),
        add_eos=sft.get("add_eos", True),
    )


def _is_chat(data: Mapping[str, Any], rows: Rows) -> bool:
    stated = data.get("format") or "auto"
    if stated != "auto":
        return stated == "chat"
    return len(rows) > 0 and conversations.is_conversation(rows[0])


def _encoded(
    row: Mapping[str, Any], where: str, tokenizer: Any, template: str, form: Form, is_chat: bool
) -> Encoded:
    if is_chat:
        return conversations.encode(row, where, tokenizer, template, form)
    return prompt_response.encode(row, where, tokenizer, form)


class _Kept:
    """The arrays while they grow."""

    def __init__(self, rows: int):
        self.seen, self.cut, self.dropped = rows, 0, Counter[str]()
        self.tokens, self.mask = array("i"), array("B")
        self.ends, self.rows = array("q"), array("q")

    def add(self, index: int, encoded: Encoded) -> None:
        why = encoded.dropped or ("" if any(encoded.mask[1:]) else "without a trained token")
        if why:
            self.dropped[why] += 1
            return
        self.cut += encoded.cut
        self.tokens.extend(encoded.tokens)
        self.mask.extend(encoded.mask)
        self.ends.append(len(self.tokens))
        self.rows.append(index)

    def write(self, target: Path) -> None:
        partial = target.with_name(f".{target.name}.{os.getpid()}")
        partial.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        for name in ARRAYS:
            values = np.asarray(getattr(self, name))
            digest.update(values.tobytes())
            np.save(partial / f"{name}.npy", values, allow_pickle=False)
        facts = {
            "rows": self.seen,
            "kept": len(self.rows),
            "cut": self.cut,
            "dropped": dict(sorted(self.dropped.items())),
            "tokens": len(self.tokens),
            "largest": max(self.tokens),
            "hash": digest.hexdigest()[:16],
        }
        (partial / "facts.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        try:
            os.replace(partial, target)
        except OSError:
            shutil.rmtree(partial, ignore_errors=True)
            if not _is_whole(target):
                raise


def _is_whole(folder: Path) -> bool:
    """Can the arrays be read, and are they as long as was written down?"""
    try:
        return Tokenised(folder).is_whole()
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return False


def _mapped(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r", allow_pickle=False)
