"""Processes that serve: a critic, a reward model or both behind HTTP, from the plan to the last answer.

Rank 0 listens at SPECC_LISTEN before anything is loaded, so that a port that is taken is found at once; it
says that it lives, and that it is ready when its models are. All groups of a job share one attempt's folder:
the token lies there, and the file `over` there ends the servers. They leave `stop`, `heartbeat` and signals
to the group that asks them: it needs them until its last save is done.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from runtime.commits import commits_of
from runtime.place import Place
from runtime.problem import Problem
from runtime.serving.app import application
from runtime.serving.desk import Desk
from runtime.serving.names import served_of
from runtime.serving.server import bound, serving, shared_token
from specc.plan import OVER, Group, Job, Plan, Role

if TYPE_CHECKING:
    from runtime.algorithms.serve import Bench, Critic, Reward
    from runtime.engine import Engine
    from runtime.judges import Lesson
    from runtime.metrics import Sink
    from runtime.parallel import Parallel
    from runtime.tokenizer import Tokenizer

TOKEN = "token"
"""The file in the attempt's folder that lets clients in."""


def listen(environment: Mapping[str, str]) -> socket.socket:
    """The socket of SPECC_LISTEN. Problem R050 when there is none to be had."""
    host, _, port = environment.get("SPECC_LISTEN", "").rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        said = environment.get("SPECC_LISTEN")
        raise Problem("R050", f"SPECC_LISTEN is {said!r}, not HOST:PORT: a server has to know its address")
    return bound(host.strip("[]"), int(port))


def serve(plan: Plan, job: Job, role: Role, place: Place, door: socket.socket | None) -> None:
    """Load the group's models and answer until the job is over. `door` is rank 0's socket. Collective."""
    group = next(group for group in job.groups if role in group.roles)
    ready, desk = threading.Event(), Desk() if door is not None else None
    with contextlib.ExitStack() as stack:
        if door is not None and desk is not None:
            names = [role.name for role in group.roles]
            served = served_of(names, len(_attributes(group)))
            app = application(served, desk, shared_token(place.attempt / TOKEN), ready.is_set)
            url = stack.enter_context(serving(app, door))
            print(f"{group.name} listens at {url}: {', '.join(one.name for one in served)}", flush=True)
        from runtime import parallel
        from runtime.serving import ranks

        loading = Loading(plan, job, group, place)
        bench = loading.bench()
        ready.set()
        loading.say(f"{group.name} is ready")
        ranks.work(desk, bench.verbs(), (place.attempt / OVER).exists, lambda: None)
        loading.close(bench)
    parallel.stop()


def _attributes(group: Group) -> tuple[str, ...]:
    """Those of the reward model's head, where it has several."""
    names = next((role.model.attributes for role in group.roles if role.name == "reward"), ())
    return names if len(names) > 1 else ()


