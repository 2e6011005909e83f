"""What one of Megatron-core's plain layers keeps, with our norms and our attention in it, tensor by tensor.

Every line was seen by `torch.autograd.graph.saved_tensors_hooks` on the model that the runtime builds on a
CPU, and tests/runtime/test_kept_activations.py holds the sums to it. A storage counts once and whole: a view
keeps all of what it looks at.
"""

from __future__ import annotations

from specc.plan import Layout, Shape
from specc.planner.kept import CUT, ONCE, POSITIONS, RESIDUAL, ROUTED, WHOLE, Kept
from specc.planner.shapes import GATED, norm_width
from specc.planner.workload import Workload


def table(work: Workload, layout: Layout) -> list[Kept]:
    """The lines of one decoder layer."""
    attention = [*_norm(work, "attention"), *_projections(work, layout), *_core_attention(work)]
    return [*attention, *_norm(work, "the feed-forward"), *_feed_forward(work, layout)]


def final_norm(work: Workload) -> list[Kept]:
    """The norm before the head, whose output the head's product keeps."""
    return _norm(work, "the head", again=False)


def _norm(work: Workload, before: str, again: bool = True) -> list[Kept]:
    """Our norms compute in fp32. The residual stream itself is kept by nothing else."""
    h, modules = work.shape.hidden, ("layernorm",) if again else ()
    lines = [
        *_normed(work, h, 1, RESIDUAL, f"norm before {before}", modules),
        Kept(f"output of the norm before {before}", work.element_bytes * h, modules=modules),
    ]
    if again:  # what it is computed from; under fp32 that is the input which is kept anyhow
        lines.append(
            Kept(f"input of the norm before {before}", work.element_bytes * h, instead_of="layernorm")
        )
    return lines


def _normed(
    work: Workload, width: int, norms: int, region: str, what: str, modules: tuple[str, ...] = ()
) -> list[Kept]:
    """What the arithmetic of a norm keeps of `norms` vectors of `width` per token, its output aside."""
    lines = [Kept(f"fp32 input of the {what}", 4 * width * norms, region, modules)]
    if copied := _copied(work):
        lines.append(Kept(f"fp32 weights of the {what}", 4 * width * copied, ONCE, modules))
    if work.shape.norm.startswith("rmsnorm"):
        return [*lines, Kept(f"reciprocal root of the {what}", 4 * norms, region, modules)]
    return [*lines, Kept(f"mean and reciprocal root of the {what}", 8 * norms, region, modules)]


def _copied(work: Workload) -> int:
    """Parameters of a norm that are made anew each time: in fp32 those that are not, and weight + 1."""
    if work.precision != "fp32":
        return norm_width(work.shape)
    return 1 if work.shape.norm.endswith("_1p") else 0


def _projections(work: Workload, layout: Layout) -> list[Kept]:
    """From the norm's output to Q, K and V as attention takes them."""
    shape, e = work.shape, work.element_bytes
    a, g, d = shape.heads, shape.kv_groups, shape.head_dim
    scattered = layout.tp > g  # ranks that share a group gather the whole product and look at their part
    together = "output of the product for Q, K and V, of which V is a view"
    lines = [Kept(together, e * (a + 2 * g) * d, WHOLE if scattered else CUT)]
    own_groups = max(g, layout.tp)
    turned = shape.position == "rope"
    if turned or shape.qk_norm or a != g:
        lines.append(Kept("Q after its rotation, norm or regrouping", e * a * d, CUT))
    if turned or shape.qk_norm:
        lines.append(Kept("K after its rotation or norm", e * own_groups * d, CUT))
    if turned:
        rotated = int(d * shape.rope_percent)
        lines.append(Kept("cosines and sines for Q and for K", 4 * e * rotated, POSITIONS))
    if shape.qk_norm:
        lines += _query_key_norms(work, own_groups)
    return lines


def _query_key_norms(work: Workload, groups: int) -> list[Kept]:
    shape = work.shape
    a, g, d = shape.heads, groups, shape.head_dim
    lines = [*_normed(work, d, a, CUT, "norm of Q"), *_normed(work, d, g, CUT, "norm of K")]
    if work.precision != "fp32":
        return lines
    # in fp32 the norms' inputs are no copies: K is a view of the product, Q too unless it was regrouped
    views = {
        "fp32 input of the norm of K",
        *({"fp32 input of the norm of Q"} if a == shape.kv_groups else ()),
    }
    return [line for line in lines if line.what not in views]


def _core_attention(work: Workload) -> list[Kept]:
    shape, e, again = work.shape, work.element_bytes, ("core_attn",)
    a, d = shape.heads, shape.head_dim
    lines = [
        Kept("output of attention", e * a * d, CUT),
        Kept("log-sum-exp of the scores", 4 * a, CUT, again),
    ]
    windowed = 0 < shape.sliding_window < work.seq_length
    if work.packing or windowed:  # segments or blocks, which are then put together
        lines.append(Kept("output of attention in pieces", e * a * d, CUT, again))
    if windowed and not work.packing:
        seen = 2 * shape.sliding_window - 1
        lines.append(Kept("masks of the window's blocks", e * seen, POSITIONS, again))
    return lines


def _feed_forward(work: Workload, layout: Layout) -> list[Kept]:
    shape, e = work.shape, work.element_bytes
    if not shape.experts:
        return [Kept(what, size, CUT, ("mlp",)) for what, size in _mlp(shape, e, shape.ffn, ours=True)]
    k, moe = shape.experts_per_token, ("moe",)
    lines = [
        Kept("the router's map and probabilities", 5 * shape.experts, RESIDUAL, moe),
        Kept("probabilities, places and order of the chosen", (4 + 8 + 8) * k, RESIDUAL, moe),
        Kept("tokens permuted for the experts", k * layout.etp * e * shape.hidden, ROUTED, moe),
        Kept("probabilities of the routed tokens", 4 * k * layout.etp, ROUTED, moe),
    ]
    for what, size in _mlp(shape, e, shape.expert_ffn, weighed=True):
        lines.append(Kept(f"expert: {what}", k * size, ROUTED, moe))
    if width := shape.shared_expert_ffn:
        shared = ("moe", "shared_experts")
        lines += [Kept(f"shared expert: {what}", size, CUT, shared) for what, size in _mlp(shape, e, width)]
    return lines


def _mlp(
    shape: Shape, e: int, width: int, weighed: bool = False, ours: bool = False
) -> list[tuple[str, int]]:
    """Of one product, activation, product; the weighed ones multiply by the router's probability between.

    Dense ones are `ours`; those of experts are Megatron's, which keeps what the activation is made of.
    """
    lines = [("input of the second product", e * width)]
    if weighed:
        lines.append(("output of the activation, before its weight", e * width))
    if shape.activation in GATED and not ours:
        return [
            ("output of the first product", 2 * e * width),
            ("activated half", e * width),
            ("other half, offset", e * width),
            *lines,
        ]
    if shape.activation in GATED:  # runtime/fused.py computes the halves' product again
        return [("output of the first product", 2 * e * width), *lines]
    first = "output of relu" if shape.activation == "squared_relu" else "output of the first product"
    return [(first, e * width), *lines]
