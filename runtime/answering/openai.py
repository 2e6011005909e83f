"""OpenAI's two protocols, as far as a served model can keep them: what a body wants, and what it is told.

Both come down to `Reply`, one or more prompts with some choices each. What is not done here (tools, images,
logit_bias, ...) is refused by name; what only labels a request (user, metadata, ...) is passed over.
Beyond OpenAI's fields: top_k, min_tokens, repetition_penalty, stop_token_ids, and in conversations
`attributes`. Log-probabilities are the model's own, before temperature and truncation.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from runtime.answering.asked import BadRequest, Fields, Wanted
from runtime.answering.exchange import Done, Event, Prompt
from runtime.answering.prompts import Prompter, Question, attributes_of
from runtime.answering.reader import Growing, Piece, Reader, Told

MOST_TOP = 20
MOST_CHOICES = 128
MOST_TOKENS = 2**31

LABELS = (
    *("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "verbosity"),
    *("parallel_tool_calls", "reasoning_effort", "prompt_cache_retention"),
)
"""Fields that change nothing here."""


@dataclass
class Choice:
    """One answer on its way to its client."""

    index: int
    question: Question
    reader: Reader
    echo: str = ""  # the prompt's text, where it is to come first
    finish: str | None = None
    begun: bool = False


@dataclass
class Reply:
    """One request under either protocol, from its body to the last piece of its answer."""

    prompter: Prompter
    model: str
    chats: bool
    wanted: tuple[Wanted, ...]
    choices: list[Choice]
    prompt_tokens: int
    stream: bool = False
    usage: bool = False  # at the end of a stream
    logprobs: int | None = None  # None: none are told; else how many of the most likely ones
    silent: bool = False  # nothing is to be generated, only the prompt to be told
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, heard: Sequence[Prompt | None], answers: Sequence[Done]) -> dict[str, Any]:
        """The body of the answer, when all of it is there."""
        shown = []
        for choice, prompt, done in zip(self.choices, heard, answers, strict=True):
            piece = _joined([*self._began(choice, prompt), *self._ended(choice, done)])
            shown.append(self._shown(choice, piece))
        return self._envelope(shown, "") | {"usage": self._usage()}

    def pieces(self, place: int, event: Event) -> Iterator[dict[str, Any]]:
        """What a stream tells of one event."""
        choice = self.choices[place]
        found: list[Piece] = []
        if isinstance(event, Prompt):
            found = self._began(choice, event)
        else:
            if not choice.begun:
                found = self._began(choice, None) if not self._hears(choice) else []
            if isinstance(event, Done):
                found += self._ended(choice, event, told=True)
            elif not self.silent:
                found.append(choice.reader.take(event.token, event.logprob, event.top))
        if self.chats and not choice.begun:
            choice.begun = True
            yield self._chunk({"index": choice.index, "delta": {"role": "assistant", "content": ""}})
        piece = _joined(found)
        if piece.text or piece.tokens or choice.finish:
            yield self._chunk(self._part(choice, piece))

    def last(self) -> Iterator[dict[str, Any]]:
        """What comes when all choices are done."""
        if self.usage:
            yield self._envelope([], ".chunk") | {"usage": self._usage()}

    # -- inside ----------------------------------------------------------------------------------

    def _hears(self, choice: Choice) -> bool:
        return self.wanted[choice.index].heard and len(choice.question.tokens) > 1

    def _began(self, choice: Choice, prompt: Prompt | None) -> list[Piece]:
        """The prompt, where it is to be told."""
        if not choice.echo:
            return []
        if not self.chats:
            choice.begun = True
        tokens: list[Told] = []
        if self.logprobs is not None:
            tokens = self._prompt_tokens(choice.question.tokens, prompt)
        return [Piece(choice.echo, tuple(tokens))]

    def _prompt_tokens(self, ids: Sequence[int], prompt: Prompt | None) -> list[Told]:
        decode = self.prompter.tokenizer.decode
        growing, at, tokens = Growing(decode, ()), 0, []
        words = [None, *(prompt.words if prompt else ())]
        for token, word in zip(ids, words, strict=True):
            logprob, top = (word.logprob, word.top) if word else (None, ())
            tokens.append(Told(token, decode([token]), logprob, top, at))
            at += len(growing.add(token))
        return tokens

    def _ended(self, choice: Choice, done: Done, told: bool = False) -> list[Piece]:
        """The answer's tokens, unless they are told, and its end."""
        if self.silent:
            choice.finish = "length"
            return []
        found = []
        if not told:
            found = [choice.reader.take(word.token, word.logprob, word.top) for word in done.words]
        found.append(choice.reader.finish(stopped=done.finish == "stop"))
        choice.finish = "stop" if done.finish == "stop" else "length"
        return found

    def _shown(self, choice: Choice, piece: Piece) -> dict[str, Any]:
        if not self.chats:
            return self._part(choice, piece)
        message = {"role": "assistant", "content": piece.text, "refusal": None}
        found = {"index": choice.index, "message": message, "finish_reason": choice.finish}
        return found | {"logprobs": self._logprobs(choice, piece.tokens)}

    def _part(self, choice: Choice, piece: Piece) -> dict[str, Any]:
        own: dict[str, Any] = {"text": piece.text}
        if self.chats:
            own = {"delta": {"content": piece.text} if piece.text else {}}
        logprobs = self._logprobs(choice, piece.tokens) if piece.tokens or not self.stream else None
        return {"index": choice.index, **own, "logprobs": logprobs, "finish_reason": choice.finish}

    def _chunk(self, choice: dict[str, Any]) -> dict[str, Any]:
        chunk = self._envelope([{"logprobs": None, "finish_reason": None} | choice], ".chunk")
        return chunk | ({"usage": None} if self.usage else {})

    def _envelope(self, choices: list[dict[str, Any]], kind: str) -> dict[str, Any]:
        name = f"chat.completion{kind}" if self.chats else "text_completion"
        id = f"{'chatcmpl' if self.chats else 'cmpl'}-{self.id}"
        return {
            "id": id,
            "object": name,
            "created": self.created,
            "model": self.model,
            "choices": choices,
            "system_fingerprint": None,
        }

    def _usage(self) -> dict[str, int]:
        said = sum(choice.reader.count for choice in self.choices)
        prompt = self.prompt_tokens
        return {"prompt_tokens": prompt, "completion_tokens": said, "total_tokens": prompt + said}

    def _logprobs(self, choice: Choice, tokens: Sequence[Told]) -> dict[str, Any] | None:
        if self.logprobs is None:
            return None
        if self.chats:
            return {"content": [self._in_chat(told) for told in tokens], "refusal": None}
        return {
            "tokens": [told.text for told in tokens],
            "token_logprobs": [None if t.logprob is None else _finite(t.logprob) for t in tokens],
            "top_logprobs": [self._tops(told) for told in tokens] if self.logprobs else None,
            "text_offset": [told.start for told in tokens],
        }

    def _in_chat(self, told: Told) -> dict[str, Any]:
        best = [(token, logprob) for token, logprob in told.top[: self.logprobs]]
        return self._one(told.id, told.logprob or 0.0) | {"top_logprobs": [self._one(*one) for one in best]}

    def _one(self, token: int, logprob: float) -> dict[str, Any]:
        text = self.prompter.tokenizer.decode([token])
        return {"token": text, "logprob": _finite(logprob), "bytes": list(text.encode("utf-8", "replace"))}

    def _tops(self, told: Told) -> dict[str, float] | None:
        """By text, the likelier one where two have the same; the token itself is among them."""
        if told.logprob is None:
            return None
        found: dict[str, float] = {}
        for token, logprob in (*told.top, (told.id, told.logprob)):
            text = self.prompter.tokenizer.decode([token])
            found[text] = max(found.get(text, -9999.0), _finite(logprob))
        return found


