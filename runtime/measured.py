"""What a run took, beside what was planned: `measured.json` in the role's folder.

The plan's own predictions stand in `plan.json`; `specc calibrate` compares the two. Memory is every rank's
own peak: what the allocator held and reserved on a GPU, what was resident on a CPU. Seconds are medians over
the steps in `metrics.jsonl`, without the first ones, which compile kernels and fill caches.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from runtime import metrics
from runtime.agreement import together, told

if TYPE_CHECKING:
    from runtime.run import Run

WARM_UP = 2
"""Steps of an attempt that do not count, where more were done."""

PACKAGES = ("torch", "megatron-core", "transformer-engine")


def write(run: Run) -> None:
    """Gather every rank's peak and write the file. All ranks call it; a run of no step leaves none."""
    peaks = together("R006", "cannot measure memory", lambda: _peak(run.model.parallel.device))
    if run.step:
        told("R006", "cannot write measured.json", lambda: _write(run, peaks))


def _peak(device: torch.device) -> dict[str, float]:
    """This process's peaks, GiB."""
    if device.type != "cuda":
        return {"resident_gib": round(metrics.memory_gib(device), 4)}
    free, whole = torch.cuda.mem_get_info(device)
    return {
        "allocated_gib": round(torch.cuda.max_memory_allocated(device) / 2**30, 4),
        "reserved_gib": round(torch.cuda.max_memory_reserved(device) / 2**30, 4),
        "used_gib": round((whole - free) / 2**30, 4),  # now, the context and NCCL included
    }


def _write(run: Run, peaks: list[dict[str, float]]) -> None:
    device = run.model.parallel.device
    content: dict[str, Any] = {
        "format": 1,
        "stage": run.job.stage,
        "role": run.role.name,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
        "ranks": peaks,
        **steps_taken(run.place.role / "metrics.jsonl"),
    }
    file = run.place.role / "measured.json"
    temporary = file.with_name(f".measured.{os.getpid()}")
    temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, file)


def steps_taken(file: Path) -> dict[str, Any]:
    """Median seconds of a step and of its parts, and tokens of a step, from the lines of `file`."""
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    lines = [json.loads(line) for line in text.splitlines()]
    steps = [line for line in lines if "step_seconds" in line]
    steps = steps[WARM_UP:] or steps
    names = {name for line in steps for name in line if name.endswith("_seconds")}
    seconds = {
        name: round(statistics.median(line[name] for line in steps if name in line), 6)
        for name in sorted(names)
    }
    tokens = [line["tokens"] for line in steps if "tokens" in line]
    return {"steps": len(steps), "seconds": seconds, "tokens": statistics.mean(tokens) if tokens else 0}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
