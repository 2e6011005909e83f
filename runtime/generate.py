"""Generation on the weights that train, under every layout that trains.

`Generator` is a stepper: requests come in at any time, each step is one token for every row, and rows
that are done make room for those that wait. A server feeds it; `generate` is the loop for a list of
prompts. All ranks of a model call the same methods with the same arguments.

Layouts: tensor-parallel ranks gather the logits and draw alike. A pipeline of P stages has P batches of
rows on the way, so that every stage is busy; the last one tells the others what was drawn, over a
group of its own on the host. Data-parallel replicas (context-parallel ranks are replicas too) deal the
prompts among them; where they share experts they step together until the last is done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from runtime.cache import Line
from runtime.decoding import Decoder
from runtime.engine import Engine
from runtime.folding import Whole
from runtime.replicas import Replicas, replicas_of
from runtime.rows import MOST_TOLD, Event, Request, Response, Rows, told
from runtime.sampling import LOGPROBS, Sampling
from runtime.stopping import Decode


class GenerateError(ValueError):
    """A request cannot be served."""


@dataclass(frozen=True)
class Rollouts:
    """Responses in the order of their prompts."""

    prompts: list[list[int]]
    tokens: list[list[int]]  # of the responses alone, a stop token or text included
    logprobs: list[list[float]]
    finish: list[str]  # stop, length
    logprobs_of: str = LOGPROBS


class Generator:
    """Rows that come and go over one model; a step is a token for each. Use inside `with generator:`."""

    def __init__(
        self,
        engine: Engine | Whole,
        slots: int = 64,
        prompt_tokens: int = 2048,
        decode: Decode | None = None,
        vocab: int = 0,
        longest: int = 0,
    ) -> None:
        """`slots`: rows at once on this replica, one for each pipeline stage at least; `prompt_tokens`: of
        new prompts in one pass, at most, unless one alone is longer; `decode`: ids to text, for stop texts;
        `vocab`: ids from it on are never drawn, where the tokenizer has fewer than the model; `longest`:
        tokens of a row, prompt and response, at most; 0: the model's positions."""
        if engine.role.model.head != "language":
            raise GenerateError(f"role `{engine.role.name}` has a head of numbers, so it cannot generate")
        self.parallel = engine.parallel
        self.shape = engine.role.model.shape
        self.prompt_tokens = prompt_tokens
        self.decode = decode
        self.vocab = vocab or self.shape.vocab
        self.longest = min(longest or self.shape.max_positions, self.shape.max_positions)
        stages = engine.parallel.layout.pp
        sizes = [max(slots // stages + (i < slots % stages), 1) for i in range(stages)]
        self.decoder = Decoder(engine, sum(sizes), self.longest)
        self.batches = [
            Rows(sum(sizes[:i]), size, self.shape.vocab, engine.parallel.device)
            for i, size in enumerate(sizes)
        ]
        self.waiting: deque[Request] = deque()
        self.steps = 0
        self._lines: list[Line | None] = [None] * stages
        self._drawn: list[np.ndarray | None] = [None] * stages  # on the last stage
        self._relay = _Relay(engine, self.decoder.config.pipeline_dtype or self.decoder.config.params_dtype)
        self._ready: Any = None

    def __enter__(self) -> Generator:
        self._ready = self.decoder.ready()
        self._ready.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._relay.drain(failed=error[0] is not None)
        self._ready.__exit__(*error)

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and nothing is on its way in this replica."""
        return not self.waiting and not any(len(rows) for rows in self.batches)

    def add(self, request: Request) -> None:
        """Let a request wait for a place. GenerateError when it cannot be served."""
        if why := self._wrong_with(request):
            raise GenerateError(f"prompt {request.id} {why}")
        self.waiting.append(request)

    def abort(self, id: int) -> list[Event]:
        """End a request; one that is being generated ends with the next token."""
        for request in list(self.waiting):
            if request.id == id:
                self.waiting.remove(request)
                return [Response(id, [], [], "abort")]
        for rows in self.batches:
            for i, request in enumerate(rows.requests):
                rows.aborted[i] |= request.id == id
        return []

    def step(self) -> list[Event]:
        """One pass of every batch through this rank's part of the model; what was drawn since the last."""
        events: list[Event] = []
        for v in range(len(self.decoder.chunks)):
            for b, rows in enumerate(self.batches):
                if v == 0:
                    events += self._collected(b)
                    self._lines[b] = self._planned(rows)
                line = self._lines[b]
                if line is not None:
                    self._pass(b, v, line)
        if len(self.batches) == 1:
            events += self._collected(0)
        self.steps += 1
        return events

    def anyone_busy(self) -> bool:
        """Whether this replica, or one that shares its experts, has something to do."""
        return self._anyone(not self.is_idle)

    # -- inside ----------------------------------------------------------------------------------

    def _planned(self, rows: Rows) -> Line | None:
        """The batch's next pass, with rows that waited; None: nothing to do anywhere."""
        active = sum(map(len, self.batches)) + len(self.waiting)
        places = min(rows.slots, -(-active // len(self.batches)))
        tokens = 0
        while self.waiting and len(rows) < places:
            tokens += len(self.waiting[0].prompt)
            if tokens > self.prompt_tokens and tokens > len(self.waiting[0].prompt):
                break
            if len(rows) and rows.told_with(self.waiting[0]) > MOST_TOLD:
                break
            request = self.waiting.popleft()
            budget = min(request.sampling.max_tokens, self.shape.max_positions - len(request.prompt))
            rows.admit(request, budget, self.decode)
        if len(rows):
            self._anyone(True)
            return rows.line(self.decoder.cache, self.decoder.window)
        return self._nothing(rows) if self._anyone(False) else None

    def _pass(self, b: int, v: int, line: Line) -> None:
        first = self.parallel.is_first_stage and v == 0
        last = self.parallel.is_last_stage and v == len(self.decoder.chunks) - 1
        hidden = None
        if not first:
            hidden = self._relay.received(self.decoder.hidden_size(len(line.tokens_n)))
        output = self.decoder.run(v, line, hidden)
        if not last:
            self._relay.pass_on(output)
        elif len(self.batches[b]):
            drawn = self._drawn[b] = self.batches[b].sample(output, self._logits)
            self._relay.tell(drawn)

    def _logits(self, hidden: Tensor) -> Tensor:
        logits_NV = self.decoder.logits(hidden)
        logits_NV[:, self.vocab :] = -torch.inf
        return logits_NV

    def _collected(self, b: int) -> list[Event]:
        """Take in what was drawn for a batch in its last pass, if there was one."""
        rows = self.batches[b]
        if self._lines[b] is None or not len(rows):
            return []
        drawn = self._drawn[b] if self.parallel.is_last_stage else self._relay.told(rows.size)
        assert drawn is not None
        events, done = rows.settle(drawn)
        rows.leave(done, self.decoder.cache)
        self._lines[b] = None
        return events

    def _nothing(self, rows: Rows) -> Line:
        """One token that nobody reads, in a place that is free: experts elsewhere want this rank to take
        part.
        """
        self.decoder.cache.reserve(1)
        zero = torch.zeros(1, dtype=torch.int64, device=self.parallel.device)
        return Line(zero, zero, zero + rows.first_slot, 0, 0, [1], zero[:0], 0)

    def _anyone(self, busy: bool) -> bool:
        layout = self.parallel.layout
        if layout.ep == 1:
            return busy
        flag = torch.tensor([float(busy)], device=self.parallel.device)
        dist.all_reduce(flag, dist.ReduceOp.MAX, group=self.parallel.groups.tp_ep)
        return bool(flag.item())

    def _wrong_with(self, request: Request) -> str:
        prompt, limit = request.prompt, self.shape.max_positions
        sampling = request.sampling
        if not len(prompt):
            return "is empty; begin it with at least one token"
        if len(prompt) >= limit:
            return f"has {len(prompt)} tokens, and the model has {limit} positions, the response included"
        if not 0 <= min(prompt) <= max(prompt) < self.shape.vocab:
            return f"has a token outside the vocabulary of {self.shape.vocab}"
        if (needed := tokens_of(request, limit)) > self.longest:
            return (
                f"has {len(prompt)} tokens, which come to {needed} with the response; rows of at most "
                f"{self.longest} were planned"
            )
        if any(not 0 <= token < self.shape.vocab for token in sampling.stop_token_ids):
            return f"has a stop token outside the vocabulary of {self.shape.vocab}"
        if not 0 <= request.top <= self.vocab:
            return f"wants {request.top} most likely tokens of {self.vocab}"
        if (numbers := told(request.top, len(prompt) if request.heard else 1)) > MOST_TOLD:
            return f"wants {numbers} numbers told beside its tokens; at most {MOST_TOLD} are"
        if sampling.min_tokens and len(set(sampling.stop_token_ids)) >= self.shape.vocab:
            return "has every token as stop token and yet a least length"
        if sampling.stop and self.decode is None:
            return "has stop texts, and there is no tokenizer to decode with"
        return ""


class _Relay:
    """Hidden states from stage to stage, and what was drawn from the last to all."""

    def __init__(self, engine: Engine | Whole, dtype: torch.dtype) -> None:
        self.parallel = engine.parallel
        self.dtype = dtype
        self._sent: deque[tuple[Any, Tensor]] = deque()
        self._told: Any = None
        if self.parallel.layout.pp > 1:
            self.ranks = dist.get_process_group_ranks(self.parallel.groups.pp)
            # waiting on the host never holds up a device's stream
            self._told = _group_beside(self.parallel.groups.pp, "gloo")
            self._back = self._on = self.parallel.groups.pp
            if len(self.ranks) == 2 and self.parallel.layout.vp > 1:
                # both directions between two ranks would wait for one another on NCCL's one stream for a pair
                self._back = _group_beside(self._on, self.parallel.backend)

    def received(self, size: tuple[int, ...]) -> Tensor:
        hidden = torch.empty(size, dtype=self.dtype, device=self.parallel.device)
        before = self.ranks[self.parallel.pp_rank - 1]
        dist.recv(hidden, before, group=self._back if self.parallel.is_first_stage else self._on)
        return hidden

    def pass_on(self, hidden: Tensor) -> None:
        after = self.ranks[(self.parallel.pp_rank + 1) % len(self.ranks)]
        self._send(hidden.contiguous(), after, self._back if self.parallel.is_last_stage else self._on)

    def tell(self, drawn: np.ndarray) -> None:
        """Say to the other stages what the last one drew."""
        if self._told is not None:
            for rank in self.ranks[:-1]:
                self._send(torch.from_numpy(drawn), rank, self._told)

    def told(self, size: tuple[int, int]) -> np.ndarray:
        drawn = torch.empty(size, dtype=torch.float64)
        dist.recv(drawn, self.ranks[-1], group=self._told)
        return drawn.numpy()

    def drain(self, failed: bool = False) -> None:
        """Wait until all that was sent has arrived, unless something broke."""
        while self._sent:
            work, _ = self._sent.popleft()
            if not failed:
                work.wait()

    def _send(self, tensor: Tensor, to: int, group: Any) -> None:
        self._sent.append((dist.isend(tensor, to, group=group), tensor))
        # what was sent two rounds ago has been read, as its answers are here: nobody waits for long
        while len(self._sent) > 4 * len(self.ranks) * max(self.parallel.layout.vp, 1):
            work, _ = self._sent.popleft()
            work.wait()


_groups: dict[tuple[Any, str], Any] = {}


def _group_beside(pipeline: Any, backend: str) -> Any:
    """Another group of a pipeline's ranks, made once, by all ranks of the world together."""
    if (pipeline, backend) not in _groups:
        own = dist.get_process_group_ranks(pipeline)
        everywhere: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(everywhere, own)
        for ranks in sorted({tuple(ranks) for ranks in everywhere}):
            made = dist.new_group(list(ranks), backend=backend)
            if list(ranks) == own:
                _groups[pipeline, backend] = made
    return _groups[pipeline, backend]


def generate(
    engine: Engine | Whole,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling | Sequence[Sampling],
    sequences: Sequence[int] | None = None,
    *,
    decode: Decode | None = None,
    slots: int = 64,
    longest: int = 0,
    on_event: Callable[[Event], None] | None = None,
    on_share: Callable[[list[int]], None] | None = None,
    replicas: Replicas | None = None,
) -> Rollouts:
    """Continue every prompt; the same prompts on every rank, and the same answer.

    `sampling` for all, or one each. `sequences` number the random streams, 0, 1, ... where not given: a
    response depends on its prompt, settings, seed and number alone. `slots` and `longest` are rows at once
    and tokens of a row at most, as planned; the cache is no larger than the prompts need. `on_event` sees
    what happens on this replica; `on_share` is told first which prompts are this replica's. `replicas` share
    the prompts; left out, the engine's own. GenerateError when a prompt cannot be served, before any work.
    """
    samplings = [sampling] * len(prompts) if isinstance(sampling, Sampling) else list(sampling)
    numbers = list(range(len(prompts))) if sequences is None else list(sequences)
    requests = [
        Request(i, prompt, settings, number)
        for i, (prompt, settings, number) in enumerate(zip(prompts, samplings, numbers, strict=True))
    ]
    replicas = replicas or replicas_of(engine.parallel)
    mine = dealt(requests, replicas.number, replicas.size)
    positions = engine.role.model.shape.max_positions
    needed = max((tokens_of(request, positions) for request in requests), default=1)
    longest = min(longest or positions, needed)
    generator = Generator(engine, min(slots, max(len(mine), 1)), decode=decode, longest=longest)
    for request in requests:
        if why := generator._wrong_with(request):
            raise GenerateError(f"prompt {request.id} {why}")
    if on_share is not None:
        on_share([request.id for request in mine])
    responses: list[Response] = []
    with generator:
        for request in mine:
            generator.add(request)
        while generator.anyone_busy():
            for event in generator.step():
                if isinstance(event, Response):
                    responses.append(event)
                if on_event is not None:
                    on_event(event)
    return _ordered(requests, replicas.gathered(responses))


def tokens_of(request: Request, positions: int) -> int:
    """Tokens of a prompt and its longest response, in so many positions."""
    return min(len(request.prompt) + request.sampling.max_tokens, positions)


def dealt(requests: Sequence[Request], rank: int, size: int) -> list[Request]:
    """A replica's share, longest first: there and back over the replicas, so that all have as much to do."""

    def work(request: Request) -> int:
        return len(request.prompt) + request.sampling.max_tokens

    ordered = sorted(requests, key=lambda request: (-work(request), request.id))
    turns = (ordered[start : start + size] for start in range(0, len(ordered), size))
    shares = [turn[rank if t % 2 == 0 else size - 1 - rank :][:1] for t, turn in enumerate(turns)]
    return [request for share in shares for request in share]


def _ordered(requests: Sequence[Request], responses: Sequence[Response]) -> Rollouts:
    ordered = sorted(responses, key=lambda r: r.id)
    return Rollouts(
        prompts=[list(request.prompt) for request in requests],
        tokens=[response.tokens for response in ordered],
        logprobs=[response.logprobs for response in ordered],
        finish=[response.finish for response in ordered],
    )
