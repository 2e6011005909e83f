"""Lines cut over context-parallel ranks."""

import pytest

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("cp", [2, 4])
def test_the_parts_join_to_the_line(cp):
    import torch

    from runtime.context import cut, join

    line_BT = torch.arange(2 * 16).view(2, 16)
    assert join([cut(line_BT, rank, cp) for rank in range(cp)]).equal(line_BT)


def test_every_rank_holds_an_early_and_a_late_piece():
    import torch

    from runtime.context import cut

    line_BT = torch.arange(8).view(1, 8)
    assert cut(line_BT, 0, 2).tolist() == [[0, 1, 6, 7]]
    assert cut(line_BT, 1, 2).tolist() == [[2, 3, 4, 5]]


def test_a_part_of_a_batch_keeps_labels_with_their_tokens():
    import toys

    from runtime.context import part

    [batch] = toys.microbatches(toys.role(toys.Layout(tp=2)), 0, toys.samples(1, longest=16))
    cut = part(batch, 0, 2)
    where = (batch.tokens_BT[0, :, None] == cut.tokens_BT[0]).any(0)
    assert where.all()
    assert cut.labels_BT.shape == cut.tokens_BT.shape == cut.mask_BT.shape == cut.positions_BT.shape
    assert cut.positions_BT[0, 0] == 0
