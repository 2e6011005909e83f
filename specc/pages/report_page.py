"""One run, or several side by side, as a page: stages, curves, samples, predicted against measured."""

from __future__ import annotations

from collections.abc import Sequence

from specc.pages.flow import Box, flow
from specc.pages.frame import COLOURS, Section, key, page, tiles
from specc.pages.lines import Curve, lines
from specc.pages.markup import Element, element, rows
from specc.planner.outlook import duration
from specc.report import RoleReport, RunReport

FIRST = (
    *("loss", "validation_loss", "reward", "validation_reward", "validation_right", "kl"),
    *("accuracy", "validation_accuracy", "response_length", "bad_samples", "entropy", "grad_norm", "lr"),
    *("tokens_per_second", "memory_gib"),
)
"""Metrics that are shown first, in this order."""

HIDDEN = ("trained_tokens", "tokens")
LONGEST = 400
"""Characters of a sample's text that are shown."""


def report_page(runs: Sequence[RunReport]) -> str:
    """The page. Runs that have a stage of the same name share its pictures."""
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names(runs))}
    title = runs[0].name if len(runs) == 1 else f"{len(runs)} runs"
    about = " against ".join(names(runs)) if len(runs) > 1 else f"Experiment {runs[0].plan.name}."
    sections = [_stages(run, name) for run, name in zip(runs, names(runs), strict=True)]
    sections += _curves(runs, colours)
    sections += [section for run in runs for section in _samples(run)]
    sections += _measured(runs)
    notes = [element("p", note, class_="note") for run in runs for note in run.notes]
    return page(title, about, [*_top(runs, colours), *notes], sections)


def names(runs: Sequence[RunReport]) -> list[str]:
    """A name for each run; two of the same name are numbered."""
    found: list[str] = []
    for run in runs:
        again = sum(other.name == run.name for other in runs[: len(found)])
        found.append(f"{run.name} ({again + 1})" if again else run.name)
    return found


def _top(runs: Sequence[RunReport], colours: dict[str, str]) -> list[Element]:
    if len(runs) > 1:
        return [key(list(colours), colours)]
    run = runs[0]
    done = sum(state == "finished" for state in run.state.values())
    values = [(f"{done} of {len(run.state)}", "stages finished")]
    for name in ("loss", "reward"):
        last = [role.curves[name][-1][1] for role in run.roles if role.curves.get(name)]
        values += [(f"{last[-1]:.4g}", f"last {name}")] if last else []
    return [tiles(values)]


def _stages(run: RunReport, name: str) -> Section:
    boxes = []
    for job in run.plan.jobs:
        said = [run.state[job.stage]]
        for report in run.roles:
            if report.job is job:
                steps = max((points[-1][0] for points in report.curves.values() if points), default=0)
                what = (
                    report.role.program
                    if len(job.roles) == 1
                    else f"{report.role.name}: {report.role.program}"
                )
                said.append(f"{what}, {steps:g} steps" if steps else what)
        boxes.append(Box(job.stage, tuple(said), job.depends_on))
    return Section("Stages" if name == run.name else f"Stages of {name}", "", [flow(boxes)])


def _curves(runs: Sequence[RunReport], colours: dict[str, str]) -> list[Section]:
    by_role: dict[str, list[tuple[str, RoleReport]]] = {}
    for run, name in zip(runs, names(runs), strict=True):
        for report in run.roles:
            if report.curves:
                by_role.setdefault(report.name, []).append((name, report))
    sections = []
    for name, reports in by_role.items():
        metrics = ordered([metric for _, report in reports for metric in report.curves])
        drawn = [
            lines(
                metric,
                [Curve(run, r.curves[metric], colours[run]) for run, r in reports if metric in r.curves],
            )
            for metric in metrics
        ]
        pictures = [element("div", one) for one in drawn if one is not None]
        about = "Each point is a step; where they are many, the strong line is their running average."
        sections.append(Section(name, about, [element("div", pictures, class_="pair")]))
    return sections


def ordered(metrics: Sequence[str]) -> list[str]:
    """Each metric once: the known ones first, then by name; times of a step's parts last."""
    shown = [metric for metric in dict.fromkeys(metrics) if metric not in HIDDEN]
    rank = {name: i for i, name in enumerate(FIRST)}
    return sorted(shown, key=lambda m: (m.endswith("_seconds"), rank.get(m, len(FIRST)), m))


def _samples(run: RunReport) -> list[Section]:
    sections = []
    for report in run.roles:
        if report.samples:
            heads = list(dict.fromkeys(name for row in report.samples for name in row))
            lines_ = [[_cell(row.get(name, "")) for name in heads] for row in report.samples]
            table = element("div", rows(heads, lines_), class_="scroll samples")
            sections.append(Section(f"Samples of {report.name}", "The newest ones.", [table]))
    return sections


def _cell(value: object) -> str:
    said = f"{value:.4g}" if isinstance(value, float) else str(value)
    return said if len(said) <= LONGEST else said[:LONGEST] + "…"


HEADS = ("run", "stage", "role", "layout", "step", "predicted", "ratio", "memory", "predicted", "ratio")


def _measured(runs: Sequence[RunReport]) -> list[Section]:
    lines_ = []
    for run, name in zip(runs, names(runs), strict=True):
        for m in run.measurements:
            memory = (f"{m.measured_gib:.2f} GiB", f"{m.predicted_gib:.2f}", f"{m.memory:.2f}")
            time = (duration(m.measured_seconds), duration(m.predicted_seconds), f"{m.time:.2f}")
            lines_.append(
                (name, m.stage, m.role, m.layout, *time, *(memory if m.measured_gib else ("", "", "")))
            )
    if not lines_:
        return []
    about = "Predictions without any calibration; `specc calibrate` makes later ones follow these numbers."
    return [Section("Predicted and measured", about, [element("div", rows(HEADS, lines_), class_="scroll")])]
