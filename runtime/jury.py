"""The model as the judge of its own responses: what is asked, how often, and what comes of it.

Every response is judged K times by the same weights that wrote it; questions, judgements and responses are
generated alike, so a response depends on its prompt, the seed and its number alone, under every layout. A
response to a row that can be checked (one with the verifier's field) is checked and not judged.

A question that is too long loses the earlier turns, then the end of the response; when not even that helps
the response has no score, and is counted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runtime import chat
from runtime.agreement import told
from runtime.choosing import Candidate
from runtime.data.prompts import conversation
from runtime.data.rows import Rows
from runtime.judging import Judgement, Question, Scale, Tokens, fitted, mean_and_variance, shown
from runtime.problem import Problem
from runtime.samplers import Sampler
from runtime.sampling import Sampling
from runtime.scoring import Rewarding

JUDGEMENTS, VERDICTS = 0x1D6E, 0x3E7A
"""Which random numbers judgements and verdicts take, so that they are not those of responses."""


@dataclass(frozen=True)
class Response:
    """One response to a prompt. `key` is its number in the run."""

    key: int
    row: int
    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    ended: bool


@dataclass(frozen=True)
class Judged:
    """A response, what was asked about it, what was said, and what it comes to."""

    response: Response
    question: tuple[int, ...] = ()
    prompts: tuple[str, ...] = ()  # as a judge may see the prompt, the longest form first
    text: str = ""
    judgements: tuple[Judgement, ...] = ()
    score: float | None = None
    variance: float = 0.0
    verified: bool = False

    @property
    def candidate(self) -> Candidate:
        return Candidate(self.response.tokens, self.response.ended, self.score, self.variance)


@dataclass(frozen=True)
class Jury:
    """What judging needs besides the model."""

    tokenizer: Any
    template: str  # of chats
    sampling: Sampling  # of responses
    judging: Sampling  # of judgements
    sampler: Sampler
    room: int  # tokens of a question
    judgements: int  # of a response
    question: Question
    scale: Scale
    rows: Rows
    verifier: Rewarding | None = None
    verified_by: str = ""  # the field of rows that can be checked

    # ── generation ───────────────────────────────────────────────────────────────────────────────

    def responses(
        self, prompts: Sequence[tuple[int, Sequence[int]]], count: int, first: int
    ) -> list[Response]:
        """`count` responses to each prompt (row, tokens); `first` is the number of the first one."""
        asked = [prompt for prompt in prompts for _ in range(count)]
        keys = [first + i for i in range(len(asked))]
        found = self.say([tokens for _, tokens in asked], self.sampling, keys)
        return [
            Response(key, row, tuple(tokens), answer, ended)
            for key, (row, tokens), (answer, ended) in zip(keys, asked, found, strict=True)
        ]

    def judge(self, responses: Sequence[Response]) -> list[Judged]:
        """Every response with its score, in order. Collective."""
        checked = told("R055", "the verifier failed", lambda: [self.checked(r) for r in responses])
        asked = [
            Judged(r, score=score, verified=True) if score is not None else self.asked(r)
            for r, score in zip(responses, checked, strict=True)
        ]
        open_ = [judged for judged in asked if judged.question]
        questions = [judged.question for judged in open_ for _ in range(self.judgements)]
        keys = [judged.response.key * self.judgements + k for judged in open_ for k in range(self.judgements)]
        found = iter(self.say(questions, self.judging, keys))
        return [
            self.heard(j, [next(found) for _ in range(self.judgements)]) if j.question else j for j in asked
        ]

    def heard(self, judged: Judged, found: Sequence[tuple[tuple[int, ...], bool]]) -> Judged:
        """What these judgements come to."""
        texts = [self.text(tokens) for tokens, _ in found]
        judgements = tuple(
            Judgement(tokens, text, ended, self.scale.read(text))
            for (tokens, ended), text in zip(found, texts, strict=True)
        )
        score, variance = mean_and_variance([j.score for j in judgements]) or (None, 0.0)
        return dataclasses.replace(judged, judgements=judgements, score=score, variance=variance)

    def say(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, keys: Sequence[int]
    ) -> list[tuple[tuple[int, ...], bool]]:
        """The tokens that follow each prompt, and whether they came to an end; the same on every rank.

        `keys` with the sampling's seed say which random numbers each one takes. Collective.
        """
        if not prompts:
            return []
        decode = self.tokenizer.decode
        found = self.sampler.responses(prompts, sampling, keys, decode, lambda event: None, None)
        return [
            (tuple(tokens), finish == "stop")
            for tokens, finish in zip(found.tokens, found.finish, strict=True)
        ]

    # ── texts ────────────────────────────────────────────────────────────────────────────────────

    def asked(self, response: Response) -> Judged:
        """The question about a response, if there is room for one."""
        prompts = self.prompts(response)
        tokens = self._bare(response.tokens)

        def ask(prompt: str, answer: str) -> Tokens:
            return self.tokens(self.question.ask(prompt=prompt, response=answer))

        # a response that says nothing is judged too, as long as the question fits
        question = fitted(ask, prompts, tokens or (), self._plain, self.room)
        return Judged(response, tuple(question or ()), prompts, self._plain(tokens))

    def checked(self, response: Response) -> float | None:
        """The score of a response that can be checked; None for one that is to be judged."""
        row = self.rows[response.row]
        if self.verifier is None or row.get(self.verified_by) is None:
            return None
        prompt = self.tokenizer.decode(list(response.prompt))
        try:
            return self.scale.part(float(self.verifier(prompt, self.text(response.tokens), row)))
        except Exception as error:  # it is the user's
            raise Problem("R055", f"row {response.row}, {type(error).__name__}: {error}") from None

    def prompts(self, response: Response) -> tuple[str, ...]:
        """The prompt as the judge may see it, the longest form first."""
        row = self.rows[response.row]
        return shown(conversation(row) or {}, self.tokenizer.decode(list(response.prompt), skip_special=True))

    def tokens(self, question: str) -> Tokens:
        """A question as the model reads it: a turn of a chat, where it knows chats."""
        if not (self.template or self.tokenizer.chat_template):
            return list(self.tokenizer.encode(question + "\n"))
        talk = {"messages": [{"role": "user", "content": question}]}
        return list(chat.prompt(self.tokenizer, talk, self.template))

    def text(self, tokens: Sequence[int]) -> str:
        """What was said, without what ended it."""
        return self._plain(self._bare(tokens))

    def _bare(self, tokens: Sequence[int]) -> tuple[int, ...]:
        ends = bool(tokens) and tokens[-1] in self.sampling.stop_token_ids
        return tuple(tokens[:-1] if ends else tokens)

    def _plain(self, tokens: Sequence[int]) -> str:
        whole = self.tokenizer.decode(list(tokens))
        found = [place for stop in self.sampling.stop if (place := whole.find(stop)) >= 0]
        if found:
            return whole[: min(found)].strip()
        return self.tokenizer.decode(list(tokens), skip_special=True).strip()


def judging_of(responses: Sampling, settings: Mapping[str, Any], key: int) -> Sampling:
    """The sampling of judgements: that of responses, but for what the settings say."""
    names = ("max_tokens", "temperature", "top_p")
    changed = {name: settings[name] for name in names if settings.get(name) is not None}
    if "max_tokens" in changed:
        changed["min_tokens"] = min(responses.min_tokens, changed["max_tokens"])
    return dataclasses.replace(responses, seed=responses.seed ^ key, **changed)
