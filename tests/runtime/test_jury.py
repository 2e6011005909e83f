"""What a jury asks about a response, and what it hears, with the byte tokenizer and no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from specc.spec.judging import SCORE

pytestmark = pytest.mark.torch

TALK = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "Who are you?"},
        {"role": "assistant", "content": "the answer that nobody shall see"},
    ]
}
PLAIN = {"input": "1 + 1 = ", "output": "2"}
CHECKED = {"input": "1 + 1 = ", "answer": "2"}


class Said:
    """A sampler that says what it is told to, and remembers what it was asked."""

    def __init__(self, *texts: str) -> None:
        self.texts, self.asked = texts, []

    def responses(
        self, prompts: Sequence[Sequence[int]], sampling: Any, keys: Sequence[int], *rest: Any
    ) -> Any:
        from runtime.generate import Rollouts

        self.asked += [
            (bytes(t for t in p if t < 256).decode(), key) for p, key in zip(prompts, keys, strict=True)
        ]
        tokens = [[*self.texts[i % len(self.texts)].encode(), 257] for i in range(len(prompts))]
        return Rollouts([list(p) for p in prompts], tokens, [[] for _ in tokens], ["stop"] * len(tokens))


def jury(
    *texts: str, room: int = 4096, rows: Sequence[Mapping[str, Any]] = (TALK, PLAIN, CHECKED), **more: Any
) -> Any:
    from runtime.judging import Question, Scale
    from runtime.jury import Jury
    from runtime.sampling import Sampling
    from runtime.tokenizer import load

    settings = {
        "tokenizer": load("builtin:bytes"),
        "template": "",
        "sampling": Sampling(max_tokens=16, stop_token_ids=(257,), stop=("END",)),
        "judging": Sampling(max_tokens=16, stop_token_ids=(257,)),
        "sampler": Said(*texts),
        "room": room,
        "judgements": 2,
        "question": Question("Q:{{ prompt }}|A:{{ response }}|"),
        "scale": Scale(SCORE, 0.0, 5.0),
        "rows": rows,
    }
    return Jury(**{**settings, **more})


def response(text: str, row: int = 0, key: int = 3, prompt: str = "the prompt") -> Any:
    from runtime.jury import Response

    return Response(key, row, tuple(prompt.encode()), (*text.encode(), 257), True)


def test_a_conversation_is_shown_without_its_system_text_and_its_answer() -> None:
    judges = jury("Score: 4", "Score: 3")
    [judged] = judges.judge([response("I am a model.")])
    assert (judged.score, judged.variance) == (3.5, 0.25)
    [(first, _), (second, _)] = judges.sampler.asked
    assert first == second
    assert "Q:User: Hello\n\nAssistant: Hi.\n\nUser: Who are you?|A:I am a model.|" in first
    assert "Be brief" not in first
    assert "nobody" not in first
    assert [key for _, key in judges.sampler.asked] == [6, 7]  # 3 x 2 and the one after


def test_other_rows_are_shown_as_the_prompt_was() -> None:
    judges = jury("no score")
    [judged] = judges.judge([response("2", row=1, prompt="1 + 1 = ")])
    assert judged.score is None
    assert len(judged.judgements) == 2
    assert "Q:1 + 1 =|A:2|" in judges.sampler.asked[0][0]


def test_what_ends_a_text_is_no_part_of_it() -> None:
    judges = jury("")
    assert judges.text((*b"all END", 257)) == "all"
    assert judges.text((*b" all ", 257)) == "all"
    assert judges.text(b"cut in the mid") == "cut in the mid"
    assert judges.text((257,)) == ""


@pytest.mark.parametrize(
    ("room", "shown"),
    [(200, "User: Hello"), (60, "Q:Who are you?|A:I am a model.|"), (50, "Q:Who are you?|A:I am"), (10, "")],
)
def test_what_is_too_long_loses_turns_then_words(room: int, shown: str) -> None:
    judges = jury("Score: 4", room=room)
    [judged] = judges.judge([response("I am a model.")])
    asked = [question for question, _ in judges.sampler.asked]
    assert len(judged.question) <= room
    assert [shown in question for question in asked] == [True, True] if shown else asked == []
    assert judged.score == (4.0 if shown else None)


def test_rows_that_can_be_checked_are_not_asked_about() -> None:
    judges = jury("Score: 1", verifier=lambda p, r, row: r == row["answer"], verified_by="answer")
    found = judges.judge([response("2", row=2), response("2", row=1), response("3", row=2)])
    assert [(judged.score, judged.verified) for judged in found] == [(5.0, True), (1.0, False), (0.0, True)]
    assert len(judges.sampler.asked) == 2


def test_a_verifier_that_fails_names_the_row() -> None:
    from runtime.problem import Problem

    judges = jury("Score: 1", verifier=lambda p, r, row: 1 / 0, verified_by="answer")
    with pytest.raises(Problem, match="row 2, ZeroDivisionError"):
        judges.judge([response("2", row=2)])


def test_a_model_that_knows_no_chats_is_asked_in_plain_text() -> None:
    from runtime.tokenizer import load

    plain = load("builtin:bytes")
    plain.chat_template = ""
    judges = jury("Score: 1", tokenizer=plain)
    judges.judge([response("2", row=1)])
    assert judges.sampler.asked[0][0] == "Q:the prompt|A:2|\n"


def test_judgements_have_random_numbers_of_their_own() -> None:
    from runtime.jury import JUDGEMENTS, VERDICTS, judging_of
    from runtime.sampling import Sampling

    own = Sampling(max_tokens=100, min_tokens=50, temperature=0.7, seed=5)
    judged = judging_of(own, {"max_tokens": 20, "temperature": None, "top_p": 0.9}, JUDGEMENTS)
    assert (judged.max_tokens, judged.min_tokens, judged.temperature, judged.top_p) == (20, 20, 0.7, 0.9)
    seeds = {own.seed, judged.seed, judging_of(own, {}, VERDICTS).seed}
    assert len(seeds) == 3
