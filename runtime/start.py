"""From a plan to a `Run`: data, process groups, the model.

The order matters: whatever may be wrong is found before the next costly thing begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtime import tokenizer as tokenizers
from runtime.data.stream import Stream
from runtime.data.tokenised import Tokenised, form_of, tokenised
from runtime.place import Place
from runtime.preflight import Meeting
from runtime.problem import Problem
from runtime.stop import StopFlag
from specc.plan import Job, Plan, Role


def streams(
    plan: Plan, job: Job, role: Role, place: Place, meeting: Meeting, tokenizer: Any
) -> dict[str, Stream]:
    """Training and validation data: rank 0 tokenises, everybody maps the result into memory."""
    folders: dict[str, str] = {}
    problem = None
    if place.is_first:
        try:
            folders = {
                use: _prepare(use, settings, plan, job, role, place, tokenizer)
                for use, settings in job.data.items()
                if settings
            }
        except Problem as found:
            problem = found
    agreed = meeting.agree("data", problem, job.collective_timeout_seconds)
    if agreed:
        raise agreed
    folders = meeting.told("folders", folders)
    for folder in folders.values():
        if not Path(folder).exists():
            message = f"`{folder}`, which rank 0 wrote, is not seen on this machine"
            raise Problem(
                "R006", f"{message}; put the run folder on a disk that all nodes share", outside=True
            )
    train = job.settings.get("train") or {}
    return {
        use: Stream(
            Tokenised(Path(folder)),
            global_batch=rows_of_a_step(job, role),
            seq_length=int(train.get("seq_length") or role.model.shape.max_positions),
            seed=plan.seed,
            shuffle=bool(train.get("shuffle", True)),
            packing=bool(train.get("packing")),
        )
        for use, folder in folders.items()
    }


def rows_of_a_step(job: Job, role: Role) -> int:
    """Rows that a step takes from the data: the global batch, or the prompts of a step's rollouts."""
    own = job.settings.get(role.program) or {}
    if role.program == "steerlm2":  # its batch counts responses
        return max(role.global_batch // int(own["responses"]), 1)
    if not is_online(job):
        return role.global_batch
    return max(int(own.get("rollouts") or role.global_batch) // int(own.get("responses") or 1), 1)


def _prepare(
    use: str, settings: dict[str, Any], plan: Plan, job: Job, role: Role, place: Place, tokenizer: Any
) -> str:
    heartbeat = place.stage / "heartbeat"
    if str(settings.get("path", "")).startswith("builtin:") and use != "train":
        settings = {"split": use, **{k: v for k, v in settings.items() if v}}
    own, train = job.settings.get(role.program) or {}, job.settings.get("train") or {}
    kind = use
    if is_online(job) and not settings.get("learnt"):  # a prompt and its response have to fit into a row
        said = job.settings.get("generate") or {}
        kind, room = "prompts", int(train["seq_length"]) - int(said.get("max_tokens") or 1024)
        own = {"max_prompt_tokens": min(int(said.get("max_prompt_tokens") or room), room)} | own
    folder = tokenised(
        settings,
        form_of(kind, role.program, settings, train, own),
        tokenizer,
        tokenizer_name=role.model.tokenizer,
        template=role.model.chat_template,
        seed=plan.seed,
        folder=place.stage / "data",
        alive=heartbeat.touch,
    )
    facts = Tokenised(folder).facts
    if facts["largest"] >= role.model.shape.vocab:
        model = f"model `{role.model.name}` has a vocabulary of {role.model.shape.vocab}"
        advice = f"its tokenizer is not `{role.model.tokenizer}`, or special tokens were added to it"
        raise Problem("R019", f"data.{use} holds token {facts['largest']}, but {model}; {advice}")
    print(f"data.{use}: {Tokenised(folder).summary()} of {settings['path']}", flush=True)
    return str(folder)


def run_of(plan: Plan, job: Job, role: Role, place: Place, meeting: Meeting, stop: StopFlag) -> Any:
    """Everything that the loop needs."""
    tokenizer = tokenizers.load(role.model.tokenizer)
    data = streams(plan, job, role, place, meeting, tokenizer)
    engine = engine_of(plan, job, role, place)
    from runtime.loop import program
    from runtime.run import Run

    run = Run(
        plan=plan,
        job=job,
        role=role,
        place=place,
        model=engine,
        data=data.get("train") or data["prompts"],
        validation=data.get("validation"),
        stop=stop,
        pad_id=tokenizer.pad_id,
    )
    if is_online(job):
        from runtime.cast import online_of

        run.online = online_of(run, tokenizer)
    opening = getattr(program(role.program), "opening", None)
    if opening:  # what a program needs before the model has its weights
        opening(run)
    return run


def engine_of(plan: Plan, job: Job, role: Role, place: Place) -> Any:
    """The role's model without its weights, on the process groups of its layout."""
    if plan.cluster.device == "cpu":
        from runtime import cpu

        cpu.install()
    from runtime import parallel
    from runtime.engine import Engine

    seconds = job.collective_timeout_seconds
    own = parallel.start(role.layout, plan.cluster.backend, plan.cluster.device, seconds, plan.seed)
    if place.is_first:
        print(f"{plan.name}/{job.stage}: {role.layout} on {place.world} processes", flush=True)
    return Engine(role, own, train=optimizer_settings(job.settings.get("train")), seed=plan.seed)


def is_online(job: Job) -> bool:
    """Whether a job learns from its own responses to prompts."""
    return bool(job.data.get("prompts")) and job.settings.get("train") is not None


def optimizer_settings(train: Mapping[str, Any] | None) -> Any:
    """The optimizer's part of the section `train`; None for a job that trains nothing."""
    from runtime.engine import OptimizerSettings

    if train is None:
        return None
    names = ("weight_decay", "betas", "epsilon", "clip")
    given = {name: train[name] for name in names if train.get(name) is not None}
    if "betas" in given:
        given["betas"] = tuple(given["betas"])
    return OptimizerSettings(**given)
