"""What makes an actor's rollouts: its training weights, or a second engine that is given them.

Both take a list of prompts on every rank and give every rank all responses; an algorithm cannot tell them
apart. A second engine gets new weights when the optimizer has stepped since, through a folder of Hugging
Face's form, and is then held to the training forward pass on tokens of its own.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch.distributed as dist

from runtime import engines
from runtime.agreement import rank, said, shared
from runtime.batch import Sample
from runtime.dealing import Table, by_sample, deal, gathered
from runtime.engine import Engine
from runtime.engines.check import PROBE, held, probed
from runtime.engines.environments import ENVIRONMENTS
from runtime.engines.shelf import MEMORY, Shelf, taken
from runtime.folding import Folding
from runtime.generate import Rollouts, dealt, generate
from runtime.hf import export_weights
from runtime.preflight import parameters
from runtime.problem import Problem
from runtime.replicas import Replicas, replicas_of
from runtime.rows import Event, Request, Response
from runtime.sampling import Sampling
from runtime.stopping import Decode

if TYPE_CHECKING:
    from runtime.run import Run

KINDS = {"vllm": "Vllm", "trtllm": "TensorRTLLM"}
"""Engines of other environments: a module of `runtime.engines` and its class."""

ENGINE_SHARE = 0.9
"""Of the free GPU memory that vLLM may take; the planner counts on the same."""

PROBES = 4
"""Prompts that each second engine is checked on after new weights."""

BOUNDS = {"fp32": 1.001, "bf16": 1.05}
"""How far an engine's probabilities may be off, as a factor; NeMo-RL's bound for bf16."""


class Sampler(Protocol):
    """What rollouts need."""

    replicas: Replicas

    def responses(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        sequences: Sequence[int],
        decode: Decode | None,
        on_event: Callable[[Event], None],
        on_share: Callable[[list[int]], None] | None,
    ) -> Rollouts:
        """A response to each prompt, in order, on every rank. Collective."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


class Own:
    """The training weights, with their pipeline stages or, `folded`, without."""

    def __init__(self, engine: Engine, slots: int = 64, folded: bool = False, longest: int = 0) -> None:
        """`slots` rows at once, of at most `longest` tokens (0: what the model's positions allow)."""
        self.engine, self.slots, self.longest = engine, slots, longest
        folds = folded and engine.parallel.layout.pp > 1
        self.replicas = replicas_of(engine.parallel, folds)
        self._folding = Folding(engine) if folds else None

    def responses(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        sequences: Sequence[int],
        decode: Decode | None,
        on_event: Callable[[Event], None],
        on_share: Callable[[list[int]], None] | None,
    ) -> Rollouts:
        how = {"decode": decode, "slots": self.slots, "on_event": on_event, "on_share": on_share}
        how |= {"longest": self.longest, "replicas": self.replicas}
        whole = nullcontext(self.engine) if self._folding is None else self._folding.whole()
        with whole as model:
            return generate(model, prompts, sampling, sequences, **how)

    def close(self) -> None:
        """The weights belong to the one who trains them."""


