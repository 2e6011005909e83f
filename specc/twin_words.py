"""The tokenizer of a twin, and what a twin says of all that stands in for something.

A tokenizer that lies on this machine is taken as it is. In place of one that does not, the runtime trains a
small one with the special tokens and the chat template of the family, on the rows that are here, else on
generated ones (`runtime/words.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from specc.diagnostics import Diagnostic
from specc.inputs import TRAINED, here
from specc.plan import Model

BYTES = "builtin:bytes"
FAMILIES = {
    "qwen": "qwen",
    "gemma": "gemma",
    "mistral": "mistral",
    "mixtral": "mistral",
    "nemotron": "nemotron",
}
"""What a family of models is called, and the family of its tokenizer; Llama's differ by generation."""


def tokenizer_of(model: Model, folder: Path) -> str:
    """The tokenizer of a model's twin; nothing for the byte tokenizer, which every model may have."""
    name = model.tokenizer
    if not name or name == BYTES:
        return ""
    if name.startswith(TRAINED) or here(name, folder) is not None:
        return name
    return TRAINED + family_of(f"{model.name} {name} {model.shape.family}".lower())


def family_of(text: str) -> str:
    """The family whose special tokens a model of that name and family knows."""
    if "llama" in text and not any(other in text for other in FAMILIES):
        return "llama3" if re.search(r"llama[-_ ]?3", text) else "llama2"
    return next((family for word, family in FAMILIES.items() if word in text), "gpt")


def on_the_rows(changes: Sequence[str], stages: Iterable[Mapping[str, Any]], folder: Path) -> list[str]:
    """The twin's changes with all trained tokenizers trained on the first rows of the spec that are here.

    One file for all stages: what one stage has learnt to read the next one has to read alike.
    """
    found = [here(path, folder) for stage in stages for path in paths(stage).values()]
    rows = next((file for file in found if file and file.suffix == ".jsonl" and file.is_file()), None)
    if rows is None:
        return list(changes)
    file = rows.resolve()
    return [re.sub(rf'({TRAINED}\w+)"', lambda m: f'{m[1]}{file}"', change) for change in changes]


def paths(stage: Mapping[str, Any]) -> dict[str, str]:
    """The paths of a stage's data by their use."""
    found = {}
    for use, said in (stage.get("data") or {}).items():
        path = said.get("path") if isinstance(said, Mapping) else said
        if isinstance(path, str) and path:
            found[use] = path
    return found


def stand_ins(changes: Sequence[str], resolved: Mapping[str, Any], folder: Path) -> Iterator[Diagnostic]:
    """What of the spec is not on this machine, and what the twin has in its place."""
    stages = resolved.get("stages")
    parts = {f"stages.{name}.": stage for name, stage in stages.items()} if stages else {"": resolved}
    for prefix, stage in parts.items():
        for use, path in paths(stage).items():
            if not path.startswith("builtin:") and here(path, folder) is None:
                message = f"{prefix}data.{use} `{path}` is not on this machine: the twin reads generated rows"
                yield Diagnostic("G010", "warning", message)  # its value in the source is the twin's by now
    families = sorted({found for change in changes for found in re.findall(rf"{TRAINED}(\w+)", change)})
    for family in families:
        message = (
            f"a tokenizer is not on this machine: a small one with the special tokens of {family} is trained"
        )
        yield Diagnostic("G010", "warning", message)