def _joined(pieces: Sequence[Piece]) -> Piece:
    return Piece("".join(p.text for p in pieces), tuple(t for p in pieces for t in p.tokens))


def _finite(number: float) -> float:
    return max(number, -9999.0)


# --- what a body wants


def completion(fields: Fields, prompter: Prompter, model: str) -> Reply:
    """`POST /v1/completions`; BadRequest."""
    _own_model(fields, model)
    questions, texts = _prompts(fields, prompter)
    count = fields.whole("n", 1, 1, MOST_CHOICES)
    fields.refuse("best_of", (count, 1), "every choice is told")
    fields.refuse("suffix", ("",), "the model continues to the right only")
    echo = fields.flag("echo")
    logprobs = None if fields.get("logprobs") is None else fields.whole("logprobs", 0, 0, MOST_TOP)
    most = fields.whole("max_tokens", 16, 0 if echo else 1, MOST_TOKENS)
    heard = echo and logprobs is not None
    return _reply(
        fields, prompter, model, False, questions, count,
        most=most, logprobs=logprobs, heard=heard, echoes=texts if echo else None,
    )  # fmt: skip


def chat_completion(fields: Fields, prompter: Prompter, model: str) -> Reply:
    """`POST /v1/chat/completions`; BadRequest."""
    _own_model(fields, model)
    for name in ("tools", "functions", "tool_choice", "function_call"):
        fields.refuse(name, ([], "none", "auto"), "the model has no tools")
    fields.refuse("response_format", ({"type": "text"},), "answers are text")
    fields.refuse("modalities", (["text"],), "answers are text")
    for name in ("audio", "prediction", "web_search_options"):
        fields.refuse(name, (), "answers are text")
    question = prompter.of_messages(fields.get("messages"), attributes_of(fields.get("attributes")))
    count = fields.whole("n", 1, 1, MOST_CHOICES)
    told, top = fields.flag("logprobs"), fields.whole("top_logprobs", 0, 0, MOST_TOP)
    if top and not told:
        raise BadRequest(400, "`top_logprobs` needs `logprobs: true`", "top_logprobs")
    name = "max_tokens" if fields.get("max_completion_tokens") is None else "max_completion_tokens"
    most = fields.whole(name, prompter.limit, 1, MOST_TOKENS)
    return _reply(
        fields, prompter, model, True, [question], count, most=most, logprobs=top if told else None
    )  # fmt: skip


