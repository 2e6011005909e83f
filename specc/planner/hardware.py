"""GPUs by name: one file of `specc/catalog/gpus/` each, so adding a GPU is adding a file."""

from __future__ import annotations

import difflib
import functools
import json
from dataclasses import dataclass
from pathlib import Path

from specc.planner.workload import NARROW

CATALOG = Path(__file__).parent.parent / "catalog" / "gpus"


@dataclass(frozen=True)
class Gpu:
    """What the planner knows of one device. Peaks are dense; bandwidths are per GPU and direction."""

    name: str
    usable_gib: float  # what the framework sees in total; less than the label. 0: not judged (a CPU)
    bf16_tflops: float
    fp8_tflops: float
    hbm_gb_per_s: float
    link_gb_per_s: float  # NVLink, or the PCIe of a card without it
    link_domain: int  # GPUs that the link joins; tensor parallelism stays within
    gpus_per_node: int
    nic_gb_per_s: float
    host_gb_per_s: float
    efficiencies: tuple[tuple[str, float], ...] = ()  # see `efficiency`
    attention_efficiency: float = 0.45  # share of the bf16 (fp32) peak, forward and backward together
    tp_exposed: float = 1.0  # share of tensor-parallel traffic that computation does not hide
    nvfp4_tflops: float = 0.0  # 0: the GPU has no such products

    def peak_tflops(self, precision: str) -> float:
        """Dense peak of matrix products; fp32 at an eighth of bf16, what a GPU lacks as the next wider."""
        if precision == "nvfp4" and self.nvfp4_tflops:
            return self.nvfp4_tflops
        if precision in NARROW:
            return self.fp8_tflops or self.bf16_tflops
        return self.bf16_tflops / (8 if precision == "fp32" else 1)

    def efficiency(self, precision: str) -> float:
        """Share of `peak_tflops` that matrix products reach in training; of a precision that the catalog does
        not tell, that of the nearest one it does.
        """
        known = dict(self.efficiencies)
        return next((known[name] for name in (precision, *NEAREST[precision]) if name in known), UNKNOWN)


NEAREST = {
    "nvfp4": ("mxfp8", "fp8", "bf16"),
    "mxfp8": ("fp8", "bf16"),
    "fp8": ("mxfp8", "bf16"),
    "fp16": ("bf16",),
    "bf16": ("fp16",),
    "fp32": ("bf16",),
}
"""Whose share of the peak a precision takes that has none of its own."""

UNKNOWN = 0.6
"""Share of the peak of a GPU of which nothing else is known."""


def fast_domain(gpu: Gpu, node: int) -> int:
    """GPUs that talk over the fast link: a node, or more where NVLink joins nodes (GB200: a rack)."""
    return gpu.link_domain if gpu.link_domain > gpu.gpus_per_node else node


@functools.cache
def names() -> tuple[str, ...]:
    """Every known GPU, sorted."""
    return tuple(sorted(file.stem for file in CATALOG.glob("*.json")))


@functools.cache
def gpu(name: str) -> Gpu | None:
    """The GPU of that name (any case; `H100` means h100-80gb), or None."""
    folded = _folded(name)
    aliases = {_folded(known): known for known in names()} | ALIASES
    if folded not in aliases:
        return None
    data = json.loads((CATALOG / f"{aliases[folded]}.json").read_text(encoding="utf-8"))
    return Gpu(
        name=data["name"],
        usable_gib=data["usable_gib"],
        bf16_tflops=data["tflops"]["bf16"],
        fp8_tflops=data["tflops"]["fp8"],
        nvfp4_tflops=data["tflops"].get("nvfp4", 0.0),
        efficiencies=tuple(sorted(data.get("efficiency", {}).items())),
        **{
            key: data[key]
            for key in Gpu.__dataclass_fields__
            if key in data and key not in ("name", "usable_gib")
        },
    )


ALIASES = {
    "a100": "a100-80gb",
    "h100": "h100-80gb",
    "4090": "rtx4090",
    "5090": "rtx5090",
    "v100": "v100-32gb",
    # as the driver says
    "a100sxm440gb": "a100-40gb",
    "a100sxm480gb": "a100-80gb",
    "h10080gbhbm3": "h100-80gb",
    "h100pcie": "h100-80gb-pcie",
    "h100nvl": "h100-96gb",
    "geforcertx4090": "rtx4090",
    "geforcertx5090": "rtx5090",
    "rtxa6000": "a6000",
    "teslav100sxm216gb": "v100-16gb",
    "teslav100sxm232gb": "v100-32gb",
    "b300sxm6ac": "b300",
}
"""Other spellings, without case and punctuation."""


def _folded(name: str) -> str:
    return "".join(c for c in name.lower().removeprefix("nvidia") if c.isalnum())


def suggestion(name: str) -> str:
    """The known GPU nearest to `name`, or ''."""
    near = difflib.get_close_matches(name.lower(), names(), n=1, cutoff=0.4)
    return near[0] if near else ""
