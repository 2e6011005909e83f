"""`specc explain`: the page of a diagnostic's code, or why a value of a spec is what it is."""

from __future__ import annotations

import argparse
import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specc.cli import FINE, PROBLEMS, Usage, verbs

if TYPE_CHECKING:
    from specc.compile import Compilation
    from specc.plan import Job, Role
    from specc.planner.comparison import Comparison

KINDS = {
    "maths": "maths: another value is another experiment, with a hash of its own",
    "placement": "placement: where and how it runs; the result stays the same",
    "cosmetic": "cosmetic: names, logs, how often something is written",
}
CHOSEN = ("parallel", "nodes", "gpus", "train.micro_batch")
"""Where the planner chooses when the spec does not say."""


def code(name: str, as_json: bool) -> int:
    """The page of a code. Usage for one that does not exist."""
    from dataclasses import asdict

    from specc.codes import CODES

    found = CODES.get(name.upper())
    if found is None:
        if Path(name).is_file():
            raise Usage(f"say which value of {name}: specc explain {name} PATH, e.g. train.lr")
        near = difflib.get_close_matches(name.upper(), CODES, n=1)
        guess = f"; did you mean `{near[0]}`?" if near else ""
        raise Usage(f"there is no code `{name}`{guess} (for a value: specc explain SPEC PATH)")
    if as_json:
        verbs.print_json(asdict(found))
        return FINE
    print(f"{found.code}: {found.title}\n\n{found.why}\n\nexample:\n")
    print("\n".join(f"    {line}" for line in found.example.splitlines()))
    print(f"\nfix: {found.fix}")
    return FINE


def value(options: argparse.Namespace) -> int:
    """Where one value of a spec comes from. Usage for a path that no spec of this kind has."""
    options.format = "text"
    done = verbs.compiled(options, spec=options.about)
    if done.experiment is None:
        verbs.say(done, options)
        return PROBLEMS
    facts = _facts(done, options.path)
    shown, folds = _jobs(done, options)
    found = _comparisons(done, options, shown) if _is_layout(options.path) else []
    if options.json:
        from specc.cli.tables import plain

        verbs.print_json(facts | ({"comparisons": plain(found)} if found else {}))
        return FINE
    print(f"{facts['path']}: {_shown(facts['value'])}")
    for key in ("from", "meaning", "kind", "why"):
        if facts[key]:
            print(f"  {key:8}{facts[key]}")
    for comparison in found:
        from specc.cli import comparing

        print("\n" + comparing.text(comparison))
    if found and folds:
        print("\n" + "\n".join(folds))
    if _is_layout(options.path) and done.plan is None:  # why there is none to explain
        verbs.say(done, options)
        return PROBLEMS
    return FINE


def _is_layout(path: str) -> bool:
    """`parallel`, `stages.NAME.parallel` or `roles.NAME.parallel`."""
    return path.rsplit(".", 1)[-1] == "parallel"


def _jobs(done: Compilation, options: argparse.Namespace) -> tuple[set[str], list[str]]:
    """The stages to speak of, and a line for each row of rounds that are laid out as those before them."""
    from specc.cli.folding import folded, rounds_of

    if done.plan is None or options.json:
        return {job.stage for job in done.plan.jobs} if done.plan else set(), []
    found = folded(done.plan.jobs, rounds_of(done.plan), lambda job: job.stage, _laid_out)
    folds = [each for each in found if isinstance(each, str)]
    return {job.stage for job in found if not isinstance(job, str)}, folds


def _laid_out(job: Job) -> str:
    keys = ("name", "nodes", "gpus", "layout", "micro_batch", "recompute", "memory", "step_seconds", "why")
    return f"{job.stage} {[[getattr(role, key) for key in keys] for role in job.roles]}"


def _comparisons(done: Compilation, options: argparse.Namespace, stages: set[str]) -> list[Comparison]:
    """What the layouts at this path were chosen from in these stages, one comparison for each role."""
    from specc import planner
    from specc.planner import hardware
    from specc.planner.comparison import compare

    if not (done.graph and done.profile and done.plan):
        return []
    card = hardware.gpu(done.plan.cluster.gpu)
    assert card is not None
    folder = Path(options.about).resolve().parent
    roles = {job.stage: {role.name: role for role in job.roles} for job in done.plan.jobs}
    teams = planner.teams(done.graph, done.profile, folder)
    found: list[Comparison] = []
    for stage, request in planner.requests(done.graph, done.profile, folder):
        if stage.name not in stages or request.paths.get("") != options.path:
            continue
        if stage.name in teams:
            from specc.planner.alternatives import compared  # which only roles that work together need

            found.append(compared(teams[stage.name], request, roles[stage.name]))
        else:
            found.append(compare(request, roles[stage.name][request.name], card))
    return found


