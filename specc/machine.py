"""What this machine can run on, found without torch: its NVIDIA GPUs, or its CPU."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Gpu:
    name: str  # as the driver says, e.g. `NVIDIA H100 80GB HBM3`
    memory_gib: float


def gpus(command: str = "nvidia-smi") -> list[Gpu]:
    """The CUDA GPUs of this machine; empty when there are none or the driver does not answer."""
    if not any(Path("/dev").glob("nvidia[0-9]*")) or not shutil.which(command):
        return []
    words = [command, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(words, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return read_gpus(said)


def read_gpus(said: str) -> list[Gpu]:
    """`NAME, MIB` a line, as nvidia-smi prints it."""
    found = []
    for line in said.splitlines():
        name, _, memory = line.rpartition(",")
        if name and memory.strip().isdigit():
            found.append(Gpu(name.strip(), int(memory) / 1024))
    return found
