"""Checkpoints: save and load the whole state of a run so that a kill at any moment loses only steps.

    checkpoint/step-20/     __0_0.distcp ... .metadata common.pt metadata.json   Megatron's torch_dist
                            state.json        our own: the caller's state, and how to reseed
                            rng/rank-0.safetensors ...                           one per rank
                            MANIFEST.json     written last: what it is, and every file's checksum
    checkpoint/best.json    the step with the best metric so far

A checkpoint is made in a hidden folder and appears under its name by one rename, when all of it is on
the disk. It is verified against the manifest before anything in it is parsed. What was saved under one
layout loads under another; under the same one also the random state comes back, bit by bit.

All functions are collective: every rank of the role calls them, and all of them get the same result or
raise the same `Problem`: R020 saving failed, R021 a checkpoint cannot be read, R022 it is of another model.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import zlib
from pathlib import Path
from typing import Any, Protocol

from megatron.core.models.gpt import GPTModel
from megatron.core.optimizer import MegatronOptimizer

from runtime import manifest, optimizer_state, rng, steps, torch_dist
from runtime.agreement import rank, size, together, told
from runtime.commits import Commits, set_aside
from runtime.manifest import FileRecord, Manifest, ManifestError
from runtime.parallel import Parallel, seed_everything
from runtime.problem import Problem
from runtime.steps import name_of, steps_in
from specc.plan import Role

SAVE_FAILED, UNREADABLE, OTHER_MODEL = "R020", "R021", "R022"

STATE = "state.json"


class Engine(Protocol):
    """What a checkpoint needs of an engine."""

    role: Role
    parallel: Parallel
    optimizer: MegatronOptimizer | None
    steps: int  # optimizer steps done

    @property
    def chunks(self) -> list[GPTModel]:
        """The model chunks of this rank, without wrappers."""
        ...


def save(
    folder: Path,
    step: int,
    engine: Engine,
    state: dict[str, Any],
    *,
    keep_last: int | None = None,
    keep_best: int | None = None,
    metric: float | None = None,
    lower_is_better: bool = True,
) -> Path:
    """Save the run's whole state as `folder/step-N`; the path of that folder.

    `state` is whatever else the caller needs to go on, as JSON. `metric` is the validation's, if there
    was one. Afterwards older checkpoints are pruned (see `prune`). When it fails (a full disk), every
    rank raises R020, nothing is left behind and the checkpoints from before are untouched.
    """
    folder = Path(folder)
    saving = told(SAVE_FAILED, f"cannot save step {step}", lambda: _new_folder(folder, step))
    try:
        _write_parts(saving, step, engine, state)
        files = _recorded(saving, step)
        described = _describe(engine, step, metric, files)
        told(SAVE_FAILED, f"cannot save step {step}", lambda: steps.publish(saving, folder, described))
    except Problem as problem:
        told(SAVE_FAILED, "cannot clean up", lambda: shutil.rmtree(saving, ignore_errors=True))
        raise Problem(
            problem.code, f"{problem.message}; {_what_is_left(folder)}", outside=problem.outside
        ) from None
    prune(folder, keep_last, keep_best, lower_is_better=lower_is_better, spare=step)
    return folder / name_of(step)


def latest(folder: Path) -> int | None:
    """The newest step whose manifest and checksums hold; None when there is none.

    Ones that are torn or tampered with are passed over, each with a warning on stderr that says what
    is wrong with which file. The checksums are dealt over the ranks.
    """
    folder = Path(folder)
    newest_first = told(UNREADABLE, f"cannot list `{folder}`", lambda: steps_in(folder)[::-1])
    for step in newest_first:
        found, _ = _examined(folder / name_of(step))
        if not found:
            return step
        _warn(f"checkpoint `{name_of(step)}` is refused: {'; '.join(found[:3])}")
    return None


def chosen(folder: Path) -> int | None:
    """The step that a later stage takes: the best one if it was validated and holds, else the latest."""
    folder = Path(folder)
    step = told(UNREADABLE, f"cannot read `{steps.BEST}`", lambda: steps.best_of(folder))
    if step is None:
        return latest(folder)
    found, _ = _examined(folder / name_of(step))
    if not found:
        return step
    _warn(f"checkpoint `{name_of(step)}`, the best one, is refused: {'; '.join(found[:3])}")
    return latest(folder)


def resume(folder: Path, engine: Engine, commits: Commits | None = None) -> tuple[int, dict[str, Any]] | None:
    """Clean up after a kill and load the newest checkpoint that holds: its step and the caller's state.

    None when nothing was saved yet. R021 when there are checkpoints and none holds: a run that began
    anew by itself would throw away what may still be brought back. With `commits` only steps that have
    one count, and later ones are set aside.
    """
    clean(folder)
    step = latest(folder) if commits is None else _newest_committed(folder, commits)
    if step is not None:
        return step, load(folder, step, engine, verified=True)
    if told(UNREADABLE, f"cannot list `{folder}`", lambda: steps_in(folder)):
        way_out = "bring one back from a copy, or begin anew with --fresh"
        raise Problem(UNREADABLE, f"no checkpoint in `{folder}` holds; {way_out}")
    return None


def _newest_committed(folder: Path, commits: Commits) -> int | None:
    """The newest step that has a commit and holds; what comes after it is set aside."""
    what = f"cannot read `{commits.folder}`"
    written = told(UNREADABLE, what, commits.written)
    newest_first = told(UNREADABLE, what, commits.whole)[::-1]
    for step in newest_first:
        found, _ = _examined(folder / name_of(step))
        if not found:
            break
        _warn(f"checkpoint `{name_of(step)}` is refused: {'; '.join(found[:3])}")
    else:
        if written:
            why = told(UNREADABLE, what, lambda: commits.problem(written[-1])) or "its checkpoint is torn"
            way_out = "bring its checkpoints back from a copy, or begin anew with --fresh"
            raise Problem(UNREADABLE, f"no step in `{commits.folder}` can be resumed: {why}; {way_out}")
        step = None
    after = -1 if step is None else step
    aside = told(UNREADABLE, f"cannot set aside what is in `{folder}`", lambda: set_aside(folder, after))
    if aside:
        _warn(f"`{folder}`: {', '.join(map(name_of, aside))} set aside: not all roles had saved by then")
    return step


def load(folder: Path, step: int, engine: Engine, *, verified: bool = False) -> dict[str, Any]:
    """Put the state of `folder/step-N` into the engine; the caller's state as it was given to `save`.

    Weights, optimizer and random state: with them the run goes on exactly as if it had not stopped.
    Under another layout than the saved one the random state is seeded anew, from the seed and the step.
    `verified` says that `latest` has just verified the step; otherwise this does. R021, R022.
    """
    path = Path(folder) / name_of(step)
    described = _trusted(path, verified)
    _refuse_another_model(described, engine.role, path.name)
    _refuse_another_optimizer(described, engine, path.name)
    saved = told(UNREADABLE, f"cannot read checkpoint `{path.name}`", lambda: read_state(path))
    wanted = _sharded(engine, loading=True)
    loaded, settings = torch_dist.read(path, wanted, UNREADABLE)
    for name, chunk in _named_chunks(engine):
        chunk.load_state_dict(loaded[name])
    if engine.optimizer is not None:
        own = wanted["optimizer"], loaded["optimizer"], settings.get("optimizer", {})
        optimizer_state.restore(engine.optimizer, *own)
    engine.steps = step
    _restore_rng(path, described, engine, saved["reseed"])
    return saved["state"]


def load_weights(
    folder: Path, step: int, engine: Engine, *, verified: bool = False, with_head: bool = True
) -> None:
    """Put only the model of `folder/step-N` into the engine: what one stage hands to the next.

    A model that predicts tokens may become one with a scalar or attribute head: everything below the head
    is loaded and the head keeps its first values. So it does, whatever there was, when such a head is not
    to come along (`with_head`). Any other difference in the model is refused, R022.
    """
    path = Path(folder) / name_of(step)
    described = _trusted(path, verified)
    heads = (described.model.get("head"), engine.role.model.head)
    gets_new_head = heads[1] != "language" and (heads[0] == "language" or not with_head)
    _refuse_another_model(described, engine.role, path.name, but_head=gets_new_head)
    wanted = _model_state(engine)
    if gets_new_head:
        wanted = {name: _without_head(chunk) for name, chunk in wanted.items()}
    loaded, _ = torch_dist.read(path, wanted, UNREADABLE)
    for name, chunk in _named_chunks(engine):
        chunk.load_state_dict(loaded[name], strict=not gets_new_head)
    if engine.optimizer is not None:
        engine.optimizer.reload_model_params()


def prune(
    folder: Path,
    keep_last: int | None,
    keep_best: int | None,
    *,
    lower_is_better: bool = True,
    spare: int | None = None,
) -> list[int]:
    """Remove checkpoints that are neither among the newest nor among the best; the steps removed.

    `keep_last` None or 0 keeps all. Broken ones do not count and are left for a person to look at; the
    newest good one and `spare` always stay. A kill on the way leaves no half checkpoint that looks good.
    """
    return told(
        SAVE_FAILED,
        "cannot prune",
        lambda: steps.prune(Path(folder), keep_last, keep_best, lower_is_better=lower_is_better, spare=spare),
    )


def clean(folder: Path) -> None:
    """Remove what a killed save or prune left behind. Only for the run that writes to the folder."""
    told(UNREADABLE, f"cannot clean `{folder}`", lambda: steps.clean(Path(folder)))


# ── saving ──────────────────────────────────────────────────────────────────────────────────────


def _new_folder(folder: Path, step: int) -> Path:
    saving = steps.begin(folder, step)
    (saving / "rng").mkdir()
    return saving


def _write_parts(saving: Path, step: int, engine: Engine, state: dict[str, Any]) -> None:
    what = f"cannot save step {step}"
    torch_dist.write(saving, _sharded(engine, loading=False), SAVE_FAILED)
    own = saving / "rng" / f"rank-{rank()}.safetensors"
    together(SAVE_FAILED, what, lambda: rng.write(own, engine.parallel.device))
    ours = {"step": step, "state": state, "reseed": zlib.crc32(f"{state.get('seed', 0)}:{step}".encode())}
    told(SAVE_FAILED, what, lambda: manifest.write_durably(saving / STATE, _as_json(ours)))


def _as_json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, allow_nan=False).encode()


def _recorded(saving: Path, step: int) -> dict[str, FileRecord]:
    """Checksums of all files: each rank reads what it wrote, when it is on the disk."""

    def own_records() -> dict[str, FileRecord]:
        names = _own_files(saving)
        manifest.sync_tree(saving, names)
        return {name: manifest.record(saving / name) for name in names}

    parts = together(SAVE_FAILED, f"cannot save step {step}", own_records)
    return {name: record for part in parts for name, record in part.items()}


def _own_files(saving: Path) -> list[str]:
    names = [path.name for path in saving.glob(f"__{rank()}_*.distcp")]
    names.append(f"rng/rank-{rank()}.safetensors")
    if rank() == 0:
        names += [torch_dist.INDEX, torch_dist.SETTINGS, torch_dist.FORM, STATE]
    return sorted(names)


def _describe(engine: Engine, step: int, metric: float | None, files: dict[str, FileRecord]) -> Manifest:
    model = engine.role.model
    return Manifest(
        step=step,
        model={
            "name": model.name,
            "head": model.head,
            "attributes": list(model.attributes),
            "tokenizer": model.tokenizer,
            "shape": dataclasses.asdict(model.shape),
        },
        layout=_layout_of(engine),
        precision=engine.role.precision,
        optimizer=optimizer_state.kind(engine.optimizer),
        metric=metric,
        files=files,
    )


def _what_is_left(folder: Path) -> str:
    kept = steps_in(folder)[-1:]
    what = f"`{name_of(kept[0])}` is kept" if kept else "there is no checkpoint yet"
    return f"{what}; make room in `{folder}` and run again"


# ── loading ─────────────────────────────────────────────────────────────────────────────────────


def _examined(path: Path) -> tuple[list[str], Manifest | None]:
    """What is wrong with a checkpoint, and its manifest; the files are dealt over the ranks."""

    def read_manifest() -> tuple[list[str], Manifest | None]:
        try:
            described = manifest.read(path)
        except ManifestError as error:
            return [str(error)], None
        if name_of(described.step) != path.name:
            return [f"its manifest says step {described.step}"], None
        return [], described

    what = f"cannot verify checkpoint `{path.name}`"
    found, described = told(UNREADABLE, what, read_manifest)
    if described is None:
        return found, None
    own = manifest.dealt(described.files, rank(), size())
    parts = together(UNREADABLE, what, lambda: manifest.problems(path, own))
    return sorted(problem for part in parts for problem in part), described


def _trusted(path: Path, verified: bool) -> Manifest:
    """The manifest of a checkpoint that holds; R021 when it does not."""
    if verified:
        return told(UNREADABLE, f"cannot read checkpoint `{path.name}`", lambda: manifest.read(path))
    found, described = _examined(path)
    if described is None or found:
        raise Problem(UNREADABLE, f"checkpoint `{path}` is refused: {'; '.join(found[:3])}")
    return described


def read_state(path: Path) -> dict[str, Any]:
    """What a step's folder says beside its weights: `step`, `state` as it was given to `save`, `reseed`."""
    return json.loads((path / STATE).read_bytes())


