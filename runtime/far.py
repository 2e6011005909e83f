"""Judges behind HTTP, in other processes of the same job: `Judges` whose answers come from servers.

Each replica of the actor asks about its own rollouts, a fixed number to a request, in an order that was fixed
before the first came: what a request holds depends on no timing. A request leaves when its last rollout is
there, while others are still being generated. Only a replica's lead rank talks; all ranks get every answer,
or the same `Problem`. The critic learns in the background, while the actor does.

SPECC_PEERS says where the servers are, `critic=HOST:PORT,reward=HOST:PORT`, by the group that serves.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from runtime.agreement import shared
from runtime.judges import Answers, Lesson, Near
from runtime.problem import Problem
from runtime.rollouts import Rollout
from runtime.samplers import seats_of
from runtime.serving.app import Tensor
from runtime.serving.client import Client, Patience
from runtime.serving.desk import Tensors
from runtime.serving.group import TOKEN
from runtime.serving.names import INFER, LEARNT, REWARD, REWARDS, SAVE, STATUS, TRAIN, VALUES

if TYPE_CHECKING:
    from runtime.run import Run

BEAT_SECONDS = 5.0
"""How often a sign of life is shown while a server is waited for."""


class Line:
    """One server, asked in order by a thread of its own. Connecting waits until it is ready."""

    def __init__(self, connect: Callable[[], Client]) -> None:
        self._connect = connect
        self._client: Client | None = None
        self._thread = ThreadPoolExecutor(1, "judge")

    def post(self, model: str, inputs: Tensors, wanted: tuple[Tensor, ...], id: str = "") -> Future[Tensors]:
        """Ask, some time soon; the future holds the checked answer or a `Problem`."""
        return self._thread.submit(self._asked, model, inputs, wanted, id)

    def close(self) -> None:
        """Ask nothing more."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        if self._client is not None:
            self._client.close()

    def _asked(self, model: str, inputs: Tensors, wanted: tuple[Tensor, ...], id: str) -> Tensors:
        if self._client is None:
            self._client = self._connect()
        return self._client.infer(model, inputs, wanted, id)


