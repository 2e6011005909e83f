"""The models of an algorithm that learns from its own responses, as its plan casts them: the actor's
sampler and reference in these processes, its judges in these or behind HTTP in others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

from runtime import checkpoint, critic
from runtime.data.rows import open_rows
from runtime.dealing import Table
from runtime.engine import Engine, OptimizerSettings
from runtime.frozen import Frozen
from runtime.judges import Judges, Lesson, Near, Score, itself
from runtime.online import Online, sampling_of
from runtime.schedule import learning_rate
from runtime.scoring import Scoring, function_of, scored_by, scoring_of
from runtime.weights import take_weights
from specc.plan import Role

if TYPE_CHECKING:
    from runtime.run import Run


def online_of(run: Run, tokenizer: Any) -> Online:
    """What the run's algorithm works with beside its model. Collective; the model has no weights yet."""
    settings = run.settings
    roles = {role.name: role for role in group_of(run)}
    own = roles.get("critic")
    engine = None if own is None else built(run, own, optimizer_of(run, "critic"))
    return Online(
        engine=run.model,
        tokenizer=tokenizer,
        sampling=sampling_of(run.job.settings.get("generate") or {}, tokenizer, run.plan.seed),
        judges=judges_of(run, roles, engine, tokenizer),
        critic=engine,
        frozen=reference_of(run, roles.get("reference")),
        responses=int(settings.get("responses") or 1),
        slots=int((run.job.settings.get("generate") or {}).get("rows") or 64),
    )


def group_of(run: Run) -> tuple[Role, ...]:
    """The roles that live in these processes."""
    return next(group.roles for group in run.job.groups if run.role in group.roles)


def reference_of(run: Run, role: Role | None) -> Frozen | None:
    """The reference's weights, kept in the host's memory; the actor takes its own weights afterwards."""
    if role is None:
        return None
    take_weights(run.model, role, run.place, say=run.say, alive=run.alive)
    return Frozen(run.model)


def judges_of(run: Run, roles: Mapping[str, Role], engine: Engine | None, tokenizer: Any) -> Judges:
    """Those that live in these processes, and those of other groups over HTTP."""
    served = {role.name for group in run.job.groups if group.serves for role in group.roles}
    fit = reward = score = saving = None
    section = run.job.settings.get("reward") or {}
    scoring = Scoring((1.0,), clip=float(section.get("clip") or 0.0))
    if engine is not None:
        fit = partial(fit_critic, run, engine, engine.role)
        saving = partial(save_critic, run, engine)
    if "reward" not in served:
        reward, score = reward_of(run, roles.get("reward"), engine, tokenizer)
    if "reward" in roles:
        scoring = scoring_of(section, roles["reward"], run.place.run_folder)
    near = Near(engine, run.table(), reward, score, scoring, fit, saving)
    if not served:
        return near
    from runtime.far import far_of

    return far_of(run, near)


def built(run: Run, role: Role, optimizer: OptimizerSettings | None) -> Engine:
    """An engine of these processes with the role's first weights."""
    engine = Engine(role, run.model.parallel, train=optimizer, seed=run.plan.seed)
    take_weights(engine, role, run.place, say=run.say, alive=run.alive)
    return engine


def optimizer_of(run: Run, name: str) -> OptimizerSettings | None:
    """The optimizer of a role that has settings of its own over those of `train`."""
    from runtime.start import optimizer_settings

    return optimizer_settings(train_of(run, name))


def train_of(run: Run, name: str) -> dict[str, Any]:
    """The section `train` of a role that learns beside the actor."""
    return {**run.train, **((run.job.settings.get(name) or {}).get("train") or {})}


def fit_critic(
    run: Run, engine: Engine, role: Role, lessons: Sequence[Lesson], step: int
) -> dict[str, float]:
    """Let a critic learn a step's lessons, at its own rate of that step."""
    updates = -(-int(run.settings["rollouts"]) // role.global_batch)
    rate = learning_rate(max(step, 0) * updates, run.max_steps * updates, train_of(run, "critic"))
    clip = float(run.settings.get("value_clip") or 0.0)
    table = table_of(role, engine, run.pad_id)
    return critic.fit(engine, lessons, table=table, global_batch=role.global_batch, clip=clip, rate=rate)


def save_critic(run: Run, engine: Engine, step: int) -> None:
    """Save a critic, and keep one step more: the one before counts until this one is committed."""
    last = int(train_of(run, "critic").get("keep_last") or 0)
    folder = run.place.stage / engine.role.name / "checkpoint"
    state = {"seed": run.plan.seed, "step": step}
    checkpoint.save(folder, step, engine, state, keep_last=last + 1 if last else None)  # type: ignore[arg-type]


def table_of(role: Role, engine: Engine, pad_id: int) -> Table:
    """How a role's ranks sit."""
    layout = role.layout
    rounds = layout.pp if layout.vp > 1 else 1
    multiple = 2 * layout.cp * layout.tp
    return Table(engine.parallel.dp_rank, layout.dp, role.micro_batch, multiple, rounds, pad_id)


def reward_of(
    run: Run, role: Role | None, engine: Engine | None, tokenizer: Any
) -> tuple[Callable[[], AbstractContextManager[Engine]] | None, Score | None]:
    """The reward as a model that trades places with the critic, as one of its own, or as a function."""
    if role is None:
        function = function_of((run.job.settings.get("reward") or {}).get("function") or "")
        rows = {
            use: open_rows(data, seed=run.plan.seed, cache=run.place.stage / "data" / "fetched")
            for use, data in run.job.data.items()
            if data
        }
        return None, scored_by(function, tokenizer.decode, rows)
    if engine is None or not alike(role, engine.role):
        return partial(itself, built(run, role, None)), None
    own = Frozen(engine)
    take_weights(engine, role, run.place, say=run.say, alive=run.alive)
    frozen = Frozen(engine)
    own.restore()
    return frozen.in_place, None


def alike(one: Role, other: Role) -> bool:
    """Whether two roles' weights fit into one engine."""
    keys = ("shape", "head", "attributes")
    same = all(getattr(one.model, key) == getattr(other.model, key) for key in keys)
    return same and one.layout == other.layout and one.precision == other.precision