def _refuse_another_model(described: Manifest, role: Role, name: str, *, but_head: bool = False) -> None:
    saved = described.model
    wanted = json.loads(json.dumps(dataclasses.asdict(role.model.shape)))
    unimportant = {"init_std"} | ({"max_positions"} if role.model.shape.position == "rope" else set())
    clashes = [
        f"{key} {saved['shape'].get(key)} instead of {value}"
        for key, value in wanted.items()
        if saved["shape"].get(key) != value and key not in unimportant
    ]
    if not but_head:
        if saved["head"] != role.model.head:
            clashes.append(f"a {saved['head']} head instead of a {role.model.head} one")
        elif saved["attributes"] != list(role.model.attributes):
            clashes.append(f"attributes {saved['attributes']} instead of {list(role.model.attributes)}")
    if clashes:
        message = f"checkpoint `{name}` is of another model: it has {'; '.join(clashes[:3])}"
        raise Problem(OTHER_MODEL, f"{message}; take the model it was made with, or another checkpoint")


def _refuse_another_optimizer(described: Manifest, engine: Engine, name: str) -> None:
    own = optimizer_state.kind(engine.optimizer)
    if own not in ("none", described.optimizer):
        held = "no" if described.optimizer == "none" else f"a {described.optimizer}"
        message = f"checkpoint `{name}` holds {held} optimizer, but the plan has a {own} one"
        raise Problem(OTHER_MODEL, f"{message}; set `distributed_optimizer` as it was")