def _own_model(fields: Fields, model: str) -> None:
    said = fields.text("model", model)
    if said != model:
        raise BadRequest(404, f"there is no model `{said[:100]}` here; this server has `{model}`", "model")


def _prompts(fields: Fields, prompter: Prompter) -> tuple[list[Question], list[str]]:
    """Prompts as text or token ids, one or several, and the text of each."""
    said = fields.get("prompt")
    if isinstance(said, str):
        return [prompter.of_text(said)], [said]
    if not isinstance(said, list) or not said:
        raise fields.wrong("prompt", "a text, a list of texts, token ids, or a list of such")
    each = [said] if all(_is_id(item) for item in said) else said
    if len(each) > MOST_CHOICES:
        raise BadRequest(400, f"there are {len(each)} prompts, and the limit is {MOST_CHOICES}", "prompt")
    found = []
    for number, one in enumerate(each):
        where = f"prompt[{number}]"
        if isinstance(one, str):
            found.append((prompter.of_text(one, field=where), one))
        elif isinstance(one, list) and all(_is_id(item) for item in one):
            question = prompter.of_tokens(one, where)
            found.append((question, prompter.tokenizer.decode(one)))
        else:
            raise fields.wrong("prompt", "a text, a list of texts, token ids, or a list of such")
    return [question for question, _ in found], [text for _, text in found]


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _reply(
    fields: Fields,
    prompter: Prompter,
    model: str,
    chats: bool,
    questions: Sequence[Question],
    count: int,
    *,
    most: int,
    logprobs: int | None,
    heard: bool = False,
    echoes: Sequence[str] | None = None,
) -> Reply:
    """What both protocols have in common."""
    if len(questions) * count > MOST_CHOICES:
        message = f"{len(questions)} prompts with {count} choices each are more than {MOST_CHOICES} answers"
        raise BadRequest(400, message, "n")
    sampling = _sampling(fields, prompter, most)
    stream = fields.flag("stream")
    options = fields.get("stream_options")
    if options is not None and not (isinstance(options, dict) and stream):
        raise fields.wrong("stream_options", "an object, together with `stream: true`")
    for name in LABELS:
        fields.get(name)
    stops, ends = sampling["stop"], sampling["stop_token_ids"]
    wanted, choices = [], []
    for number, question in enumerate(questions):
        for copy in range(count):
            own = sampling | {"stop": (*stops, *question.ends), "max_tokens": max(most, 1)}
            top = min(logprobs or 0, prompter.vocab)
            told = {"stream": stream, "top": top, "heard": heard}
            wanted.append(Wanted(question.tokens, **own, **told, sequence=number * count + copy))
            echo = echoes[number] if echoes else ""
            decode = prompter.tokenizer.decode
            reader = Reader(decode, question.tokens, ends, own["stop"], question.tail, len(echo))
            choices.append(Choice(len(choices), question, reader, echo))
    return Reply(
        prompter, model, chats, tuple(wanted), choices,
        prompt_tokens=sum(len(question.tokens) for question in questions),
        stream=stream,
        usage=isinstance(options, dict) and Fields(options).flag("include_usage"),
        logprobs=logprobs,
        silent=most == 0,
    )  # fmt: skip


def _sampling(fields: Fields, prompter: Prompter, most: int) -> dict[str, Any]:
    """How tokens are drawn, under `Sampling`'s names."""
    fields.refuse("logit_bias", ({},), "use `top_k`, `top_p` or `repetition_penalty`")
    for name in ("presence_penalty", "frequency_penalty"):
        fields.refuse(name, (0, 0.0), "use `repetition_penalty`")
    least = fields.whole("min_tokens", 0, 0, MOST_TOKENS)
    if least > max(most, 1):
        raise fields.wrong("min_tokens", f"at most the {most} tokens that are wanted")
    return {
        "min_tokens": least,
        "temperature": fields.number("temperature", 1.0, 0.0, 100.0),
        "top_k": fields.whole("top_k", 0, 0, MOST_TOKENS),
        "top_p": max(fields.number("top_p", 1.0, 0.0, 1.0), 1e-9),
        "repetition_penalty": fields.number("repetition_penalty", 1.0, 0.0, 1000.0, open_low=True),
        "stop": fields.texts("stop"),
        "stop_token_ids": _stop_ids(fields, prompter),
        "seed": fields.seed("seed"),
    }


def _stop_ids(fields: Fields, prompter: Prompter) -> tuple[int, ...]:
    said = fields.get("stop_token_ids") or []
    fits = isinstance(said, list) and len(said) <= 16 and all(_is_id(token) for token in said)
    if not fits or not all(0 <= token < prompter.vocab for token in said):
        raise fields.wrong("stop_token_ids", f"up to 16 ids from 0 to {prompter.vocab - 1}")
    own = [token for token in prompter.tokenizer.eos_ids if token < prompter.vocab]
    return tuple(dict.fromkeys((*own, *said)))
