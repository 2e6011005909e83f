"""The memory model against published numbers, and its laws."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specc import models
from specc.plan import Layout, Shape
from specc.planner import hardware, memory, targets
from specc.planner.memory import Workload
from specc.planner.shapes import StageParameters, balanced, parameters, stage_parameters


def gpt(layers: int, hidden: int, heads: int) -> Shape:
    return Shape(
        "gpt",
        layers,
        hidden,
        4 * hidden,
        heads,
        heads,
        hidden // heads,
        51200,
        2048,
        "layernorm",
        1e-5,
        "gelu",
        "learned",
    )


# 2205.05198, table 3 and figure 1: shape, tp, pp, vp, micro-batch, GiB whole, GiB with SP and selective
PAPER = [
    (gpt(48, 6144, 64), 8, 1, 1, 4, 59.25, 9.56),
    (gpt(96, 12288, 96), 8, 8, 3, 1, 66.84, 12.35),
    (gpt(105, 20480, 128), 8, 35, 3, 1, 114.02, 23.08),
    (gpt(128, 25600, 160), 8, 64, 1, 1, 131.25, 26.56),
]


@pytest.mark.parametrize(("shape", "tp", "pp", "vp", "micro_batch", "whole", "selective"), PAPER)
def test_activations_are_those_of_2205_05198(shape, tp, pp, vp, micro_batch, whole, selective):
    work = Workload(shape, 2048, micro_batch * pp * vp * 8, dropout=True, flash=False)

    def first_stage(sequence_parallel: bool, recompute: str) -> float:
        layout = Layout(tp, pp, vp, sequence_parallel=sequence_parallel)
        kept = memory.layer_activations(work, layout, micro_batch, recompute)
        per_chunk = shape.layers / (pp * vp)
        chunks = pp * vp + pp - 1 if vp > 1 else pp  # the paper's factor 1 + (p - 1) / (p v)
        return kept * per_chunk * chunks / memory.GIB

    assert first_stage(False, "none") == pytest.approx(whole, abs=0.01)
    assert first_stage(True, "selective") == pytest.approx(selective, abs=0.01)


@pytest.mark.parametrize("vp", [2, 3, 5])
def test_the_first_stage_of_an_interleaved_pipeline_holds_the_papers_factor(vp: int):
    layout = Layout(pp=4, vp=vp)
    held = memory.in_flight(layout, 0, micro_batches=64)
    assert held == 4 * vp + 4 - 1  # p v + p - 1 chunks: 1 + (p - 1) / (p v) of all layers


def test_1f1b_holds_one_micro_batch_less_per_stage_and_never_more_than_there_are():
    assert [memory.in_flight(Layout(pp=4), stage, 64) for stage in range(4)] == [4, 3, 2, 1]
    assert [memory.in_flight(Layout(pp=4), stage, 2) for stage in range(4)] == [2, 2, 2, 1]


@given(st.integers(1, 8), st.integers(1, 6), st.integers(0, 99))
def test_micro_batches_in_flight_are_dealt_to_chunks_in_rounds(pp: int, vp: int, turns: int):
    dealt = memory.turns_of_chunks(pp, vp, turns)
    one_by_one = [0] * vp
    for turn in range(turns):
        one_by_one[turn // pp % vp] += 1
    assert dealt == tuple(one_by_one)


def test_the_state_of_llama31_8b_on_8_gpus_is_the_logged_one():
    """A published run with bf16 gradients logs 44.27 GB; 4 + 12/8 bytes per parameter give 44.17."""
    shape = models.catalog()["llama3.1-8b"].shape
    work = Workload(shape, 4096, 128, gradient_bytes=2)
    state = sum(memory.model_state(work, Layout(dp=8), stage_parameters(shape, Layout(), 0)))
    assert state / 1e9 == pytest.approx(44.17, abs=0.01)
    assert state / 1e9 == pytest.approx(44.27, rel=0.003)


def test_bytes_per_parameter_are_those_of_the_distributed_optimizer():
    held, eight = StageParameters(dense=1000, experts=0), Layout(dp=8)
    base = Workload(models.catalog()["tiny-llama"].shape, 64, 8)
    per = lambda work: sum(memory.model_state(work, eight, held)) / 1000  # noqa: E731
    assert per(base) == 6 + 12 / 8
    assert per(dataclasses.replace(base, gradient_bytes=2)) == 4 + 12 / 8
    assert per(dataclasses.replace(base, distributed_optimizer=False)) == 18
    assert per(dataclasses.replace(base, precision="fp32")) == 8 + 8 / 8
    assert per(dataclasses.replace(base, precision="fp32", distributed_optimizer=False)) == 16
    assert per(dataclasses.replace(base, trains=False)) == 2


def test_bytes_per_parameter_of_adam_that_keeps_less():
    """Precision-aware Adam, its master as what bf16 cuts off, its moments in the host, and several copies."""
    held, eight = StageParameters(dense=1000, experts=0), Layout(dp=8)
    base = Workload(models.catalog()["tiny-llama"].shape, 64, 8, gradient_bytes=2)

    def per(**changes: object) -> float:
        return sum(memory.model_state(dataclasses.replace(base, **changes), eight, held)) / 1000  # type: ignore[arg-type]

    assert per(moment_bytes=4) == 4 + 8 / 8
    assert per(moment_bytes=4, master_bytes=2) == 4 + 6 / 8
    assert per(moment_bytes=2, master_bytes=2) == 4 + 4 / 8
    assert per(offload="optimizer", offload_fraction=0.5) == 4 + 8 / 8
    assert per(optimizer_instances=2) == 4 + 12 / 4
    assert per(optimizer_instances=8) == per(distributed_optimizer=False) == 16
    assert per(precision="fp8", narrow_weights=True) == 3 + 12 / 8


def test_the_state_of_experts_is_shared_by_the_ranks_that_hold_the_same_ones():
    layout = Layout(tp=2, ep=4, dp=8, sequence_parallel=True)
    assert memory.expert_shard_group(layout) == 4
    held = StageParameters(dense=0, experts=1000)
    state = memory.model_state(Workload(models.catalog()["mixtral-8x7b"].shape, 64, 8), layout, held)
    assert sum(state) / 1000 == 6 + 12 / 4


def state_gb(name: str, layout: Layout, **work: object) -> float:
    """GB of weights, gradients and optimizer state of the fullest stage."""
    shape = models.catalog()[name].shape
    asked = Workload(shape, 4096, 128, **work)  # type: ignore[arg-type]
    stages = [stage_parameters(shape, layout, stage) for stage in range(layout.pp)]
    return max(sum(memory.model_state(asked, layout, held)) for held in stages) / 1e9


def test_the_state_of_nemotron4_15b_on_64_gpus_is_near_the_logged_34_47_gb():
    layout = Layout(tp=2, dp=32, sequence_parallel=True)
    assert state_gb("nemotron4-15b", layout, gradient_bytes=2) == pytest.approx(34.47, rel=0.01)


QWEN3_30B = Layout(tp=2, pp=2, ep=4, dp=4, sequence_parallel=True)  # a published run on 16 GPUs


def test_the_state_of_qwen3_30b_is_near_the_logged_47_2_gb():
    assert state_gb("qwen3-30b-a3b", QWEN3_30B) == pytest.approx(47.2, rel=0.005)


def test_offloading_the_optimizer_frees_the_15_3_gb_that_were_measured():
    """Two moments leave the GPU, the fp32 master stays: 8/D bytes per parameter."""
    whole = state_gb("qwen3-30b-a3b", QWEN3_30B)
    assert whole - state_gb("qwen3-30b-a3b", QWEN3_30B, offload="optimizer") == pytest.approx(15.3, rel=0.003)


# Megatron-LM's own functional tests log the last rank's `mem-max-allocated-bytes` on 8 H100s; a GPT of
# 7B parameters with 8 key-value groups, biases, dropout, fp32 gradients, no sequence parallelism
GPT_7B = dataclasses.replace(
    gpt(32, 4096, 32), kv_groups=8, vocab=131073, max_positions=8192, linear_bias=True
)
MEGATRON_7B = [(Layout(tp=1, pp=4, vp=8, dp=2), 1, 60518293504), (Layout(tp=4, dp=2), 2, 57143791616)]


@pytest.mark.parametrize(("layout", "micro_batch", "logged"), MEGATRON_7B)
def test_the_last_stage_of_a_7b_gpt_peaks_where_megatron_logs_it(layout, micro_batch, logged):
    work = Workload(GPT_7B, 8192, 8, dropout=True, framework="megatron", phase="pretrain")
    found = memory.stage_peak(work, layout, micro_batch, "none", layout.pp - 1)
    assert found.allocated == pytest.approx(logged, rel=0.01)


@pytest.mark.parametrize(
    ("name", "bytes_per_token"),
    [
        ("llama3-8b", 131e3),
        ("llama3-70b", 328e3),
        ("llama3.1-405b", 516e3),
        ("llama2-7b", 524e3),
        ("qwen3-30b-a3b", 98e3),
    ],
)
def test_the_cache_of_a_token_has_its_known_size(name: str, bytes_per_token: float):
    shape = models.catalog()[name].shape
    work = Workload(shape, 1000, 1, trains=False, phase="generate")
    assert memory.cache_bytes(work, Layout(), 1, shape.layers) / 1000 == pytest.approx(
        bytes_per_token, rel=0.005
    )


def test_more_tensor_parallelism_than_key_value_groups_saves_no_cache():
    shape = models.catalog()["qwen3-30b-a3b"].shape  # 4 groups
    work = Workload(shape, 1000, 1, trains=False, phase="generate")
    sizes = [memory.cache_bytes(work, Layout(tp=tp), 1, shape.layers) for tp in (2, 4, 8)]
    assert sizes[0] == 2 * sizes[1] == 2 * sizes[2]


def test_bytes_per_parameter_of_other_precisions():
    held, eight = StageParameters(dense=1000, experts=0), Layout(dp=8)
    base = Workload(models.catalog()["tiny-llama"].shape, 64, 8, precision="fp16", gradient_bytes=2)
    per = lambda work: sum(memory.model_state(work, eight, held)) / 1000  # noqa: E731
    assert per(base) == 4 + 16 / 8  # loss scaling keeps an fp32 copy of the gradient beside the master
    assert per(dataclasses.replace(base, distributed_optimizer=False)) == 20
    assert per(dataclasses.replace(base, precision="fp8")) == 4 + 12 / 8
    assert per(dataclasses.replace(base, precision="bf16", offload="optimizer")) == 4 + 4 / 8


def test_fp8_keeps_an_eighth_to_a_fifth_less_of_a_dense_layer():
    shape = models.catalog()["llama3-70b"].shape
    layout = Layout(tp=4, sequence_parallel=True)
    bf16, fp8 = (
        memory.layer_activations(Workload(shape, 4096, 1, precision=p), layout, 1) for p in ("bf16", "fp8")
    )
    assert 0.80 <= fp8 / bf16 <= 0.87


def test_our_own_loss_keeps_one_copy_of_the_logits_and_megatrons_an_fp32_softmax_too():
    shape = models.catalog()["llama3-8b"].shape
    logits = 4096 * 128256
    sizes = {
        f: memory.logit_bytes(Workload(shape, 4096, 8, framework=f), Layout(), 1)
        for f in ("runtime", "megatron")
    }
    assert sizes == {"runtime": 2 * logits, "megatron": 6 * logits}


def test_the_worst_rank_of_a_pipeline_is_named():
    work = Workload(models.catalog()["llama3-70b"].shape, 4096, 128)
    layout = Layout(tp=8, pp=4, dp=2, sequence_parallel=True)
    found = memory.role_memory(work, layout, 1, "none", hardware.gpu("h100-80gb"))  # type: ignore[arg-type]
    assert found.worst_rank in (0, 16, 32, 48)
    assert found.total_gib == pytest.approx(sum(found.parts.values()), abs=0.01)
    assert found.capacity_gib == 79.1


def test_a_reward_head_needs_no_logits():
    work = Workload(models.catalog()["llama3-8b"].shape, 4096, 128, head="scalar")
    assert memory.logit_bytes(work, Layout(), 1) == 0


def test_the_cpu_is_not_judged():
    work = Workload(models.catalog()["tiny-llama"].shape, 64, 8, implementation="local", precision="fp32")
    found = memory.role_memory(work, Layout(dp=2), 1, "none", hardware.gpu("cpu"))  # type: ignore[arg-type]
    assert found.oom_probability == 0
    assert found.parts["outside"] == 0


@pytest.mark.parametrize(("share", "probability"), [(0.5, 0), (0.86, 0), (0.915, 0.5), (0.97, 1), (1.2, 1)])
def test_the_probability_rises_between_86_and_97_percent(share: float, probability: float):
    assert memory.oom_probability(share * 80, 80) == pytest.approx(probability, abs=0.001)


NAMES = st.sampled_from(["llama3-8b", "qwen2.5-7b", "mixtral-8x7b", "gemma-2b", "qwen3-30b-a3b"])


@given(
    NAMES,
    st.sampled_from([1, 2, 4]),
    st.integers(1, 6),
    st.sampled_from([1, 2]),
    st.sampled_from(["none", "full"]),
)
def test_a_longer_row_or_a_larger_micro_batch_never_takes_less(name, tp, pp, dp, recompute):
    shape = models.catalog()[name].shape
    layout = Layout(tp, pp, dp=dp, sequence_parallel=tp > 1)
    size = lambda seq, mb: memory.peak(Workload(shape, seq, 64), layout, mb, recompute).total  # noqa: E731
    assert size(1024, 1) <= size(2048, 1) <= size(4096, 1)
    assert size(2048, 1) <= size(2048, 2) <= size(2048, 4)


@given(
    NAMES,
    st.sampled_from([1, 2, 4]),
    st.integers(1, 9),
    st.integers(1, 64),
    st.sampled_from(["none", "full"]),
)
def test_the_peak_is_that_of_the_worst_stage(name, tp, pp, micro_batches, recompute):
    """`peak` leaves out stages that cannot be the worst; here every stage is asked."""
    shape = models.catalog()[name].shape
    counts = balanced(shape.layers, pp)
    layout = Layout(tp, pp, sequence_parallel=tp > 1, stage_layers=counts)
    work = Workload(shape, 2048, micro_batches)
    stages = [memory.stage_peak(work, layout, 1, recompute, stage).total for stage in range(pp)]
    assert memory.peak(work, layout, 1, recompute).total == max(stages)


UNEVEN = [
    ("llama3.1-405b", Layout(8, 4, 8, sequence_parallel=True)),
    ("llama3.1-405b", Layout(8, 16, sequence_parallel=True)),
    ("qwen3-30b-a3b", Layout(2, 5, 2, ep=2, dp=2, sequence_parallel=True)),
    ("deepseek-v3", Layout(2, 16, ep=16, dp=16, sequence_parallel=True)),
    ("deepseek-v3", Layout(1, 4, 4, ep=16, dp=16)),
    ("deepseek-v3", Layout(1, 4, ep=8, dp=8, stage_layers=(14, 16, 16, 15))),
]


def shape_of(name: str) -> Shape:
    return models.catalog()[name].shape if name in models.catalog() else targets.catalog()[name].shape


@pytest.mark.parametrize("recompute", ["none", "full"])
@pytest.mark.parametrize(("name", "layout"), UNEVEN)
def test_so_it_is_where_chunks_are_uneven_or_some_layers_have_no_experts(name, layout, recompute):
    shape = shape_of(name)
    work = Workload(shape, 4096, 1024, mtp_layers=getattr(shape, "mtp_layers", 0))
    stages = [memory.stage_peak(work, layout, 1, recompute, stage).total for stage in range(layout.pp)]
    assert memory.peak(work, layout, 1, recompute).total == max(stages)


@given(
    st.sampled_from(["llama3-8b", "mixtral-8x7b", "deepseek-v3"]),
    st.sampled_from([1, 2, 4]),
    st.integers(1, 9),
    st.integers(1, 4),
)
def test_recomputing_more_never_holds_more_than_one_layers_input(name, tp, pp, micro_batch):
    work, layout = Workload(shape_of(name), 2048, 64), Layout(tp, pp, sequence_parallel=tp > 1)
    layer = {mode: memory.layer_activations(work, layout, micro_batch, mode) for mode in RECOMPUTE}
    assert layer["full"] <= layer["selective"] <= layer["none"]
    peaks = {mode: memory.peak(work, layout, micro_batch, mode).allocated for mode in RECOMPUTE}
    assert peaks["selective"] <= peaks["none"] * (1 + 1e-9)
    assert peaks["full"] <= peaks["none"] + layer["full"]


RECOMPUTE = ("none", "selective", "full")


def test_layers_that_predict_further_ahead_lie_on_the_last_stage_with_logits_of_their_own():
    shape, layout = shape_of("deepseek-v3"), Layout(2, 16, ep=16, dp=16, sequence_parallel=True)
    without, with_one = (
        dict(memory.stage_peak(Workload(shape, 4096, 1024, mtp_layers=n), layout, 1, "none", 15).parts)
        for n in (0, 1)
    )
    assert with_one["logits"] == 2 * without["logits"]
    assert all(with_one[part] > without[part] for part in ("weights", "gradients", "activations"))
    first = [
        memory.stage_peak(
            Workload(shape, 4096, 1024, mtp_layers=n),
            dataclasses.replace(layout, stage_layers=STAGES),
            1,
            "none",
            0,
        )
        for n in (0, 1)
    ]
    assert first[0] == first[1]


STAGES = (3, *[4] * 14, 2)


def test_parameters_and_state_agree_on_one_gpu():
    shape = models.catalog()["llama2-7b"].shape
    weights, _, _ = memory.model_state(Workload(shape, 1, 1), Layout(), stage_parameters(shape, Layout(), 0))
    assert weights == 2 * parameters(shape)
