"""The engine on one process: losses, steps, decoding, and what it refuses."""

import dataclasses

import pytest
import toys

from specc.plan import Layout

pytestmark = pytest.mark.torch


def engine_of(role, train=True):
    from runtime import cpu, parallel
    from runtime.engine import Engine, OptimizerSettings

    cpu.install()
    here = parallel.start(role.layout, "gloo", "cpu", timeout_seconds=60)
    return Engine(role, here, OptimizerSettings() if train else None)


def test_the_loss_falls_when_the_same_batch_comes_again(world):
    [(losses, norms, _)] = world(1, toys.trained, toys.role(), 5, repeat=True)
    assert losses == sorted(losses, reverse=True)
    assert all(norm > 0 for norm in norms)


def evaluated(role):
    from runtime import batch

    engine = engine_of(role)
    rows = toys.samples(8)
    microbatches = toys.microbatches(role, engine.parallel.dp_rank, rows)
    loss = toys.sft_loss(batch.trained_tokens([rows]))
    return engine.evaluate(microbatches, loss), engine.forward_backward(microbatches, loss)


@pytest.mark.parametrize("layout", [Layout(), Layout(tp=2), Layout(pp=2), Layout(dp=2)], ids=str)
def test_every_rank_is_told_the_same_and_evaluation_agrees_with_training(world, layout):
    answers = world(layout.world_size, evaluated, toys.role(layout))
    assert all(answer == answers[0] for answer in answers)
    assert answers[0][0] == pytest.approx(answers[0][1], rel=1e-6)


def outputs(role, of):
    engine = engine_of(role, train=False)
    microbatches = toys.microbatches(role, engine.parallel.dp_rank, toys.samples(4))
    return engine.forward(microbatches, of)


@pytest.mark.parametrize(
    "layout", [Layout(tp=2, sequence_parallel=True), Layout(pp=2), Layout(pp=2, vp=2)], ids=str
)
@pytest.mark.parametrize("of", ["logprobs", "logits"])
def test_the_forward_pass_gives_every_rank_the_whole_output(world, layout, of):
    import torch

    [alone] = world(1, outputs, toys.role(micro_batch=2), of)
    for rank in world(2, outputs, toys.role(layout, micro_batch=2), of):
        for expected, found in zip(alone, rank, strict=True):
            columns = min(expected.size(1), found.size(1))  # lines are padded to a multiple of 2 * TP
            assert torch.allclose(expected[:, :columns], found[:, :columns], rtol=0, atol=2e-5)


def test_log_probabilities_are_those_of_the_logits(world):
    import torch

    role = toys.role(micro_batch=4)
    [logprobs], [logits] = world(1, outputs, role, "logprobs")[0], world(1, outputs, role, "logits")[0]
    [batch] = toys.microbatches(role, 0, toys.samples(4))
    expected = logits.log_softmax(-1).gather(-1, batch.labels_BT[..., None]).squeeze(-1)
    assert logits.shape[-1] == toys.SHAPE.vocab
    assert torch.allclose(logprobs, expected * (batch.mask_BT > 0), rtol=0, atol=1e-5)


def with_head(role):
    """Train a head on the sum of its values; the loss, and the gradient of the head's weight."""
    engine = engine_of(role)
    microbatches = toys.microbatches(role, engine.parallel.dp_rank, toys.samples(4))
    values = engine.forward(microbatches, "values")
    metrics = engine.forward_backward(
        microbatches, lambda values, batch: ((values * batch.mask_BT[..., None]).sum() / 100, {})
    )
    gradients = {shard.name: gradient.clone() for shard, gradient in engine.named_gradients()}
    return values[0], metrics["loss"], gradients


@pytest.mark.parametrize(
    "layout",
    [Layout(tp=2), Layout(tp=2, sequence_parallel=True), Layout(pp=2), Layout(dp=2)],
    ids=str,
)
def test_a_head_of_numbers_is_the_same_under_every_layout(world, layout):
    import torch

    def role(layout):
        base = toys.role(layout, toys.shape(tied=True), micro_batch=2)
        model = dataclasses.replace(base.model, head="attributes", attributes=("helpful", "verbose"))
        return dataclasses.replace(base, model=model)

    [(values, loss, gradients)] = world(1, with_head, role(Layout()))
    assert values.shape[-1] == 2
    for rank_values, rank_loss, rank_gradients in world(2, with_head, role(layout)):
        assert rank_loss == pytest.approx(loss, rel=1e-5)
        if layout.dp == 1:
            columns = min(values.size(1), rank_values.size(1))
            assert torch.allclose(rank_values[:, :columns], values[:, :columns], rtol=0, atol=1e-5)
        for name in {"output_layer.weight", "decoder.final_layernorm.weight"} & set(rank_gradients):
            assert torch.allclose(rank_gradients[name], gradients[name], rtol=1e-4, atol=1e-6)


