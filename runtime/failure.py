"""What goes wrong in a run, said in one line.

A `Problem` is one that a person can mend: of the plan, the data or the machine. Anything else
that surfaces is a defect of ours; its traceback goes to the attempt's folder and one line to stderr.

    R001 the plan cannot be read            R010 a row of the data is bad
    R002 no such job or role                R011 no row can be used
    R003 world size is not the plan's       R012 the number of steps cannot be told
    R004 the device is missing              R013 loss or gradient is not finite
    R005 data or model files are missing    R014 the data changed under a run that resumes
    R006 the run folder cannot be written   R015 a package that was asked for is missing
    R007 the disk is too small              R016 initial weights cannot be had
    R008 another experiment in this folder  R017 the ranks did not meet
    R009 a port is taken                    R018 out of memory
    R019 a token is not in the vocabulary   R023 another run writes to this folder
    R024 another stage's rows cannot be had R025 a response cannot be drawn
    R057 another rank went away             R099 a defect of specc

    R020 to R022: checkpoints; R030 and on: Hugging Face folders, tokenizers, chat templates
"""

from __future__ import annotations

import errno
import json
import os
import re
import sys
import time
import traceback
from pathlib import Path

from runtime.problem import Problem

PEER_LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "NCCL", "gloo", "Gloo")
"""What torch says on a rank whose peer went away: the peer's own error is the one to read."""

GONE = re.compile(
    r"(connection (closed|reset) by peer|broken pipe|timed out waiting|remote process exited|socket closed"
    r"|application timeout caused pair closure|watchdog)",
    re.IGNORECASE,
)
"""What of it says that the peer is there no more."""

LOST = "R057"
"""Another rank went away without a word: this one cannot tell why."""

OTHERS = {
    "EngineError": "R013",
    "LayoutError": "R003",
    "ModelError": "R001",
    "GenerateError": "R025",
    "SamplingError": "R025",
}
"""Codes of exceptions whose modules this one must not import: it is needed before Megatron is."""


def as_problem(error: BaseException) -> Problem:
    """Any exception as a problem with a code; messages of other modules may begin with theirs."""
    if isinstance(error, Problem):
        return error
    text = " ".join(str(error).split()) or type(error).__name__
    coded = re.match(r"(R\d{3}):? (.*)", text)
    if coded:
        return Problem(coded[1], coded[2])
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" (`{error.filename}`)" if error.filename else ""
        return Problem("R007", f"the disk is full{where}; make room and run again to go on", outside=True)
    if isinstance(error, OSError) and error.filename and error.strerror:
        return Problem("R006", f"cannot use `{error.filename}`: {error.strerror.lower()}", outside=True)
    if type(error).__name__ in OTHERS:
        return Problem(OTHERS[type(error).__name__], text)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        advice = "use a smaller micro_batch or more recompute"
        return Problem("R018", f"out of memory: {text[:200]}; {advice}", outside=True)
    if type(error).__name__ in ("DistNetworkError", "DistStoreError"):
        return Problem("R017", text.split(" Exception raised from")[0][:300], outside=True)
    is_torchs = isinstance(error, RuntimeError) and re.search("gloo|nccl", text, re.IGNORECASE)
    if is_torchs and (gone := GONE.search(text)):
        return Problem(LOST, f"another rank of this group went away ({gone[0].lower()})", outside=True)
    return Problem("R099", f"{type(error).__name__}: {text[:500]}")


def exit_code(problem: Problem) -> int:
    """3 when something outside is missing or failed, else 1."""
    return 3 if problem.outside else 1


def report(error: BaseException, attempt: Path | None, rank: int, step: int | None) -> int:
    """Write `error-RANK.json`, let the lowest failing rank print one line; the exit code.

    An error that only says a peer is gone waits for the peer's own file and stays silent when it is
    there, so that the one line that a person sees is the cause.
    """
    known = as_problem(error)
    lost = known.code == "R099" and any(sign in known.message for sign in PEER_LOST)
    is_echo = lost or known.code in (LOST, "R017")
    if attempt is not None:
        _write(attempt, known, error, rank, step, is_echo)
        time.sleep(2.0 if is_echo else 0.2)
        if _somebody_else_speaks(attempt, rank, is_echo):
            return exit_code(known)
        if known.code == LOST:
            known = named(known, attempt, rank)
            _write(attempt, known, error, rank, step, is_echo)
    trace = f" (traceback in {attempt}/traceback-{rank}.txt)" if attempt and known.code == "R099" else ""
    print(f"error[{known.code}]: {known.message}{trace}", file=sys.stderr, flush=True)
    return exit_code(known)


def named(lost: Problem, attempt: Path, rank: int) -> Problem:
    """The same with the ranks that have said nothing, and what to do: those were killed, or their machine."""
    world = int(os.environ.get("WORLD_SIZE") or 1)
    others = set(range(world)) if rank < world else set()
    silent = sorted(others - {rank, *failed_peers(attempt, rank)})
    who = "another rank of this group"
    if silent:
        numbers = ", ".join(map(str, silent[:8])) + (" ..." if len(silent) > 8 else "")
        who = f"rank{'s' * (len(silent) > 1)} {numbers} of this group"
    advice = (
        "it left no error of its own: it was killed (out of memory, time limit) or its machine failed. Look "
    )
    advice += "at the end of its log; the next attempt goes on from the last checkpoint"
    why = lost.message.partition("(")[2].rstrip(")")
    return Problem(LOST, f"{who} went away while rank {rank} worked with it ({why}); {advice}", outside=True)


def failed_peers(attempt: Path, rank: int) -> list[int]:
    """Ranks of this attempt, other than this one, that wrote an error."""
    ranks = [int(path.stem.removeprefix("error-")) for path in attempt.glob("error-*.json")]
    return sorted(r for r in ranks if r != rank)


def _write(
    attempt: Path, known: Problem, error: BaseException, rank: int, step: int | None, is_echo: bool
) -> None:
    fact = {"code": known.code, "message": known.message, "rank": rank, "step": step}
    fact |= {"echo": is_echo, "exit_code": exit_code(known)}
    try:
        attempt.mkdir(parents=True, exist_ok=True)
        if known.code in ("R099", LOST):
            lines = traceback.format_exception(error)
            (attempt / f"traceback-{rank}.txt").write_text("".join(lines), encoding="utf-8")
        path = attempt / f"error-{rank}.json"
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(fact) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    except OSError:
        pass  # the folder itself may be the problem; the line on stderr still comes


def _somebody_else_speaks(attempt: Path, rank: int, is_echo: bool) -> bool:
    for other in failed_peers(attempt, rank):
        try:
            fact = json.loads((attempt / f"error-{other}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if fact.get("echo"):
            if is_echo and other < rank:
                return True
        elif is_echo or other < rank:
            return True
    return False
