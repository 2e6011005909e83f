"""What processes that judge for others answer: values of a critic, scores of a reward model, and lessons.
Names and tensors are those of `runtime.serving.names`.

A request is one fixed set of microbatches, whatever else arrives, so answers repeat exactly. What it holds is
checked before anything is computed: a row that no model can take is refused by its number.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.judges import Lesson, heard
from runtime.problem import Problem
from runtime.rollouts import Rollout
from runtime.scoring import Scoring
from runtime.serving.desk import Refused, Tensors
from runtime.serving.names import INFER, REWARD, SAVE, TRAIN
from runtime.serving.wire import Array

if TYPE_CHECKING:
    from runtime.dealing import Numbers, Table
    from runtime.engine import Engine


@dataclass(frozen=True)
class Reward:
    """A reward model: inside `engine()` it can be asked."""

    engine: Callable[[], AbstractContextManager[Engine]]
    table: Table
    scoring: Scoring

    def says(self, rollouts: Sequence[Rollout]) -> Numbers:
        """What the head says at the end of each [B, outputs]."""
        with self.engine() as engine:
            found = heard(engine, [r.read_out() for r in rollouts], self.table)
        return np.stack([found[r.id][-1] for r in rollouts])


@dataclass
class Critic:
    """A critic that has learnt `step` steps: `fit(lessons, step, max_steps)` teaches, `keep(step)` saves."""

    engine: Engine
    table: Table
    fit: Callable[[Sequence[Lesson], int, int], dict[str, float]]
    keep: Callable[[int], None]
    tell: Callable[[dict[str, Any]], None] = lambda line: None
    max_steps: int = 0  # 0: a lesson has to say it
    step: int = 0


@dataclass
class Bench:
    """The verbs. Every rank calls them with the same tensors and gets the same answer."""

    vocab: int
    limit: int  # tokens of a row at most
    critic: Critic | None = None
    reward: Reward | None = None
    encode: Callable[[str], list[int]] | None = None  # text to tokens, as prompts are
    saved: int | None = field(default=None, init=False)

    def verbs(self) -> dict[str, Callable[[Tensors], Tensors]]:
        """By served name."""
        found: dict[str, Callable[[Tensors], Tensors]] = {}
        if self.critic is not None:
            found |= {INFER: self.infer, TRAIN: self.train, SAVE: self.save}
        if self.reward is not None:
            found[REWARD] = self.judge
        return found

    def infer(self, inputs: Tensors) -> Tensors:
        """Values, and scores where there is a reward model."""
        assert self.critic is not None
        tokens_BS, lengths_B1 = self._tokens(inputs)
        rows = self._rows(tokens_BS, lengths_B1)
        found = heard(self.critic.engine, [row.read_out() for row in rows], self.critic.table)
        values_BS = np.zeros(tokens_BS.shape, np.float32)
        for row in rows:
            values_BS[row.id, : len(row.tokens)] = found[row.id][:, 0]
        answer = {"values": _finite("value", values_BS)}
        if self.reward is not None:
            answer["rewards"] = self._scores(self.reward.says(rows))
        return answer

    def judge(self, inputs: Tensors) -> Tensors:
        """Scores, and what they are made of where the head has several attributes."""
        assert self.reward is not None
        said = self.reward.says(self._rows(*self._tokens(inputs)))
        answer = {"rewards": self._scores(said)}
        if said.shape[1] > 1:
            answer["attributes"] = said.astype(np.float32)
        return answer

    def train(self, inputs: Tensors) -> Tensors:
        """One pass over the lessons. What belongs to another step than the critic's next is refused."""
        assert self.critic is not None
        critic, began = self.critic, time.perf_counter()
        step, max_steps = self._schedule(inputs.get("schedule"))
        lessons = self._lessons(inputs)
        found = critic.fit(lessons, step, max_steps)
        critic.step = max(step + 1, critic.step)
        self.saved = None
        line = {name.removeprefix("critic_"): value for name, value in found.items()}
        seconds = {"step_seconds": round(time.perf_counter() - began, 6)}
        tokens = sum(len(lesson.rollout.tokens) for lesson in lessons)
        told = {"step": max(step, 0) + 1, **line, "rows": len(lessons), "tokens": tokens, **seconds}
        critic.tell(told if step >= 0 else told | {"warmup": -step})
        numbers = {"loss_mean": line["loss"]}
        numbers |= {name: line[name] for name in ("grad_norm", "value_clip_fraction", "lr")}
        answer = {name: np.array([number], np.float32) for name, number in numbers.items()}
        return answer | {"optimizer_steps": np.array([int(line["optimizer_steps"])], np.int64)}

    def save(self, inputs: Tensors) -> Tensors:
        """Save the critic as of `step`, once."""
        assert self.critic is not None
        step = int(inputs["step"][0])
        if step != self.critic.step:
            raise Refused(
                f"the critic has learnt {self.critic.step} steps and cannot be saved as step {step}"
            )
        if self.saved != step:
            self.critic.keep(step)
            self.saved = step
        return {"status": np.zeros(1, np.int64)}

    # ── inside ─────────────────────────────────────────────────────────────────────────────────

    def _scores(self, said: Numbers) -> Array:
        assert self.reward is not None
        _finite("reward", said)
        return _finite("reward", self.reward.scoring.of(said).astype(np.float32)[:, None])

    def _schedule(self, given: Array | None) -> tuple[int, int]:
        assert self.critic is not None
        done, known = self.critic.step, self.critic.max_steps
        if given is None and not known:
            raise Refused("the plan does not say how many steps there are; send them in `schedule`")
        step, max_steps = (done, known) if given is None else (int(given[0]), int(given[1]))
        if step != done and not (step < 0 and done == 0):  # before step 0 a critic may be warmed up
            message = f"the critic has learnt {done} steps, so it cannot learn step {step + 1}"
            raise Refused(f"{message}; both roles have to resume from the same commit")
        if max_steps < 1:
            raise Refused(f"`schedule` says {max_steps} steps in all, but must say 1 or more")
        return step, max_steps

    def _tokens(self, inputs: Mapping[str, Array]) -> tuple[Array, Array]:
        """Tokens [B, S] and how many each row has [B, 1], as they came or from `sentences`."""
        sentences = inputs.get("sentences")
        given = [name for name in ("tokens", "sequence_lengths") if name in inputs]
        if sentences is None:
            if len(given) < 2:
                raise Refused("a request needs `tokens` and `sequence_lengths`, or `sentences`")
            return inputs["tokens"], inputs["sequence_lengths"]
        if given:
            raise Refused(f"a request has either `sentences` or `{given[0]}`, not both")
        if self.encode is None:
            raise Refused("these models have no tokenizer; send `tokens`")
        lines = []
        for i, sentence in enumerate(sentences[:, 0]):
            try:
                lines.append(self.encode(bytes(sentence).decode("utf-8")))
            except UnicodeDecodeError as error:
                raise Refused(f"sentence {i} is not UTF-8: {error.reason} at byte {error.start}") from None
        tokens_BS = np.zeros((len(lines), max(map(len, lines), default=0)), np.int64)
        for row_S, line in zip(tokens_BS, lines, strict=True):
            row_S[: len(line)] = line
        return tokens_BS, np.array([len(line) for line in lines], np.int64)[:, None]

    def _rows(self, tokens_BS: Array, lengths_B1: Array, least: int = 1) -> list[Rollout]:
        """The rows as rollouts whose id is their number; Refused names the first that no model can take."""
        rows, columns = tokens_BS.shape
        if not rows or len(lengths_B1) != rows:
            raise Refused(f"there are {rows} rows of tokens and {len(lengths_B1)} lengths")
        found: list[Rollout] = []
        for i, length in enumerate(lengths_B1[:, 0].tolist()):
            if not least <= length <= columns:
                raise Refused(f"row {i} is said to have {length} tokens, but must have {least} to {columns}")
            if length > self.limit:
                raise Refused(f"row {i} has {length} tokens, and the model takes {self.limit}")
            row_S = tokens_BS[i, :length]
            strange = row_S[(row_S < 0) | (row_S >= self.vocab)]
            if len(strange):
                raise Refused(f"row {i} has token {strange[0]}, outside the vocabulary of {self.vocab}")
            found.append(Rollout(i, i, tuple(row_S.tolist()), (), (), "stop"))
        return found

    def _lessons(self, inputs: Mapping[str, Array]) -> list[Lesson]:
        tokens_NS, mask_NT = inputs["tokens"], inputs["mask"]
        rows, columns = tokens_NS.shape
        if columns < 2:
            raise Refused(f"rows of {columns} tokens hold nothing to learn")
        for name in ("returns", "prev_values", "mask"):
            if inputs[name].shape != (rows, columns - 1):
                shape, wanted = list(inputs[name].shape), [rows, columns - 1]
                raise Refused(f"`{name}` has shape {shape}, but must have {wanted}")
            strange = np.argwhere(~np.isfinite(inputs[name]))
            if len(strange):
                raise Refused(f"row {strange[0][0]} of `{name}` holds a number that is not finite")
        strange = np.argwhere((mask_NT != 0) & (mask_NT != 1))
        if len(strange):
            raise Refused(f"row {strange[0][0]} of `mask` holds a number that is neither 0 nor 1")
        ends_N = columns - 1 - np.argmax(mask_NT[:, ::-1] != 0, axis=1)
        ends_N = np.where(mask_NT.any(axis=1), ends_N, 1)
        lengths_N1 = inputs.get("sequence_lengths", (ends_N + 1)[:, None])
        found = []
        for i, row in enumerate(self._rows(tokens_NS, lengths_N1, least=2)):
            size = len(row.tokens) - 1
            if ends_N[i] > size:
                raise Refused(f"row {i} of `mask` counts columns behind the row's {size + 1} tokens")
            names = ("returns", "prev_values", "mask")
            returns, values, mask = (inputs[name][i, :size].astype(np.float64) for name in names)
            found.append(Lesson(row, returns, values, mask))
        return found


def _finite(what: str, numbers: Array) -> Array:
    """The numbers, unless one of them is none: that is a broken model, and nobody may go on with it."""
    strange = np.argwhere(~np.isfinite(numbers))
    if len(strange):
        row = strange[0]
        raise Problem("R053", f"the {what} of row {row[0]} is {numbers[tuple(row)]}")
    return numbers
