"""`PUT /generate`, the tutorials' protocol: sentences in, the same sentences continued out.

    sentences (1 to 128), tokens_to_generate 64, temperature 1, top_k 0, top_p 0.9, greedy false, add_BOS
    false, repetition_penalty 1, min_tokens_to_generate 0, end_strings ["<|endoftext|>"], all_probs false,
    compute_logprob false, random_seed null; task_ids and neighbors are taken and mean nothing

    -> sentences (prompt and continuation, an end string included), tokens, token_ids, logprob (null unless
       asked for; of all tokens but the first), offsets (of the tokens in the sentence); full_logprob
       with all_probs

A bad value is told with an HTTP error, where the original answers 200 with a plain text. Greedy ignores
everything else about drawing; `<|endoftext|>` stands for the tokenizer's own end token, which always ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runtime.answering.asked import LONGEST_STOP, MOST_STOPS, BadRequest, Fields, Wanted
from runtime.answering.exchange import Done, Prompt
from runtime.answering.prompts import Prompter, Question
from runtime.answering.reader import Growing

MOST_SENTENCES = 128
MOST_NUMBERS = 1 << 22
"""Of `full_logprob`, over all sentences."""

UNPROCESSABLE = 422
END = "<|endoftext|>"


@dataclass(frozen=True)
class Generate:
    """One `PUT /generate`."""

    prompter: Prompter
    sentences: tuple[str, ...]
    questions: tuple[Question, ...]
    wanted: tuple[Wanted, ...]
    logprob: bool
    full: bool

    def reply(self, prompts: Sequence[Prompt | None], answers: Sequence[Done]) -> dict[str, Any]:
        """The body of the answer, one entry a sentence in each of its lists."""
        rows = [self._row(*row) for row in zip(self.sentences, self.questions, prompts, answers, strict=True)]
        names = ("sentences", "tokens", "logprob", "full_logprob", "token_ids", "offsets")
        found: dict[str, Any] = {name: [row[name] for row in rows] for name in names}
        if not self.logprob:
            found["logprob"] = None
        if not self.full:
            del found["full_logprob"]
        return found

    def _row(self, sentence: str, question: Question, prompt: Prompt | None, done: Done) -> dict[str, Any]:
        tokenizer = self.prompter.tokenizer
        ids = [word.token for word in done.words]
        pieces = _pieces(self.prompter, question.tokens, ids)
        starts = tokenizer.encode_with_offsets(sentence)[1]
        offsets = [start for start, _ in starts]
        offsets = [0] * (len(question.tokens) - len(offsets)) + offsets  # a begin token has no characters
        at = len(sentence)
        for piece in pieces:
            offsets.append(at)
            at += len(piece)
        words = (*(prompt.words if prompt else ()), *done.words)
        return {
            "sentences": sentence + "".join(pieces),
            "tokens": [tokenizer.decode([token]) for token in (*question.tokens, *ids)],
            "token_ids": [*question.tokens, *ids],
            "offsets": offsets,
            "logprob": [_finite(word.logprob) for word in words],
            "full_logprob": [_whole(word.top, self.prompter.vocab) for word in words] if self.full else None,
        }


def generate(fields: Fields, prompter: Prompter) -> Generate:
    """The call that a body means; BadRequest."""
    sentences = _sentences(fields)
    most = fields.whole("tokens_to_generate", 64, 1, 2**31)
    least = fields.whole("min_tokens_to_generate", 0, 0, 2**31)
    if least > most:
        raise fields.wrong("min_tokens_to_generate", f"at most `tokens_to_generate`, {most}")
    drawing = _drawing(fields)
    add_bos = fields.flag("add_BOS")
    logprob, full = fields.flag("compute_logprob"), fields.flag("all_probs")
    ends = _ends(fields, prompter)
    seed = fields.seed("random_seed")
    for name in ("task_ids", "neighbors"):
        fields.get(name)
    questions = [prompter.of_text(text, add_bos, f"sentences[{i}]") for i, text in enumerate(sentences)]
    numbers = sum(min(len(q.tokens) + most, prompter.limit) for q in questions) * prompter.vocab
    if full and numbers > MOST_NUMBERS:
        message = f"`all_probs` would give {numbers} numbers, and the limit is {MOST_NUMBERS}"
        raise BadRequest(UNPROCESSABLE, f"{message}; send fewer sentences", "all_probs")
    wanted = [
        Wanted(
            question.tokens,
            max_tokens=most,
            min_tokens=least,
            stop=ends,
            stop_token_ids=tuple(i for i in prompter.tokenizer.eos_ids if i < prompter.vocab),
            seed=seed,
            sequence=number,
            heard=logprob or full,
            top=prompter.vocab if full else 0,
            **drawing,
        )
        for number, question in enumerate(questions)
    ]
    return Generate(prompter, sentences, tuple(questions), tuple(wanted), logprob, full)


def _sentences(fields: Fields) -> tuple[str, ...]:
    said = fields.get("sentences")
    if not isinstance(said, list) or not said or not all(isinstance(text, str) for text in said):
        raise fields.wrong("sentences", f"a list of 1 to {MOST_SENTENCES} texts")
    if len(said) > MOST_SENTENCES:
        raise BadRequest(
            400, f"there are {len(said)} sentences, and the limit is {MOST_SENTENCES}", "sentences"
        )
    return tuple(said)


def _drawing(fields: Fields) -> dict[str, Any]:
    """How tokens are drawn, under `Sampling`'s names."""
    found: dict[str, Any] = {
        "temperature": fields.number("temperature", 1.0, 0.0, 100.0, open_low=True),
        "top_k": fields.whole("top_k", 0, 0, 2**31),
        "top_p": fields.number("top_p", 0.9, 0.0, 1.0) or 1.0,
        "repetition_penalty": fields.number("repetition_penalty", 1.0, 1.0, 1000.0),
    }
    return {"temperature": 0.0} if fields.flag("greedy") else found


def _ends(fields: Fields, prompter: Prompter) -> tuple[str, ...]:
    said = fields.get("end_strings")
    said = [END] if said is None else said
    fits = isinstance(said, list) and len(said) <= MOST_STOPS
    if not fits or not all(isinstance(text, str) and 0 < len(text) <= LONGEST_STOP for text in said):
        wanted = f"a list of at most {MOST_STOPS} texts of 1 to {LONGEST_STOP} characters"
        raise fields.wrong("end_strings", wanted)
    has_end = bool(prompter.tokenizer.eos_ids)
    return tuple(text for text in said if text != END or not has_end)


def _pieces(prompter: Prompter, prompt: Sequence[int], ids: Sequence[int]) -> list[str]:
    """The text of each token of a continuation; an end token has none."""
    growing = Growing(prompter.tokenizer.decode, prompt)
    ends = prompter.tokenizer.eos_ids
    pieces = ["" if token in ends else growing.add(token) for token in ids]
    if pieces:
        pieces[-1] += growing.end()
    return pieces


def _finite(number: float) -> float:
    return max(number, -9999.0)


def _whole(top: Sequence[tuple[int, float]], vocab: int) -> list[float]:
    """Log-probabilities by token id."""
    found = [-9999.0] * vocab
    for token, logprob in top:
        found[token] = _finite(logprob)
    return found
