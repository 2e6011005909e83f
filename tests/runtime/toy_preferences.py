"""Plans of preference training and rows that a small model can learn from, for the tests."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import zlib
from pathlib import Path
from typing import Any

import toy_runs

from specc.plan import Layout, Model, Plan, Role, Weights

KINDS = {"kto": "verdicts"}
"""Programs that learn from something else than pairs."""
OWN = {"truncation": "drop", "add_eos": True, "add_bos": False}
DPO = {"loss": "dpo", "beta": 0.2, "eta": 1.0, "preference_weight": 1.0, "sft_weight": 0.0}
DPO |= {"average_log_probs": False, "sft_average_log_probs": False, "reference": "swap"}
KTO = {"beta": 0.2, "desirable_weight": 1.0, "undesirable_weight": 1.0, "reference": "swap"}
SETTINGS = {"dpo": DPO, "kto": KTO}


def plan(
    data: Path | str,
    layout: Layout | None = None,
    *,
    program: str = "dpo",
    own: dict[str, Any] | None = None,
    train: dict[str, Any] | None = None,
    validation: Path | str | None = None,
    weights: Weights | None = None,
    reference: Weights | None = None,
    job: dict[str, Any] | None = None,
    **role: Any,
) -> Plan:
    """A plan of one model that learns from preferences, beside its reference where it has one."""
    sets = {"train": data, "validation": validation}
    kind = KINDS.get(program, "pairs")
    rows = {use: {"path": str(path), "kind": kind} if path else None for use, path in sets.items()}
    settings = {
        program: OWN | SETTINGS.get(program, {}) | (own or {}),
        "train": toy_runs.TRAIN | (train or {}),
    }
    found = toy_runs.plan(layout, program=program, weights=weights, train=train, **role)
    learner = found.jobs[0].roles[0]
    roles: tuple[Role, ...] = (learner,)
    if "reference" in settings[program]:
        model = dataclasses.replace(learner.model, weights=reference or learner.model.weights)
        roles = with_reference(learner, model)
    fields = {"roles": roles, "settings": settings, "data": rows} | (job or {})
    return dataclasses.replace(found, jobs=(dataclasses.replace(found.jobs[0], **fields),))


def with_reference(learner: Role, model: Model) -> tuple[Role, ...]:
    """The learner and a reference in its processes."""
    learner = dataclasses.replace(learner, group=learner.name)
    guest = {"name": "reference", "model": model, "trains": False, "swaps_with": learner.name}
    return learner, dataclasses.replace(learner, **guest)


def polite(folder: Path, count: int = 48, seed: int = 0, **more: Any) -> Path:
    """Pairs of which the better one says thanks, of different lengths; every third with rewards."""
    draw = random.Random(seed)
    rows = []
    for i in range(count):
        prompt = "".join(draw.choice("abcdefgh ") for _ in range(draw.randint(2, 12))) + "?"
        row = {"prompt": prompt, "chosen": " thanks", "rejected": draw.choice([" no", " go away", " x"])}
        if i % 3 == 0:
            row |= {"chosen_reward": draw.uniform(0, 3), "rejected_reward": draw.uniform(-1, 1)}
        rows.append(row | more)
    return written(folder / f"polite-{count}-{seed}.jsonl", rows)


def liked(folder: Path, count: int = 48, seed: int = 0) -> Path:
    """Single answers, of which about half are liked."""
    draw = random.Random(f"{seed}/liked")
    rows = []
    for i in range(count):
        prompt = "".join(draw.choice("abcdefgh ") for _ in range(draw.randint(2, 12))) + "?"
        is_liked = draw.random() < 0.5
        response = " thanks" if is_liked else draw.choice([" no", " go away", " x"])
        verdict = {"preference": "chosen" if is_liked else "rejected"} if i % 2 else {"label": is_liked}
        rows.append({"prompt": prompt, "response": response, **verdict})
    return written(folder / f"liked-{count}-{seed}.jsonl", rows)


def written(file: Path, rows: list[dict[str, Any]]) -> Path:
    """A JSONL file of these rows."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def ran(world: Any, folder: Path, found: Plan, attempt: str = "1") -> list[dict[str, Any]]:
    """The lines of a run's metrics that belong to steps."""
    file = toy_runs.written(folder, found)
    size = found.jobs[0].roles[0].layout.world_size
    assert set(world(size, toy_runs.attempt, str(file), attempt)) == {0}
    return toy_runs.metrics(folder)


def validated(folder: Path) -> list[dict[str, Any]]:
    """The lines of validation."""
    lines = (folder / "sft" / "metrics.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if "validation_loss" in line]


# ── real preferences ─────────────────────────────────────────────────────────────────────────────

SHARED = Path(os.environ.get("SPECC_SHARED", Path(__file__).parents[3] / "shared"))
PANDALM = SHARED / "data" / "pandalm-human-prefs" / "testset-v1.json"


def real(folder: Path, prompt: int = 40) -> tuple[Path, Path]:
    """PandaLM's pairs by the majority of three people: half of the instructions to learn from, the others to
    test on. Of an instruction so many characters stay: most of a tiny model's window is for the answers.
    """
    parts: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    for row in json.loads(PANDALM.read_text(encoding="utf-8")):
        votes = [row[f"annotator{i}"] for i in (1, 2, 3)]
        better = next((side for side in (1, 2) if votes.count(side) >= 2), 0)
        if not better:
            continue
        # one of the answers is `true` in their file
        texts = {"chosen": str(row[f"response{better}"]), "rejected": str(row[f"response{3 - better}"])}
        rewards = {"chosen_reward": votes.count(better), "rejected_reward": votes.count(3 - better)}
        learnt = zlib.crc32(row["instruction"].encode()) % 2 == 0
        parts[learnt].append({"prompt": f"{row['instruction'][:prompt]}\n", **texts, **rewards})
    return written(folder / "learnt.jsonl", parts[True]), written(folder / "others.jsonl", parts[False])
