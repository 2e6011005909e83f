"""The step folders of a run: how one appears, which stay, and what a kill leaves behind.

    checkpoint/step-20/            a checkpoint, if its manifest holds
    checkpoint/best.json           the step with the best metric so far
    checkpoint/.saving-step-30-…   being written; .replaced-…, .deleting-…: on their way out

A step folder appears and disappears by one rename, so a kill at any moment leaves either the whole of
it or none. Only one process (rank 0) calls these functions; standard library only.
"""

from __future__ import annotations

import json
import math
import secrets
import shutil
from pathlib import Path

from runtime import manifest
from runtime.manifest import Manifest, ManifestError

BEST = "best.json"
_SAVING, _REPLACED, _DELETING = ".saving-", ".replaced-", ".deleting-"


def name_of(step: int) -> str:
    """The name of a step's folder."""
    return f"step-{step}"


def steps_in(folder: Path) -> list[int]:
    """The steps that have a folder, in order, whether good or not."""
    names = (path.name.removeprefix("step-") for path in folder.glob("step-*") if path.is_dir())
    return sorted(int(name) for name in names if name.isdecimal() and name_of(int(name)) == f"step-{name}")


def begin(folder: Path, step: int) -> Path:
    """A new hidden folder to write a step's files into; OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    clean(folder)
    saving = folder / f"{_SAVING}{name_of(step)}-{secrets.token_hex(4)}"
    saving.mkdir()
    return saving


def publish(saving: Path, folder: Path, described: Manifest) -> Path:
    """Write the manifest and give the folder its name: from here on it is a checkpoint. OSError.

    All files have to be on the disk already. One of the same step from before is replaced.
    """
    found = {str(path.relative_to(saving)) for path in saving.rglob("*") if path.is_file()}
    if lost := sorted(set(described.files) - found):
        raise OSError(0, "a file that was written is not there; do all machines share the folder?", lost[0])
    if strangers := sorted(found - set(described.files)):
        raise OSError(0, "somebody else wrote into the folder", strangers[0])
    manifest.write(saving, described)
    manifest.sync_folder(saving)
    target = folder / name_of(described.step)
    replaced = folder / f"{_REPLACED}{target.name}"
    if target.exists():
        target.rename(replaced)
    saving.rename(target)
    manifest.sync_folder(folder)
    shutil.rmtree(replaced, ignore_errors=True)
    return target


def clean(folder: Path) -> None:
    """Remove what a killed save or prune left; bring back a step that was killed while being replaced."""
    for path in folder.glob(f"{_REPLACED}*"):
        original = folder / path.name.removeprefix(_REPLACED)
        if not original.exists():
            path.rename(original)
    for prefix in (_SAVING, _REPLACED, _DELETING):
        for path in folder.glob(f"{prefix}*"):
            shutil.rmtree(path, ignore_errors=True)


def whole(folder: Path) -> dict[int, Manifest]:
    """The steps that look whole: a manifest that holds and files of the right size. Reads no other byte."""
    found: dict[int, Manifest] = {}
    for step in steps_in(folder):
        path = folder / name_of(step)
        try:
            described = manifest.read(path)
            sizes = {name: (path / name).stat().st_size for name in described.files}
        except (ManifestError, OSError):
            continue
        if all(sizes[name] == wanted.bytes for name, wanted in described.files.items()):
            found[step] = described
    return found


def prune(
    folder: Path,
    keep_last: int | None,
    keep_best: int | None,
    *,
    lower_is_better: bool = True,
    spare: int | None = None,
) -> list[int]:
    """Note the best step, then remove what is neither among the newest nor among the best; the steps removed.

    Broken ones do not count and are left for a person to look at. `spare` stays whatever its number is.
    """
    metrics = {step: described.metric for step, described in whole(folder).items()}
    if best := ranked(metrics, lower_is_better):
        content = json.dumps({"step": best[0], "metric": metrics[best[0]]}) + "\n"
        manifest.replace_durably(folder / BEST, content.encode())
    removed = [step for step in doomed(metrics, keep_last, keep_best, lower_is_better) if step != spare]
    for step in removed:
        deleting = folder / f"{_DELETING}{name_of(step)}"
        (folder / name_of(step)).rename(deleting)
        shutil.rmtree(deleting, ignore_errors=True)
    return removed


def best_of(folder: Path) -> int | None:
    """The step that `best.json` names, if its folder is there."""
    try:
        step = json.loads((folder / BEST).read_bytes())["step"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return step if isinstance(step, int) and step in steps_in(folder) else None


def doomed(
    metrics: dict[int, float | None],
    keep_last: int | None,
    keep_best: int | None,
    lower_is_better: bool = True,
) -> list[int]:
    """Which of these steps to remove, in order, given the metric of each; never the newest.

    `keep_last` None or 0 keeps all.
    """
    if not keep_last:
        return []
    newest = sorted(metrics)[-keep_last:]
    best = ranked(metrics, lower_is_better)[: keep_best or 0]
    return [step for step in sorted(metrics) if step not in newest and step not in best]


def ranked(metrics: dict[int, float | None], lower_is_better: bool = True) -> list[int]:
    """The steps that have a finite metric, best first; of equal ones the later is the better."""
    known = {step: value for step, value in metrics.items() if value is not None and math.isfinite(value)}
    sign = 1 if lower_is_better else -1
    return sorted(known, key=lambda step: (sign * known[step], -step))
