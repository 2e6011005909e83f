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
