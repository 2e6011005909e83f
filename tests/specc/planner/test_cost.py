"""Seconds of a step: every part against sums worked by hand, and the laws that any step obeys."""

import dataclasses
import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from specc import models
from specc.plan import Layout, Shape
from specc.planner import cost, hardware, layer_time, targets
from specc.planner.cost import forward_seconds, step_seconds
from specc.planner.step_parts import Part, step_parts
from specc.planner.workload import Workload


def shape(name: str) -> Shape:
    found = models.catalog().get(name) or targets.catalog()[name]
    return found.shape


def card(name: str = "h100-80gb", **other) -> hardware.Gpu:
    found = hardware.gpu(name)
    assert found is not None
    return dataclasses.replace(found, **other)


def work(model: str = "llama3-8b", batch: int = 64, seq: int = 4096, **more) -> Workload:
    more.setdefault("framework", "megatron")
    return Workload(shape(model), seq, batch, **more)


def parts(
    given: Workload, layout: Layout, micro_batch=1, recompute="none", gpu=None, node=8
) -> dict[str, Part]:
    gpu = gpu or card()
    return {part.name: part for part in step_parts(given, layout, micro_batch, recompute, gpu, node)}


def seconds(given: Workload, layout: Layout, micro_batch=1, recompute="none", gpu=None, node=8) -> float:
    return step_seconds(given, layout, micro_batch, recompute, gpu or card(), node)


def tensor(tp: int, **more) -> Layout:
    return Layout(tp=tp, sequence_parallel=tp > 1, **more)


H100 = card()
PRODUCTS = 989e12 * H100.efficiency("bf16")
MEMORY = 3350e9 * layer_time.MEMORY_ACHIEVED
LINK, NIC = 0.8 * 450e9, 0.8 * 50e9
LLAMA_8B = 4096 * 128 * (32 + 16) + 4096 * 4096 + 3 * 4096 * 14336 + 2 * 4096  # a layer's parameters


# --- every part, worked by hand --------------------------------------------------------------------


def test_products_take_six_flops_per_parameter_and_token():
    found = parts(work(), Layout())["products"]
    assert found.seconds == pytest.approx(64 * 32 * 6 * 4096 * LLAMA_8B / PRODUCTS)


def test_tensor_parallelism_divides_products():
    one, four = (parts(work(), tensor(t))["products"].seconds for t in (1, 4))
    assert four == pytest.approx(one / 4)


def test_attention_is_causal_and_computes_its_scores_once_more_backward():
    found = parts(work(), Layout())["attention"]
    forward = 4 * 4096 * 4096 * (4096 / 2)
    assert found.seconds == pytest.approx(64 * 32 * 3.5 * forward / (989e12 * H100.attention_efficiency))


def test_a_window_bounds_what_a_token_looks_at():
    assert layer_time.mean_window(shape("llama3-8b"), 4096) == 2048
    windowed = dataclasses.replace(shape("llama3-8b"), sliding_window=1024)
    by_hand = sum(min(i, 1024) for i in range(16384)) / 16384
    assert layer_time.mean_window(windowed, 16384) == pytest.approx(by_hand, rel=0.001)


def test_memory_moves_what_norms_activations_products_and_gradients_do():
    h, f, kv, t = 4096, 14336, 1024, 4096
    moved = 10 * h + 2 * (h + kv) + 3 * f
    operands = 2 * h + 3 * h + 4 * kv + h + 2 * h + 3 * f
    forward = t * 2 * (moved + layer_time.OPERANDS_EXPOSED * operands)
    weights = layer_time.OPERANDS_EXPOSED * LLAMA_8B * (2 * 2 + 2 * 4)
    found = parts(work(), Layout())["memory"]
    assert found.seconds == pytest.approx(64 * 32 * (3 * forward + weights) / MEMORY)


def test_sequence_parallelism_gathers_and_scatters_four_times_forward():
    found = parts(work(), tensor(4))["tensor parallelism"]
    once = 4 * 2 * 4096 * 4096 * 3 / 4
    assert found.seconds == pytest.approx(64 * 32 * 2 * H100.tp_exposed * once / LINK)


