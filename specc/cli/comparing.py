"""A comparison of layouts as text: the winner, what the others lost by, and the memory as formulas."""

from __future__ import annotations

from specc.cli.tables import recomputation, table
from specc.planner.comparison import Comparison, Rival
from specc.planner.outlook import duration

RUNNERS = ("layout", "micro", "recompute", "step", "lost by", "bubble", "memory")
LARGE = ("nodes", "layout", "micro", "recompute", "memory", "does not fit")


def text(found: Comparison) -> str:
    """All of a comparison, each part under a line that says what it is."""
    taken = f"; a step takes {duration(found.step_seconds)}" if found.step_seconds else ""
    bubble = f", the pipeline waits {found.bubble:.0%} of it" if found.step_seconds and found.bubble else ""
    lines = [f"{found.role} runs {found.winner}{taken}{bubble}"]
    if found.runners_up:
        rows = [_runner(rival, found) for rival in found.runners_up]
        lines += [
            "",
            "runners-up on the same nodes, each with its best micro-batch:",
            *_indented(RUNNERS, rows),
        ]
    if found.too_large:
        rows = [_large(rival, found.margin) for rival in found.too_large]
        lines += ["", "nearest that do not fit:", *_indented(LARGE, rows)]
    if found.times:
        timed = [(t.lane, t.part, duration(t.seconds), f"= {t.text}" if t.text else "") for t in found.times]
        by = "by whose GPUs it takes" if any(t.lane for t in found.times) else "part by part"
        lines += ["", f"the step, {by}:", *_indented(("", "", "", ""), timed)[1:]]
    if found.formulas:
        where = f"memory of the fullest GPU, in pipeline stage {found.stage}:"
        rows = [(f.part, _size(f.gib), f"= {f.text}" if f.text else "") for f in found.formulas]
        rows.append(("total", _size(sum(f.gib for f in found.formulas)), ""))
        lines += ["", where, *_indented(("", "", ""), rows)[1:]]
    if found.bands:
        lines += ["", *(str(band) for band in found.bands)]
    return "\n".join(lines)


def _indented(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    return [f"  {line}" for line in table(heads, rows)]


def _size(gib: float) -> str:
    return f"{gib:.2f} GiB" if gib >= 0.1 else f"{gib * 1024:.2f} MiB"


def _runner(rival: Rival, found: Comparison) -> tuple[str, ...]:
    lost = ""
    if rival.step_seconds and found.step_seconds:
        share = rival.slower / found.step_seconds
        lost = f"{rival.slower:.2g} s ({share:+.1%})" if rival.slower else "less than 1 ms"
    return (
        rival.layout,
        str(rival.micro_batch),
        recomputation(rival),
        duration(rival.step_seconds) if rival.step_seconds else "",
        lost,
        f"{rival.bubble:.0%}" if rival.bubble else "",
        f"{rival.total_gib:.1f} GiB",
    )


def _large(rival: Rival, margin: float) -> tuple[str, ...]:
    if rival.over_gib > 0:
        why = f"{rival.over_gib:.1f} GiB more than the GPU has"
    else:
        why = f"{rival.oom_probability:.0%} likely to run out, {margin:.0%} is the most"
    return (
        str(rival.nodes),
        rival.layout,
        str(rival.micro_batch),
        recomputation(rival),
        f"{rival.total_gib:.1f} GiB",
        why,
    )
