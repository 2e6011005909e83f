"""The cost model's constants from published throughput: rows of the split `fit`, the other is not looked at.

    loss = sum over cells w e / sum w, plus a weak pull of some constants to where one expects them
    e    = mean over a cell's rows of |log(predicted / published)|, of which above 0.25 counts a third: a few
           plans were run with software that made them 1.3 to 2.8 times slower than a year later
    w    = root of a cell's rows, half of it with experts; a cell is one model on one GPU in one precision

minimized by turns, one constant after the other, in steps that grow while they help. No row's release is an
input. Fitted are: of each GPU and precision the efficiency of products; of each kind of chip that of
attention and the share of TP traffic that shows; and the constants of SHARED. `make fit-published` prints
them beside those in use and both splits' errors; `--write` puts those of GPUs into the catalog. Constants in
code are changed by hand.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from types import ModuleType

import score
from rows import Row, rows

from specc.plan import Layout
from specc.planner import cost, estimate, hardware, layer_time
from specc.planner.hardware import CATALOG, Gpu
from specc.planner.workload import Workload

FITTED = {
    "a100-80gb": ("bf16", "fp16"),
    "h100-80gb": ("bf16", "fp8"),
    "b200": ("fp8", "mxfp8"),
    "gb200": ("bf16", "fp8", "mxfp8", "nvfp4"),
    "gb300": ("bf16", "fp8", "mxfp8", "nvfp4"),
}
"""Precisions of which a GPU has rows enough."""

LIKE = {"b200": "gb200", "b300": "gb300"}
"""Whose efficiency a GPU takes where it has too few rows: the same chip on another board."""

CHIPS = {"a100-80gb": "a100", "h100-80gb": "h100", "b200": "blackwell", "gb200": "blackwell"}
CHIPS |= {"gb300": "blackwell", "b300": "blackwell"}

SHARED: dict[str, tuple[ModuleType, float, float]] = {
    "MEMORY_ACHIEVED": (layer_time, 0.6, 0.95),
    "OPERANDS_EXPOSED": (layer_time, 0.1, 1.0),
    "HALF_ROWS": (layer_time, 16, 512),
    "GROUPED": (layer_time, 0.5, 1.0),
    "EXPERTS_LAUNCH": (layer_time, 1e-4, 2e-3),
    "PP_EXPOSED": (cost, 0.05, 1.0),
}
"""Constants of all GPUs: where they are, and within which bounds they make sense."""

EXPECTED = {"MEMORY_ACHIEVED": 0.8, "attention": 0.5}
PULL = 0.03
ROUNDS = 14

Constants = dict[str, float]


@dataclasses.dataclass(frozen=True)
class Sample:
    """A row that is fitted to, with what does not depend on the constants."""

    row: Row
    work: Workload
    layout: Layout
    node: int


def samples(split: str = "fit") -> list[Sample]:
    """Rows of one split that count and say how their pipeline is interleaved."""
    found = []
    for row in rows():
        said = row.said
        if row.scored and said["split"] == split and "virtual stages" not in said["note"]:
            layout = estimate._layout(row.question)
            work = estimate._workload(row.question, layout)
            found.append(Sample(row, work, layout, estimate._per_node(row.question)))
    return found


def in_use() -> Constants:
    """The constants as the planner has them."""
    found = {name: float(getattr(module, name)) for name, (module, _, _) in SHARED.items()}
    for name, precisions in FITTED.items():
        card = hardware.gpu(name)
        assert card is not None
        found |= {f"{name} {precision}": card.efficiency(precision) for precision in precisions}
        found[f"attention {CHIPS[name]}"] = card.attention_efficiency
        found[f"tp {CHIPS[name]}"] = card.tp_exposed
    return found


def card_with(constants: Constants, card: Gpu) -> Gpu:
    """The GPU with those constants in place of the catalog's."""
    chip, known = CHIPS[card.name], {}
    for owner in (LIKE.get(card.name, card.name), card.name):
        known |= {each: constants[f"{owner} {each}"] for each in FITTED.get(owner, ())}
    return dataclasses.replace(
        card,
        efficiencies=tuple(sorted(known.items())),
        attention_efficiency=constants[f"attention {chip}"],
        tp_exposed=constants[f"tp {chip}"],
    )


def predicted(constants: Constants) -> Callable[[Sample], float]:
    """Predicted over published throughput of a sample, under the constants."""
    for name, (module, _, _) in SHARED.items():
        setattr(module, name, constants[name])
    cost.forget()
    cards: dict[str, Gpu] = {}

    def ratio(sample: Sample) -> float:
        q = sample.row.question
        if q.gpu.name not in cards:
            cards[q.gpu.name] = card_with(constants, q.gpu)
        seconds = cost.step_seconds(sample.work, sample.layout, q.mbs, q.mode, cards[q.gpu.name], sample.node)
        rate = sample.work.global_batch * sample.work.seq_length / seconds / q.gpus
        return rate / sample.row.tokens_per_second

    return ratio