def test_operands_are_gathered_as_narrow_as_they_are():
    wide, narrow = (
        parts(work(precision=p), tensor(4))["tensor parallelism"].seconds for p in ("bf16", "fp8")
    )
    assert narrow == pytest.approx(0.75 * wide)


def test_the_runtime_overlaps_nothing():
    ours, theirs = (parts(work(framework=name), tensor(2, dp=8), 1) for name in ("runtime", "megatron"))
    assert ours["tensor parallelism"].seconds == pytest.approx(
        theirs["tensor parallelism"].seconds / H100.tp_exposed
    )
    reduced = 4 * (32 * (LLAMA_8B + 2 * 4096) / 2 + 128256 / 2 * 4096) * 7 / 8 / NIC / 4  # 4 NICs of a node
    assert ours["gradient reduction"].seconds == pytest.approx(reduced, rel=0.01)
    assert theirs["gradient reduction"].seconds < 0.1 * reduced


def test_tensor_parallelism_across_nodes_goes_over_the_nic():
    inside, across = (parts(work(), tensor(8), node=n)["tensor parallelism"].seconds for n in (8, 4))
    assert across == pytest.approx(inside * 9)


def test_a_rack_of_gb200_is_one_fast_domain():
    rack = card("gb200")
    assert hardware.fast_domain(rack, 4) == 72
    assert "tensor parallelism" in parts(work(), tensor(8), gpu=rack, node=4)


def test_the_ring_hides_behind_long_attention_only():
    def shown(seq: int) -> float:
        """Of the ring's traffic, over NICs: twice as much backward as forward."""
        found = parts(work(seq=seq), Layout(cp=8, dp=2), node=1)["context parallelism"].seconds
        keys = 2 * 2 * seq / 8 * 8 * 128 * 7 / NIC
        return found / (32 * 32 * 3 * keys)

    assert shown(1 << 20) == pytest.approx(layer_time.CP_EXPOSED)
    assert shown(2048) > 0.9


def test_experts_take_what_the_chosen_ones_do_and_small_batches_more():
    given = work("mixtral-8x7b")
    found = parts(given, Layout(ep=8, dp=8))["experts"]
    rows = 4096 * 2 * 8 / 8
    flops = 2 * 4096 * 2 * 3 * 4096 * 14336 * (1 + layer_time.HALF_ROWS / rows)
    assert found.seconds == pytest.approx(8 * 32 * 3 * flops / (PRODUCTS * layer_time.GROUPED))
    few, many = (parts(work("qwen3-30b-a3b", 1024, 4096), Layout(dp=8), size)["experts"] for size in (1, 16))
    assert few.seconds > 1.3 * many.seconds


def test_tokens_are_sent_to_experts_and_back_over_the_link():
    found = parts(work("mixtral-8x7b"), Layout(ep=8, dp=8))["expert parallelism"]
    once = 2 * 2 * 4096 * 2 * 4096 * 7 / 8 / LINK
    assert found.seconds == pytest.approx(8 * 32 * 2 * once)


def test_tokens_go_to_another_node_once():
    """Of 4 nodes 8 copies reach 4 (1 - (3/4)^8), of which one in four is their own."""
    once = layer_time.exchange_seconds(1.0, 32, 8, layer_time.speeds(H100, "bf16"), 8)
    reached = 4 * (1 - 0.75**8)
    assert once == pytest.approx(31 / 32 / LINK + reached / 8 * 3 / 4 / NIC)


def test_a_layer_of_few_tokens_waits_for_its_launches():
    small = work("qwen2.5-0.5b", 64, 64)
    assert parts(small, Layout())["launches"].seconds > 0
    assert "launches" not in parts(work(), Layout())
    least = 64 * 24 * 3 * layer_time.LAUNCH
    assert seconds(small, Layout()) >= least


def test_logits_are_in_16_bits_and_on_the_last_stage():
    found = parts(work(precision="fp8"), Layout())["logits"]
    words = 4096 * 128256
    expected = 64 * words * (6 * 4096 / PRODUCTS + layer_time.LOSS_BYTES / MEMORY)
    assert found.seconds == pytest.approx(expected)
    assert "logits" not in parts(work(head="scalar"), Layout())


