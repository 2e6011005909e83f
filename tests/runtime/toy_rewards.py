"""Plans of reward models and texts that a small one can tell apart, for the tests."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import toy_runs

from specc.plan import Layout, Model, Plan, Shape, Weights

REWARD = {
    "head": "scalar",
    "attributes": [],
    "weights": [1.0],
    "loss": "bradley_terry",
    "average": "global",
    "load_head": True,
    "truncation": "drop",
    "add_eos": True,
    "add_bos": False,
}
NAMES = ("helpfulness", "verbosity", "humor")
MARKS = REWARD | {
    "head": "attributes",
    "attributes": list(NAMES),
    "weights": [1.0, 0.0, 0.0],
    "loss": "regression",
}


def plan(
    data: Path | str,
    layout: Layout | None = None,
    *,
    own: dict[str, Any] | None = None,
    train: dict[str, Any] | None = None,
    validation: Path | str | None = None,
    weights: Weights | None = None,
    shape: Shape = toy_runs.LLAMA,
    job: dict[str, Any] | None = None,
    **role: Any,
) -> Plan:
    """A plan of one reward model; `own` replaces the defaults of its section."""
    reward = REWARD | (own or {})
    names = tuple(reward["attributes"])
    model = Model("tiny", shape, weights or Weights(), head=reward["head"], attributes=names)
    form = "attributes" if reward["loss"] == "regression" else "comparisons"
    rows = {"train": data, "validation": validation}
    fields: dict[str, Any] = {
        "settings": {"train": toy_runs.TRAIN | (train or {}), "reward": reward},
        "data": {
            use: {"path": str(path), "format": form, "attributes": list(names)} if path else None
            for use, path in rows.items()
        },
    }
    return toy_runs.plan(layout, job=fields | (job or {}), program="reward", model=model, **role)


def polite(folder: Path, count: int = 64, seed: int = 0) -> Path:
    """Comparisons of which the better one ends in thanks, in texts of different lengths."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        prompt = "".join(draw.choice("abcdefgh ") for _ in range(draw.randint(2, 16)))
        rows.append(
            {"prompt": f"{prompt}?", "chosen": " thanks", "rejected": draw.choice([" no", " go away"])}
        )
    return written(folder / f"polite-{count}-{seed}.jsonl", rows)


def clear(folder: Path, count: int = 64, seed: int = 0) -> Path:
    """The same with how clear each preference is."""
    draw = random.Random(f"{seed}/clear")
    rows = [json.loads(line) for line in polite(folder, count, seed).read_text().splitlines()]
    return written(
        folder / f"clear-{count}-{seed}.jsonl", [r | {"strength": draw.randint(1, 3)} for r in rows]
    )


def marked(folder: Path, count: int = 64, seed: int = 0) -> Path:
    """Texts with three marks each, of which about a third is missing."""
    draw = random.Random(f"{seed}/marked")
    rows = []
    for _ in range(count):
        is_kind = draw.random() < 0.5
        text = "".join(draw.choice("abcdefgh ") for _ in range(draw.randint(2, 16)))
        marks = [4.0 if is_kind else 0.0, len(text) / 4, 1.0]
        kept = [mark if i == 0 or draw.random() < 0.5 else -100 for i, mark in enumerate(marks)]
        rows.append({"text": text + (" thanks" if is_kind else " no"), "label": kept})
    return written(folder / f"marked-{count}-{seed}.jsonl", rows)


def written(file: Path, rows: list[dict[str, Any]]) -> Path:
    """A JSONL file of these rows."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def lines(folder: Path) -> list[dict[str, Any]]:
    """All lines of metrics.jsonl, validation's too."""
    return [json.loads(line) for line in (folder / "sft" / "metrics.jsonl").read_text().splitlines()]
