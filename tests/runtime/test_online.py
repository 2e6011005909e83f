"""From the plan's section `generate` to what the sampler is given."""

from types import SimpleNamespace

import pytest

pytestmark = pytest.mark.torch

TURNS = SimpleNamespace(eos_id=7, eos_ids=(7, 9))
PLAIN = SimpleNamespace(eos_id=7, eos_ids=())
ENDLESS = SimpleNamespace(eos_id=None, eos_ids=())


@pytest.mark.parametrize(
    ("said", "tokenizer", "ends"),
    [
        ({}, TURNS, (7, 9)),
        ({}, PLAIN, (7,)),
        ({"stop_token_ids": [3]}, TURNS, (3, 7, 9)),
        ({"stop_token_ids": [9, 3]}, TURNS, (9, 3, 7)),
        ({"stop_token_ids": None}, ENDLESS, ()),
    ],
)
def test_a_response_ends_at_the_models_own_ends_and_at_those_that_are_said(said, tokenizer, ends):
    from runtime.online import sampling_of

    assert sampling_of(said, tokenizer, 1, 10).stop_token_ids == ends


def test_what_is_said_of_drawing_reaches_the_sampler_and_nothing_else_does():
    from runtime.online import sampling_of

    said = {"temperature": 0.5, "top_k": 4, "top_p": 0.9, "repetition_penalty": 1.2, "stop": ["END"]}
    more = {"min_tokens": 2, "max_tokens": 8, "engine": "vllm", "seed": 3}
    found = sampling_of({**said, **more}, PLAIN, 1, 10)
    assert (found.temperature, found.top_k, found.top_p, found.repetition_penalty) == (0.5, 4, 0.9, 1.2)
    assert (found.stop, found.min_tokens, found.max_tokens, found.seed) == (("END",), 2, 8, 1)


@pytest.mark.parametrize(
    ("said", "tokenizer", "message"),
    [
        (
            {"stop_token_ids": [3, 300]},
            PLAIN,
            "R019: generate.stop_token_ids holds token 300, but the model has 9",
        ),
        ({"stop_token_ids": [9]}, PLAIN, "R019: generate.stop_token_ids holds token 9, but the model has 9"),
        ({"stop_token_ids": [-1]}, PLAIN, "R019: generate.stop_token_ids holds token -1"),
        ({}, TURNS, "R019: the tokenizer ends a text with token 9, but the model has 9"),
    ],
)
def test_an_end_that_the_model_cannot_draw_is_named_before_anything_is_drawn(said, tokenizer, message):
    from runtime.online import sampling_of
    from runtime.problem import Problem

    with pytest.raises(Problem) as found:
        sampling_of(said, tokenizer, 1, 9)
    assert str(found.value).startswith(message)
