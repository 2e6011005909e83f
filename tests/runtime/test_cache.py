"""The cache of keys and values takes what was planned for it and no more."""

import itertools
import json
import weakref
from types import SimpleNamespace
from typing import Any

import pytest
import toy_ppo
import toy_runs
import toys

from specc.plan import Layout

pytestmark = pytest.mark.torch

GRAIN = 64


def rounded(length):
    return -(-length // GRAIN) * GRAIN


def cache_of(longest, slots=3, layers=2):
    import torch

    from runtime.cache import Cache

    return Cache(layers, slots, 2, 4, torch.float32, "cpu", longest)


@pytest.mark.parametrize("longest", [1, 64, 65, 130, 1000])
def test_it_grows_by_half_up_to_its_rows_and_never_beyond(longest):
    cache = cache_of(longest)
    grown = []
    for length in range(1, longest + 1):
        cache.reserve(length)
        assert length <= cache.capacity <= rounded(longest)
        if not grown or grown[-1] != cache.capacity:
            grown.append(cache.capacity)
        assert {tensor.shape for tensor in (*cache.keys, *cache.values)} == {(3, 2, cache.capacity, 4)}
    assert grown[-1] == rounded(longest)
    steps = itertools.pairwise(grown)
    assert all(after >= min(1.5 * before, rounded(longest)) for before, after in steps)


def test_a_row_longer_than_planned_is_a_defect_and_no_larger_cache():
    with pytest.raises(AssertionError, match="a row of 129 tokens where 128 were said"):
        cache_of(100).reserve(129)


def test_growing_keeps_what_is_there_and_holds_one_tensor_twice_at_most(monkeypatch):
    import torch

    from runtime import cache as module

    cache = cache_of(256)
    cache.reserve(1)
    for number, tensor in enumerate((*cache.keys, *cache.values)):
        tensor.fill_(number + 1)
    alive, most, zeros = [], [], torch.zeros

    def counted(*shape, **kind):
        made = zeros(*shape, **kind)
        alive.append(weakref.ref(made))
        sizes = [found.numel() for ref in alive if (found := ref()) is not None]
        most.append(sum(sizes) + sum(t.numel() for t in (*cache.keys, *cache.values)))
        return made

    monkeypatch.setattr(module.torch, "zeros", counted)
    cache.reserve(200)
    old, new = 3 * 2 * 64 * 4, 3 * 2 * 256 * 4
    # the new ones are counted as alive and as the cache's own, all but the last
    assert most == [4 * old + new] + [(4 - n) * old + (2 * n + 1) * new for n in (1, 2, 3)]
    for number, tensor in enumerate((*cache.keys, *cache.values)):
        assert torch.equal(tensor[:, :, :64], torch.full((3, 2, 64, 4), number + 1.0))
        assert not tensor[:, :, 64:].any()


def held(role, slots, most, longest):
    """The largest cache of every rank over a whole generation, and what is said of a prompt too long."""
    from runtime import cpu, parallel
    from runtime import generate as module
    from runtime.engine import Engine
    from runtime.sampling import Sampling

    cpu.install()
    engine = Engine(role, parallel.start(role.layout, "gloo", "cpu", timeout_seconds=60))
    made, decoder_of = [], module.Decoder

    def kept(*settings):
        made.append(decoder_of(*settings))
        return made[-1]

    module.Decoder = kept
    prompts = [[1] * (5 + 9 * i) for i in range(5)]
    found = module.generate(engine, prompts, Sampling(max_tokens=most), slots=slots, longest=longest)
    cache = made[-1].cache
    with pytest.raises(module.GenerateError) as refused:
        module.generate(engine, [[1], [2] * (longest - most + 1)], Sampling(max_tokens=most), longest=longest)
    sizes = {tuple(tensor.shape) for tensor in (*cache.keys, *cache.values)}
    return sizes, str(refused.value), [len(tokens) for tokens in found.tokens]


EXPERTS = {"experts": 4, "experts_per_token": 2}
CASES = {
    "PP2": (Layout(pp=2), {}, 3),
    "EP2": (Layout(dp=2, ep=2), EXPERTS, 2),  # a replica that is done takes part in the other one's passes
}


@pytest.mark.parametrize("name", CASES)
def test_generation_holds_as_many_rows_as_planned_of_the_tokens_that_they_need(world, name):
    layout, shape, slots = CASES[name]
    role, most, longest = toys.role(layout, toys.shape(**shape)), 30, 80
    answers = world(layout.world_size, held, role, slots, most, longest)
    for sizes, refused, lengths in answers:
        assert lengths == [30] * 5
        [(rows, _, capacity, _)] = sizes
        assert rows == slots
        assert capacity <= rounded(41 + most)  # the longest prompt has 41 tokens: fewer than were planned
        assert refused.startswith("prompt 1 has 51 tokens, which come to 81 with the response; rows of at")
        assert "80 were planned" in refused
    assert max(capacity for [(_, _, capacity, _)], _, _ in answers) == rounded(41 + most)


@pytest.mark.parametrize(
    ("generate", "own", "longest"),
    [
        ({"max_prompt_tokens": 5, "max_tokens": 8}, {}, 13),
        ({"max_prompt_tokens": 5}, {}, 24),  # 1024 of a response: what the training's row has
        ({"max_tokens": 8}, {}, 24),
        ({"max_prompt_tokens": 5, "max_tokens": 8}, {"judgements": 3}, 24),  # a question fills a whole row
    ],
)
def test_a_row_has_as_many_tokens_as_the_planner_counted(generate, own, longest):
    from runtime.samplers import longest_row

    run: Any = SimpleNamespace(
        job=SimpleNamespace(settings={"generate": generate}), train={"seq_length": 24}, settings=own
    )
    assert longest_row(run) == longest


def test_prompts_longer_than_planned_are_left_out_before_anything_is_generated(world, tmp_path):
    """Prompts have 2 to 6 tokens; of the 32, seven have 2 and as many 3."""
    generate, train = {"max_prompt_tokens": 3}, {"steps": 1, "save_every": 0}
    found = toy_ppo.plan(toy_ppo.prompts(tmp_path), generate=generate, train=train, ppo={"rollouts": 8})
    assert world(1, toy_ppo.attempt, str(toy_runs.written(tmp_path / "run", found))) == [0]
    [facts] = (tmp_path / "run" / "ppo" / "data").glob("*/facts.json")
    told = json.loads(facts.read_text())
    assert (told["kept"], told["dropped"]) == (14, {"longer than 3 tokens": 18})
