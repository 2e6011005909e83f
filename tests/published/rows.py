"""The table of published throughput as questions to the planner; what a row leaves open is what its framework
does by default.

    throughput.csv -> Row(fields of the file, model, Question)
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from specc import models
from specc.plan import Shape
from specc.planner import hardware, targets
from specc.planner.estimate import Question

THROUGHPUT = Path(__file__).parent / "throughput.csv"


@dataclass(frozen=True)
class Row:
    """One published measurement; `line` is that of the file."""

    line: int
    said: dict[str, str]
    question: Question

    @property
    def name(self) -> str:
        q, said = self.question, self.said
        cut = "".join(
            f" {key}{getattr(q, key)}" for key in ("tp", "pp", "vp", "cp", "ep", "etp") if getattr(q, key) > 1
        )
        size = f"{said['model']} {q.gpus}x{q.gpu.name} {q.dtype} {q.seq}x{q.gbs}/{q.mbs}{cut}"
        return f"{size} {said['release']} (line {self.line})"

    @property
    def scored(self) -> bool:
        """Whether the planner is held to it: Megatron's own engine, every parameter trained, no slip."""
        said = self.said
        return said["engine"] == "megatron" and said["phase"] != "lora" and "not scored" not in said["note"]

    @property
    def kind(self) -> str:
        return "MoE" if self.question.shape.experts else "dense"

    @property
    def tokens_per_second(self) -> float:
        """Per GPU."""
        if self.said["tokens_per_second_per_gpu"]:
            return float(self.said["tokens_per_second_per_gpu"])
        q = self.question
        return (q.gbs or 0) * q.seq / float(self.said["step_seconds"]) / q.gpus


def rows(path: Path = THROUGHPUT) -> Iterator[Row]:
    """Every row of the table, in its order."""
    with path.open(encoding="utf-8", newline="") as file:
        for line, said in enumerate(csv.DictReader(file), 2):
            yield Row(line, said, _question(said))


def shape_of(name: str) -> Shape:
    """The shape of a model of either catalog; KeyError names another."""
    found = models.catalog().get(name) or targets.catalog().get(name)
    if found is None:
        raise KeyError(name)
    return found.shape


def _question(said: dict[str, str]) -> Question:
    gpu = hardware.gpu(said["gpu"])
    if gpu is None:
        raise KeyError(said["gpu"])
    sizes = {key: int(said[key] or 1) for key in ("tp", "pp", "vp", "cp", "ep", "etp", "mbs")}
    return Question(
        shape=shape_of(said["model"]),
        gpu=gpu,
        gpus=int(said["gpus"]),
        seq=int(said["seq"]),
        gbs=int(said["gbs"]),
        recompute=said["recompute"] or None,
        dtype=said["dtype"],
        grad_dtype=said["grad_dtype"] or None,
        offload=said["offload"] or "none",
        phase="pretrain" if said["phase"] == "lora" else said["phase"],
        **sizes,
    )
