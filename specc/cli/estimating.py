"""`specc estimate`: memory and speed of one given layout, without a spec."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

from specc.cli import FINE, PROBLEMS, Outside, Usage

if TYPE_CHECKING:
    from specc.plan import Layout, Model
    from specc.planner.estimate import Estimate, Question
    from specc.planner.hardware import Gpu
    from specc.planner.rules import Broken

SURE = 0.05
"""The probability of running out of memory up to which it is said to fit; the search allows as much."""

SIZES = ("gpus", "tp", "pp", "vp", "cp", "ep", "etp", "mbs", "gbs", "seq")


def estimate(options: argparse.Namespace) -> int:
    """Answer, also for a layout that breaks rules; a model file that is no model is the one problem."""
    from specc.cli import verbs
    from specc.planner import estimate as planner

    try:
        model = _model(options)
    except Refused as error:
        verbs.talk(f"specc: {error}")
        return PROBLEMS
    if model is None:
        return PROBLEMS
    question = _question(options, model, _gpu(options))
    answer, layout, broken = planner.estimate(question)
    if options.json:
        verbs.print_json(planner.as_json(answer))
    else:
        print(text(model.name, question, layout, answer, broken))
    return FINE


def _model(options: argparse.Namespace) -> Model | None:
    """The model of --model or --config; None when its numbers cannot be used, which has been said."""
    from specc import models
    from specc.cli import verbs

    if target := _target(options):
        return target
    if options.config:
        path = Path(options.config)
        if not path.exists():
            raise Outside(f"cannot open {options.config}: no such file or directory")
        asked: str | dict[str, str] = {"path": str(path.absolute())}
    else:
        asked = options.model
    model, said = models.resolve(asked, "model")
    if model is not None:
        return dataclasses.replace(model, name=options.config or model.name)
    first = said[0]
    hint = f"; {first.help}" if first.help else ""
    if first.code == "P001":
        near = models.suggestion(options.model or "")
        guess = f"did you mean `{near}`? or " if near else ""
        raise Usage(f"{first.message}; {guess}give its config.json with --config")
    verbs.talk(f"specc: {first.message}{hint}")
    return None


def _target(options: argparse.Namespace) -> Model | None:
    """A model that is planned for but not run; None when it is no such model."""
    from specc import plan
    from specc.models import ShapeError

    if options.model:
        from specc.planner import targets

        found = targets.catalog().get(options.model.lower())
        return found and plan.Model(found.name, found.shape, plan.Weights())
    try:
        data = json.loads(Path(options.config).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None  # said by who reads every other model
    from specc.planner import targets

    if not isinstance(data, dict) or data.get("model_type") not in targets.MODEL_TYPES:
        return None
    try:
        return plan.Model(options.config, targets.shape_from_config(data), plan.Weights())
    except ShapeError as error:
        raise Refused(f"{options.config}: {error}" + (f"; {error.help}" if error.help else "")) from error


class Refused(Exception):
    """A model file that cannot be used; the message names the key."""


def _gpu(options: argparse.Namespace) -> Gpu:
    """The GPU of the catalog, with what the flags say otherwise; from the flags alone an unknown one."""
    from specc.planner import hardware

    said = {
        "usable_gib": options.gpu_memory,
        "bf16_tflops": options.gpu_tflops,
        "hbm_gb_per_s": options.gpu_bandwidth,
        "gpus_per_node": options.gpus_per_node,
    }
    said = {key: value for key, value in said.items() if value is not None}
    known = hardware.gpu(options.gpu) if options.gpu else None
    if known is None and not (options.gpu_memory and options.gpu_tflops):
        if not options.gpu:
            raise Usage("name a GPU with --gpu, or give its --gpu-memory and --gpu-tflops")
        near = hardware.suggestion(options.gpu)
        guess = f"did you mean `{near}`? or " if near else ""
        raise Usage(f"unknown GPU `{options.gpu}`; {guess}give its --gpu-memory and --gpu-tflops")
    if known is None:  # an unknown one moves data as an H100 does
        like = hardware.gpu("h100-80gb")
        assert like is not None
        known = dataclasses.replace(
            like, name=options.gpu or "gpu", fp8_tflops=0.0, efficiencies=(), tp_exposed=1.0
        )
    if known.name == "cpu":
        raise Usage("a CPU is not estimated; `specc plan` ranks its layouts")
    if "gpus_per_node" in said and known.link_domain <= known.gpus_per_node:
        said["link_domain"] = said["gpus_per_node"]
    return dataclasses.replace(known, **said)


def _question(options: argparse.Namespace, model: Model, gpu: Gpu) -> Question:
    from specc.planner.estimate import Question

    sizes = {name: getattr(options, name) for name in SIZES if getattr(options, name) is not None}
    sizes.setdefault("seq", min(4096, model.shape.max_positions))
    return Question(
        shape=model.shape,
        gpu=gpu,
        recompute=options.recompute,
        dtype=options.dtype,
        grad_dtype=options.grad_dtype,
        offload=options.offload,
        phase=options.phase,
        recompute_layers=options.recompute_layers or 0,
        recompute_modules=options.recompute_modules or (),
        expandable=not options.no_expandable_segments,
        **sizes,
    )


def text(name: str, question: Question, layout: Layout, answer: Estimate, broken: list[Broken]) -> str:
    """The answer for people: the verdict, the parts of memory, the speed, and each rule that is broken."""
    from specc.cli import tables
    from specc.planner.recompute import USUAL, Recompute

    memory, q = answer.memory, question
    again = Recompute(q.mode, q.recompute_layers, q.recompute_modules or USUAL)
    batch = q.gbs or layout.dp * q.mbs
    lines = [
        f"{name}, {q.phase} in {q.dtype}, on {q.gpus} x {q.gpu.name}: {layout}",
        f"rows of {q.seq} tokens, micro-batch {q.mbs}, global batch {batch}, recompute {again}",
    ]
    if layout.stage_layers:
        lines.append(f"layers of each stage: {', '.join(map(str, layout.stage_layers))}")
    rows = [(part, f"{gib:.2f} GiB") for part, gib in memory.parts.items() if gib >= 0.005]
    share = memory.total_gib / memory.capacity_gib
    total = f"{memory.total_gib:.2f} GiB of {memory.capacity_gib:.1f} ({share:.0%})"
    rows.append(("total", total))
    lines += ["", *tables.table(("memory", f"of rank {memory.worst_rank}"), rows), ""]
    lines += [*_verdict(q, answer, broken), *_speed(q, answer)]
    for each in broken:
        lines.append(f"problem[{each.code}]: {each.message}" + (f"; {each.help}" if each.help else ""))
    return "\n".join(lines)


def _verdict(question: Question, answer: Estimate, broken: list[Broken]) -> list[str]:
    """Whether memory suffices, how near the total is to its end, and what the other reading says."""
    from specc.planner.feasibility import band

    memory, chance = answer.memory, answer.memory.oom_probability
    words = "fits" if chance < SURE else "may fit" if chance < 0.5 else "does not fit"
    lines = [f"{words}: runs out of memory with a probability of {chance:.0%}"]
    if broken:
        lines = [
            f"cannot run as it is: {len(broken)} problem{'s'[: len(broken) > 1]} below; its memory {lines[0]}"
        ]
    lines.append(f"  {band(memory.total_gib, memory.capacity_gib, question.expandable)}")
    if memory.lean_gib < memory.total_gib and chance > 0:
        lines.append(
            f"  {memory.lean_gib:.1f} GiB if what is not said saves memory, as in most tuned recipes (16-bit "
            "gradients and masters, more recomputed); the probability is of both"
        )
    logged = f"the framework's log shows {memory.allocated_gib:.2f} GiB allocated, on the last stage"
    return [*lines, logged]


def _speed(question: Question, answer: Estimate) -> list[str]:
    from specc.cli import tables

    what = "a rollout of the batch" if question.phase == "generate" else "a step"
    rates = (answer.tokens_per_second_per_gpu, answer.tflops_per_gpu)
    tokens, tflops = (f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}" for rate in rates)
    took = tables.duration(answer.step_seconds)
    return [
        f"{what} takes {took}: {tokens} tokens/s and {tflops} TFLOP/s per GPU",
        f"predictions: {'' if answer.calibrated else 'not '}calibrated",
    ]
