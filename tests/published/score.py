"""How far the planner is from published throughput: rows it calls infeasible, and by how much it misses.

    ratio = predicted / published tokens per second;  error = |ratio - 1|
    after = the same once every row is divided by one scalar of its GPU and precision, dense and MoE apart:
            the geometric mean of the ratios of the split `fit` alone (`--own` takes both splits)

`make bench-published` runs it. It prints and judges nothing; tests/specc/planner holds the bounds.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from rows import Row, rows

from specc.planner.estimate import Estimate, estimate

Cell = tuple[str, str, str]
"""GPU, precision, dense or MoE."""


@dataclass(frozen=True)
class Scored:
    """A row and what the planner says about it."""

    row: Row
    answer: Estimate
    why: str  # it does not fit; '' where it does

    @property
    def ratio(self) -> float:
        return self.answer.tokens_per_second_per_gpu / self.row.tokens_per_second

    @property
    def cell(self) -> Cell:
        return self.row.question.gpu.name, self.row.question.dtype, self.row.kind


def scored(kept: Iterable[Row]) -> list[Scored]:
    """Every row that counts, with the planner's answer."""
    found = []
    for row in kept:
        if not row.scored:
            continue
        answer, _, broken = estimate(row.question)
        memory = answer.memory
        why = "; ".join(f"{each.code} {each.message}" for each in broken)
        if not why and not answer.fits:
            why = f"{memory.total_gib:.0f} of {memory.capacity_gib:.0f} GiB"
        found.append(Scored(row, answer, why))
    return found


def scalars(found: Iterable[Scored], own: bool = False) -> dict[Cell, float]:
    """Geometric mean of the ratios of a cell; of all its rows where the split `fit` has none."""
    ratios: dict[Cell, list[float]] = defaultdict(list)
    whole: dict[Cell, list[float]] = defaultdict(list)
    for each in found:
        whole[each.cell].append(each.ratio)
        if own or each.row.said["split"] == "fit":
            ratios[each.cell].append(each.ratio)
    return {cell: statistics.geometric_mean(ratios[cell] or whole[cell]) for cell in whole}


def errors(ratios: Iterable[float]) -> list[float]:
    return sorted(abs(ratio - 1) for ratio in ratios)


def summary(kept: list[float]) -> str:
    """Median, mean and 90th percentile of sorted errors, in per cent."""
    p90 = kept[math.ceil(0.9 * len(kept)) - 1]
    return f"{100 * statistics.median(kept):6.1f} {100 * statistics.fmean(kept):6.1f} {100 * p90:6.1f}"


def table(found: list[Scored], scale: dict[Cell, float]) -> list[str]:
    """One line per GPU, precision, kind and split, and one per kind and split over all."""
    groups: dict[tuple[str, ...], list[Scored]] = defaultdict(list)
    for each in found:
        split = each.row.said["split"]
        groups[(*each.cell, split)].append(each)
        groups["~all", "", each.row.kind, split].append(each)
        groups["~all", "", "", split].append(each)
    lines = [f"{'gpu':10} {'dtype':6} {'kind':6} {'split':5} rows  before: median, mean, p90 %   after"]
    for group, members in sorted(groups.items()):
        before = summary(errors(each.ratio for each in members))
        after = summary(errors(each.ratio / scale[each.cell] for each in members))
        gpu, dtype, kind, split = group
        lines.append(
            f"{gpu.strip('~'):10} {dtype:6} {kind:6} {split:5} {len(members):4}   {before}   {after}"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--own", action="store_true", help="scalars from both splits")
    parser.add_argument("--rows", action="store_true", help="every row with its ratio, worst first")
    options = parser.parse_args()
    found = scored(rows())
    scale = scalars(found, options.own)
    bad = [each for each in found if each.why]
    print(f"{len(found)} rows, {len(bad)} called infeasible")
    for each in bad:
        print(f"  {each.row.name}: {each.why}")
    said = (f"{' '.join(cell)} {value:.3f}" for cell, value in sorted(scale.items()))
    print("scalars: " + ", ".join(said))
    print("\n".join(table(found, scale)))
    if options.rows:
        for each in sorted(found, key=lambda each: -abs(math.log(each.ratio / scale[each.cell]))):
            after = each.ratio / scale[each.cell]
            print(f"{each.ratio:6.3f} {after:6.3f} {each.row.said['split']:4} {each.row.name}")


if __name__ == "__main__":
    main()