def decoded(role, prompt):
    """Logits from the end of the prompt on: from the whole sequence, and with a KV cache token by token."""
    import torch
    from megatron.core.inference.contexts import StaticInferenceContext

    engine = engine_of(role, train=False)
    [chunk] = engine.chunks
    chunk.eval()
    tokens = torch.randint(0, 250, (2, 12), generator=torch.Generator().manual_seed(0))
    positions = torch.arange(12).expand(2, 12)
    context = StaticInferenceContext(max_batch_size=2, max_sequence_length=16)
    steps, start = [], 0
    with torch.no_grad():
        whole = chunk(tokens, positions, None, runtime_gather_output=True)
        for end in [prompt, *range(prompt + 1, 13)]:
            steps.append(
                chunk(
                    tokens[:, start:end],
                    positions[:, start:end],
                    None,
                    inference_context=context,
                    runtime_gather_output=True,
                )
            )
            context.sequence_len_offset += end - start
            start = end
    return whole[:, prompt - 1 :], torch.cat(steps, dim=1)


@pytest.mark.parametrize("layout", [Layout(), Layout(tp=2)], ids=str)
@pytest.mark.parametrize("window", [0, 5])
def test_decoding_with_a_cache_equals_the_whole_forward_pass(world, layout, window):
    import torch

    role = toys.role(layout, toys.shape(sliding_window=window, qk_norm=True))
    for whole, stepwise in world(layout.world_size, decoded, role, 7):
        assert torch.allclose(whole, stepwise, rtol=0, atol=1e-5)


def stepped_on_nothing(role):
    engine = engine_of(role)
    microbatches = toys.microbatches(role, 0, toys.samples(2))
    engine.forward_backward(microbatches, lambda logprobs, batch: (logprobs.sum() * float("nan"), {}))
    before = [p.detach().clone() for p in engine.chunks[0].parameters()]
    try:
        engine.optim_step(1e-3)
    except RuntimeError as error:
        unchanged = all(p.equal(q) for p, q in zip(before, engine.chunks[0].parameters(), strict=True))
        return str(error), unchanged
    return "", False


def test_a_gradient_that_is_not_finite_is_refused_and_updates_nothing(world):
    [(message, unchanged)] = world(1, stepped_on_nothing, toys.role())
    assert "gradient norm is nan at step 1" in message
    assert unchanged


def weights_after_a_step(role, lr):
    engine = engine_of(role)
    before = {shard: p.detach().clone() for shard, p in _parameters(engine)}
    loss = lambda logprobs, batch: (logprobs.sum() * 0, {})  # noqa: E731 - no gradient, only decay
    engine.forward_backward(toys.microbatches(role, 0, toys.samples(2)), loss)
    engine.optim_step(lr)
    return [(shard.name, before[shard], p.detach().clone()) for shard, p in _parameters(engine)]


def _parameters(engine):
    from runtime.shards import shards

    return [pair for chunk in engine.chunks for pair in shards(chunk)]


def test_matrices_decay_and_norms_and_biases_do_not(world):
    import torch

    [weights] = world(1, weights_after_a_step, toys.role(shape=toys.shape(linear_bias=True)), 0.5)
    for _, before, after in weights:
        decay = 1 - 0.5 * 0.01 if before.dim() > 1 else 1.0
        assert torch.allclose(after, before * decay, rtol=1e-6, atol=0)


@pytest.mark.parametrize("distributed", [False, True])
def test_a_learning_rate_of_zero_leaves_every_weight_as_it_was(world, distributed):
    role = toys.role(precision="bf16", distributed_optimizer=distributed)
    [weights] = world(1, weights_after_a_step, role, 0.0)
    assert all(before.equal(after) for _, before, after in weights)


def trained_without_an_optimizer(role):
    engine = engine_of(role, train=False)
    return engine.forward_backward(toys.microbatches(role, 0, toys.samples(2)), toys.sft_loss(1))


def test_a_model_without_an_optimizer_cannot_train(world):
    with pytest.raises(AssertionError, match="role `model` was built without an optimizer"):
        world(1, trained_without_an_optimizer, toys.role())
