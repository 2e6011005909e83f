"""The table of published memory as predictions beside what was measured: peaks that frameworks logged, and
runs that ran out.

    memory.csv, shapes.json -> Row(fields of the file, the run, the peak that was logged)
"""

from __future__ import annotations

import csv
import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from specc import models
from specc.plan import Layout, Shape
from specc.planner import hardware, memory, targets
from specc.planner.feasibility import GIB, oom_probability
from specc.planner.hardware import Gpu
from specc.planner.workload import Workload

TABLE = Path(__file__).parent / "memory.csv"
SHAPES = Path(__file__).parent / "shapes.json"


@dataclass(frozen=True)
class Row:
    """One published run; `line` is that of the file."""

    line: int
    said: dict[str, str]
    gpu: Gpu
    work: Workload
    layout: Layout

    @property
    def name(self) -> str:
        said = self.said
        rows = f"{said['seq']}/{said['mbs']}"
        cut = "".join(f" {key}{said[key]}" for key in ("tp", "pp", "vp", "cp", "ep") if said[key] != "1")
        return (
            f"{said['model']} {said['gpus']}x{self.gpu.name} {said['dtype']} {rows}{cut} "
            f"{said['recompute']} {said['modules']}(line {self.line})"
        )

    @property
    def kind(self) -> str:
        return "MoE" if self.work.shape.experts else "dense"

    @property
    def measured(self) -> float:
        """GB that the framework's counter showed at its peak; 0 where that is not published."""
        return float(self.said["measured_gb"] or 0)

    @property
    def predicted(self) -> float:
        """GB of the last pipeline stage, whose rank Megatron's log is about, with experts evenly loaded."""
        last = self.layout.pp - 1
        found = memory.stage_peak(self.work, self.layout, int(self.said["mbs"]), self.mode, last)
        return found.allocated / 1e9

    @property
    def error(self) -> float:
        return self.predicted / self.measured - 1

    @property
    def oom(self) -> float:
        """How likely the fullest rank runs out of memory."""
        return oom_probability(worst_gib(self), self.gpu.usable_gib, self.said["expandable"] == "yes")

    @property
    def mode(self) -> str:
        return self.said["recompute"] or "none"


def worst_gib(row: Row) -> float:
    """GiB on the fullest rank, outside of the allocator and with unlucky experts."""
    return memory.peak(row.work, row.layout, int(row.said["mbs"]), row.mode).total / GIB


def rows(path: Path = TABLE) -> Iterator[Row]:
    """Every row of the table, in its order."""
    with path.open(encoding="utf-8", newline="") as file:
        for line, said in enumerate(csv.DictReader(file), 2):
            yield _row(line, said)


def shape_of(name: str) -> Shape:
    """The shape of a model of either catalog, or of those that only Megatron's tests have."""
    known = models.catalog().get(name) or targets.catalog().get(name)
    return known.shape if known else _own()[name]


@functools.cache
def _own() -> dict[str, Shape]:
    found = json.loads(SHAPES.read_text(encoding="utf-8"))
    return {
        name: targets.shape_from_config(said["config"]) if "config" in said else Shape(**said)
        for name, said in found.items()
    }


def _row(line: int, said: dict[str, str]) -> Row:
    gpu, shape = hardware.gpu(said["gpu"]), shape_of(said["model"])
    assert gpu is not None
    sizes = {key: int(said[key]) for key in ("tp", "pp", "vp", "cp", "ep", "etp")}
    ranks = sizes["tp"] * sizes["pp"] * sizes["cp"]
    layout = Layout(
        **sizes,
        dp=int(said["gpus"]) // ranks,
        sequence_parallel=sizes["tp"] > 1 and "without sequence parallelism" not in said["note"],
        stage_layers=tuple(int(count) for count in said["stage_layers"].split(";") if count),
    )
    work = Workload(
        shape,
        int(said["seq"]),
        int(said["gbs"]),
        precision=said["dtype"],
        narrow_weights="fp8 parameters" in said["note"],
        gradient_bytes=2 if said["grad_dtype"] == "bf16" else 4,
        dropout="dropout" in said["note"],
        phase=said["phase"],
        offload=said["offload"],
        framework="megatron",
        mtp_layers=getattr(shape, "mtp_layers", 0),
        recompute_modules=tuple(said["modules"].split()),
    )
    return Row(line, said, gpu, work, layout)
