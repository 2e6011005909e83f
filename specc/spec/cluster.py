"""The cluster profile: where an experiment runs. One file per machine, found by its name.

    clusters/NAME.yaml beside the spec, or at the root of its git checkout
    $XDG_CONFIG_HOME/specc/clusters/NAME.yaml
    specc/clusters/NAME.yaml, which ship with specc
Beside any of them may lie NAME.calibration.json, which `specc calibrate` writes.
The working directory plays no part.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, PrivateAttr, model_validator

from specc import source
from specc.calibration import SUFFIX, Calibration, Unusable
from specc.calibration import read as read_calibration
from specc.diagnostics import Diagnostic, Origin, Span, span_of
from specc.spec import reading
from specc.spec.reading import listed, nearest, shown
from specc.spec.section import Many, Section, cosmetic, placement
from specc.spec.units import Environment, Given, Line, Size, Time, Variable, conflict, refused

SHIPPED = Path(__file__).parent.parent / "clusters"
DEFAULT = "example-h100"
WRITTEN_DOWN = "is a secret, but `env` writes its value down"


class Gpus(Section):
    """The devices of one node."""

    type: Given = placement()
    """GPU by its catalog name, such as h100-80gb, or `cpu`."""

    per_node: int = placement(8, ge=1, le=1024)
    """GPUs of one node; on a CPU, processes."""


def _sbatch_flag(value: str) -> str:
    if not re.fullmatch(r"--[a-z][a-z0-9-]*(=.+)?|-[A-Za-z]( .+)?", value) or not value.isprintable():
        raise refused("T012", "an sbatch flag such as --reservation=night")
    return value


class SlurmProfile(Section):
    """What sbatch is asked for."""

    account: Line = placement("")
    """Account that is charged."""

    partition: Line = placement("")
    """Partition, or several with commas between."""

    qos: Line = placement("")
    """Quality of service."""

    time: Time | None = placement(None)
    """Longest time limit of the partition, and the limit of a stage that names none."""

    gpus_flag: Literal["gpus-per-node", "gres", "none"] = placement("gpus-per-node")
    """Way to ask for GPUs: `--gpus-per-node=8`, `--gres=gpu:8`, or not at all."""

    gpu_type: Line = placement("")
    """Slurm's name of the GPU where the site wants it, as in `--gpus-per-node=h100:8`."""

    exclusive: bool = placement(True)
    """Take whole nodes."""

    cpus_per_task: int = placement(0, ge=0, le=10**5)
    """CPU cores per node; 0 leaves it to Slurm."""

    mem: Line = placement("")
    """Memory per node as Slurm writes it, such as 0 (all) or 500G; empty leaves it to Slurm."""

    signal: Time = placement(300)
    """Time before the limit at which a job is told to save."""

    attempts: int = placement(3, ge=1, le=20)
    """Attempts at a hetjob that are queued in advance; each starts when the ones before it were lost."""

    extra: Many[Annotated[str, AfterValidator(_sbatch_flag)]] = placement(())
    """Further sbatch flags, each as `--flag=value`."""


def _mount(value: str) -> str:
    parts = value.split(":")
    is_odd = "," in value or not value.isprintable()  # engines separate mounts by commas
    if len(parts) not in (2, 3) or not all(parts) or not parts[1].startswith("/") or is_odd:
        raise refused("T012", "SOURCE:TARGET or SOURCE:TARGET:ro, without a comma")
    return value


class ContainerProfile(Section):
    """The container that programs run in."""

    engine: Literal["none", "pyxis", "apptainer"] = placement("none")
    """Program that starts containers; `none` runs on the node itself."""

    image: Line = placement("")
    """Image, as the engine names it."""

    mounts: Many[Annotated[str, AfterValidator(_mount)]] = placement(())
    """Folders of the node that are seen inside, each as SOURCE:TARGET[:OPTIONS]."""

    @model_validator(mode="after")
    def _has_an_image(self) -> ContainerProfile:
        if self.engine != "none" and not self.image:
            raise conflict(f"container engine `{self.engine}` needs an image", "engine", "add `image:`")
        return self


