"""What makes a layout legal: one small function per rule, each with a code.

A rule looks at one `Case` and returns what is wrong with it, or None. `layers % PP == 0` is not a
rule: uneven pipelines are planned and run. Nor is a vocabulary that divides by TP: it is padded.
The rules are Megatron-core's own and those of our runtime (2 * CP * TP divides a row, since batches
are padded to that).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from specc.plan import Layout
from specc.planner.hardware import Gpu
from specc.planner.memory import Workload
from specc.planner.shapes import LatentShape, dense_layers, stage_layers
from specc.planner.workload import NARROW


@dataclass(frozen=True)
class Case:
    """One complete choice for one role: what runs, where, and cut up how."""

    work: Workload
    gpu: Gpu
    nodes: int
    gpus: int  # per node; on a CPU, processes
    layout: Layout
    micro_batch: int
    recompute: str = "none"

    @property
    def world(self) -> int:
        return self.nodes * self.gpus


@dataclass(frozen=True)
class Broken:
    """A rule that a case breaks."""

    code: str
    message: str
    fields: tuple[str, ...]  # of the case, the one to point at first
    help: str = ""


Rule = Callable[[Case], "Broken | None"]


def sizes_are_positive(case: Case) -> Broken | None:
    layout = case.layout
    for name in ("tp", "pp", "vp", "cp", "ep", "etp"):
        if getattr(layout, name) < 1:
            return Broken(
                "P010", f"{name} {getattr(layout, name)} is not a size", (name,), f"use {name}: 1 or more"
            )
    if case.micro_batch < 1:
        return Broken(
            "P010", f"micro_batch {case.micro_batch} is not a size", ("micro_batch",), "use 1 or more"
        )
    return None


def layout_fills_the_gpus(case: Case) -> Broken | None:
    layout = case.layout
    size = layout.tp * layout.pp * layout.cp
    if case.world % size == 0 and layout.dp == case.world // size:
        return None
    product = f"tp {layout.tp} x pp {layout.pp}" + (f" x cp {layout.cp}" if layout.cp > 1 else "")
    gpus = _count(case.nodes, "node") + " x " + _count(case.gpus, _device(case))
    message = f"{gpus} = {case.world} is not a multiple of {product} = {size}"
    fewest = -(-size // case.gpus)
    while fewest * case.gpus % size:
        fewest += 1
    if case.gpu.name == "cpu":
        help = f"use a profile with gpus_per_node: {size}, or a smaller layout"
    else:
        help = f"use nodes: {fewest}, or a smaller layout"
    return Broken("P011", message, ("tp", "pp", "cp", "nodes"), help)


def tp_divides_heads(case: Case) -> Broken | None:
    heads, tp = case.work.shape.heads, case.layout.tp
    if heads % tp == 0:
        return None
    return Broken("P012", f"{heads} attention heads do not divide by tp {tp}", ("tp",), _tp(heads, case))


def tp_fits_kv_groups(case: Case) -> Broken | None:
    groups, tp = case.work.shape.kv_groups, case.layout.tp
    if groups % tp == 0 or tp % groups == 0:
        return None
    message = f"tp {tp} is neither a divisor nor a multiple of {groups} key-value groups"
    return Broken("P013", message, ("tp",), _tp(groups, case))


def tp_divides_ffn(case: Case) -> Broken | None:
    shape, layout = case.work.shape, case.layout
    if shape.experts:
        for width, cut, name in (
            (shape.expert_ffn, layout.etp, "etp"),
            (shape.shared_expert_ffn, layout.tp, "tp"),
        ):
            if width % cut:
                return Broken("P014", f"the expert width {width} does not divide by {name} {cut}", (name,))
        return None
    if shape.ffn % layout.tp == 0:
        return None
    message = f"the feed-forward width {shape.ffn} does not divide by tp {layout.tp}"
    return Broken("P014", message, ("tp",), _tp(shape.ffn, case))


def tp_stays_within_the_link(case: Case) -> Broken | None:
    """TP talks in every layer, so its group lies within a node, or within an NVLink domain of several."""
    domain = link_domain(case.gpu, case.gpus)
    if case.gpu.name == "cpu":
        return None
    for name, size in (("tp", case.layout.tp), ("etp", case.layout.etp)):
        if not _stays_within(size, domain, case.gpus):
            where = "a node" if domain == case.gpus else "an NVLink domain"
            what = "is larger than" if size > domain else "does not divide"
            message = f"{name} {size} {what} {where} of {_count(domain, _device(case))}"
            more = "pp" if name == "tp" else "ep"
            return Broken("P015", message, (name,), _divisors(domain, name) + f"; use {more} for more")
    return None


def _stays_within(size: int, domain: int, node: int) -> bool:
    """Whether groups of `size` neighbouring ranks stay within a domain.

    A rack of 72 GPUs is taken in blocks of nodes, often of 64 GPUs: groups of whole nodes need not divide it.
    """
    return domain % size == 0 or (size < domain and size % node == 0)


def link_domain(gpu: Gpu, gpus: int) -> int:
    """GPUs that talk over the fast link: a node, or more where NVLink joins nodes (GB200: a rack)."""
    return gpu.link_domain if gpu.link_domain > gpu.gpus_per_node else gpus


def every_stage_has_layers(case: Case) -> Broken | None:
    layout, layers = case.layout, case.work.shape.layers
    chunks = layout.pp * layout.vp
    said = f"pp {layout.pp}" + (f" x vp {layout.vp}" if layout.vp > 1 else "")
    # The first and the last chunk of an interleaved pipeline may be the embedding and the logits alone:
    # with them, the 126 layers of Llama 3.1 405B fill 16 stages of 8 chunks.
    ends = 2 if layout.vp > 1 else 0
    if layers < chunks - ends:
        message = f"{_count(layers, 'layer')} cannot fill {said} = {_count(chunks, 'stage')}"
        return Broken("P016", message, ("pp", "vp"), f"use at most {layers} stages")
    if layout.stage_layers and (len(layout.stage_layers) != chunks or sum(layout.stage_layers) != layers):
        message = f"stage_layers {list(layout.stage_layers)} does not deal {layers} layers to {said}"
        return Broken(
            "P016", message, ("stage_layers", "pp"), f"give {chunks} numbers that add up to {layers}"
        )
    inner = layout.stage_layers[1:-1] if ends else layout.stage_layers
    if min(inner, default=1) < 1 or min(layout.stage_layers, default=0) < 0:
        return Broken("P016", "a stage of stage_layers has no layer", ("stage_layers", "pp"))
    return None


def interleaving_is_possible(case: Case) -> Broken | None:
    layout = case.layout
    if layout.vp == 1:
        return None
    if layout.pp == 1:
        return Broken(
            "P017", f"vp {layout.vp} needs a pipeline, but pp is 1", ("vp",), "use pp: 2 or more, or vp: 1"
        )
    size = case.micro_batch * layout.dp
    micro_batches = case.work.global_batch // size
    if micro_batches % layout.pp:
        message = (
            f"vp {layout.vp} needs micro-batches ({micro_batches}) that are a multiple of pp {layout.pp}"
        )
        return Broken("P017", message, ("vp", "pp", "micro_batch"), "use vp: 1, or another micro_batch")
    return None


def batch_is_dealt_evenly(case: Case) -> Broken | None:
    size, total = case.micro_batch * case.layout.dp, case.work.global_batch
    if total % size == 0:
        return None
    message = (
        f"global_batch {total} is not a multiple of micro_batch {case.micro_batch} "
        f"x data-parallel {case.layout.dp} = {size}"
    )
    help = f"use global_batch: {-(-total // size) * size}, or a smaller micro_batch or fewer nodes"
    return Broken("P018", message, ("micro_batch", "global_batch", "nodes", "tp", "pp"), help)


def row_is_cut_evenly(case: Case) -> Broken | None:
    layout, length = case.layout, case.work.seq_length
    halves = 2 * layout.cp if layout.cp > 1 else 1  # a rank takes one piece from each end of the row
    unit = halves * (layout.tp if layout.sequence_parallel else 1)
    if case.work.framework == "megatron" and layout.sequence_parallel:
        # Megatron cuts what a rank has of the row, both pieces together; the runtime pads to either piece
        unit = math.lcm(halves, layout.cp * layout.tp)
    if length % unit == 0:
        return None
    said = " x ".join(
        [f"2 x cp {layout.cp}"] * (layout.cp > 1)
        + [f"tp {layout.tp}"] * (layout.sequence_parallel and layout.tp > 1)
    )
    message = f"seq_length {length} is not a multiple of {said} = {unit}"
    help = f"use seq_length: {-(-length // unit) * unit}"
    return Broken(
        "P019", message, ("cp", "tp", "seq_length") if layout.cp > 1 else ("tp", "seq_length"), help
    )


def context_parallel_has_te(case: Case) -> Broken | None:
    if case.layout.cp == 1 or case.work.implementation == "te":
        return None
    message = f"cp {case.layout.cp} needs Transformer Engine's attention, which does not run on this device"
    return Broken("P020", message, ("cp",), "use cp: 1")


def packed_rows_stay_whole(case: Case) -> Broken | None:
    """The runtime cannot cut a line of several rows over context parallel ranks."""
    if case.layout.cp == 1 or not case.work.packing:
        return None
    message = f"rows that are packed cannot be cut over cp {case.layout.cp}"
    return Broken("P023", message, ("cp",), "use packing: false, or cp: 1")


def experts_are_cut_as_attention(case: Case) -> Broken | None:
    """Without EP Megatron-core adds up gradients of experts over data-parallel ranks alone (0.16.1): those of
    tensor-parallel ranks that have whole experts, but tokens of their own, are lost without a word.
    """
    layout, work = case.layout, case.work
    if not work.shape.experts or layout.ep > 1 or layout.etp == layout.tp or work.framework != "runtime":
        return None
    message = f"experts that are not spread (ep 1) need etp {layout.tp} under tp {layout.tp}"
    help = f"use etp: {layout.tp}, or ep: 2 or more"
    return Broken("P026", message, ("etp", "ep", "tp"), help)


def experts_divide(case: Case) -> Broken | None:
    layout, experts = case.layout, case.work.shape.experts
    if layout.ep == 1 and layout.etp == 1:
        return None
    name, size = ("ep", layout.ep) if layout.ep > 1 else ("etp", layout.etp)
    if not experts:
        return Broken(
            "P021", f"{name} {size} needs experts, but the model is dense", (name,), f"use {name}: 1"
        )
    if experts % layout.ep:
        return Broken(
            "P021", f"{experts} experts do not divide by ep {layout.ep}", ("ep",), _divisors(experts, "ep")
        )
    group = layout.tp * layout.cp * layout.dp
    if group % (layout.ep * layout.etp):
        message = (
            f"ep {layout.ep} x etp {layout.etp} does not divide tp x cp x dp = {group} of one pipeline stage"
        )
        return Broken("P021", message, ("ep", "etp", "nodes"), "use a smaller ep, or more nodes")
    return None


def recomputation_has_its_own_details(case: Case) -> Broken | None:
    """Megatron-core: full recomputation counts layers, selective names modules, and neither the other's."""
    work, kind = case.work, case.recompute
    if work.recompute_layers and kind != "full":
        message = f"recompute_layers {work.recompute_layers} belongs to full recomputation, not to {kind}"
        return Broken("P024", message, ("recompute_layers", "recompute"), "use recompute: full")
    if work.recompute_modules and kind != "selective":
        message = f"recompute_modules belongs to selective recomputation, not to {kind}"
        return Broken("P024", message, ("recompute_modules", "recompute"), "use recompute: selective")
    if not work.recompute_layers:
        return None
    most = max(stage_layers(work.shape, case.layout))
    if work.recompute_layers <= most:
        return None
    message = f"recompute_layers {work.recompute_layers} is more than the {_count(most, 'layer')} of a stage"
    return Broken("P024", message, ("recompute_layers",), f"use recompute_layers: {most} or less")


