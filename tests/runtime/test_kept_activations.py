"""What the planner says layers keep for their backward pass, against what autograd saves on the real model.

Every tensor that autograd packs is seen by a hook. Storages count once and whole, parameters never, and only
while the graph that packed them lives. The most that is alive at once is what is predicted.
"""

import dataclasses
import weakref
from typing import Any

import pytest
import toys

from specc.plan import Layout
from specc.planner import activations
from specc.planner.shapes import stage_layers
from specc.planner.workload import Workload

pytestmark = pytest.mark.torch

LENGTH = 96


class Saved:
    """A tensor as autograd holds it."""

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor


class Ledger:
    """What autograd holds, and the most it ever held at one of the moments that were looked at."""

    def __init__(self, chunks: list[Any]) -> None:
        self.saved: Any = weakref.WeakSet()
        self.most = 0
        self.parameters = {p.untyped_storage().data_ptr() for c in chunks for p in c.parameters()}

    def pack(self, tensor: Any) -> Saved:
        saved = Saved(tensor.detach())
        self.saved.add(saved)
        return saved

    def look(self) -> None:
        storages = [saved.tensor.untyped_storage() for saved in self.saved]
        sizes = {each.data_ptr(): each.nbytes() for each in storages}
        self.most = max(self.most, sum(n for at, n in sizes.items() if at not in self.parameters))


def watched(roles: list[Any], packed: bool) -> list[tuple[int, int]]:
    """For each role, this rank's stage and the most bytes autograd held during one step."""
    from runtime import cpu

    cpu.install()
    from runtime import parallel

    found = []
    for role in roles:
        here = parallel.start(role.layout, "gloo", "cpu", timeout_seconds=60)
        found.append((here.pp_rank, _most_held(role, here, packed)))
        parallel.parallel_state.destroy_model_parallel()
    return found


def _most_held(role: Any, here: Any, packed: bool) -> int:
    import torch

    from runtime.engine import Engine, OptimizerSettings

    engine = Engine(role, here, OptimizerSettings())
    ledger = Ledger(engine.chunks)

    def loss(output: Any, batch: Any) -> Any:
        part = output if role.model.head == "language" else output.sum(-1)
        value = (part * batch.mask_BT).sum() / 1000
        ledger.look()
        return value, {}

    forward_step = engine._forward_step

    def step(*args: Any, **kwargs: Any) -> Any:
        made = forward_step(*args, **kwargs)
        ledger.look()
        return made

    engine._forward_step = step  # type: ignore[method-assign]
    with torch.autograd.graph.saved_tensors_hooks(ledger.pack, lambda saved: saved.tensor):
        engine.forward_backward(_batches(role, here.dp_rank, packed), loss)
    return ledger.most


def _batches(role: Any, dp_rank: int, packed: bool) -> list[Any]:
    """Rows that fill LENGTH to the last token; packed, two segments each."""
    from runtime.batch import Sample

    length, rows = LENGTH + 1, role.global_batch
    samples = [Sample(i, [(7 * i + j) % 250 for j in range(length)], [1] * length) for i in range(rows)]
    if packed:
        half = LENGTH // 2 + 1
        samples = [Sample(i, s.tokens[:half], [1] * half) for i, s in enumerate(samples * 2)]
    return toys.microbatches(role, dp_rank, samples, packed)


def predicted(role: Any, stage: int, packed: bool) -> float:
    """The same from the planner's tables."""
    shape, layout, rows = role.model.shape, role.layout, role.micro_batch
    work = Workload(
        shape,
        LENGTH,
        role.global_batch,
        head=role.model.head,
        precision=role.precision,
        implementation="local",
        packing=packed,
        recompute_layers=getattr(role, "recompute_layers", 0),
        recompute_modules=getattr(role, "recompute_modules", ()),
    )
    micro_batches = role.global_batch // (rows * layout.dp)
    kept = activations.chunk_bytes(work, layout, rows, role.recompute)
    layers = stage_layers(shape, layout)[stage]
    in_flight = activations.in_flight(layout, stage, micro_batches)
    total = kept.held(layers, in_flight, layout.vp)
    if stage == 0:
        total += in_flight * activations.input_bytes(work, layout, rows) / layout.vp
    if stage == layout.pp - 1:
        total += activations.head_bytes(work, layout, rows) + activations.logit_bytes(work, layout, rows)
    return total


WIDE = toys.shape(hidden=128, ffn=256, heads=8, kv_groups=2, head_dim=16, layers=4)


def shaped(**changes: Any) -> Any:
    return dataclasses.replace(WIDE, **changes)


SHAPES = {
    "GQA SwiGLU": WIDE,
    "MHA SwiGLU": shaped(kv_groups=8),
    "MHA GELU biases": shaped(
        kv_groups=8, norm="layernorm", activation="gelu", position="learned", linear_bias=True
    ),
    "GQA learned": shaped(position="learned"),
    "squared ReLU, half rotary": shaped(norm="layernorm_1p", activation="squared_relu", rope_percent=0.5),
    "Gemma": shaped(norm="rmsnorm_1p", activation="geglu", tied=True, embedding_scale=8.0, kv_groups=1),
    "QK norm": shaped(qk_norm=True),
    "MHA QK norm": shaped(qk_norm=True, kv_groups=8),
    "window": shaped(sliding_window=32),
    "experts": shaped(experts=4, experts_per_token=2, expert_ffn=64),
    "experts, one shared": shaped(experts=4, experts_per_token=2, expert_ffn=64, shared_expert_ffn=96),
    "GELU experts": shaped(experts=4, experts_per_token=2, expert_ffn=64, activation="gelu"),
}


