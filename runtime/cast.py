"""The models of an algorithm that learns from its own responses, as its plan casts them: the actor's
sampler and reference in these processes, its judges in these or behind HTTP in others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

from runtime import checkpoint, critic
from runtime.data.rows import Rows, open_rows
from runtime.dealing import Table
from runtime.engine import Engine, OptimizerSettings
from runtime.frozen import Frozen, Guest
from runtime.judges import Judges, Lesson, Near, Score, itself
from runtime.online import Online, sampling_of
from runtime.problem import Problem
from runtime.samplers import sampler_of
from runtime.schedule import learning_rate
from runtime.scoring import Scoring, function_of, right_score, scored_by, scoring_of
from runtime.weights import take_weights
from specc.plan import Role

if TYPE_CHECKING:
    from runtime.run import Run

Asked = Callable[[], AbstractContextManager[Engine]]
"""Inside, an engine answers as a role that is only asked."""


def online_of(run: Run, tokenizer: Any) -> Online:
    """What the run's algorithm works with beside its model. Collective; the model has no weights yet."""
    settings = run.settings
    roles = {role.name: role for role in group_of(run)}
    own = roles.get("critic")
    section, vocab = run.job.settings.get("generate") or {}, run.role.model.shape.vocab
    sampling = sampling_of(section, tokenizer, run.plan.seed, vocab)
    if sampling.min_tokens:
        run.model.stops = sampling.stop_token_ids
    engine = None if own is None else built(run, own, optimizer_of(run, "critic"))
    return Online(
        engine=run.model,
        tokenizer=tokenizer,
        sampler=sampler_of(run, run.table()),
        sampling=sampling,
        judges=judges_of(run, roles, engine, tokenizer, sampling.stop_token_ids),
        critic=engine,
        asked=reference_of(run, roles.get("reference")),
        responses=int(settings.get("responses") or 1),
        right=right_score(run.job.settings.get("reward") or {}),
        rows=rows_of(run) if settings.get("judgements") else {},
    )


def group_of(run: Run) -> tuple[Role, ...]:
    """The roles that live in these processes."""
    return next(group.roles for group in run.job.groups if run.role in group.roles)


def reference_of(run: Run, role: Role | None) -> Asked | None:
    """The reference: weights on the host that trade places with the actor's, or a model beside it. The actor
    takes its own weights afterwards.
    """
    if role is None:
        return None
    if not swaps(role, run.model):
        beside = built(run, role, None)
        beside.stops = run.model.stops
        return partial(itself, beside)
    take_weights(run.model, role, run.place, say=run.say, alive=run.alive)
    return Frozen(run.model).in_place


def judges_of(
    run: Run, roles: Mapping[str, Role], engine: Engine | None, tokenizer: Any, ends: Sequence[int]
) -> Judges:
    """Those that live in these processes, and those of other groups over HTTP. A function does not see the
    token of `ends` that a response ended with.
    """
    served = {role.name for group in run.job.groups if group.serves for role in group.roles}
    fit = reward = score = saving = None
    section = run.job.settings.get("reward") or {}
    scoring = Scoring((1.0,), clip=float(section.get("clip") or 0.0))
    if engine is not None:
        fit = partial(fit_critic, run, engine, engine.role)
        saving = partial(save_critic, run, engine)
    if section and "reward" not in served:
        reward, score = reward_of(run, roles.get("reward"), engine, tokenizer, ends)
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
    epochs = int((run.job.settings.get("critic") or {}).get("epochs") or 1)
    updates = epochs * -(-int(run.settings["rollouts"]) // role.global_batch)
    rate = learning_rate(max(step, 0) * updates, run.max_steps * updates, train_of(run, "critic"))
    clip = float(run.settings.get("value_clip") or 0.0)
    table = table_of(role, engine, run.pad_id)
    how = {"table": table, "global_batch": role.global_batch, "clip": clip, "rate": rate}
    return critic.fit(engine, lessons, **how, epochs=epochs)


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
    run: Run, role: Role | None, engine: Engine | None, tokenizer: Any, ends: Sequence[int] = ()
) -> tuple[Asked | None, Score | None]:
    """The reward as a model that trades places with the critic, as one of its own, or as a function."""
    if role is None:
        function = function_of((run.job.settings.get("reward") or {}).get("function") or "")
        return None, scored_by(function, tokenizer.decode, rows_of(run), ends)
    host = next(
        (one for one in (engine, run.model) if one is not None and one.role.name == role.swaps_with), None
    )
    if not swaps(role, host):
        return partial(itself, built(run, role, None)), None
    assert host is not None
    if not alike(role, host.role):
        return Guest(host, built(run, role, None)).in_place, None
    engine = host
    own = Frozen(engine)
    take_weights(engine, role, run.place, say=run.say, alive=run.alive)
    frozen = Frozen(engine)
    own.restore()
    return frozen.in_place, None


def swaps(role: Role, host: Engine | None) -> bool:
    """Whether a role's weights trade places with an engine's, as planned. Problem R001 where they cannot."""
    if not role.swaps_with:
        return False
    theirs = None if host is None or host.role.name != role.swaps_with else host.role
    if (
        theirs is None
        or role.model.shape != theirs.model.shape
        or (role.layout, role.precision) != (theirs.layout, theirs.precision)
    ):
        said = f"the weights of `{role.name}` cannot trade places with those of `{role.swaps_with}`"
        raise Problem("R001", f"{said}, which is of another form or not in its processes; compile again")
    return True


def rows_of(run: Run) -> dict[str, Rows]:
    """The rows of the data, by their use."""
    cache = run.place.stage / "data" / "fetched"
    return {
        use: open_rows(data, seed=run.plan.seed, cache=cache) for use, data in run.job.data.items() if data
    }


def alike(one: Role, other: Role) -> bool:
    """Whether two roles of one shape have heads of one form too."""
    return (one.model.head, one.model.attributes) == (other.model.head, other.model.attributes)
