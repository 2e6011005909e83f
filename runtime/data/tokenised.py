"""A data set's tokens in flat files that every rank maps into memory.

One rank tokenises the rows once and writes four arrays; the others map them. The folder's name is a
hash of all that decides the tokens, and the folder appears by a rename, so a torn one is never read.

    tokens.npy   int32, the tokens of all kept samples one after another
    mask.npy     uint8, 1 for each token that is to be learnt, or where a score is read
    ends.npy     int64, where each kept sample ends
    rows.npy     int64, each kept sample's number in the data set
    labels.npy   fp32, what somebody said of each kept sample; as many numbers for all, often none
    facts.json   how many rows were kept, cut and dropped, and why; a hash of the arrays

A row is one sample, or two that are compared and stay together (`group`).
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
from typing import Any, Protocol

import numpy as np

from runtime.batch import Sample
from runtime.data.attributes import Attributes
from runtime.data.comparisons import Comparisons
from runtime.data.judged import JudgedForm
from runtime.data.learnt import Learnt
from runtime.data.preferences import PreferenceForm, Preferences, preference_form
from runtime.data.prompt_response import Encoded, Form
from runtime.data.prompts import PromptForm, Prompts
from runtime.data.responses import Responses, ResponsesForm
from runtime.data.rows import Rows, open_rows
from runtime.problem import Problem

ARRAYS = ("tokens", "mask", "ends", "rows", "labels")

AnyForm = Form | JudgedForm | PromptForm | PreferenceForm | ResponsesForm


class Reader(Protocol):
    """Rows as samples; `group` samples each."""

    group: int

    def __len__(self) -> int: ...

    def read(self, index: int) -> list[Encoded]: ...


class Tokenised:
    """Samples by index, read from a folder that `tokenised` wrote."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.facts: dict[str, Any] = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        loaded = {name: _mapped(folder / f"{name}.npy") for name in ARRAYS}
        self._tokens, self._mask = loaded["tokens"], loaded["mask"]
        self._ends, self._rows = loaded["ends"], loaded["rows"]
        self._labels = loaded["labels"]

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def group(self) -> int:
        """Samples of a row: 2 where they are compared."""
        return self.facts["group"]

    def __getitem__(self, index: int) -> Sample:
        start = int(self._ends[index - 1]) if index else 0
        end = int(self._ends[index])
        tokens, mask = self._tokens[start:end].tolist(), self._mask[start:end].tolist()
        return Sample(int(self._rows[index]), tokens, mask, tuple(self._labels[index].tolist()))

    def index(self, id: int) -> int:
        """Which of the kept samples has this id."""
        return int(np.searchsorted(self._rows, id))

    def tokens_before(self, index: int) -> int:
        """Tokens of all kept samples before this one."""
        return int(self._ends[index - 1]) if index else 0

    def is_whole(self) -> bool:
        """Are the arrays as long as was written down?"""
        lengths = len(self._tokens), len(self._mask), len(self._ends), len(self._rows)
        tokens, samples = self.facts["tokens"], self.facts["kept"] * self.facts["group"]
        is_labelled = self._labels.shape == (samples, self.facts["labels"])
        found = lengths == (tokens, tokens, samples, samples) and is_labelled
        return found and {"hash", "largest"} <= self.facts.keys()

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
    form: AnyForm,
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
    reader = reader_of(data, rows, form, tokenizer, template)
    is_chat = isinstance(reader, Learnt) and reader.is_chat
    decides = [dict(data), vars(form), tokenizer_name, template, is_chat, rows.fingerprint()]
    key = hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()[:16]
    target = folder / key
    if _is_whole(target):
        return target
    shutil.rmtree(target, ignore_errors=True)
    kept = _Kept(len(reader), reader.group, is_learnt=not isinstance(form, PromptForm))
    for index in range(len(reader)):
        if index % 512 == 0:
            alive()
        kept.add(index, reader.read(index))
    if not kept.rows:
        why = ", ".join(f"{count} {reason}" for reason, count in kept.dropped.items()) or "it is empty"
        raise Problem("R011", f"no row of `{data['path']}` can be used: {why}")
    kept.write(target)
    return target


def reader_of(data: Mapping[str, Any], rows: Rows, form: AnyForm, tokenizer: Any, template: str) -> Reader:
    """What turns these rows into samples."""
    if isinstance(form, PromptForm):
        return Prompts(rows, tokenizer, template, form)
    if isinstance(form, JudgedForm):
        kind = Attributes if form.format == "attributes" else Comparisons
        return kind(rows, tokenizer, template, form)
    if isinstance(form, PreferenceForm):
        return Preferences(rows, tokenizer, template, form)
    if isinstance(form, ResponsesForm):
        return Responses(rows, tokenizer, template, form)
    return Learnt(rows, tokenizer, template, form, str(data.get("format") or "auto"))