def test_full_recomputation_adds_a_forward_pass_and_blocks_their_share():
    none, full = (seconds(work(), Layout(), 1, mode) for mode in ("none", "full"))
    half = seconds(work(recompute_layers=16), Layout(), 1, "full")
    assert half == pytest.approx((none + full) / 2)
    assert 1.2 < full / none < 4 / 3


def test_selective_recomputation_adds_attention_forward():
    found = parts(work(), Layout(), 1, "selective")
    assert found["recomputation"].seconds == pytest.approx(found["attention"].seconds / 3.5)


@pytest.mark.parametrize("vp", [1, 2, 4])
def test_equal_stages_wait_p_less_1_over_v_micro_batches(vp: int):
    given = work(head="scalar")
    found = parts(given, Layout(pp=4, vp=vp))
    assert found["pipeline bubble"].seconds == pytest.approx(
        sum(found[name].seconds for name in ("products", "attention", "memory")) / 64 * 3 / vp
    )


def test_the_slowest_stage_sets_the_pace():
    given = work(head="scalar")
    even, uneven = (seconds(given, Layout(pp=4, stage_layers=s)) for s in ((), (5, 9, 9, 9)))
    assert uneven / even == pytest.approx(9 / 8, rel=0.02)


def test_stages_send_a_hidden_state_forward_and_a_gradient_back():
    given = work(batch=256)
    found = parts(given, Layout(pp=4, dp=8), 2)["sends between stages"]
    assert found.seconds == pytest.approx(16 * 2 * 2 * 4096 * 4096 * 2 / NIC)
    inside = parts(given, Layout(pp=4, dp=1), 2)["sends between stages"]
    assert inside.seconds == pytest.approx(128 * 2 * 2 * 4096 * 4096 * 2 / LINK)


def test_the_last_backward_pass_hides_the_reduction_but_for_a_bucket():
    found = parts(work("llama3-70b", 128), tensor(8, pp=4, dp=4), 1)["gradient reduction"]
    held = {number.symbol: number.value for number in found.numbers}
    assert held["R"] > held["B"] > 0
    assert found.seconds == pytest.approx(max(held["B"], held["R"] - held["H"]))


def test_adam_reads_and_writes_its_states_in_memory_or_over_the_hosts_link():
    given = work("llama3-8b", head="scalar")
    inside = parts(given, Layout(dp=8))["optimizer"].seconds
    held = 32 * LLAMA_8B + 128256 * 4096
    assert inside == pytest.approx((4 * held + (8 + 24 + 2) * held / 8) / MEMORY, rel=1e-3)
    away = parts(dataclasses.replace(given, offload="optimizer"), Layout(dp=8))["optimizer on the host"]
    assert away.seconds == pytest.approx(held / 8 * ((4 + 2) / 50e9 + 28 / cost.HOST_ADAM), rel=1e-3)


def test_a_forward_pass_takes_about_a_third_of_a_step_and_ends_with_it():
    given = work(batch=64)
    once = forward_seconds(given, Layout(dp=8), 1, 64, 4096, H100)
    step = seconds(given, Layout(dp=8))
    assert 0.28 < once / step < 0.35
    forward = dataclasses.replace(given, trains=False)
    assert not {"optimizer", "gradient reduction"} & set(parts(forward, Layout(dp=8)))


def test_rows_that_do_not_fill_a_forward_pass_are_rounded_up():
    one, eight = (forward_seconds(work(), Layout(dp=8), 1, rows, 4096, H100) for rows in (1, 8))
    assert one == eight


def test_multi_token_prediction_is_one_more_layer_and_one_more_head_on_the_last_stage():
    given = work("deepseek-v3", 1024)
    plain, more = (
        seconds(dataclasses.replace(given, mtp_layers=n), Layout(pp=16, ep=8, dp=8), 1) for n in (0, 1)
    )
    assert 1.05 < more / plain < 1.6


# --- laws ------------------------------------------------------------------------------------------