def recomputed_modules_are_there(case: Case) -> Broken | None:
    """A module that the model or its implementation does not have cannot be computed again."""
    work, shape = case.work, case.work.shape
    lacking = {
        "mlp": _no_mlp_again(work),
        "moe": "" if shape.experts else "the model has no experts",
        "moe_act": _no_grouped_products(work),
        "shared_experts": "" if shape.shared_expert_ffn else "the model has no shared expert",
        "mla_up_proj": "" if isinstance(shape, LatentShape) else "the model has no latent attention",
    }
    for module in work.recompute_modules:
        if why := lacking.get(module, ""):
            message = f"`{module}` cannot be computed again: {why}"
            return Broken("P025", message, ("recompute_modules",), "leave it out")
    return None


def _no_mlp_again(work: Workload) -> str:
    """Megatron-core 0.16.1 hands the bias out of what it recomputes, and its backward pass never ends."""
    shape = work.shape
    if shape.experts and not dense_layers(shape):
        return "every layer has experts instead"
    return "Megatron-core cannot where layers have biases" if shape.linear_bias else ""


def _no_grouped_products(work: Workload) -> str:
    if not work.shape.experts:
        return "the model has no experts"
    return "our experts are computed one by one" if work.framework == "runtime" else ""


def positions_suffice(case: Case) -> Broken | None:
    shape, length = case.work.shape, case.work.seq_length
    if shape.position != "learned" or length <= shape.max_positions:
        return None
    message = f"seq_length {length} is more than the {shape.max_positions} learned positions of the model"
    return Broken("P022", message, ("seq_length",), f"use seq_length: {shape.max_positions} or less")


