"""The shipped specs: list them, and copy one to start from."""

from __future__ import annotations

import difflib
from pathlib import Path

from specc import shipped
from specc.cli import Outside, Usage


def entries() -> list[dict[str, str]]:
    """`{name, title}` of every shipped spec; the title is the first line of its header comment."""
    return [{"name": path.stem, "title": _title(path)} for path in sorted(shipped.specs().glob("*.yaml"))]


def copy(name: str, folder: Path) -> list[Path]:
    """Copy the spec of that name into `folder`, and the cluster profile it names; gives what was written.

    Usage for an unknown name, Outside when a file is there already or cannot be written.
    """
    name = name.removesuffix(".yaml")
    spec = shipped.specs() / f"{name}.yaml"
    if not spec.is_file():
        raise Usage(f"there is no shipped spec `{name}`{_guess(name)}; `specc ls` lists them")
    texts = {folder / spec.name: spec.read_text(encoding="utf-8")}
    texts |= {
        folder / "clusters" / path.name: path.read_text(encoding="utf-8") for path in _profiles_of(spec)
    }
    if (folder / spec.name).exists():
        raise Outside(f"{folder / spec.name} exists already, and nothing is overwritten; name another folder")
    try:
        return [path for path, text in texts.items() if _written(path, text)]
    except OSError as error:
        raise Outside(f"cannot write {error.filename}: {(error.strerror or str(error)).lower()}") from error


def _written(path: Path, text: str) -> bool:
    """Write a file unless it is there; whether it was written."""
    if path.exists():
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
    return True


def _profiles_of(spec: Path) -> list[Path]:
    """The shipped Slurm profile a spec names: that is what one has to fill in. A local one needs nothing."""
    folder = Path(shipped.__file__).parent / "clusters"
    said = [line.split("#")[0].split(":", 1)[1].strip() for line in _cluster_lines(spec)]
    found = [folder / f"{name}.yaml" for name in said]
    return [path for path in found if path.is_file() and "slurm:" in path.read_text(encoding="utf-8")]


def _cluster_lines(spec: Path) -> list[str]:
    return [line for line in spec.read_text(encoding="utf-8").splitlines() if line.startswith("cluster:")]


def _title(path: Path) -> str:
    first = path.read_text(encoding="utf-8").split("\n", 1)[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""


def _guess(name: str) -> str:
    near = difflib.get_close_matches(name, [entry["name"] for entry in entries()], n=1)
    return f"; did you mean `{near[0]}`?" if near else ""
