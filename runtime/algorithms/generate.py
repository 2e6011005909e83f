"""Responses to prompts, as rows: what rejection sampling, ReST and others learn from.

    {"input": the prompt as the model read it, "output": the response without its end token,
     "finish": "stop" | "length", "sample": which of the prompt's, "source": the prompt's own row}

All samples of the first prompt come first, then those of the second. A prompt that is a conversation gives
`messages` too, with the response as its last turn, so that whoever reads the row can put it through a chat
template again; as that ends the turn, a text of `stop` that ended it here is not in the turn, though it is in
`output`. A prompt that is too long is left out and counted; none is replaced by another.

Response `sample` to row r draws from random stream r * n + sample of a seed that follows from the plan's and
the stage's name, so that it depends neither on batches nor on the layout, nor on the other rounds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from runtime import chat
from runtime.data.prompts import PromptForm, Prompts, conversation
from runtime.generate import Rollouts
from runtime.handover import sections
from runtime.making import check_vocabulary, means
from runtime.online import sampling_of
from runtime.problem import Problem
from runtime.samplers import Sampler, sampler_of
from runtime.sampling import Sampling
from runtime.stopping import StopTexts

if TYPE_CHECKING:
    from runtime.making import Making
    from runtime.run import Run


@dataclass(frozen=True)
class Settings:
    """The section `generate` of the plan, as far as it is not the sampler's."""

    samples: int = 1  # of each prompt
    max_tokens: int = 1024
    max_prompt_tokens: int = 0  # 0, or more than that: what the model's positions leave beside a response
    add_bos: bool = False


@dataclass(frozen=True)
class Asking:
    """What every step needs: how the rows of each part become prompts, and how responses are drawn."""

    readers: list[Prompts]
    sampler: Sampler
    sampling: Sampling
    settings: Settings

    def close(self) -> None:
        """End what runs beside these processes."""
        self.sampler.close()


@dataclass(frozen=True)
class Prompt:
    """A row that is asked."""

    index: int  # in the source
    tokens: Sequence[int]
    row: Mapping[str, Any]


def opening(run: Making) -> Asking:
    """Read every prompt once, so that a bad row is found before the first response; count the long ones."""
    settings = run.program_settings(Settings)
    most = longest_prompt(settings, run.role.model.shape.max_positions)
    vocab = run.role.model.shape.vocab
    sampling = sampling_of(run.settings, run.tokenizer, seed_of(run), vocab)
    sampler = sampler_of(cast("Run", run), run.table())
    asking = Asking(readers_of(run, most, settings.add_bos), sampler, sampling, settings)
    dropped = run.on_first(lambda: sum(not _read(run, asking, i) for i in range(len(run.source))))
    if dropped == len(run.source):
        raise Problem("R011", f"no prompt can be used: {dropped} are longer than {most} tokens or unlike one")
    if dropped:
        run.say(f"{dropped} of {len(run.source)} prompts are left out (longer than {most} tokens)")
    return asking


def longest_prompt(settings: Settings, positions: int) -> int:
    """Tokens of a prompt at most: as the plan says, and so few that the longest response has its positions
    behind it. Problem R001 where that is none.
    """
    room = positions - settings.max_tokens
    if room < 1:
        message = f"responses of {settings.max_tokens} tokens leave no room for a prompt in {positions}"
        raise Problem("R001", f"{message} positions; lower generate.max_tokens")
    return min(settings.max_prompt_tokens or room, room)


def readers_of(run: Making, most: int, add_bos: bool) -> list[Prompts]:
    """How the rows of each part of the data become prompts of at most so many tokens."""
    template = run.role.model.chat_template
    forms = [
        PromptForm(part.get("format") or "auto", part.get("prompt") or "{input}", most, add_bos)
        for _, part in sections(run.job)
    ]
    return [
        Prompts(rows, run.tokenizer, template, form)
        for rows, form in zip(run.source.parts, forms, strict=True)
    ]


def step(run: Making) -> dict[str, Any]:
    """Responses to the next prompts."""
    asking: Asking = run.opened
    n = asking.settings.samples
    with run.part("data"):
        read = [_read(run, asking, i) for i in run.indices()]
        prompts = [prompt for prompt in read if prompt]
    run.count(prompts_left_out=len(read) - len(prompts))
    if not prompts:
        return {}
    first = run.source.first
    with run.part("generate"):
        found = asking.sampler.responses(
            [prompt.tokens for prompt in prompts for _ in range(n)],
            asking.sampling,
            [(first + prompt.index) * n + i for prompt in prompts for i in range(n)],
            run.tokenizer.decode,
            on_event=lambda event: run.alive(),
            on_share=None,
        )
    made = [
        row_of(run, prompts[k // n], k % n, found.tokens[k], found.finish[k], asking.sampling)
        for k in range(len(found.tokens))
    ]
    run.put(made)
    run.count(cut_at_max_tokens=sum(finish == "length" for finish in found.finish))
    return measured(found)


def row_of(
    run: Making, prompt: Prompt, sample: int, tokens: Sequence[int], finish: str, sampling: Sampling
) -> dict[str, Any]:
    """A response as a row."""
    ended = finish == "stop" and tokens and tokens[-1] in sampling.stop_token_ids
    output = run.tokenizer.decode(list(tokens[:-1] if ended else tokens))
    row = {
        "input": run.tokenizer.decode(list(prompt.tokens)),
        "output": output,
        "finish": finish,
        "sample": sample,
        "source": prompt.row,
    }
    reader = run.opened.readers[run.source.find(prompt.index)[0]]
    talk = conversation(prompt.row) if reader.form.format in ("auto", "chat") else None
    if talk is None:
        return row
    if finish == "stop":
        output = output if ended else StopTexts(sampling.stop, run.tokenizer.decode).removed(list(tokens))
        output = output.removesuffix(chat.tail(run.tokenizer, reader.template))
    return row | answered(talk, output)


def answered(talk: Mapping[str, Any], output: str) -> dict[str, Any]:
    """The conversation with the response as its last turn."""
    if "messages" in talk:
        return {**talk, "messages": [*talk["messages"], {"role": "assistant", "content": output}]}
    turns = talk["conversations"]
    asker = talk.get("mask") or "User"
    answerer = next((turn["from"] for turn in turns if turn.get("from") != asker), "Assistant")
    return {**talk, "conversations": [*turns, {"from": answerer, "value": output}]}


def measured(found: Rollouts) -> dict[str, float]:
    """What is logged of a step's responses."""
    lengths = {
        "prompt_length": [len(prompt) for prompt in found.prompts],
        "response_length": [len(tokens) for tokens in found.tokens],
        "truncated": [float(finish == "length") for finish in found.finish],
    }
    return means(lengths) | {"tokens": sum(lengths["response_length"])}


def seed_of(run: Making) -> int:
    """Another seed for each stage, so that rounds over the same prompts do not draw alike."""
    digest = hashlib.sha256(f"{run.plan.seed}/{run.job.stage}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _read(run: Making, asking: Asking, index: int) -> Prompt | None:
    """A prompt; None when it is left out. Problem R010 names a bad row."""
    if index % 4096 == 0:
        run.alive()
    part, inner = run.source.find(index)
    reader = asking.readers[part]
    [found] = reader.read(inner)
    if found.dropped:
        return None
    check_vocabulary(found.tokens, reader.rows.where(inner), run.role.model.shape.vocab)
    return Prompt(index, found.tokens, reader.rows[inner])
