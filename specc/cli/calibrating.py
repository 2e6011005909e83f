"""`specc calibrate`: what a run took against what was predicted, kept for the plans of its cluster."""

from __future__ import annotations

import argparse
from pathlib import Path

from specc.calibration import SUFFIX, Calibration, Measurement, Unusable, read, write
from specc.cli import FINE, PROBLEMS, Outside
from specc.planner.calibration import measured_run

COLUMNS = ("stage", "role", "layout", "step", "predicted", "x", "memory", "predicted", "x")


def calibrate(options: argparse.Namespace) -> int:
    """Compare, print, and store unless --dry-run. Nothing to compare is a problem."""
    from specc.cli import verbs

    try:
        plan, found, missing = measured_run(Path(options.run))
        for reason in missing:
            verbs.talk(f"specc: {reason}")
        if not found and not missing:
            verbs.talk(f"specc: no stage of {options.run} trains, so there is nothing to compare")
        if not found:
            return PROBLEMS
        file = Path(options.output) if options.output else home(plan.cluster.name)
        calibration = read(file).with_run(found)
        if not options.dry_run:
            write(calibration, file)
    except Unusable as error:
        verbs.talk(f"specc: {error}")
        return PROBLEMS
    except OSError as error:
        what = error.filename or options.run
        raise Outside(f"cannot write {what}: {(error.strerror or str(error)).lower()}") from None
    if options.json:
        verbs.print_json(as_json(found, calibration, file))
        return FINE
    print(text(found))
    for line in corrections(found, calibration):
        print(line)
    if not options.dry_run:
        verbs.talk(f"\nkept in {file}; plans for cluster `{plan.cluster.name}` use it from now on")
    return FINE


def home(cluster: str) -> Path:
    """Where the calibration of a cluster is kept when nobody says: with the user's own profiles."""
    from specc.spec.cluster import places

    own = places(Path("/"))[-2]  # the package's own folder is the last
    return own / f"{cluster or 'local'}{SUFFIX}"


def text(found: list[Measurement]) -> str:
    """A line per role: measured, predicted, and the ratio, of time and of memory."""
    from specc.cli.tables import table
    from specc.planner.outlook import duration

    rows = []
    for m in found:
        memory = (f"{m.measured_gib:.2f} GiB", f"{m.predicted_gib:.2f}", f"{m.memory:.2f}")
        time = (duration(m.measured_seconds), duration(m.predicted_seconds), f"{m.time:.2f}")
        rows.append((m.stage, m.role, m.layout, *time, *(memory if m.measured_gib else ("-", "-", "-"))))
    return "\n".join(table(COLUMNS, rows))


def corrections(found: list[Measurement], calibration: Calibration) -> list[str]:
    """What later plans use, for each kind of run that was measured."""
    kinds = dict.fromkeys((m.gpu, m.precision, m.implementation) for m in found)
    return [f"{' '.join(kind)}: {calibration.correction(*kind)}" for kind in kinds]


def as_json(found: list[Measurement], calibration: Calibration, file: Path) -> dict[str, object]:
    """The same as data."""
    from dataclasses import asdict

    kinds = dict.fromkeys((m.gpu, m.precision, m.implementation) for m in found)
    return {
        "file": str(file),
        "measurements": [asdict(m) | {"time": m.time, "memory": m.memory} for m in found],
        "corrections": [
            {"gpu": g, "precision": p, "implementation": i} | asdict(calibration.correction(g, p, i))
            for g, p, i in kinds
        ],
    }
