"""`python -m runtime plan.json JOB ROLE`: one process of one role; torchrun starts as many as needed.

Exit code 0 with `output.json`: finished. 0 without: told to stop, and saved; run it again to go on.
1: the plan or the data has a problem. 3: something outside is missing or failed. 2: a wrong call.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

from runtime import failure, handover, lock, preflight, rowstore
from runtime.place import Place, place_of
from runtime.problem import Problem
from runtime.stop import StopFlag, die_with_parent
from specc.plan import ANSWER, SERVE, Job, Plan, Role


def main(arguments: list[str]) -> int:
    """Run one process; its exit code."""
    if len(arguments) != 3:
        print("usage: python -m runtime plan.json JOB ROLE", file=sys.stderr)
        return 2
    if os.environ.get("SPECC_DIE_WITH_PARENT") == "1":
        die_with_parent()
    stand_alone()
    warnings.filterwarnings("ignore", module=r"(megatron|torch)\.")  # advice for those who write them
    try:
        plan, job, role = preflight.read_plan(Path(arguments[0]), arguments[1], arguments[2])
    except Problem as problem:
        return said_by_first(problem)
    place = place_of(Path(arguments[0]), job, role.name, os.environ)
    return attempt(plan, job, role, place)


def attempt(plan: Plan, job: Job, role: Role, place: Place) -> int:
    """One attempt at the role, with everything that goes wrong said in one line."""
    if preflight.is_finished(job, place):
        return _already(job, role, place)
    found = held = door = None
    try:
        preflight.check(plan, job, role, place)
        held = lock.take(place) if place.is_first else None
        if held and place.world == 1 and preflight.is_finished(job, place):  # while it waited for the lock
            held.close()
            return _already(job, role, place)
        door = _door(job, role, place)
    except Exception as error:
        if place.is_first or preflight.is_seen_by_all(error):
            return failure.report(error, place.errors, place.rank, None)
        found = failure.as_problem(error)
    run = None
    try:
        stop = StopFlag(place.stage / "stop", place.errors, place.rank)
        stop.listen()
        meeting = _met(plan, job, role, place, found)
        if role.program == SERVE:
            _serve(plan, job, role, place, door)
        elif role.program == ANSWER:
            _answer(plan, job, role, place, stop, door)
        else:
            run = _run_of(plan, handover.resolved(job, place), role, place, meeting, stop)
            _turn(run)
        return 0
    except BaseException as error:
        speaker = getattr(error, "rank", place.rank)  # of a problem that all ranks agreed on
        if speaker != place.rank:
            return failure.exit_code(failure.as_problem(error))
        return failure.report(error, place.errors, place.rank, run.step if run else None)
    finally:
        if held:
            held.close()


def _already(job: Job, role: Role, place: Place) -> int:
    """What is left to do for a stage that has finished: a kill may have come before it threw things away."""
    if not place.is_first:
        return 0
    print(f"stage `{job.stage}` is finished already: {place.output}", flush=True)
    try:
        if handover.makes_rows(role):
            rowstore.Store(place.stage).remove()
        handover.discard(job, place)
    except (OSError, ValueError) as error:
        return failure.report(error, place.errors, place.rank, None)
    return 0


def _run_of(plan: Plan, job: Job, role: Role, place: Place, meeting: preflight.Meeting, stop: StopFlag):
    """What the loop turns: rows that are made, perhaps without torch, or a model that trains."""
    if handover.makes_rows(role):
        from runtime.making import making_of

        return making_of(plan, job, role, place, meeting, stop)
    from runtime.start import run_of

    return run_of(plan, job, role, place, meeting, stop)


def _door(job: Job, role: Role, place: Place):
    """The socket of a role that serves, before anything is loaded; only its first process has one."""
    if role.program not in (SERVE, ANSWER) or not place.is_first:
        return None
    if role.program == ANSWER:
        from runtime.answering import group

        return group.listen(job)
    from runtime.serving.group import listen

    return listen(os.environ)


def _met(plan: Plan, job: Job, role: Role, place: Place, found: Problem | None) -> preflight.Meeting:
    if found is None and not role.is_clerk:
        try:
            preflight.check_device(plan.cluster, place)
        except Problem as problem:
            found = problem
    meeting = preflight.Meeting(place)
    agreed = meeting.agree("preflight", found)
    if agreed:
        raise agreed
    preflight.write_identity(job, place)
    return meeting


def _answer(plan: Plan, job: Job, role: Role, place: Place, stop: StopFlag, door) -> None:
    from runtime.answering.group import answer

    answer(plan, job, role, place, stop, door)


def _serve(plan: Plan, job: Job, role: Role, place: Place, door) -> None:
    from runtime.serving.group import serve

    serve(plan, job, role, place, door)


def _turn(run) -> None:
    from runtime import loop

    is_complete = loop.train(run)
    if run.model is not None:
        from runtime import measured

        measured.write(run)
    if is_complete:
        run.finish()
        thrown = handover.discard(run.job, run.place) if run.place.is_first else []
        if thrown:
            run.say(f"discarded the rows and checkpoints of {', '.join(thrown)}")
    run.close()
    if run.model is not None:
        from runtime import parallel

        parallel.stop()


def stand_alone() -> None:
    """Without torchrun this is a group of one."""
    if "RANK" not in os.environ:
        from runtime.ports import first_free

        alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
        os.environ.update(alone)
        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
        os.environ.setdefault("MASTER_PORT", str(first_free(29500) or 29500))


def said_by_first(problem: Problem) -> int:
    """A problem that every rank sees alike: rank 0 says it."""
    if os.environ.get("RANK", "0") == "0":
        print(f"error[{problem.code}]: {problem.message}", file=sys.stderr, flush=True)
    return failure.exit_code(problem)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # threads of a broken process group would keep the interpreter