def products_are_narrow_enough(case: Case) -> Broken | None:
    """A GPU without products of 8 bits would compute them wider, at another time and memory."""
    precision, gpu = case.work.precision, case.gpu
    if precision not in NARROW or gpu.fp8_tflops or not gpu.efficiencies:  # a CPU, or known by flags alone
        return None
    message = f"{gpu.name} has no {precision} products"
    return Broken("P027", message, ("precision",), "use bf16, or a GPU that has them, such as h100-80gb")


RULES: tuple[Rule, ...] = (
    sizes_are_positive,
    tp_divides_heads,
    tp_fits_kv_groups,
    tp_divides_ffn,
    tp_stays_within_the_link,
    every_stage_has_layers,
    layout_fills_the_gpus,
    context_parallel_has_te,
    packed_rows_stay_whole,
    row_is_cut_evenly,
    experts_divide,
    experts_are_cut_as_attention,
    batch_is_dealt_evenly,
    interleaving_is_possible,
    recomputation_has_its_own_details,
    recomputed_modules_are_there,
    positions_suffice,
    products_are_narrow_enough,
)


OF_WORK: tuple[Rule, ...] = (
    recomputation_has_its_own_details,
    recomputed_modules_are_there,
    positions_suffice,
    products_are_narrow_enough,
)
"""Those of RULES that no layout mends: asked of one GPU before any number of nodes is."""


