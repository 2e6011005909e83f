"""What the checkpoint tests run on every rank: train, save, come back, go on."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import torch
import toys

from runtime.problem import Problem
from specc.plan import Role

STATE = {"seed": 5, "position": {"epoch": 1, "row": 17}}
LR = 3e-3


def opened(role: Role, train: bool = True) -> Any:
    """An engine of this role on this rank."""
    from runtime import parallel
    from runtime.engine import Engine, OptimizerSettings

    here = parallel.start(role.layout, "gloo", "cpu", timeout_seconds=60)
    return Engine(role, here, OptimizerSettings(weight_decay=0.1) if train else None)


def steps_done(engine: Any, first: int, last: int) -> list[tuple[float, float]]:
    """Train on batches first..last-1; loss and norm of each."""
    from runtime import batch

    series = []
    for step in range(first, last):
        rows = toys.samples(8, seed=step)
        loss = toys.sft_loss(batch.trained_tokens([rows]))
        measured = engine.forward_backward(
            toys.microbatches(engine.role, engine.parallel.dp_rank, rows), loss
        )
        series.append((measured["loss"], engine.optim_step(LR)["grad_norm"]))
    return series


def trained_and_saved(role: Role, folder: Path, at: int = 3, until: int = 6, **how: Any) -> dict[str, Any]:
    """Train `at` steps, save, look at everything, and train on as if nothing had been."""
    from runtime import checkpoint

    engine = opened(role)
    steps_done(engine, 0, at)
    checkpoint.save(folder, at, engine, STATE, **how)
    return {"state": fingerprint(engine), "draws": draws(), "series": steps_done(engine, at, until)}


def resumed(role: Role, folder: Path, until: int = 6) -> dict[str, Any]:
    """What `trained_and_saved` tells, of a process that begins with the newest checkpoint."""
    from runtime import checkpoint

    engine = opened(role)
    steps_done(engine, 100, 101)  # away from the initial values
    found = checkpoint.resume(folder, engine)
    assert found is not None
    step, state = found
    assert engine.steps == step
    told = {"step": step, "given": state, "state": fingerprint(engine), "draws": draws()}
    return told | {"series": steps_done(engine, step, until)}


def saved_at(role: Role, folder: Path, steps: list[int], **how: Any) -> None:
    """Checkpoints at these steps of one run."""
    from runtime import checkpoint

    engine, done = opened(role), 0
    for step in steps:
        steps_done(engine, done, step)
        checkpoint.save(folder, step, engine, STATE, **how)
        done = step


def newest(folder: Path) -> tuple[int | None, str]:
    """`latest` on every rank, and what it says on stderr."""
    import torch.distributed as dist

    from runtime import checkpoint

    if int(os.environ["WORLD_SIZE"]) > 1:
        dist.init_process_group("gloo")
    talk = io.StringIO()
    with contextlib.redirect_stderr(talk):
        return checkpoint.latest(folder), talk.getvalue()


def problem_of_loading(role: Role, folder: Path, step: int, weights_only: bool = False) -> tuple[str, str]:
    """The code and the message of the problem that loading raises."""
    from runtime import checkpoint

    engine = opened(role)
    load = checkpoint.load_weights if weights_only else checkpoint.load
    try:
        load(folder, step, engine)
    except Problem as problem:
        return problem.code, problem.message
    return "", ""


def fingerprint(engine: Any) -> dict[str, str]:
    """A hash of every tensor that training depends on: weights, main weights, moments, counts."""
    found = {}
    for number, chunk in enumerate(engine.chunks):
        for name, value in chunk.state_dict().items():
            if isinstance(value, torch.Tensor):
                found[f"{number}.{name}"] = _hash(value)
    for number, part in enumerate(getattr(engine.optimizer, "chained_optimizers", [engine.optimizer])):
        for index, parameter in enumerate(p for g in part.optimizer.param_groups for p in g["params"]):
            found[f"main.{number}.{index}"] = _hash(parameter)
            for name, value in part.optimizer.state[parameter].items():
                found[f"{name}.{number}.{index}"] = _hash(value)
    return found


def draws() -> list[float]:
    """The next number of every generator; they are where they were afterwards."""
    from megatron.core.tensor_parallel import get_cuda_rng_tracker

    tracker = get_cuda_rng_tracker()
    assert tracker is not None
    before = torch.get_rng_state(), random.getstate(), np.random.get_state(), tracker.get_states()
    numbers = [torch.rand(()).item(), random.random(), random.gauss(0, 1), float(np.random.rand())]
    with tracker.fork():
        numbers.append(torch.rand(()).item())
    torch.set_rng_state(before[0])
    random.setstate(before[1])
    np.random.set_state(before[2])
    tracker.set_states(before[3])
    return numbers


def saved_on_a_full_disk(role: Role, folder: Path, full: int) -> tuple[str, str, list[tuple[float, float]]]:
    """Save step 2 well; then the disk of rank `full` is full while step 4 is saved; then train on."""
    from runtime import checkpoint, manifest

    engine = opened(role)
    steps_done(engine, 0, 2)
    checkpoint.save(folder, 2, engine, STATE)
    steps_done(engine, 2, 4)
    if engine.parallel.rank == full:
        write = manifest.write_durably

        def no_room(path: Path, content: bytes) -> None:
            write(path, content[: len(content) // 2])
            raise OSError(28, "No space left on device", str(path))

        manifest.write_durably = no_room
    try:
        checkpoint.save(folder, 4, engine, STATE)
    except Problem as problem:
        return problem.code, problem.message, steps_done(engine, 4, 5)
    raise AssertionError("the save went through")


def saved_on_a_small_disk(role: Role, folder: Path, filler: Path) -> tuple[str, str, bool]:
    """Save step 1, fill the disk up, and save step 2: the problem, and whether it is the machine's."""
    from runtime import checkpoint

    engine = opened(role)
    checkpoint.save(folder, 1, engine, STATE)
    if engine.parallel.rank == 0:
        room = os.statvfs(folder).f_bavail * os.statvfs(folder).f_bsize
        filler.write_bytes(b"\0" * (room - 100_000))
    torch.distributed.barrier()
    try:
        checkpoint.save(folder, 2, engine, STATE)
    except Problem as problem:
        return problem.code, problem.message, problem.outside
    raise AssertionError("the save went through")


