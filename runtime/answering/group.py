"""The processes of a model that answers people, from their plan to the last answer.

Rank 0 listens before anything is loaded, so that a port that is taken is found at once, and says that it
lives; when the weights are there it says that it is ready. Where it listens stands in `address.json` in the
attempt's folder. It stops by the file `stop` or a signal, or has finished when nobody asked for as long as
the plan says: answers that have begun are finished first.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime import rowstore
from runtime import tokenizer as tokenizers
from runtime.answering import rehearsal
from runtime.answering.app import Answering
from runtime.answering.ending import Ending
from runtime.answering.exchange import Exchange
from runtime.answering.prompts import Prompter
from runtime.answering.stream import Patient
from runtime.place import Place
from runtime.problem import Problem
from runtime.serving.server import bound, serving
from runtime.stop import StopFlag
from specc.plan import ANSWER, Job, Plan, Role

if TYPE_CHECKING:
    from runtime.generate import Generator

ADDRESS = "address.json"
SERVED = "served.jsonl"
"""What each time of serving came to, a line each; what starts it again sees by it that it serves."""

KEY = "SPECC_API_KEY"
"""Environment variable with the key that clients have to know."""


def listen(job: Job) -> socket.socket:
    """The socket that the plan names. Problem R050 when there is none to be had."""
    own = job.settings[ANSWER]
    return bound(str(own["host"]), int(own["port"]))


def answer(
    plan: Plan, job: Job, role: Role, place: Place, stop: StopFlag, door: socket.socket | None
) -> None:
    """Load the model and answer until told to stop. `door` is rank 0's socket. Collective."""
    if role.model.head != "language":
        message = f"`{role.model.name}` is a reward model: it gives numbers and cannot answer"
        raise Problem("R060", f"{message}; serve the model that it judges")
    own: dict[str, Any] = job.settings[ANSWER]
    ready, exchange = threading.Event(), Exchange(int(own["most"])) if door is not None else None
    tokenizer = tokenizers.load(role.model.tokenizer)
    vocab = min(tokenizer.vocab_size, role.model.shape.vocab)
    with contextlib.ExitStack() as stack:
        url, rehearsing = "", None
        if door is not None and exchange is not None:
            positions = role.model.shape.max_positions
            prompter = Prompter(tokenizer, role.model.chat_template, vocab, _limit(role, own), positions)
            app = Answering(prompter, exchange, str(own["name"]), ready.is_set, key(own), warn=_warn)
            url = stack.enter_context(serving(app.application(), door, Patient))
            _write(place.attempt / ADDRESS, {"url": url, "ready": False})
        generator = _loaded(plan, job, role, place, tokenizer, vocab, _limit(role, own))
        ready.set()
        if place.is_first:
            _write(place.attempt / ADDRESS, {"url": url, "ready": True})
            print(f"note: `{own['name']}` answers at {url}", flush=True)
            rehearsing = rehearsal.begin(url, key(own), int(own.get("rehearsal") or 0))
        from runtime.algorithms.answer import work

        wanted = rehearsing.is_alive if rehearsing is not None else lambda: False
        ending = Ending(stop, exchange, float(own.get("idle") or 0), wanted)
        work(generator, exchange, ending.is_due, (place.stage / "heartbeat").touch)
        if exchange is not None:
            ended(job, role, place, ending, exchange)
    parallel_stop()


def ended(job: Job, role: Role, place: Place, ending: Ending, exchange: Exchange) -> None:
    """Note that it has served, and how much; where it ended by itself, that is the stage's output."""
    found = {"answered": exchange.answered, "tokens": exchange.tokens, "seconds": round(ending.seconds, 1)}
    with open(place.stage / SERVED, "a", encoding="utf-8") as file:
        file.write(json.dumps({"attempt": place.attempt.name, **found, "why": ending.why}) + "\n")
    print(f"{ending.why}: {exchange.answered} answers of {exchange.tokens} tokens", flush=True)
    if ending.is_over:
        said = {"hash": job.hash, "stage": job.stage, "program": role.program, **found}
        rowstore.write_output(place.output, said)


def _limit(role: Role, own: dict[str, Any]) -> int:
    return min(role.model.shape.max_positions, int(own.get("length") or role.model.shape.max_positions))


def key(own: dict[str, Any]) -> str:
    """The key that clients have to know, from a file or the environment; empty where there is none."""
    file = own.get("key_file")
    found, where = os.environ.get(KEY, "").strip(), KEY
    if file:
        found, where = _text(file), f"the key file `{file}`"
        if not found:
            raise Problem("R005", f"{where} is empty", outside=True)
    if not all("!" <= letter <= "~" for letter in found):  # no client could send it
        message = f"{where} holds what no header can: a space, a line end or a letter beyond ASCII"
        raise Problem("R005", message, outside=True)
    return found


def _text(file: str) -> str:
    try:
        return Path(os.path.expanduser(file)).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise Problem("R005", f"the key file `{file}` cannot be read: {reason}", outside=True) from None


def _loaded(
    plan: Plan, job: Job, role: Role, place: Place, tokenizer: Any, vocab: int, longest: int
) -> Generator:
    """The model with its weights, ready to generate. Collective."""
    if plan.cluster.device == "cpu":
        from runtime import cpu

        cpu.install()
    from runtime import parallel
    from runtime.engine import Engine
    from runtime.generate import Generator
    from runtime.weights import take_weights

    cluster = plan.cluster
    seconds = job.collective_timeout_seconds
    own = parallel.start(role.layout, cluster.backend, cluster.device, seconds, plan.seed)

    def say(text: str) -> None:
        if place.is_first:
            print(text, flush=True)

    say(f"{plan.name}: {role.layout} on {place.world} processes")
    engine = Engine(role, own, None, plan.seed)
    beat = (place.stage / "heartbeat").touch
    take_weights(engine, role, place, say=say, alive=beat)
    decode = tokenizer.decode
    return Generator(engine, role.rows or 64, decode=decode, vocab=vocab, longest=longest)


def parallel_stop() -> None:
    """Leave the process groups."""
    from runtime import parallel

    parallel.stop()


def _write(file: Path, facts: dict[str, Any]) -> None:
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_text(json.dumps(facts) + "\n", encoding="utf-8")
    os.replace(temporary, file)


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)
