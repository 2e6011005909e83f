"""Leaving prompts and padding out of the vocabulary's product changes no number that counts."""

import dataclasses

import pytest
import toys

from specc.plan import Layout

pytestmark = pytest.mark.torch


def test_where_nothing_is_learnt_one_column_is_wanted_and_where_nearly_all_is_every_one():
    import torch

    from runtime.wanted import put_back, wanted

    mask_BT = torch.tensor([[0.0, 1, 0, 1], [0, 0, 1, 0]])
    found = wanted(mask_BT)
    assert found is not None
    assert found.tolist() == [2, 5, 6]
    numbers = put_back(torch.tensor([[1.0, 2, 3]]), found, mask_BT.shape)
    assert numbers.tolist() == [[0, 1, 0, 3], [0, 0, 2, 0]]
    assert wanted(torch.zeros(2, 4)).tolist() == [0]  # type: ignore[union-attr]
    assert wanted(torch.ones(2, 4)) is None


@pytest.mark.parametrize(("prompt", "picked"), [(2, False), (9, True), (31, True)])
def test_what_does_not_count_is_0_whether_rows_were_picked_or_not(world, prompt, picked):
    """Two passes may share a row and not the other rows of its microbatch."""
    from runtime.batch import Sample

    row = Sample(0, list(range(31)), [0] * prompt + [1] * (31 - prompt))
    [(output, mask_BT, was_picked)] = world(1, said, toys.role(), [row])
    assert was_picked == picked
    assert mask_BT.sum() == 31 - prompt
    assert not output[mask_BT == 0].any()
    assert output[mask_BT > 0].all()


def said(role, rows):
    """Log-probabilities of a microbatch, its mask, and whether rows of it were picked."""
    from runtime import cpu, engine, parallel
    from runtime.wanted import wanted

    cpu.install()
    model = engine.Engine(role, parallel.start(role.layout, "gloo", "cpu", timeout_seconds=60))
    [batch] = toys.microbatches(role, 0, rows)
    return model.forward([batch])[0], batch.mask_BT, wanted(batch.mask_BT) is not None


def learnt(role, packed, picks):
    """Log-probabilities, sums, gradients and the size of the logits of a step with entropies."""
    from runtime import cpu, engine, parallel

    cpu.install()
    if not picks:
        engine.wanted = lambda mask_BT: None
    here = parallel.start(role.layout, "gloo", "cpu", timeout_seconds=60)
    model = engine.Engine(role, here, engine.OptimizerSettings())
    batches = toys.microbatches(role, here.dp_rank, toys.samples(), packed)
    seen = []
    if here.is_last_stage:
        model.chunks[-1].output_layer.register_forward_hook(lambda _, __, out: seen.append(out[0].numel()))

    def loss(both, batch):
        told = (both * batch.mask_BT[..., None]).sum((0, 1))
        return -told[0] / 100 - told[1] / 300, {"entropy": told[1]}

    logprobs = model.forward(batches)
    logprobs = [out * (batch.mask_BT > 0) for out, batch in zip(logprobs, batches, strict=True)]
    sums = model.forward_backward(batches, loss, entropy=True)
    gradients = {shard.name: gradient.clone() for shard, gradient in model.named_gradients()}
    return logprobs, sums, gradients, sum(seen)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "layout", [Layout(), Layout(tp=2), Layout(tp=2, sequence_parallel=True), Layout(pp=2)], ids=str
)
def test_picked_rows_give_the_same_numbers_and_gradients(world, layout, packed):
    import torch

    role = toys.role(layout, toys.shape(tied=True), micro_batch=4)
    for picked, all_rows in zip(
        world(layout.world_size, learnt, role, packed, True),
        world(layout.world_size, learnt, role, packed, False),
        strict=True,
    ):
        for found, expected in zip(picked[0], all_rows[0], strict=True):
            assert torch.allclose(found, expected, rtol=0, atol=2e-6)
        assert picked[1] == pytest.approx(all_rows[1], rel=1e-6)
        for name, expected in all_rows[2].items():
            assert (picked[2][name] - expected).norm() <= 1e-5 * expected.norm(), name
        assert picked[3] < 0.8 * all_rows[3] or not all_rows[3]


def test_tokens_out_of_reach_stay_so_in_the_rows_that_are_picked(world):
    import torch

    role = toys.role(micro_batch=4)

    def told(picks):
        return world(1, unreachable, role, picks)[0]

    assert torch.allclose(told(True), told(False), rtol=0, atol=2e-6)


def unreachable(role, picks):
    from runtime import cpu, engine, parallel

    cpu.install()
    if not picks:
        engine.wanted = lambda mask_BT: None
    model = engine.Engine(role, parallel.start(role.layout, "gloo", "cpu", timeout_seconds=60))
    model.stops = (3, 7)
    rows = [
        dataclasses.replace(row, extra={"early": [i % 2 for i in range(row.columns)]})
        for row in toys.samples(4)
    ]
    [batch] = toys.microbatches(role, 0, rows)
    return model.forward([batch])[0] * (batch.mask_BT > 0)
