"""Models built from a role: sizes, names and initial weights."""

import pytest
import toys

from specc.plan import Layout

pytestmark = pytest.mark.torch


def built(role):
    """Every whole parameter, as far as this rank alone can show it: {name: (shape, sum)}."""
    from runtime import cpu, model, parallel, shards

    cpu.install()
    here = parallel.start(role.layout, "gloo", "cpu", timeout_seconds=60)
    chunks = model.build(role, here)
    pieces = [(shard, p) for chunk in chunks for shard, p in shards.shards(chunk)]
    return [(shard, p.detach().clone()) for shard, p in pieces]


def whole(ranks):
    """Put the pieces of all ranks together: {name: tensor}."""
    found = {}
    for shard, tensor in (piece for rank in ranks for piece in rank):
        found.setdefault(shard.name, {})[shard.rank] = (shard, tensor)
    joined = {}
    for name, pieces in found.items():
        shard = pieces[0][0]
        joined[name] = shard.join([pieces[rank][1] for rank in sorted(pieces)])
    return joined


@pytest.mark.parametrize(
    "layout",
    [Layout(tp=2), Layout(pp=2), Layout(pp=2, stage_layers=(1, 3)), Layout(pp=2, vp=2), Layout(tp=2, pp=2)],
    ids=str,
)
@pytest.mark.parametrize("tied", [False, True])
def test_initial_weights_are_the_same_under_every_layout(world, layout, tied):
    shape = toys.shape(tied=tied, qkv_bias=True)
    alone = whole(world(1, built, toys.role(shape=shape)))
    cut = whole(world(layout.world_size, built, toys.role(layout, shape)))
    if tied and layout.pp > 1:
        assert cut.pop("output_layer.weight").equal(cut["embedding.word_embeddings.weight"])
    assert sorted(alone) == sorted(cut)
    for name in alone:
        assert alone[name].equal(cut[name]), name


def test_experts_are_counted_over_all_ranks(world):
    shape = toys.shape(layers=1, experts=4, experts_per_token=2, expert_ffn=32)
    alone = whole(world(1, built, toys.role(shape=shape)))
    cut = whole(world(2, built, toys.role(Layout(dp=2, ep=2), shape)))
    assert sorted(alone) == sorted(cut)
    assert all(alone[name].equal(cut[name]) for name in alone)


def test_the_padding_of_the_vocabulary_is_zero_and_the_same_for_every_tp(world):
    embedding = whole(world(1, built, toys.role()))["embedding.word_embeddings.weight"]
    assert embedding.shape == (256, 64)
    assert not embedding[250:].any()
    assert embedding[249].any()


def test_layers_that_do_not_divide_are_refused(world):
    with pytest.raises(AssertionError, match=r"4 layers do not divide into PP 3 x VP 1 = 3 parts"):
        world(3, built, toys.role(Layout(pp=3)))


def test_stage_layers_that_do_not_add_up_are_refused(world):
    with pytest.raises(AssertionError, match=r"stage_layers \[1, 2\] does not deal 4 layers to PP 2 x VP 1"):
        world(2, built, toys.role(Layout(pp=2, stage_layers=(1, 2))))


def test_experts_under_tp_need_sequence_parallelism(world):
    shape = toys.shape(experts=4, experts_per_token=2, expert_ffn=32)
    with pytest.raises(AssertionError, match="experts under TP 2 need sequence parallelism"):
        world(2, built, toys.role(Layout(tp=2), shape))


def test_transformer_engine_that_is_not_there_is_refused_by_name(world):
    with pytest.raises(AssertionError, match="the plan wants Transformer Engine's layers"):
        world(1, built, toys.role(implementation="te"))


@pytest.mark.parametrize(
    ("percent", "scaling"),
    [
        (1.0, {}),
        (0.5, {}),
        (1.0, {"rope_type": "linear", "factor": 4.0}),
        (
            1.0,
            {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        ),
    ],
    ids=["plain", "half", "linear", "llama3"],
)
def test_rope_frequencies_are_those_of_transformers(percent, scaling):
    import torch
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    from runtime import cpu

    cpu.install()
    from runtime.model import rope_frequencies

    parameters = {"rope_type": "default", "rope_theta": 5e4, "partial_rotary_factor": percent} | scaling
    config = LlamaConfig(
        hidden_size=512, num_attention_heads=4, max_position_embeddings=512, rope_parameters=parameters
    )
    kind = parameters["rope_type"]
    if kind == "default":
        dim = int(128 * percent)
        expected = 1.0 / 5e4 ** (torch.arange(0, dim, 2).float() / dim)
    else:
        expected, _ = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"))
    shape = toys.shape(head_dim=128, rope_base=5e4, rope_percent=percent, rope_scaling=scaling)
    assert torch.allclose(rope_frequencies(shape), expected, rtol=1e-6, atol=0)


def test_an_unknown_rope_scaling_is_refused_by_name():
    from runtime import cpu

    cpu.install()
    from runtime.model import ModelError, rope_frequencies

    with pytest.raises(ModelError, match="rope scaling `yarn` is not known"):
        rope_frequencies(toys.shape(rope_scaling={"rope_type": "yarn", "factor": 4.0}))