LAYOUTS = st.builds(
    lambda tp, pp, vp, cp, ep, dp: tensor(tp, pp=pp, vp=vp if pp > 1 else 1, cp=cp, ep=ep, dp=dp),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([1, 2]),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([1, 2, 8]),
    st.sampled_from([1, 2, 8, 32]),
)
MODELS = st.sampled_from(["llama3-8b", "qwen2.5-0.5b", "mixtral-8x7b", "deepseek-v2-lite", "nemotron4-15b"])
WORKS = st.builds(
    lambda model, seq, precision, framework, trains, offload, head: work(
        model, 1024, seq, precision=precision, framework=framework, trains=trains, offload=offload, head=head
    ),
    MODELS,
    st.sampled_from([512, 4096, 32768]),
    st.sampled_from(["bf16", "fp8", "fp32"]),
    st.sampled_from(["runtime", "megatron"]),
    st.booleans(),
    st.sampled_from(["none", "optimizer"]),
    st.sampled_from(["language", "scalar"]),
)
MODES = st.sampled_from(["none", "selective", "full"])
CARDS = st.sampled_from(["a100-80gb", "h100-80gb", "gb200", "l40s"])


@given(WORKS, LAYOUTS, st.sampled_from([1, 4]), MODES, CARDS)
def test_parts_add_up_and_each_is_what_its_formula_gives(given, layout, micro_batch, recompute, name):
    whole = seconds(given, layout, micro_batch, recompute, card(name))
    found = step_parts(given, layout, micro_batch, recompute, card(name), 8)
    assert sum(part.seconds for part in found) == pytest.approx(whole, rel=1e-9)
    for part in found:
        numbers = {number.symbol: number.value for number in part.numbers}
        assert eval(part.formula, {"max": max}, numbers) == pytest.approx(part.seconds, rel=1e-9), part
        assert len({number.symbol for number in part.numbers}) == len(part.numbers)
        assert part.name in str(part)


@given(WORKS, LAYOUTS, MODES, CARDS, st.sampled_from(["hbm", "link", "nic", "host"]))
def test_more_bandwidth_is_never_slower(given, layout, recompute, name, which):
    slow = card(name)
    field = f"{which}_gb_per_s"
    fast = dataclasses.replace(slow, **{field: 2 * getattr(slow, field)})
    assert seconds(given, layout, 1, recompute, fast) <= seconds(given, layout, 1, recompute, slow) * (
        1 + 1e-12
    )


@given(WORKS, LAYOUTS, CARDS)
def test_recomputing_more_is_never_faster(given, layout, name):
    modes = [seconds(given, layout, 1, mode, card(name)) for mode in ("none", "selective", "full")]
    assert modes[0] <= modes[1] <= modes[2] * (1 + 1e-12)
    blocks = [
        seconds(dataclasses.replace(given, recompute_layers=k), layout, 1, "full", card(name))
        for k in (1, 2, 3)
    ]
    assert modes[0] <= blocks[0] <= blocks[1] <= blocks[2] <= modes[2] * (1 + 1e-12)


@given(WORKS, LAYOUTS, MODES)
def test_more_micro_batches_amortise_the_bubble_and_the_end_of_the_step(given, layout, recompute):
    twice = dataclasses.replace(given, global_batch=2 * given.global_batch)
    assert seconds(twice, layout, 1, recompute) <= 2 * seconds(given, layout, 1, recompute) * (1 + 1e-12)


@given(WORKS, LAYOUTS, st.sampled_from([1, 2, 4]))
def test_a_larger_micro_batch_never_takes_more_of_a_row(given, layout, size):
    small, large = (
        cost.micro_batch_time(given, layout, each, "none", H100, 8).layer.total / each
        for each in (size, 2 * size)
    )
    assert large <= small * (1 + 1e-12)


@given(WORKS, LAYOUTS)
def test_longer_rows_take_longer(given, layout):
    longer = dataclasses.replace(given, seq_length=2 * given.seq_length)
    assert seconds(longer, layout) >= seconds(given, layout)


@given(WORKS, LAYOUTS)
@settings(max_examples=settings().max_examples * 3 // 10)
def test_what_is_remembered_is_what_is_worked_out_anew(given, layout):
    first = seconds(given, layout, 1, "none")
    same = dataclasses.replace(given)
    cost.forget()
    assert seconds(same, layout, 1, "none") == first
    assume(given.seq_length > 512)
    other = dataclasses.replace(given, seq_length=512)
    assert math.isfinite(seconds(other, layout, 1, "none"))
    assert seconds(other, layout, 1, "none") != first
