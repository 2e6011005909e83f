"""The loop of a worker: requests come by a thread, so that `abort` is seen while others are answered."""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

import frames


def serve(make: Callable[[str, dict[str, Any]], Any]) -> None:
    """Answer requests until the pipe closes. `make(folder, settings)` gives the program's adapter, with
    `generate(prompts, seeds, sampling, aborted)`, `update(folder)`, `sleep()` and `wake()`."""
    answers = os.fdopen(int(sys.argv[1]), "wb")
    requests: queue.Queue[dict[str, Any] | None] = queue.Queue()
    aborted = threading.Event()
    threading.Thread(target=_listen, args=(requests, aborted), daemon=True).start()
    state: dict[str, Any] = {"version": 0}
    while (request := requests.get()) is not None:
        aborted.clear()
        try:
            answer = _answered(request, state, make, aborted)
        except ImportError as error:
            answer = {"error": f"cannot be imported here ({error})", "missing": True}
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{request['do']} failed: {type(error).__name__}: {error}"}
        frames.write(answers, json.dumps(answer).encode())
    os._exit(0)  # the program's own threads and processes may not want to end


def _listen(requests: queue.Queue[dict[str, Any] | None], aborted: threading.Event) -> None:
    while (body := frames.read(sys.stdin.buffer)) is not None:
        request = json.loads(body)
        if request["do"] == "abort":
            aborted.set()
        else:
            requests.put(request)
    aborted.set()
    requests.put(None)


def _answered(
    request: dict[str, Any], state: dict[str, Any], make: Callable[..., Any], aborted: threading.Event
) -> dict[str, Any]:
    do = request["do"]
    if do == "start":
        state.update(program=make(request["folder"], request["settings"]), version=request["version"])
    elif do == "generate":
        rows = state["program"].generate(request["prompts"], request["seeds"], request["sampling"], aborted)
        return {"rows": rows, "version": state["version"]}
    elif do == "update":
        state["program"].update(request["folder"])
        state["version"] = request["version"]
    elif do in ("sleep", "wake"):
        getattr(state["program"], do)()
    else:
        raise ValueError(f"unknown request {do}")
    return {}
