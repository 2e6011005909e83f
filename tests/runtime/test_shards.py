"""Pieces of a parameter: cut and joined."""

import pytest

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("stacked", [1, 2])
@pytest.mark.parametrize("pieces", [2, 4])
def test_joining_undoes_cutting(dim, stacked, pieces):
    import torch

    from runtime.shards import Shard

    whole = torch.arange(16 * 16).view(16, 16)
    ranks = [Shard("weight", dim, rank, pieces, stacked) for rank in range(pieces)]
    assert ranks[0].join([shard.cut(whole) for shard in ranks]).equal(whole)


def test_a_piece_of_gate_above_up_holds_both():
    import torch

    from runtime.shards import Shard

    gate, up = torch.arange(4)[:, None], torch.arange(10, 14)[:, None]
    piece = Shard("linear_fc1", 0, rank=1, pieces=2, stacked=2).cut(torch.cat([gate, up]))
    assert piece[:, 0].tolist() == [2, 3, 12, 13]


def test_what_is_not_cut_is_whole_everywhere():
    import torch

    from runtime.shards import Shard

    norm = torch.ones(4)
    shard = Shard("norm", None, 0, 1)
    assert shard.join([shard.cut(norm), norm]).equal(norm)