class RuntimeProfile(Section):
    """Where specc and the runtime are on a node."""

    python: Given = placement("python3")
    """Interpreter that has the runtime's packages."""

    path: Line = placement("")
    """Folder that holds specc and runtime; empty when they are installed there."""

    layers: Literal["te", "local"] | None = placement(None)
    """Transformer Engine's layers or our own; left out, `te` on GPUs and `local` on a CPU."""


class Folder(Section):
    """A folder on the nodes, shared by all of them."""

    path: Line = placement("")
    """The folder; empty for `runs` where submit.sh is called."""

    quota: Size | None = placement(None)
    """Space one may use there, such as 10TB."""


class Profile(Section):
    """Where an experiment runs."""

    gpus: Gpus = placement()
    """GPU type and number of a node."""

    nodes: int | None = placement(None, ge=1, le=10**6)
    """Nodes that one job may have at most; left out, any number."""

    price: float | None = cosmetic(None, gt=0, le=10**6)
    """Price of one GPU for an hour, in whatever currency; `plan` then says what a run costs."""

    scheduler: Literal["slurm", "none"] = placement("slurm")
    """Program that starts jobs; `none` for a machine of one's own."""

    slurm: SlurmProfile = placement(SlurmProfile())
    """What sbatch is asked for."""

    container: ContainerProfile = placement(ContainerProfile())
    """The container that programs run in."""

    runtime: RuntimeProfile = placement(RuntimeProfile())
    """Where specc and the runtime are on a node."""

    results: Folder = placement(Folder())
    """Where run folders go."""

    cache: Folder = placement(Folder())
    """Where downloaded models and data go."""

    data: Line = placement("")
    """Folder on a node that relative paths of a spec start from; empty for where submit.sh is called."""

    env: Environment = placement({})
    """Environment variables of every job, such as HF_HOME or NCCL_IB_HCA."""

    secrets: Many[Variable] = placement(())
    """Names of variables taken from the shell at submit, such as HF_TOKEN; values are never written."""

    _calibration: Calibration = PrivateAttr(Calibration())

    @property
    def calibration(self) -> Calibration:
        """What runs on this cluster taught; it lies in a file of its own, beside the profile."""
        return self._calibration

    def calibrated(self, calibration: Calibration) -> Profile:
        """This profile with these measurements."""
        new = self.model_copy()
        new._calibration = calibration
        return new

    @model_validator(mode="after")
    def _secrets_stay_secret(self) -> Profile:
        for name in self.secrets:
            if name in self.env:
                message = f"`{name}` {WRITTEN_DOWN}"
                raise conflict(message, f"env.{name}", f"remove `{name}` from env and set it in your shell")
        return self


def find_profile(
    name: str | None, spec_folder: Path | str, path: str = "cluster"
) -> tuple[Profile | None, str, list[Diagnostic]]:
    """The profile that a spec in `spec_folder` names, its name, and what there is to say.

    `name` is a name, or a file seen from the folder of the spec; None takes the example with a warning.
    Never raises: a profile that cannot be found or read is an error at `path`.
    """
    folder = Path(spec_folder)
    said: list[Diagnostic] = []
    if name is None:
        said.append(_none_named())
        name = DEFAULT
    file = _file(name, folder)
    if file is None:
        return None, name, [*said, _not_found(name, folder, path)]
    try:
        read, more = source.read(file)
    except OSError as error:
        message = f"the cluster profile `{name}` cannot be read: {(error.strerror or str(error)).lower()}"
        return None, name, [*said, Diagnostic("T010", "error", message, path)]
    read, more = source.elsewhere(read, more, _shown(file, folder))
    if more:
        return None, file.stem, [*said, *more]
    profile, more = reading.read(Profile, read.data, read)
    more = [_at_profile(d, read) for d in more]
    if profile is not None:
        profile, unusable = _calibrated(profile, file.stem, folder, path)
        more += unusable
    return profile, file.stem, [*said, *more]


def _calibrated(profile: Profile, name: str, folder: Path, path: str) -> tuple[Profile, list[Diagnostic]]:
    """The profile with what `specc calibrate` kept for it, if anything."""
    file = companion(name, folder, SUFFIX)
    if file is None:
        return profile, []
    try:
        return profile.calibrated(read_calibration(file)), []
    except Unusable as error:
        help = "remove the file, or write it again with `specc calibrate RUN`"
        return profile, [Diagnostic("T013", "error", str(error), path, help=help)]