OF_ROWS: tuple[Rule, ...] = (
    tp_divides_heads,
    tp_fits_kv_groups,
    tp_divides_ffn,
    tp_stays_within_the_link,
    context_parallel_has_te,
    packed_rows_stay_whole,
    row_is_cut_evenly,
    positions_suffice,
)
"""Those of RULES that look at TP and CP alone (and at ETP where it is not 1): the search asks them first."""


def broken(case: Case) -> list[Broken]:
    """Every rule that the case breaks; empty for a legal one."""
    found = []
    for rule in RULES:
        what = rule(case)
        if what is not None:
            found.append(what)
            if what.code == "P010":  # the others divide by these sizes
                break
    return found


def broken_anywhere(case: Case) -> Broken | None:
    """The first rule that the case breaks and that every other layout breaks, too."""
    return next(filter(None, (rule(case) for rule in OF_WORK)), None)


def is_legal(case: Case) -> bool:
    return all(rule(case) is None for rule in RULES)


def _device(case: Case) -> str:
    return "process" if case.gpu.name == "cpu" else "GPU"


def _count(count: int, noun: str) -> str:
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{count} {noun if count == 1 else plural}"


def _tp(number: int, case: Case) -> str:
    """Sizes of TP that divide `number` and stay within the link."""
    return _divisors(math.gcd(number, link_domain(case.gpu, case.gpus)), "tp")


def _divisors(number: int, name: str) -> str:
    """`use tp: 1, 2, 7 or 14`, up to eight of them."""
    found = [d for d in range(1, min(number, 64) + 1) if number % d == 0][:8]
    if len(found) == 1:
        return f"use {name}: {found[0]}"
    return f"use {name}: {', '.join(map(str, found[:-1]))} or {found[-1]}"