@dataclass
class Loading:
    """A group's models on their way into memory."""

    plan: Plan
    job: Job
    group: Group
    place: Place
    model: Engine | None = None  # the first one
    pad_id: int = 0
    max_steps: int = 0
    step: int = 0
    sinks: list[Sink] = field(default_factory=list)  # of the critic's metrics

    @property
    def role(self) -> Role:
        return self.group.role

    @property
    def settings(self) -> dict[str, Any]:
        """The section of the algorithm that asks."""
        return self.job.settings.get(self.job.groups[0].role.program) or {}

    @property
    def train(self) -> dict[str, Any]:
        return self.job.settings["train"]

    def say(self, text: str) -> None:
        """One line on stdout, from rank 0."""
        if self.place.is_first:
            print(text, flush=True)

    def alive(self) -> None:
        """The heartbeat is the asking group's."""

    def bench(self) -> Bench:
        """The models with their weights, the critic as its newest commit left it. Collective."""
        if self.plan.cluster.device == "cpu":
            from runtime import cpu

            cpu.install()
        from runtime import parallel, tokenizer
        from runtime.algorithms.serve import Bench

        cluster, seconds = self.plan.cluster, self.job.collective_timeout_seconds
        for role in self.group.roles:
            if role.layout != self.role.layout:
                message = f"`{role.name}` has layout {role.layout}, but shares its processes with"
                raise Problem("R001", f"{message} `{self.role.name}` of {self.role.layout}; compile again")
        own = parallel.start(self.role.layout, cluster.backend, cluster.device, seconds, self.plan.seed)
        self.say(f"{self.plan.name}/{self.job.stage}: {self.role.layout} on {self.place.world} processes")
        words = tokenizer.load(self.role.model.tokenizer)
        self.pad_id = words.pad_id
        roles = {role.name: role for role in self.group.roles}
        critic = self._critic(roles["critic"], own) if "critic" in roles else None
        reward = self._reward(roles["reward"], own) if "reward" in roles else None
        if critic is not None:
            self._resume(critic)
        shapes = [role.model.shape for role in self.group.roles]
        limit = min(shape.max_positions for shape in shapes)
        limit = min(int(self.train.get("seq_length") or limit), limit)
        vocab = min(shape.vocab for shape in shapes)
        return Bench(vocab, limit, critic, reward, partial(self._encoded, words))

    def close(self, bench: Bench) -> None:
        """Leave what the run took."""
        from runtime import measured

        for sink in self.sinks:
            sink.close()
        if bench.critic is not None:
            self.step = bench.critic.step
            measured.write(self)  # type: ignore[arg-type]

    # ── inside ─────────────────────────────────────────────────────────────────────────────────

    def _encoded(self, words: Tokenizer, text: str) -> list[int]:
        """A sentence's tokens, begun as prompts are."""
        begins = (self.job.settings.get("generate") or {}).get("add_bos")
        first = [words.bos_id] if begins and words.bos_id is not None else []
        return first + words.encode(text)

    def _critic(self, role: Role, own: Parallel) -> Critic:
        """The critic with its first weights."""
        from runtime import cast
        from runtime.algorithms.serve import Critic
        from runtime.engine import Engine
        from runtime.weights import take_weights

        run: Any = self
        self.model = engine = Engine(role, own, cast.optimizer_of(run, "critic"), self.plan.seed)
        take_weights(engine, role, self.place, say=self.say)

        def fit(lessons: Sequence[Lesson], step: int, max_steps: int) -> dict[str, float]:
            self.max_steps = max_steps
            found = cast.fit_critic(run, engine, role, lessons, step)
            engine.rest()
            return found

        def keep(step: int) -> None:
            cast.save_critic(run, engine, step)
            engine.rest()

        return Critic(
            engine,
            cast.table_of(role, engine, self.pad_id),
            fit,
            keep,
            max_steps=0 if self.train.get("epochs") else int(self.train.get("steps") or 0),
        )

    def _reward(self, role: Role, own: Parallel) -> Reward:
        """The reward model: in the critic's engine, where its weights trade places, or in one of its own."""
        from runtime import cast
        from runtime.algorithms.serve import Reward
        from runtime.engine import Engine
        from runtime.judges import itself
        from runtime.scoring import scoring_of
        from runtime.weights import take_weights

        run: Any = self
        if self.model is None:
            self.model = Engine(role, own, None, self.plan.seed)
            take_weights(self.model, role, self.place, say=self.say)
            asked = partial(itself, self.model)
        else:
            asked, _ = cast.reward_of(run, role, self.model, None)
            assert asked is not None
        section = self.job.settings.get("reward") or {}
        scoring = scoring_of(section, role, self.place.run_folder)
        return Reward(asked, cast.table_of(role, self.model, self.pad_id), scoring)

    def _tell(self, line: dict[str, Any]) -> None:
        for sink in self.sinks:
            sink.write(line)

    def _resume(self, critic: Critic) -> None:
        """Go on from the newest step that all roles have saved, and append to its metrics."""
        from runtime import checkpoint, metrics

        commits = commits_of(self.job, self.place.stage)
        found = checkpoint.resume(self.place.checkpoints, critic.engine, commits)  # type: ignore[arg-type]
        critic.step = found[0] if found else 0
        if found:
            self.say(f"resuming after step {critic.step}")
        if self.place.is_first:
            file = self.place.role / "metrics.jsonl"
            metrics.cut_to_step(file, critic.step, self.place.attempt / self.role.name)
            name, settings = f"{self.plan.name}/{self.job.stage}/{self.role.name}", dict(self.job.settings)
            self.sinks = metrics.sinks(self.place.role, self.train, critic.step, name, settings)
            critic.tell = self._tell
