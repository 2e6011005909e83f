"""`specc report`: one run, or several side by side, as a page; in the terminal what each stage changed."""

from __future__ import annotations

import argparse
from pathlib import Path

from specc.calibration import Unusable
from specc.cli import FINE, PROBLEMS, Outside
from specc.report import RunReport, gains, read_run


def report(options: argparse.Namespace) -> int:
    """Write the page; with --json, print what stands in it instead."""
    from specc.cli import verbs

    runs = []
    for folder in options.runs:
        try:
            runs.append(read_run(Path(folder)))
        except Unusable as error:
            verbs.talk(f"specc: {error}")
            return PROBLEMS
    if options.json:
        verbs.print_json([as_json(run) for run in runs])
        return FINE
    from specc.pages.report_page import report_page

    for run in runs:
        for note in run.notes:
            verbs.talk(f"specc: {note}")
        verbs.talk(changes(run))
    file = Path(options.output or Path(options.runs[0]) / "report.html")
    try:
        file.write_text(report_page(runs), encoding="utf-8")
    except OSError as error:
        raise Outside(f"cannot write {file}: {(error.strerror or str(error)).lower()}") from error
    print(file)
    return FINE


def changes(run: RunReport) -> str:
    """A table: the metrics of each stage, at first and in the end; of many rounds, the first and the last."""
    from specc.cli.folding import ends, rounds_of
    from specc.cli.tables import table

    shown = ends(gains(run), rounds_of(run.plan), lambda one: one.role.split("/")[0])
    rows = [
        (one, "", "", "")
        if isinstance(one, str)
        else (one.role, one.metric, f"{one.first:.4g}", f"-> {one.last:.4g}")
        for one in shown
    ]
    heads = ("stage", "metric", "first tenth", "   last tenth")
    return "\n".join([f"{run.name}:", *table(heads, rows)])


def as_json(run: RunReport) -> dict[str, object]:
    """A run as data: the state of its stages, and the last value of every metric."""
    from dataclasses import asdict

    last = {r.name: {key: points[-1][1] for key, points in r.curves.items()} for r in run.roles}
    return {
        "name": run.name,
        "stages": run.state,
        "last": last,
        "measurements": [asdict(m) | {"time": m.time, "memory": m.memory} for m in run.measurements],
    }
