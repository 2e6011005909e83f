"""Memory and speed of one given layout, without a spec: what `specc estimate` says.

In goes a model's shape, a GPU and the sizes that somebody has in mind; out comes whether it fits, what the
fullest GPU holds, and how fast a step is. A layout that breaks rules is answered too, with their codes. The
framework is Megatron-core with Transformer Engine as people run it: losses and weight gradients are its own.

Few runs are described in full. What a question leaves open is answered as Megatron-core does it unasked:
fp32 gradients and moments, nothing computed again. Recipes that are tuned for speed save memory in ways that
tables do not print (16-bit gradients and masters, parts of layers computed again); so the probability of
running out is a mean of both readings, and a layout that only the lean one lets run is called possible.
"""

from __future__ import annotations

import dataclasses
from dataclasses import asdict, dataclass
from typing import Any

from specc.plan import Layout, Shape
from specc.planner import rules
from specc.planner.cost import step_seconds
from specc.planner.hardware import Gpu
from specc.planner.memory import GIB, oom_probability, peak, stage_peak
from specc.planner.rollout import generation_seconds
from specc.planner.rules import Broken, Case
from specc.planner.shapes import LatentShape, balanced, forward_flops_per_token, training_flops_per_token
from specc.planner.workload import NARROW, Workload


@dataclass(frozen=True)
class Question:
    """What is asked; sizes as on the command line, all positive."""

    shape: Shape
    gpu: Gpu
    gpus: int
    seq: int
    tp: int = 1
    pp: int = 1
    vp: int = 1
    cp: int = 1
    ep: int = 1
    etp: int = 1
    mbs: int = 1
    gbs: int | None = None  # None: one micro-batch per data-parallel rank
    recompute: str | None = None  # None: not said, and taken as none
    dtype: str = "bf16"
    grad_dtype: str | None = None  # None: fp32 in bf16 and fp32, else 16 bits
    offload: str = "none"
    phase: str = "pretrain"
    expandable: bool = True  # the allocator's segments grow
    recompute_layers: int = 0  # as in `Workload`; said, it means full
    recompute_modules: tuple[str, ...] = ()  # as in `Workload`; said, it means selective

    @property
    def mode(self) -> str:
        implied = "full" if self.recompute_layers else "selective" if self.recompute_modules else "none"
        return self.recompute or implied


@dataclass(frozen=True)
class MemoryEstimate:
    """GiB at the worst rank, but `allocated_gib`: the allocator's peak as Megatron logs it, which is that
    of the last rank, so of the last stage, and with evenly loaded experts.
    """

    total_gib: float
    allocated_gib: float
    capacity_gib: float
    oom_probability: float  # the mean of both readings
    lean_gib: float  # the total of the lean reading; as `total_gib` where the question leaves nothing open
    parts: dict[str, float]
    worst_rank: int


@dataclass(frozen=True)
class Estimate:
    """The answer; `problems` holds codes that `specc explain` explains. No run corrected it: corrections
    belong to a cluster's profile, and none is asked.
    """

    fits: bool
    memory: MemoryEstimate
    step_seconds: float
    tokens_per_second_per_gpu: float
    tflops_per_gpu: float
    problems: list[str]
    calibrated: bool = False


def estimate(question: Question) -> tuple[Estimate, Layout, list[Broken]]:
    """The answer, the layout it is about (data parallelism and stages filled in), and what is wrong."""
    layout = _layout(question)
    work = _workload(question, layout)
    broken = rules.broken(_case(question, work, layout))
    memory = _memory(question, work, layout)
    if work.generates:
        seconds = generation_seconds(work, layout, question.mbs, question.gpu)
    else:
        seconds = step_seconds(work, layout, question.mbs, question.mode, question.gpu, _per_node(question))
    rate = work.global_batch * work.seq_length / seconds / question.gpus
    flops = forward_flops_per_token if work.generates else training_flops_per_token
    problems = sorted({each.code for each in broken})
    return (
        Estimate(
            fits=not problems and memory.oom_probability < 0.5,
            memory=memory,
            step_seconds=_rounded(seconds),
            tokens_per_second_per_gpu=_rounded(rate),
            tflops_per_gpu=_rounded(rate * flops(work.shape, work.seq_length) / 1e12),
            problems=problems,
        ),
        layout,
        broken,
    )


def as_json(answer: Estimate) -> dict:
    """The answer as the data that programs read."""
    return asdict(answer)