def loss(constants: Constants, cells: Iterable[list[Sample]]) -> float:
    ratio = predicted(constants)
    total = weights = 0.0
    for cell in cells:
        errors = [abs(math.log(ratio(sample))) for sample in cell]
        error = sum(min(each, 0.25) + max(0.0, each - 0.25) / 3 for each in errors) / len(errors)
        weight = math.sqrt(len(errors)) / (2 if cell[0].work.shape.experts else 1)
        total, weights = total + weight * error, weights + weight
    pull = math.log(constants["MEMORY_ACHIEVED"] / EXPECTED["MEMORY_ACHIEVED"]) ** 2
    pull += sum(
        math.log(value / EXPECTED["attention"]) ** 2
        for name, value in constants.items()
        if name.startswith("attention")
    )
    return total / weights + PULL * pull


def cells_of(found: Iterable[Sample]) -> list[list[Sample]]:
    cells: dict[tuple[str, ...], list[Sample]] = defaultdict(list)
    for sample in found:
        q = sample.row.question
        cells[sample.row.said["model"], q.gpu.name, q.dtype].append(sample)
    return list(cells.values())


def bounds(name: str) -> tuple[float, float]:
    if name in SHARED:
        return SHARED[name][1:]
    return (0.05, 1.0) if name.startswith("tp ") else (0.2, 0.8)


def fit(constants: Constants, found: list[Sample], rounds: int = ROUNDS) -> tuple[Constants, float]:
    """The constants that miss least, from where they are."""
    cells, now = cells_of(found), dict(constants)
    best, steps = loss(now, cells), dict.fromkeys(now, 0.2)
    for _ in range(rounds):
        for name, before in list(now.items()):
            low, high = bounds(name)
            for factor in (1 + steps[name], 1 / (1 + steps[name])):
                now[name] = min(max(before * factor, low), high)
                missed = loss(now, cells)
                if missed < best - 1e-7:
                    best = missed
                    break
                now[name] = before
            steps[name] *= 1.3 if now[name] != before else 0.5
    return now, best


def start() -> Constants:
    """Where fitting begins: nothing of what is in use, so that it can be done again."""
    found = dict.fromkeys(in_use(), 0.6)
    found |= {name: math.sqrt(low * high) for name, (_, low, high) in SHARED.items()}
    found |= {name: 0.5 for name in found if name.startswith(("attention", "tp"))}
    return found | {"MEMORY_ACHIEVED": EXPECTED["MEMORY_ACHIEVED"], "EXPERTS_LAUNCH": 1e-3}


def rounded(constants: Constants) -> Constants:
    """Two digits, which is as many as they are worth; three of efficiencies."""
    return {
        name: float(f"{value:.2g}" if name in SHARED else f"{value:.3g}") for name, value in constants.items()
    }


def write(constants: Constants, count: int) -> None:
    """Put the constants of GPUs into the catalog's files."""
    for name in CHIPS:
        card = hardware.gpu(name)
        assert card is not None
        file, made = CATALOG / f"{name}.json", card_with(constants, card)
        text = file.read_text(encoding="utf-8")
        said = f"tests/published/fit.py over {count} published rows of all GPUs"
        if name in LIKE:
            said += f"; what has too few rows of its own is that of {LIKE[name]}"
        for key, value in (
            ("efficiency", json.dumps(dict(made.efficiencies))),
            ("attention_efficiency", json.dumps(made.attention_efficiency)),
            ("tp_exposed", json.dumps(made.tp_exposed)),
            ("efficiency_source", json.dumps(said)),
        ):
            text = re.sub(rf'^  "{key}": .*?(,?)$', rf'  "{key}": {value}\1', text, flags=re.MULTILINE)
        file.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put what is fitted into the catalog of GPUs")
    options = parser.parse_args()
    used, found = in_use(), samples()
    before = loss(used, cells_of(found))
    made, after = fit(start(), found)
    made = rounded(made)
    print(
        f"{len(found)} rows in {len(cells_of(found))} cells; loss {before:.4f} as in use, {after:.4f} fitted"
    )
    print("\n".join(f"{name:20} {used[name]:10.5g} -> {value:10.5g}" for name, value in made.items()))
    for split in ("fit", "held"):
        ratio = predicted(made)
        for kind in ("dense", "MoE"):
            missed = score.errors(ratio(each) for each in samples(split) if each.row.kind == kind)
            print(f"{split:4} {kind:5} {len(missed):4} rows: median, mean, p90 % {score.summary(missed)}")
    if options.write:
        write(made, len(found))


if __name__ == "__main__":
    main()