def killed_while_saving(role: Role, folder: Path, moment: str) -> None:
    """Save step 2; then die of SIGKILL at a moment of saving step 4."""
    from runtime import checkpoint, manifest, steps, torch_dist

    engine = opened(role)
    steps_done(engine, 0, 2)
    checkpoint.save(folder, 2, engine, STATE, keep_last=1)
    steps_done(engine, 2, 4)

    def die(*args: Any, **kwargs: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    where = {
        "before the shards": (torch_dist, "save_tensors"),
        "before the checksums": (manifest, "record"),
        "before the manifest": (manifest, "write"),
        "before the rename": (manifest, "sync_folder"),
        "before pruning": (steps, "prune"),
        "between prune's rename and removal": (steps.shutil, "rmtree"),
    }
    setattr(*where[moment], die)
    checkpoint.save(folder, 4, engine, STATE, keep_last=1)


def chosen_weights(role: Role, folder: Path, step: int) -> dict[str, str]:
    """Hashes of the model's tensors after `load_weights`, by name."""
    from runtime import checkpoint

    engine = opened(role)
    checkpoint.load_weights(folder, step, engine)
    return {name: _hash(value) for name, value in engine.chunks[0].state_dict().items() if _is_tensor(value)}


def weights_of(role: Role, folder: Path) -> dict[str, str]:
    """Train two steps, save step 2, and tell the hashes of the model's tensors."""
    from runtime import checkpoint

    engine = opened(role)
    steps_done(engine, 0, 2)
    checkpoint.save(folder, 2, engine, STATE, metric=1.5)
    return {name: _hash(value) for name, value in engine.chunks[0].state_dict().items() if _is_tensor(value)}


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def _hash(value: torch.Tensor) -> str:
    content = value.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(content).hexdigest()[:16]


def saved_with_metrics(
    role: Role, folder: Path, metrics: dict[int, float | None], keep_last: int, keep_best: int
) -> None:
    """A checkpoint at each step with its metric, pruned as it goes."""
    from runtime import checkpoint

    engine = opened(role)
    for step, metric in metrics.items():
        kept = {"keep_last": keep_last, "keep_best": keep_best, "metric": metric}
        checkpoint.save(folder, step, engine, {}, **kept)


def chosen_step(folder: Path) -> int | None:
    """The step that a later stage takes."""
    from runtime import checkpoint

    return checkpoint.chosen(folder)