def _restore_rng(path: Path, described: Manifest, engine: Engine, reseed: int) -> None:
    if described.layout != _layout_of(engine):
        seed_everything(reseed)
        return
    own = path / "rng" / f"rank-{rank()}.safetensors"
    together(
        UNREADABLE, f"cannot read checkpoint `{path.name}`", lambda: rng.read(own, engine.parallel.device)
    )


def _layout_of(engine: Engine) -> dict[str, Any]:
    layout = json.loads(json.dumps(dataclasses.asdict(engine.role.layout)))
    return layout | {"device": engine.parallel.device.type}


def _warn(text: str) -> None:
    if rank() == 0:
        print(f"warning[{UNREADABLE}]: {text}", file=sys.stderr, flush=True)


# ── the state, as Megatron lays it out ──────────────────────────────────────────────────────────


def _named_chunks(engine: Engine) -> list[tuple[str, GPTModel]]:
    chunks = engine.chunks
    names = ["model"] if len(chunks) == 1 else [f"model{index}" for index in range(len(chunks))]
    return list(zip(names, chunks, strict=True))


def _model_state(engine: Engine) -> torch_dist.State:
    return {name: chunk.sharded_state_dict() for name, chunk in _named_chunks(engine)}


def _sharded(engine: Engine, *, loading: bool) -> torch_dist.State:
    state = _model_state(engine)
    if engine.optimizer is not None:
        state["optimizer"] = optimizer_state.sharded(engine.optimizer, state, loading=loading)
    return state


def _without_head(chunk: torch_dist.State) -> torch_dist.State:
    return {name: leaf for name, leaf in chunk.items() if not name.startswith("output_layer.")}