def companion(name: str, spec_folder: Path | str, suffix: str) -> Path | None:
    """The first file `NAME` + `suffix` in the folders that are searched for a profile of that name."""
    for place in places(Path(spec_folder)):
        with contextlib.suppress(OSError, ValueError):
            if (file := place / f"{name}{suffix}").is_file():
                return file
    return None


def span_in(name: str | None, spec_folder: Path | str, path: str) -> Span | None:
    """Where the profile that `find_profile` finds says the value at `path`; None when it does not."""
    folder = Path(spec_folder)
    file = _file(name or DEFAULT, folder)
    if file is None:
        return None
    read, _ = source.elsewhere(*source.read(file), _shown(file, folder))
    return read.spans[path][1] if path in read.spans else None


def _at_profile(diagnostic: Diagnostic, read: source.Source) -> Diagnostic:
    """The diagnostic with its place in the profile, since paths are looked up in the spec."""
    first = next((key for path, (key, _) in read.spans.items() if path), None)
    span = span_of(diagnostic, read) or first or Span(1, 1, 1, 2, Origin(read.name, read.text))
    return replace(diagnostic, span=_hidden(span) if diagnostic.message.endswith(WRITTEN_DOWN) else span)


def _hidden(span: Span) -> Span:
    """The same place in a text where a secret is stars, since diagnostics end up in logs."""
    assert span.origin is not None
    lines = span.origin.text.splitlines()
    line = lines[span.line - 1]
    end = span.end_column - 1 if span.end_line == span.line else len(line)
    lines[span.line - 1] = line[: span.column - 1] + "*" * (end - span.column + 1) + line[end:]
    return replace(span, origin=Origin(span.origin.name, "\n".join(lines)))


def _shown(file: Path, folder: Path) -> str:
    """The file as diagnostics name it: from the spec's folder where it lies below that."""
    return str(file.relative_to(folder)) if file.is_relative_to(folder) else str(file)


def _none_named() -> Diagnostic:
    message = f"the spec names no cluster, so it is planned for the built-in `{DEFAULT}`"
    return Diagnostic(
        "T011",
        "warning",
        message,
        "cluster",
        "no `cluster` here",
        help="add `cluster: NAME`, for a profile in clusters/NAME.yaml",
    )


def _file(name: str, folder: Path) -> Path | None:
    try:
        return _existing(name, folder)
    except (OSError, ValueError, RuntimeError):  # too long, a null byte, no such user
        return None


def _existing(name: str, folder: Path) -> Path | None:
    if name.endswith((".yaml", ".yml")) or "/" in name:
        file = folder / Path(name).expanduser()
        return file if file.is_file() else None
    return next((file for place in places(folder) if (file := place / f"{name}.yaml").is_file()), None)


def places(folder: Path) -> list[Path]:
    """The folders that are searched for a profile, in order."""
    found = [folder / "clusters"]
    root = next((p for p in (folder, *folder.parents) if (p / ".git").exists()), None)
    if root is not None and root != folder:
        found.append(root / "clusters")
    config = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    with contextlib.suppress(RuntimeError):  # a user without a home
        # a relative one is no setting, as its standard says: it would lead to the working directory
        config = config if config.is_absolute() else Path.home() / ".config"
        found.append(config / "specc" / "clusters")
    return [*found, SHIPPED]


def _not_found(name: str, folder: Path, path: str) -> Diagnostic:
    if name.endswith((".yaml", ".yml")) or "/" in name:
        message = f"there is no cluster profile {shown(name)}"
        help = "a file is looked for beside the spec; a name, as clusters/NAME.yaml"
        return Diagnostic("T010", "error", message, path, "no such file", help)
    known = list(
        dict.fromkeys(file.stem for place in places(folder) for file in sorted(place.glob("*.yaml")))
    )
    near = nearest(name, known)
    help = (
        f"did you mean `{near}`?"
        if near
        else f"write clusters/{name[:40]}.yaml, or use {listed(known, 'or')}"
    )
    return Diagnostic("T010", "error", f"there is no cluster profile {shown(name)}", path, "not found", help)