def _facts(done: Compilation, path: str) -> dict[str, Any]:
    """All that is known of the value at `path`."""
    from specc.spec import section

    experiment = done.experiment
    assert experiment is not None
    kind, holder, inner, stage = _found(experiment, path)
    sentence = section.docs(kind).get(inner.rsplit(".", 1)[-1], "")
    said = _said(done, path)
    chosen = _chosen(done, stage, inner) if stage and not said else None
    return {
        "path": path,
        "value": chosen[0] if chosen else _plain(holder),
        "from": said or ("the planner" if chosen else "the default"),
        "meaning": sentence,
        "kind": KINDS[section.tag(kind, inner.rsplit(".", 1)[-1])],
        "why": chosen[1] if chosen else "",
    }


def _found(experiment: Any, path: str) -> tuple[Any, Any, str, str]:
    """(section that has the key, value, path within the stage, stage) at `path`; Usage when there is none."""
    from specc.experiment import Header
    from specc.spec import reading, section

    parts = path.split(".")
    if parts[0] in section.keys(Header) and len(parts) == 1:
        return Header, getattr(experiment, parts[0]), path, ""
    if experiment.single:
        stage, rest = next(iter(experiment.stages)), parts
    elif parts[0] == "stages" and len(parts) > 2 and parts[1] in experiment.stages:
        stage, rest = parts[1], parts[2:]
    else:
        raise Usage(f"there is no `{path}` in this spec; its stages are {', '.join(experiment.stages)}")
    holder: Any = experiment.stages[stage]
    kind = type(holder)
    for position, key in enumerate(rest):
        if kind is None or key not in section.keys(kind):
            known = [
                experiment.path(stage, known) for known in reading.paths_of(type(experiment.stages[stage]))
            ]
            near = difflib.get_close_matches(path, known, n=1, cutoff=0.5)
            guess = f"; did you mean `{near[0]}`?" if near else ""
            raise Usage(f"there is no `{path}` in this spec{guess}")
        holder = getattr(holder, section.keys(kind)[key], None) if holder is not None else None
        if position < len(rest) - 1:
            kind = section.inner(kind, key)
    return kind, holder, ".".join(rest), stage


def _said(done: Compilation, path: str) -> str:
    """The place where the text or a --set says it; empty when neither does."""
    if path not in done.source.spans:
        return ""
    key, _ = done.source.spans[path]
    return key.origin.text if key.origin else f"{done.source.name}:{key.line}:{key.column}"


def _chosen(done: Compilation, stage: str, inner: str) -> tuple[Any, str] | None:
    """What the planner chose for a value, and why; None when it is not the planner's."""
    jobs = [job for job in done.plan.jobs if job.stage == stage] if done.plan else []
    if not jobs:
        return _chosen_of_rounds(done, stage, inner)
    role = jobs[0].roles[0]
    if inner.startswith("roles."):
        _, name, inner = [*inner.split(".", 2), ""][:3]
        role = next((role for role in jobs[0].roles if role.name == name), role)
    return (_of_role(jobs[0], role, inner), role.why) if inner.startswith(CHOSEN) else None


def _chosen_of_rounds(done: Compilation, section: str, inner: str) -> tuple[Any, str] | None:
    """The same for a section that became several stages: of the first that trains at this path."""
    if not (done.graph and done.plan and done.experiment and inner.startswith("roles.")):
        return None
    path = done.experiment.path(section, inner)
    named = [
        (stage, role) for stage in done.graph.stages for role in stage.roles if path in role.paths.values()
    ]
    for stage, asked in sorted(named, key=lambda one: not one[1].trains):
        job = next(job for job in done.plan.jobs if job.stage == stage.name)
        role = next((role for role in job.roles if role.name == asked.name), None)
        if role is not None and inner.split(".", 2)[-1].startswith(CHOSEN):
            return _of_role(job, role, inner), f"{role.why} (stage {job.stage})"
    return None


def _of_role(job: Job, role: Role, inner: str) -> Any:
    key = inner.rsplit(".", 1)[-1]
    if inner == "parallel":
        return str(role.layout)
    return getattr(role, key) if hasattr(role, key) else getattr(role.layout, key, None)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    dump = getattr(value, "model_dump", None)
    return dump(mode="json", exclude_none=True) if dump else value


def _shown(value: Any) -> str:
    from specc.source import dump

    if isinstance(value, str) and "\n" not in value:
        return value
    text = dump(value).rstrip("\n")
    return text if "\n" not in text else "\n" + "\n".join(f"  {line}" for line in text.splitlines())
