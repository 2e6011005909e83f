"""What is told beside tokens costs memory for a few tokens at a time, however long the prompt."""

import pytest

pytestmark = pytest.mark.torch

VOCAB, HIDDEN = 2000, 4
LENGTHS = (700, 1, 300, 5)  # of the prompts
HEARD, TOPS = (True, False, True, False), (5, 0, 0, 2)


def planned():
    """Rows with their prompts in a line, the last states of what the line wants, and the head's weight."""
    import torch

    from runtime.cache import Cache
    from runtime.rows import Request, Rows
    from runtime.sampling import Sampling

    draw = torch.Generator().manual_seed(0)
    rows = Rows(0, 4, VOCAB, torch.device("cpu"))
    for i, length in enumerate(LENGTHS):
        prompt = torch.randint(0, VOCAB, (length,), generator=draw).tolist()
        request = Request(i, prompt, Sampling(temperature=0.0), i, top=TOPS[i], heard=HEARD[i])
        rows.admit(request, 8, None)
    line = rows.line(Cache(1, 4, 1, 4, torch.float32, "cpu", 1000), 0)
    hidden = torch.randn(len(line.last), 1, HIDDEN, generator=draw)
    return rows, hidden, torch.randn(VOCAB, HIDDEN, generator=draw)


def test_no_more_than_a_few_tokens_logits_are_there_at_once_and_they_are_the_distributions():
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    rows, hidden, weight = planned()
    asked, largest = [], [0]

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            found = out if isinstance(out, (list, tuple)) else [out]
            largest[0] = max([largest[0], *(one.numel() for one in found if isinstance(one, torch.Tensor))])
            return out

    def head(states):
        asked.append(len(states))
        return states[:, 0] @ weight.T

    with Sizes():
        found = rows.sample(hidden, head)
    assert found.shape == (2 + 2 * 5, 4 + 699 + 299) == rows.size
    assert asked == [4, *[128] * 7, 106]  # the rows' own, then all columns piece by piece
    assert largest[0] == 128 * VOCAB
    whole = (hidden[:, 0].double() @ weight.T.double()).log_softmax(-1)
    places = [*range(699), *range(701, 1000)]  # all but each row's own draw
    told = [token for i in (0, 2) for token in rows.requests[i].prompt[1:]]
    assert found[0, places].tolist() == told
    assert found[1, places] == pytest.approx(whole[places, told].numpy(), abs=1e-5)
    best = whole.topk(5, dim=-1)
    assert found[2:7] == pytest.approx(best.indices.T.numpy())
    assert found[7:] == pytest.approx(best.values.T.numpy(), abs=1e-5)
    own = [699, 700, 1000, 1001]
    assert found[0, own].tolist() == whole[own].argmax(-1).tolist()


def test_rows_that_would_tell_too_much_together_do_not_share_a_pass():
    """One wants the whole vocabulary beside each of its tokens, another a few beside a long prompt."""
    import torch

    from runtime.cache import Cache
    from runtime.rows import Request, Rows
    from runtime.sampling import Sampling

    rows = Rows(0, 4, VOCAB, torch.device("cpu"))
    greedy = Sampling(max_tokens=4, temperature=0)
    every = Request(0, [1, 2], greedy, top=VOCAB)
    long = Request(1, [3] * 900, greedy, top=5, heard=True)
    assert rows.told_with(long) == (2 + 2 * 5) * 901
    rows.admit(every, 4, None)
    assert rows.told_with(long) == (2 + 2 * VOCAB) * 902
    rows.admit(long, 4, None)
    rows.line(Cache(1, 4, 1, 8, torch.float32, "cpu", 1000), 0)
    assert rows.size[0] * rows.size[1] <= (2 + 2 * VOCAB) * 902
    plain = Request(2, [3], greedy)
    assert rows.told_with(plain) == (2 + 2 * VOCAB) * 3  # the long prompt is in the cache


def test_what_may_be_asked_over_http_can_be_told():
    from runtime.answering import openai, tutorial
    from runtime.rows import MOST_TOLD, told

    positions = 1 << 17
    assert told(openai.MOST_TOP, positions) <= MOST_TOLD
    assert 2 * tutorial.MOST_NUMBERS + 2 * positions <= MOST_TOLD