def role(shape: Any = WIDE, layout: Layout | None = None, **changes: Any) -> Any:
    return toys.role(layout, shape, **({"micro_batch": 2, "global_batch": 8, "precision": "bf16"} | changes))


def assert_predicted(world: Any, roles: list[Any], packed: bool = False, within: float = 0.01) -> None:
    """On every stage, in the mean over its ranks: under EP tokens choose their experts."""
    ranks = world(roles[0].layout.world_size, watched, roles, packed)
    wrong = []
    for number, each in enumerate(roles):
        for stage in range(each.layout.pp):
            seen = [rank[number][1] for rank in ranks if rank[number][0] == stage]
            expected, mean = predicted(each, stage, packed), sum(seen) / len(seen)
            if abs(expected / mean - 1) > within:
                what = f"{each.model.shape.norm} {each.layout} {each.precision} {each.recompute}"
                wrong.append(f"{number}, {what}, stage {stage}: {expected:.0f} predicted, {mean:.0f} kept")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_what_one_process_keeps_is_predicted_for_every_kind_of_layer(world, precision):
    assert_predicted(world, [role(shape, precision=precision) for shape in SHAPES.values()])


TWO = [
    Layout(tp=2),
    Layout(tp=2, sequence_parallel=True),
    Layout(pp=2),
    Layout(pp=2, stage_layers=(1, 3)),
    Layout(pp=2, vp=2),
    Layout(dp=2),
]


@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
def test_what_two_processes_keep_is_predicted(world, recompute):
    roles = [role(layout=layout, recompute=recompute) for layout in TWO]
    one_group = SHAPES["Gemma"]  # which two ranks share
    roles.append(role(one_group, Layout(tp=2, sequence_parallel=True), recompute=recompute))
    roles.append(role(SHAPES["MHA GELU biases"], Layout(tp=2), precision="fp32", recompute=recompute))
    assert_predicted(world, roles)


@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
def test_what_experts_on_two_processes_keep_is_predicted(world, recompute):
    layouts = [
        Layout(dp=2, ep=2),
        Layout(tp=2, sequence_parallel=True, ep=2),
        Layout(tp=2, sequence_parallel=True, etp=2),
        Layout(pp=2),
    ]
    shape = SHAPES["experts, one shared"]
    assert_predicted(world, [role(shape, layout, recompute=recompute) for layout in layouts], within=0.03)


def test_what_four_processes_keep_is_predicted(world):
    layouts = [
        Layout(tp=2, pp=2, sequence_parallel=True),
        Layout(pp=4),
        Layout(tp=2, dp=2, sequence_parallel=True),
    ]
    roles = [role(layout=layout) for layout in layouts]
    assert_predicted(world, roles)
    assert_predicted(world, [role(SHAPES["experts"], Layout(pp=2, dp=2, ep=2))], within=0.03)


def test_what_packed_rows_keep_is_predicted(world):
    shapes = [SHAPES[name] for name in ("GQA SwiGLU", "MHA GELU biases", "experts")]
    assert_predicted(world, [role(shape, micro_batch=1) for shape in shapes], packed=True)
    assert_predicted(world, [role(layout=Layout(tp=2, sequence_parallel=True), micro_batch=1)], packed=True)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_what_a_head_of_numbers_keeps_is_predicted(world, precision):
    changes = {"head": "attributes", "precision": precision}
    layouts = [Layout(), Layout(tp=2, sequence_parallel=True), Layout(pp=2)]
    for layout in layouts:
        assert_predicted(world, [role(layout=layout, **changes)])


PARTS = [("layernorm",), ("mlp",), ("core_attn", "layernorm", "mlp")]
PARTS_OF_EXPERTS = [("moe",), ("shared_experts",), ("layernorm", "moe", "shared_experts")]


@pytest.mark.parametrize("layout", [Layout(), Layout(tp=2, sequence_parallel=True)], ids=str)
def test_what_is_left_when_parts_of_a_layer_are_computed_again_is_predicted(world, layout):
    again = [{"recompute": "selective", "recompute_modules": parts} for parts in PARTS]
    roles = [role(layout=layout, **each) for each in again]
    plain = dataclasses.replace(SHAPES["MHA GELU biases"], linear_bias=False)
    roles += [role(plain, layout, precision="fp32", **each) for each in again]
    assert_predicted(world, roles)
    again = [{"recompute": "selective", "recompute_modules": parts} for parts in PARTS_OF_EXPERTS]
    shape, spread = SHAPES["experts, one shared"], dataclasses.replace(layout, ep=layout.tp)
    assert_predicted(world, [role(shape, spread, **each) for each in again], within=0.03)


@pytest.mark.parametrize("layout", [Layout(), Layout(pp=2), Layout(pp=2, vp=2)], ids=str)
def test_what_is_left_when_some_layers_are_computed_again_is_predicted(world, layout):
    most = 4 // (layout.pp * layout.vp)
    counts = sorted({1, 2, most} & set(range(most + 1)))
    roles = [role(layout=layout, recompute="full", recompute_layers=count) for count in counts]
    assert_predicted(world, roles)
