"""The bytes of real buffers against those that the search reckons with: the same but for padding."""

import dataclasses
import math

from hypothesis import given
from hypothesis import strategies as st

from specc import models
from specc.plan import Layout
from specc.planner import buffers, memory
from specc.planner.buffers import Parameter, Place
from specc.planner.shapes import stage_parameters
from specc.planner.workload import Workload

NAMES = ["llama3-8b", "llama3.2-1b", "qwen3-0.6b", "gemma-2b", "nemotron3-8b", "tiny-gpt", "gpt2"]
SHAPES = [entry.shape for name, entry in models.catalog().items() if name in NAMES]
SIZES = st.sampled_from([1, 2, 4])


@given(st.sampled_from(SHAPES), SIZES, SIZES, st.sampled_from([1, 2, 3, 8]), st.booleans(), st.booleans())
def test_bytes_per_parameter_lack_nothing_but_padding(shape, tp, pp, dp, distributed, fp32):
    layout = Layout(tp=tp, pp=pp, dp=dp)
    precision = "fp32" if fp32 else "bf16"
    work = Workload(shape, 64, 8, precision=precision, distributed_optimizer=distributed)
    for stage in range(pp):
        counted = memory.model_state(work, layout, stage_parameters(shape, layout, stage))
        ranks = [buffers.state(work, layout, Place(stage, rank)) for rank in range(dp)]
        parameters = sum(1 for _ in buffers.chunk_parameters(shape, layout, stage))
        padding = 4 * (buffers.ALIGNED * parameters + 2 * math.lcm(dp, buffers.BUCKET)) * distributed
        for state in ranks:
            assert 0 <= state.weights - counted[0] <= padding
            assert 0 <= state.gradients - counted[1] <= padding
        assert sum(state.optimizer for state in ranks) == round(counted[2] * dp)


@given(
    st.lists(st.builds(Parameter, st.integers(1, 500), own_bucket=st.booleans()), min_size=1),
    st.integers(1, 9),
)
def test_buckets_follow_each_other_and_hold_every_parameter_once(held, size):
    laid = buffers.laid_out(held, size)
    assert [start for start, _, _ in laid] == [0, *(end for _, end, _ in laid[:-1])]
    assert all((end - start) % math.lcm(size, buffers.BUCKET) == 0 for start, end, _ in laid)
    counts = [stop - begin for _, _, inside in laid for begin, stop in inside]
    assert counts == [parameter.count for parameter in reversed(held)]
    assert all(begin % buffers.ALIGNED == 0 for _, _, inside in laid for begin, _ in inside)


def test_what_is_frozen_has_weights_only():
    work = Workload(SHAPES[0], 64, 8, trains=False)
    state = buffers.state(work, Layout(), Place())
    assert (state.gradients, state.optimizer) == (0, 0)
    trained = buffers.state(
        dataclasses.replace(work, trains=True, distributed_optimizer=False), Layout(), Place()
    )
    assert state.weights == trained.weights
