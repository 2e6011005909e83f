"""One short function per command. Each gives its exit code; each imports what it needs, when it runs."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specc.cli import FINE, PROBLEMS, Outside, Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from specc.compile import Compilation
    from specc.plan import Plan
    from specc.planner.options import Option
    from specc.planner.outlook import Outlook

Options = argparse.Namespace

IN_A_PICTURE = 8
"""Choices that a page shows of each role when nobody says how many."""


def check(options: Options) -> int:
    """`specc check`: the diagnostics are the data, so as JSON they go to stdout."""
    from specc import diagnostics
    from specc.cli import tables

    done = compiled(options)
    if options.json or options.format == "json":
        print_json(diagnostics.as_json(done.diagnostics, done.source))
        return FINE if done.fine else PROBLEMS
    say(done, options)
    talk(tables.verdict(options.spec, done))
    if done.fine:
        talk(f"next: {command('plan', options.spec)}")
    return FINE if done.fine else PROBLEMS


def show(options: Options) -> int:
    """`specc show`: one value of the pipeline, as YAML or JSON."""
    from specc import experiment, source
    from specc.cli import tables

    done = compiled(options)
    say(done, options)
    if options.stop_after == "spec" and done.experiment:
        value: Any = experiment.resolved(done.experiment)
    elif options.stop_after == "graph" and done.graph:
        value = tables.plain(done.graph)
    elif options.stop_after == "plan" and done.plan:
        value = tables.plain(done.plan)
    else:
        return PROBLEMS
    if options.json:
        print_json(value)
    else:
        print(source.dump(value), end="")
    return FINE if done.fine else PROBLEMS


def plan(options: Options) -> int:
    """`specc plan`: the plan as tables, or as the JSON that the contract fixes."""
    from specc.cli import tables
    from specc.planner.outlook import outlook

    options.overrides = [*aims(options), *options.overrides]
    done = compiled(options)
    say(done, options)
    if done.plan is None:
        return PROBLEMS
    assert done.profile
    ahead = outlook(done.plan.jobs, done.profile, Path(options.spec).resolve().parent)
    choices = choices_of(options, done) if options.options or options.html else []
    if options.html:
        write_page(Path(options.html), done.plan, ahead, choices)
        choices = choices if options.options else []
    if options.json:
        more = {"outlook": tables.plain(ahead)} | ({"options": tables.plain(choices)} if choices else {})
        print_json(tables.plan_json(done.plan) | more)
    else:
        print(tables.plan_text(done.plan, ahead))
        if choices:
            rounds = tables.rounds_of(done.plan)
            print("\n" + tables.options_text(choices, pinned_nodes(done), rounds))
        if done.fine:
            talk(f"\nnext: {command('compile', options.spec)} --target slurm")
    return FINE if done.fine else PROBLEMS


def write_page(file: Path, plan: Plan, ahead: Sequence[Outlook], choices: Sequence[Option]) -> None:
    """The plan as a page, for --html."""
    from specc.pages.plan_page import plan_page

    try:
        file.write_text(plan_page(plan, ahead, choices), encoding="utf-8")
    except OSError as error:
        raise Outside(f"cannot write {file}: {(error.strerror or str(error)).lower()}") from error
    talk(f"wrote {file}")


def aims(options: Options) -> list[str]:
    """--objective and --nodes as overrides of every stage."""
    said = {"plan.objective": options.objective, "plan.max_nodes": options.nodes}
    said = {path: value for path, value in said.items() if value}
    if not said:
        return []
    from specc import source

    try:
        stages = source.read(options.spec)[0].data.get("stages")
    except OSError as error:
        raise Outside(cannot_open(options.spec, error)) from error
    places = [f"stages.{name}." for name in stages] if isinstance(stages, dict) else [""]
    return [f"{place}{path}={value}" for place in places for path, value in said.items()]


def choices_of(options: Options, done: Compilation) -> list[Option]:
    """What --options asks for; a picture of them shows some anyway."""
    from specc.planner import options as ways

    assert done.graph
    assert done.profile
    assert done.plan
    folder = Path(options.spec).resolve().parent
    return ways.options(done.graph, done.profile, done.plan, folder, options.options or IN_A_PICTURE)


def pinned_nodes(done: Compilation) -> list[str]:
    """The paths that fix how many nodes a role takes."""
    assert done.graph
    roles = ((stage, role) for stage in done.graph.stages for role in stage.roles if role.nodes)
    return list(dict.fromkeys(role.paths.get("nodes", stage.path("nodes")) for stage, role in roles))


def compile(options: Options) -> int:
    """`specc compile`: write the bundle; stdout names the files."""
    from specc import emit
    from specc.cli.provenance import provenance

    done = compiled(options)
    say(done, options)
    if done.plan is None or not done.fine:
        return PROBLEMS
    folder = Path(options.output or Path("build") / done.plan.name / options.target)
    try:
        files = emit.bundle(done.plan, options.target)
    except emit.EmitError as error:
        talk(f"error: {error}")
        return PROBLEMS
    files["provenance.json"] = provenance(Path(options.spec))
    try:
        written = emit.write(files, folder)
    except OSError as error:
        raise Outside(
            f"cannot write {error.filename or folder}: {(error.strerror or str(error)).lower()}"
        ) from error
    if options.json:
        print_json({"folder": str(folder), "files": written})
    else:
        print("\n".join(str(folder / name) for name in written))
    start = {"slurm": "submit.sh", "local": "run.sh"}[options.target]
    talk(f"next: {shlex.join(['bash', str(folder / start)])}")
    return FINE


def run(options: Options) -> int:
    """`specc run`: compile for this machine, then train."""
    from specc.cli import running

    return running.run(options)


def serve(options: Options) -> int:
    """`specc serve`: a checkpoint behind HTTP."""
    from specc.cli import serving

    return serving.serve(options)


def chat(options: Options) -> int:
    """`specc chat`: a conversation with a checkpoint."""
    from specc.cli import chatting

    return chatting.chat(options)


def estimate(options: Options) -> int:
    """`specc estimate`: memory and speed of one given layout."""
    from specc.cli import estimating

    return estimating.estimate(options)


def explain(options: Options) -> int:
    """`specc explain`: a code's page, or where a value comes from."""
    from specc.cli import explaining

    if options.path is None:
        return explaining.code(options.about, as_json=options.json)
    return explaining.value(options)