def form_of(
    use: str, program: str, data: Mapping[str, Any], train: Mapping[str, Any], own: Mapping[str, Any]
) -> AnyForm:
    """The form of the rows of `data.USE`, from its section, `train` and the program's own section."""
    if use == "prompts":
        return _prompt_form(data, train, own)
    if data.get("kind"):  # rows of preferences, whatever the program learns from them
        return preference_form(data, train, own)
    if program == "steerlm2":
        return ResponsesForm(int(own["responses"]), int(train["seq_length"]), own["truncation"])
    if program == "reward":
        return _judged_form(data, train, own)
    return learnt_form(data, train, own)


def _prompt_form(data: Mapping[str, Any], train: Mapping[str, Any], own: Mapping[str, Any]) -> PromptForm:
    most = own.get("max_prompt_tokens") or train.get("seq_length") or 2048
    return PromptForm(
        format=data.get("format") or "auto",
        prompt=data.get("prompt") or "{input}",
        seq_length=int(most),
        add_bos=bool(own.get("add_bos", False)),
    )


def _judged_form(data: Mapping[str, Any], train: Mapping[str, Any], own: Mapping[str, Any]) -> JudgedForm:
    format = data.get("format") or "auto"
    if format == "auto":
        format = "attributes" if own["loss"] == "regression" else "comparisons"
    return JudgedForm(
        format=format,
        prompt=data.get("prompt", "{prompt}"),
        chosen=data.get("chosen") or "{chosen}",
        rejected=data.get("rejected") or "{rejected}",
        attributes=tuple(own.get("attributes") or ("reward",)),
        strength=own["loss"] in ("margin_bt", "scaled_bt"),
        seq_length=int(train["seq_length"]),
        truncation=own.get("truncation", "drop"),
        add_bos=own.get("add_bos", False),
        add_eos=own.get("add_eos", True),
    )


def learnt_form(data: Mapping[str, Any], train: Mapping[str, Any], sft: Mapping[str, Any]) -> Form:
    """The form of rows that are learnt, from the plan's sections `data.train`, `train` and `sft`."""
    return Form(
        prompt=data.get("prompt") or "{input}",
        response=data.get("response") or "{output}",
        seq_length=int(train["seq_length"]),
        truncation=sft.get("truncation", "right"),
        answer_only=sft.get("answer_only", True),
        add_bos=sft.get("add_bos", False),
        add_eos=sft.get("add_eos", True),
        strip=not data.get("from"),
        turns=sft.get("turns") or "all",
        cut_answers=sft.get("cut_answers") or "open",
    )


class _Kept:
    """The arrays while they grow."""

    def __init__(self, rows: int, group: int, is_learnt: bool):
        self.seen, self.cut, self.dropped = rows, 0, Counter[str]()
        self.group, self.is_learnt = group, is_learnt
        self.tokens, self.mask = array("i"), array("B")
        self.ends, self.rows = array("q"), array("q")
        self.labels: list[tuple[float, ...]] = []

    def add(self, index: int, samples: list[Encoded]) -> None:
        """The samples of a row; when one cannot be used, none is."""
        why = next((reason for sample in samples if (reason := self._unusable(sample))), "")
        if why:
            self.dropped[why] += 1
            return
        self.cut += any(sample.cut for sample in samples)
        for number, sample in enumerate(samples):
            self.tokens.extend(sample.tokens)
            self.mask.extend(sample.mask)
            self.ends.append(len(self.tokens))
            self.rows.append(index * self.group + number)
            self.labels.append(tuple(sample.labels))

    def _unusable(self, sample: Encoded) -> str:
        has_none = self.is_learnt and not sample.dropped and not any(sample.mask[1:])
        return "without a trained token" if has_none else sample.dropped

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {name: np.asarray(getattr(self, name)) for name in ARRAYS[:-1]}
        # where only some comparisons say how clear they are, none does
        width = min(map(len, self.labels), default=0)
        flat = [number for labels in self.labels for number in labels[:width]]
        return arrays | {"labels": np.asarray(flat, np.float32).reshape(len(self.labels), width)}

    def write(self, target: Path) -> None:
        for left in target.parent.glob(f".{target.name}.*"):  # by a kill: one process writes a stage's tokens
            shutil.rmtree(left, ignore_errors=True)
        partial = target.with_name(f".{target.name}.{os.getpid()}")
        partial.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        arrays = self._arrays()
        for name, values in arrays.items():
            digest.update(values.tobytes())
            np.save(partial / f"{name}.npy", values, allow_pickle=False)
        facts = {
            "rows": self.seen,
            "group": self.group,
            "labels": arrays["labels"].shape[1],
            "kept": len(self.rows) // self.group,
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