@dataclass
class Second:
    """Engines in processes of their own, one for each replica, talked to by its first rank."""

    engine: Engine  # that trains
    other: engines.Engine | None  # on the ranks that talk
    replicas: Replicas
    table: Table
    folder: Path  # where all ranks of this run see the weights that are handed over
    shelf: Shelf | None  # what it lies in, on the rank that keeps it
    unload: bool = False  # whether it leaves the device between rollouts
    alive: Callable[[], None] = lambda: None

    version: int | None = field(default=None, init=False)  # of the weights that it has

    def responses(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        sequences: Sequence[int],
        decode: Decode | None,
        on_event: Callable[[Event], None],
        on_share: Callable[[list[int]], None] | None,
    ) -> Rollouts:
        requests = [
            Request(i, prompt, sampling, number)
            for i, (prompt, number) in enumerate(zip(prompts, sequences, strict=True))
        ]
        mine = dealt(requests, self.replicas.number, self.replicas.size)
        if self.version is not None:
            self._each("wake")
        if self.version != self.engine.steps:
            self._refit(prompts, sampling)
        if on_share is not None:
            on_share([request.id for request in mine])
        found = self._together(partial(self._generated, mine, on_event))
        self._each("sleep")
        ordered = sorted((one for own in found for one in own), key=lambda response: response.id)
        return Rollouts(
            prompts=[list(prompt) for prompt in prompts],
            tokens=[one.tokens for one in ordered],
            logprobs=[one.logprobs for one in ordered],
            finish=[one.finish for one in ordered],
        )

    def close(self) -> None:
        if self.other is not None:
            self.other.close()
        if self.shelf is not None:
            self.shelf.close()

    # ── inside ─────────────────────────────────────────────────────────────────────────────────

    def _each(self, what: str) -> None:
        """`sleep` or `wake` for every engine, where they are to be unloaded."""
        if self.unload:
            self._together(lambda: getattr(self.other, what)() if self.other is not None else None)

    def _refit(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> None:
        """Hand the weights over as they are now, and hold the engines to them."""
        version, role = self.engine.steps, self.engine.role
        dtype = "bfloat16" if role.precision == "bf16" else "float32"
        export_weights(self.engine, role, self.folder, self.engine.parallel, dtype, self.alive)
        self._together(partial(self._given, version))
        if rank() == 0:  # a copy of the weights that nobody needs any more
            for file in self.folder.glob("*.safetensors"):
                file.unlink(missing_ok=True)
        self._check(prompts, sampling, version)
        self.version = version

    def _given(self, version: int) -> None:
        if self.other is None:
            return
        take = self.other.start if self.version is None else self.other.load
        take(str(self.folder), version)

    def _check(self, prompts: Sequence[Sequence[int]], sampling: Sampling, version: int) -> None:
        """Every engine draws after prompts of its own; the training forward scores all of it at once."""
        probe = replace(PROBE, max_tokens=min(PROBE.max_tokens, sampling.max_tokens))
        asked = [prompts[(self.replicas.number * PROBES + i) % len(prompts)] for i in range(PROBES)]
        drawn = self._together(lambda: self._drawn(asked, version, probe))
        numbered = [(talker, *pair) for talker, pairs in enumerate(drawn) for pair in pairs]
        samples = [
            Sample(i, (*prompt, *one.tokens), [0] * len(prompt) + [1] * len(one.tokens))
            for i, (_, prompt, one) in enumerate(numbered)
        ]
        share = deal(samples, self.table)
        scored = by_sample(self.engine.forward(share.microbatches, "logprobs"), share)
        said = gathered(scored, self.engine.parallel.groups.dp)
        own = [(i, prompt, one) for i, (talker, prompt, one) in enumerate(numbered) if talker == rank()]

        def compare() -> None:
            if self.other is not None:
                expected = [said[i][len(prompt) - 1 :].tolist() for i, prompt, _ in own]
                held(self.other, [one for _, _, one in own], expected, BOUNDS[self.engine.role.precision])

        self._together(compare)

    def _drawn(
        self, asked: Sequence[Sequence[int]], version: int, probe: Sampling
    ) -> list[tuple[Sequence[int], engines.Completion]]:
        if self.other is None:
            return []
        return list(zip(asked, probed(self.other, asked, version, probe), strict=True))

    def _generated(self, mine: Sequence[Request], on_event: Callable[[Event], None]) -> list[Response]:
        if self.other is None or not mine:
            return []
        prompts, numbers = [request.prompt for request in mine], [request.sequence for request in mine]
        completions = self.other.generate(prompts, mine[0].sampling, numbers)
        found = []
        for request, one in zip(mine, completions, strict=True):
            self._refuse(request, one)
            found.append(Response(request.id, list(one.tokens), list(one.logprobs), one.finish))
            on_event(found[-1])
        return found

    def _refuse(self, request: Request, one: engines.Completion) -> None:
        """EngineFailed for what no sampler of ours would give."""
        vocab, most = self.engine.role.model.shape.vocab, request.sampling.max_tokens
        said = ""
        strange = next((token for token in one.tokens if not 0 <= token < vocab), None)
        if strange is not None:
            said = f"token {strange}, outside the vocabulary of {vocab},"
        elif one.finish not in ("stop", "length") or not 0 < len(one.tokens) <= most:
            said = f"{len(one.tokens)} tokens of at most {most} that end by `{one.finish}`"
        elif one.version != self.version:
            said = f"a response of weights {one.version}, not {self.version},"
        if said:
            name = self.other.name if self.other is not None else ""
            raise engines.EngineFailed(f"engine `{name}` gave {said} to prompt {request.id}")

    def _together(self, action: Callable[[], Any]) -> list[Any]:
        """Do it on every rank; the first failure is every rank's Problem R056."""

        def attempt() -> Any:
            try:
                return action()
            except engines.EngineFailed as error:
                raise Problem("R056", str(error), outside=True) from None

        return shared(attempt)


# ── from a plan ──────────────────────────────────────────────────────────────────────────────────


def sampler_of(run: Run, table: Table) -> Sampler:
    """What the plan says generates: `generate.engine`, and how it lies over this role's GPUs."""
    section = run.job.settings.get("generate") or {}
    name, reshard = str(section.get("engine") or "megatron"), bool(section.get("reshard"))
    if name == "megatron":
        return Own(run.model, run.role.rows or int(section.get("rows") or 64), reshard, longest_row(run))
    if name not in KINDS:
        known = ", ".join(["megatron", *KINDS])
        raise Problem("R001", f"the plan's `generate.engine` is `{name}`, expected one of {known}")
    parallel, replicas = run.model.parallel, seats_of(run)
    by_tensor_alone = reshard or name == "vllm"
    group = parallel.groups.tp if by_tensor_alone else parallel.groups.mp
    unload = bool(section.get("unload"))
    settings = settings_of(run, name, 1 if by_tensor_alone else parallel.layout.pp, unload)
    shelf = scratch_of(run) if rank() == 0 else None
    folder = said(lambda: shelf.folder / "weights" if shelf else Path())
    other = None
    if replicas.leads:
        from importlib import import_module

        module = import_module(f"runtime.engines.{name}")
        python, seconds = ENVIRONMENTS[name].python(), 0.9 * run.job.collective_timeout_seconds
        scratch = run.place.attempt / "engines" / str(parallel.rank)
        environment = devices_of(run, group)
        other = getattr(module, KINDS[name])(python, scratch, settings, seconds, environment)
    return Second(run.model, other, replicas, table, folder, shelf, unload, run.alive)


def longest_row(run: Run) -> int:
    """Tokens of a row that is generated, prompt and response, at most: what the planner gave the cache. A
    question to a judge may fill a whole row of the training.
    """
    section, seq_length = run.job.settings.get("generate") or {}, int(run.train["seq_length"])
    most = section.get("max_prompt_tokens")
    if run.settings.get("judgements") or not most:
        return seq_length
    return min(int(most) + int(section.get("max_tokens") or Sampling.max_tokens), seq_length)


def seats_of(run: Run) -> Replicas:
    """Who generates: stages are replicas too where they are folded, which vLLM wants in any case."""
    section = run.job.settings.get("generate") or {}
    return replicas_of(run.model.parallel, bool(section.get("reshard")) or section.get("engine") == "vllm")


def settings_of(run: Run, name: str, stages: int, unload: bool) -> dict[str, Any]:
    """What the engine is started with, in its own words."""
    role, section = run.role, run.job.settings.get("generate") or {}
    longest = min(int(run.train["seq_length"]), role.model.shape.max_positions)
    rows = role.rows or int(section.get("rows") or 64)
    dtype = "bfloat16" if role.precision == "bf16" else "float32"
    on_gpu = run.model.parallel.device.type == "cuda"
    shared = {"dtype": dtype, "tensor_parallel_size": role.layout.tp}
    if name == "trtllm":
        lengths = {"max_seq_len": longest, "max_input_len": longest, "max_batch_size": rows}
        return {**shared, **lengths, "pipeline_parallel_size": stages, "sleep": unload}
    found = {**shared, "max_model_len": longest, "max_num_seqs": rows, "enforce_eager": not on_gpu}
    if on_gpu:
        import torch

        free, total = torch.cuda.mem_get_info()
        found |= {"gpu_memory_utilization": round(ENGINE_SHARE * free / total, 3)}
        found |= {"enable_sleep_mode": unload}
    return found


def devices_of(run: Run, group: Any) -> dict[str, str]:
    """Variables of an engine's process: it sees the GPUs of its ranks. Problem R056 when they are on several
    machines.
    """
    if run.model.parallel.device.type != "cuda":
        return {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_HOST_IP": "127.0.0.1"}
    ranks, each = dist.get_process_group_ranks(group), max(run.place.local_world, 1)
    if len({rank // each for rank in ranks}) > 1:
        message = f"an engine's {len(ranks)} GPUs lie on several machines of {each}"
        raise Problem("R056", f"{message}; use generate.reshard: true, or a smaller tp")
    seen = [one for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one]
    local = [rank % each for rank in ranks]
    return {"CUDA_VISIBLE_DEVICES": ",".join(seen[i] if i < len(seen) else str(i) for i in local)}


def scratch_of(run: Run) -> Shelf:
    """Where weights are handed over: in memory on one machine that has room, else in the attempt's folder."""
    role, element = run.role, 2 if run.role.precision == "bf16" else 4
    needed = 1.2 * parameters(role.model.shape) * element
    if run.place.nodes == 1:
        name = hashlib.sha256(str(run.place.role.resolve()).encode()).hexdigest()[:16]
        if shelf := taken(name, lambda: shutil.disk_usage(MEMORY).free > needed):
            return shelf
    return Shelf(run.place.attempt / "engines" / "handed")