@dataclass
class Far:
    """`critic` and `reward` are lines to servers, the same one where both are in one; None: `near` knows."""

    critic: Line | None
    reward: Line | None
    near: Near
    rows: int  # of a request
    replica: int = 0
    replicas: int = 1
    leads: bool = True  # whether this rank talks for its replica
    is_first: bool = True  # whether it talks for all
    max_steps: int = 1
    alive: Callable[[], None] = lambda: None

    _chunks: list[list[int]] | None = field(default=None, init=False)
    _held: dict[int, Rollout] = field(default_factory=dict, init=False)
    _asked: dict[int, list[Future[Tensors]]] = field(default_factory=dict, init=False)
    _lesson: Future[Tensors] | None = field(default=None, init=False)

    def expect(self, ids: Sequence[int]) -> None:
        """Requests are cut from these, in this order."""
        self._chunks = [list(ids[i : i + self.rows]) for i in range(0, len(ids), self.rows)]
        self._held, self._asked = {}, {}

    def ask(self, rollout: Rollout) -> None:
        """Send the request that this one completes, if it does."""
        if not self.leads:
            return
        self._held[rollout.id] = rollout
        assert self._chunks is not None, "rollouts are announced by `expect` before they are asked about"
        number = next(i for i, chunk in enumerate(self._chunks) if rollout.id in chunk)
        if all(id in self._held for id in self._chunks[number]):
            self._asked[number] = self._posted([self._held[id] for id in self._chunks[number]])

    def answers(self, rollouts: Sequence[Rollout]) -> Answers:
        """Wait for this replica's, and hear those of all others. Collective."""
        if self._chunks is None:  # rollouts that nobody announced are dealt here
            own = rollouts[self.replica :: self.replicas]
            self.expect([r.id for r in own])
            for rollout in own:
                self.ask(rollout)
        values: dict[int, np.ndarray] = {}
        scores: dict[int, float] = {}
        try:
            for own_values, own_scores in shared(self._heard):
                values |= own_values
                scores |= own_scores
        finally:
            self._chunks, self._held, self._asked = None, {}, {}
        if self.critic is None:
            values = self.near.values(rollouts)
        if self.reward is None:
            scores = self.near.scores(rollouts)
        for rollout in rollouts:
            if rollout.id not in scores or (self.critic is not None and rollout.id not in values):
                raise Problem("R053", f"nobody judged the response to row {rollout.row}")
        return Answers(values, scores)

    def teach(self, lessons: Sequence[Lesson], step: int) -> None:
        """Send the step's lessons; the critic learns while the actor goes on. Collective."""
        if self.critic is None:
            self.near.teach(lessons, step)
        elif self.is_first and lessons:
            inputs = written(lessons) | {"schedule": np.array([step, self.max_steps], np.int64)}
            self._lesson = self.critic.post(TRAIN, inputs, LEARNT, f"step-{step}")

    def taught(self) -> dict[str, float]:
        """What the critic says of the lessons. Collective."""
        if self.critic is None:
            return self.near.taught()
        lesson, self._lesson = self._lesson, None
        return shared(lambda: _metrics(self._waited(lesson)) if lesson else {})[0]

    def save(self, step: int) -> None:
        """Let the critic save itself; it is on the disk afterwards. Collective."""
        if self.critic is None:
            self.near.save(step)
            return
        shared(partial(self._saved, step))

    def close(self) -> None:
        """Ask nobody anything more."""
        for line in {id(line): line for line in (self.critic, self.reward) if line is not None}.values():
            line.close()

    # ── inside ─────────────────────────────────────────────────────────────────────────────────

    def _posted(self, rollouts: Sequence[Rollout]) -> list[Future[Tensors]]:
        inputs = rows_of(rollouts)
        found = []
        if self.critic is not None:
            wanted = (VALUES, REWARDS) if self.critic is self.reward else (VALUES,)
            found.append(self.critic.post(INFER, inputs, wanted))
        if self.reward is not None and self.reward is not self.critic:
            found.append(self.reward.post(REWARD, inputs, (REWARDS,)))
        return found

    def _heard(self) -> tuple[dict[int, np.ndarray], dict[int, float]]:
        """This replica's answers by rollout; nothing on ranks that do not talk."""
        values: dict[int, np.ndarray] = {}
        scores: dict[int, float] = {}
        chunks = self._chunks or []
        for number, futures in sorted(self._asked.items()):
            rollouts = [self._held[id] for id in chunks[number]]
            for future in futures:
                answer = self._waited(future)
                _refuse_other_shapes(answer, rollouts)
                for i, rollout in enumerate(rollouts):
                    if "values" in answer:
                        values[rollout.id] = answer["values"][i, : len(rollout.tokens) - 1]
                    if "rewards" in answer:
                        scores[rollout.id] = float(answer["rewards"][i, 0])
        return values, scores

    def _saved(self, step: int) -> None:
        if self.is_first and self.critic is not None:
            inputs = {"step": np.array([step], np.int64)}
            answer = self._waited(self.critic.post(SAVE, inputs, (STATUS,), f"save-{step}"))
            if answer["status"][0]:
                raise Problem("R053", f"`{SAVE}` says {answer['status'][0]} instead of 0: it is not saved")

    def _waited(self, future: Future[Tensors]) -> Tensors:
        while not wait([future], BEAT_SECONDS).done:
            self.alive()
        return future.result()


# ── tensors ──────────────────────────────────────────────────────────────────────────────────────


def rows_of(rollouts: Sequence[Rollout]) -> Tensors:
    """The rollouts' tokens [B, S], 0 behind the end of each, and how many each has [B, 1]."""
    lengths = [len(rollout.tokens) for rollout in rollouts]
    tokens_BS = np.zeros((len(rollouts), max(lengths)), np.int64)
    for i, rollout in enumerate(rollouts):
        tokens_BS[i, : lengths[i]] = rollout.tokens
    return {"tokens": tokens_BS, "sequence_lengths": np.array(lengths, np.int64)[:, None]}