def calibrate(options: Options) -> int:
    """`specc calibrate`: learn from a run."""
    from specc.cli import calibrating

    return calibrating.calibrate(options)


def report(options: Options) -> int:
    """`specc report`: runs as a page."""
    from specc.cli import reporting

    return reporting.report(options)


def init(options: Options) -> int:
    """`specc init`: copy a shipped spec and the profile it names; nothing is overwritten."""
    from specc.cli import shelf

    copied = shelf.copy(options.name, Path(options.folder))
    print("\n".join(map(str, copied)))
    talk(f"next: {command('check', str(copied[0]))}")
    return FINE


def ls(options: Options) -> int:
    """`specc ls`: the shipped specs, each with the first line of its header."""
    from specc.cli import shelf

    entries = shelf.entries()
    if options.json:
        print_json(entries)
        return FINE
    width = max(len(entry["name"]) for entry in entries)
    print("\n".join(f"{entry['name']:<{width}}  {entry['title']}" for entry in entries))
    return FINE


def schema(options: Options) -> int:
    """`specc schema`: the JSON Schema of a spec (draft-07, which editors read)."""
    from specc import experiment

    print_json(experiment.json_schema())
    return FINE


def completion(options: Options) -> int:
    """`specc completion`: what a shell needs to complete commands and options."""
    import shtab

    from specc.cli.parser import build

    print(shtab.complete(build(), shell=options.shell))
    return FINE


def compiled(options: Options, spec: str | None = None, **more: Any) -> Compilation:
    """The spec of these options, compiled; Outside when its file cannot be opened."""
    from specc.compile import compile_spec

    path = spec or options.spec
    try:
        return compile_spec(path, options.overrides, cluster_file(options.cluster), **more)
    except OSError as error:
        raise Outside(cannot_open(path, error)) from error


def cluster_file(cluster: str | None) -> str | None:
    """A file given to --cluster is seen from where the user stands, not from where the spec lies."""
    if cluster and (cluster.endswith((".yaml", ".yml")) or "/" in cluster):
        return str(Path(cluster).absolute())
    return cluster


def cannot_open(path: str, error: OSError) -> str:
    """What to say about a spec that cannot be opened, with the shipped spec that was perhaps meant."""
    from specc.cli import shelf

    name = Path(path).name.removesuffix(".yaml")
    meant = any(entry["name"] == name for entry in shelf.entries())
    hint = f"; `specc init {name}` copies the shipped spec of that name" if meant else ""
    return f"cannot open {path}: {(error.strerror or str(error)).lower()}{hint}"


def say(done: Compilation, options: Options) -> None:
    """Say on stderr what the pipeline has to say."""
    from specc import diagnostics
    from specc.cli import look

    if options.format == "json":
        talk(json.dumps(diagnostics.as_json(done.diagnostics, done.source), indent=2, ensure_ascii=False))
    elif done.diagnostics:
        talk(diagnostics.render(done.diagnostics, done.source, color=look.colored(sys.stderr)).rstrip("\n"))


def command(verb: str, spec: str) -> str:
    """A command to type, as a shell reads it."""
    return shlex.join(["specc", verb, spec])


def talk(text: str) -> None:
    """One message to the person; stdout is for data."""
    print(text, file=sys.stderr)


def print_json(value: Any) -> None:
    """Data for programs."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


__all__ = [
    "Usage",
    "calibrate",
    "chat",
    "check",
    "compile",
    "completion",
    "estimate",
    "explain",
    "init",
    "ls",
    "plan",
    "report",
    "run",
    "schema",
    "serve",
    "show",
]