def _layout(question: Question) -> Layout:
    q = question
    chunks = q.pp * q.vp
    uneven = q.shape.layers % chunks  # rules say whether the layers are too few
    return Layout(
        tp=q.tp,
        pp=q.pp,
        vp=q.vp,
        cp=q.cp,
        ep=q.ep,
        etp=q.etp,
        dp=max(1, q.gpus // (q.tp * q.pp * q.cp)),
        sequence_parallel=q.tp > 1,
        stage_layers=balanced(q.shape.layers, chunks, _mtp_layers(q)) if uneven else (),
    )


def _mtp_layers(question: Question) -> int:
    """Layers of multi-token prediction, which are trained in pre-training alone."""
    return getattr(question.shape, "mtp_layers", 0) if question.phase == "pretrain" else 0


def _workload(question: Question, layout: Layout) -> Workload:
    q = question
    grad_dtype = q.grad_dtype or ("fp32" if q.dtype in ("bf16", "fp32") else "bf16")
    return Workload(
        shape=q.shape,
        seq_length=q.seq,
        global_batch=q.gbs or layout.dp * q.mbs,
        trains=q.phase != "generate",
        head="scalar" if q.phase in ("reward", "critic") else "language",
        precision=q.dtype,
        gradient_bytes=2 if grad_dtype == "bf16" else 4,
        narrow_weights=q.dtype == "fp8",  # recipes gather parameters in fp8, and keep no others
        phase=q.phase,
        offload=q.offload,
        framework="megatron",
        mtp_layers=_mtp_layers(q),
        recompute_layers=q.recompute_layers,
        recompute_modules=q.recompute_modules or _modules(q),
    )


def _modules(question: Question) -> tuple[str, ...]:
    """What `selective` means: Megatron-core's default, and what recipes take for latent attention."""
    q = question
    if q.mode != "selective" or not isinstance(q.shape, LatentShape):
        return ()
    return tuple(
        each for each in LATENT_MODULES if each != "mlp" or not q.shape.experts or q.shape.dense_layers
    )


LATENT_MODULES = ("mla_up_proj", "mlp")
"""What recipes compute again of models with latent attention when they say `selective`."""

LEAN_MODULES = ("core_attn", "layernorm", "moe_act", "shared_experts", *LATENT_MODULES)
"""All that recipes compute again of models with experts, whole experts and layers aside."""

LEAN = 0.6
"""How likely a run whose description leaves it open is set up to save memory: of Megatron-Bridge's recipes
26 of 56 take 16-bit gradients, of those tuned for speed (and NeMo's) all."""


def _lean(question: Question, work: Workload) -> tuple[Workload, str]:
    """The same question, with what it leaves open set up to save memory: gradients in 16 bits, of the fp32
    master what bf16 cuts off, 16-bit moments where there are experts, and parts of layers, or half of the
    layers, computed again where nothing is said of it.
    """
    q, experts = question, bool(work.shape.experts)
    saving: dict[str, Any] = {}
    if q.grad_dtype is None and work.precision != "fp32":
        saving["gradient_bytes"] = 2
    if work.precision in ("bf16", *NARROW):
        saving |= {"master_bytes": 2, "moment_bytes": 4 if experts else 8}
    mode = q.mode
    if experts and q.recompute in (None, "selective"):
        mode, saving["recompute_modules"] = "selective", LEAN_MODULES
    elif q.recompute is None:
        mode, saving["recompute_layers"] = "full", max(1, -(-work.shape.layers // (2 * q.pp * q.vp)))
    return dataclasses.replace(work, **saving), mode


def _lean_gib(question: Question, work: Workload, layout: Layout, total_gib: float) -> float:
    """The total of the lean reading."""
    if not work.trains:
        return total_gib
    lean, mode = _lean(question, work)
    return min(total_gib, peak(lean, layout, question.mbs, mode).total / GIB)


def _oom(question: Question, total_gib: float, lean_gib: float) -> float:
    """How likely the run is out of memory, over both readings of what is not said."""
    capacity = question.gpu.usable_gib
    said = oom_probability(total_gib, capacity, question.expandable)
    saving = oom_probability(lean_gib, capacity, question.expandable)
    return round(LEAN * saving + (1 - LEAN) * said, 3)


def _per_node(question: Question) -> int:
    """GPUs of a node, as this number fills nodes evenly: as many as can be, multiples of TP first."""
    gpus, most = question.gpus, question.gpu.gpus_per_node
    if gpus <= most or gpus % most == 0:
        return min(gpus, most)
    even = [size for size in range(most, 0, -1) if gpus % size == 0]
    return next((size for size in even if size % question.tp == 0), even[0])


def _case(question: Question, work: Workload, layout: Layout) -> Case:
    node = _per_node(question)
    return Case(work, question.gpu, question.gpus // node, node, layout, question.mbs, question.mode)


def _memory(question: Question, work: Workload, layout: Layout) -> MemoryEstimate:
    worst = peak(work, layout, question.mbs, question.mode)
    logged = stage_peak(work, layout, question.mbs, question.mode, layout.pp - 1)
    total, capacity = worst.total / GIB, question.gpu.usable_gib
    lean = _lean_gib(question, work, layout, total)
    return MemoryEstimate(
        total_gib=round(total, 3),
        allocated_gib=round(logged.allocated / GIB, 3),
        capacity_gib=capacity,
        oom_probability=_oom(question, total, lean),
        lean_gib=round(lean, 3),
        parts={name: round(value / GIB, 3) for name, value in worst.parts},
        worst_rank=worst.stage * layout.tp * layout.cp * layout.dp,
    )


def _rounded(value: float) -> float:
    """Four digits, which is more than the model knows."""
    return float(f"{value:.4g}")