def written(lessons: Sequence[Lesson]) -> Tensors:
    """The lessons as `critic_train` takes them."""
    rows = rows_of([lesson.rollout for lesson in lessons])
    count, columns = rows["tokens"].shape
    named = {name: np.zeros((count, columns - 1), np.float32) for name in ("returns", "prev_values", "mask")}
    for i, lesson in enumerate(lessons):
        size = len(lesson.rollout.tokens) - 1
        named["returns"][i, :size] = lesson.returns
        named["prev_values"][i, :size] = lesson.values
        named["mask"][i, :size] = lesson.mask
    return rows | named


def _metrics(answer: Tensors) -> dict[str, float]:
    """The critic's answer under the names that a critic in these processes uses."""
    names = {
        "loss_mean": "critic_loss",
        "grad_norm": "critic_grad_norm",
        "value_clip_fraction": "value_clip_fraction",
        "lr": "critic_lr",
        "optimizer_steps": "critic_optimizer_steps",
    }
    return {name: float(answer[told][0]) for told, name in names.items()}


def _refuse_other_shapes(answer: Mapping[str, np.ndarray], rollouts: Sequence[Rollout]) -> None:
    """A line for each row, a number for each token: R053 otherwise."""
    columns = {"values": max(len(rollout.tokens) for rollout in rollouts), "rewards": 1}
    for name, array in answer.items():
        if array.shape != (len(rollouts), columns[name]):
            wanted = [len(rollouts), columns[name]]
            raise Problem("R053", f"the judges sent `{name}` of shape {list(array.shape)}, not {wanted}")


# ── from a plan ──────────────────────────────────────────────────────────────────────────────────


def far_of(run: Run, near: Near) -> Far:
    """The judges of a run whose plan has groups that serve; `near` is what lives in its own processes."""
    peers = peers_of(os.environ)
    settings = run.job.settings.get("serve") or {}
    lines: dict[str, Line] = {}
    rows = int(settings.get("batch") or 0)
    for group in run.job.groups:
        if not group.serves:
            continue
        if group.name not in peers:
            raise Problem("R051", f"SPECC_PEERS does not say where `{group.name}` listens", outside=True)
        line = Line(partial(connected, run, peers[group.name]))
        lines |= {role.name: line for role in group.roles}
        rows = rows or group.role.layout.dp * group.role.micro_batch
    replicas = seats_of(run)
    return Far(
        critic=lines.get("critic"),
        reward=lines.get("reward"),
        near=near,
        rows=max(rows, 1),
        replica=replicas.number,
        replicas=replicas.size,
        leads=replicas.leads,
        is_first=run.place.is_first,
        max_steps=run.max_steps,
        alive=run.alive,
    )


def peers_of(environment: Mapping[str, str]) -> dict[str, str]:
    """HOST:PORT of each group that serves, by its name."""
    parts = [part for part in environment.get("SPECC_PEERS", "").split(",") if part.strip()]
    pairs = [part.strip().partition("=") for part in parts]
    return {name: address for name, _, address in pairs if name and address}


def connected(run: Run, address: str) -> Client:
    """A client of the server there, when that is ready. Problem R051 when it is not in time."""
    settings = run.job.settings.get("serve") or {}
    most = 0.9 * run.job.collective_timeout_seconds  # sooner than ranks give up on each other
    patience = Patience(
        ready=min(float(settings.get("start_timeout_seconds") or most), most),
        answer=min(float(settings.get("timeout_seconds") or most), most),
        away=min(Patience.away, most),
    )
    token = awaited(run.place.attempt / TOKEN, patience.ready, run.alive)
    client = Client(f"http://{address}", token, patience, run.alive)
    client.wait_until_ready()
    return client


def awaited(file: Path, seconds: float, alive: Callable[[], None]) -> str:
    """What stands in the file, once it is there. Problem R051."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return file.read_text()
        except FileNotFoundError:
            pass
        except OSError as error:
            raise Problem("R051", f"cannot read the servers' token: {error.strerror}", outside=True) from None
        if time.monotonic() > deadline:
            message = f"no server left its token in `{file}` within {seconds:g} s"
            raise Problem("R051", f"{message}; do all groups have the same SPECC_ATTEMPT?", outside=True)
        alive()
        time.sleep(0.2)
