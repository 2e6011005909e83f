"""What this machine can run on, found without torch: its NVIDIA GPUs, or its CPU."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from specc.diagnostics import Diagnostic
from specc.plan import Plan
from specc.planner import hardware
from specc.planner.shapes import parameters
from specc.spec.cluster import Gpus, Profile, RuntimeProfile, find_profile

LOCAL_CPU = "local-cpu"


@dataclass(frozen=True)
class Gpu:
    name: str  # as the driver says, e.g. `NVIDIA H100 80GB HBM3`
    memory_gib: float


def profile(found: Sequence[Gpu]) -> tuple[Profile | None, str, list[Diagnostic]]:
    """The profile of this machine with these GPUs, its name, and what there is to say about it."""
    known = hardware.gpu(found[0].name) if found else None
    if known is None:
        local, name, said = find_profile(LOCAL_CPU, Path(__file__).parent)
        return local, name, [*said, *([_unknown(found[0])] if found else [])]
    alike = [gpu for gpu in found if gpu.name == found[0].name]
    gpus = Gpus(type=known.name, per_node=len(alike))
    return (
        Profile(gpus=gpus, nodes=1, scheduler="none", runtime=RuntimeProfile(python=sys.executable)),
        "local-gpu",
        [],
    )


def _unknown(gpu: Gpu) -> Diagnostic:
    message = f"this machine's GPU, {gpu.name}, is not in the catalog, so the CPU is used"
    help = "write a profile with `gpus: {type: ...}` for the most similar one and name it with --cluster"
    return Diagnostic("P006", "warning", message, help=help)


def shortage(plan: Plan, free_gib: float) -> list[Diagnostic]:
    """An error for each stage whose models do not fit into the memory of this machine; for a CPU only.

    Weights, gradients and Adam's two moments take 16 bytes a parameter, in every copy of the model; the
    weights alone 4.
    """
    if plan.cluster.device != "cpu":
        return []
    said = []
    for job in plan.jobs:
        bytes_needed = sum(
            (16 if role.trains else 4) * parameters(role.model.shape, role.model.head) * role.layout.dp
            for role in job.roles
        )
        needed = bytes_needed / 2**30
        if needed > free_gib:
            message = f"stage `{job.stage}` needs about {needed:,.0f} GiB for its weights and optimizer"
            label = f"this machine has {free_gib:,.0f} GiB free"
            path = f"stages.{job.stage}.model" if "stages" in plan.spec else "model"
            said.append(Diagnostic("P031", "error", f"{message}, but {label}", path, label))
    return said


def free_gib() -> float:
    """Memory that processes can still take, GiB; without end where the system does not say."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return math.inf
    found = re.search(r"MemAvailable:\s*(\d+) kB", text)
    return int(found[1]) / 2**20 if found else math.inf


def gpus(command: str = "nvidia-smi") -> list[Gpu]:
    """The CUDA GPUs of this machine that a process here may use; empty when there are none or the driver does
    not answer.
    """
    if not any(Path("/dev").glob("nvidia[0-9]*")) or not shutil.which(command):
        return []
    words = [command, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(words, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return visible(read_gpus(said), os.environ.get("CUDA_VISIBLE_DEVICES"))


def visible(found: Sequence[Gpu], said: str | None) -> list[Gpu]:
    """Those of CUDA_VISIBLE_DEVICES, which the driver's tool does not heed. CUDA stops at what is none;
    one that is named by its UUID is taken for one like the first.
    """
    if said is None:
        return list(found)
    kept: list[Gpu] = []
    for name in map(str.strip, said.split(",")):
        if name.isdecimal() and int(name) < len(found):
            kept.append(found[int(name)])
        elif name.startswith(("GPU-", "MIG-")) and found:
            kept.append(found[0])
        else:
            break
    return kept


def read_gpus(said: str) -> list[Gpu]:
    """`NAME, MIB` a line, as nvidia-smi prints it."""
    found = []
    for line in said.splitlines():
        name, _, memory = line.rpartition(",")
        if name and memory.strip().isdigit():
            found.append(Gpu(name.strip(), int(memory) / 1024))
    return found
