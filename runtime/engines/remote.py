"""An engine in a process of its own, in an environment of its own.

The process is a script of `workers/`, run by that environment's Python. Requests and answers are
frames (eight bytes of length, then JSON) over two pipes; what the program prints goes to its log. A
request that is not answered in time, an answer that is an error and a process that has ended raise
EngineFailed with the end of the log.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from runtime.engines import Completion, EngineFailed
from runtime.engines.check import usable
from runtime.engines.workers import frames
from runtime.sampling import Sampling, stream_of

_WORKERS = Path(__file__).parent / "workers"


class Remote:
    """What the engines of other environments have in common; they differ in worker and settings."""

    name = "remote"
    logprobs_of = "raw"
    worker = ""
    install = ""

    def __init__(
        self,
        python: str,
        scratch: Path,
        settings: Mapping[str, Any] | None = None,
        timeout: float = 600.0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`python`: the environment's interpreter; `scratch`: a folder that both sides see, best in memory;
        `settings` go to the program as they are; `timeout`: seconds for any one request."""
        self.python, self.scratch, self.timeout = python, Path(scratch), timeout
        self.settings = dict(settings or {})
        self.environment = dict(environment or {})
        self.version = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._writing = threading.Lock()
        self._folder = Path()

    def start(self, folder: str, version: int = 0) -> None:
        self.close()
        self.scratch.mkdir(parents=True, exist_ok=True)
        self._folder = Path(folder)
        ours, theirs = os.pipe()
        try:
            with (self.scratch / f"{self.name}.log").open("wb") as log:
                self._process = subprocess.Popen(
                    [self.python, str(_WORKERS / self.worker), str(theirs)],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=(theirs,),
                    env=self._environment(),
                    start_new_session=True,
                )
        except OSError as error:
            os.close(ours)
            message = f"cannot start `{self.python}`: {error.strerror}; {self.install}"
            raise EngineFailed(f"engine `{self.name}`: {message}") from None
        finally:
            os.close(theirs)
        self._answers = os.fdopen(ours, "rb", buffering=0)
        self._ask({"do": "start", "folder": folder, "settings": self.settings, "version": version})
        self.version = version

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, sequences: Sequence[int] | None = None
    ) -> list[Completion]:
        if not prompts:
            return []
        numbers = range(len(prompts)) if sequences is None else sequences
        seeds = [int(stream_of(sampling.seed, number)) >> 33 for number in numbers]
        asked = {"prompts": [list(map(int, p)) for p in prompts], "seeds": seeds}
        answer = self._ask({"do": "generate", "sampling": dataclasses.asdict(sampling), **asked})
        found = [
            Completion(tokens, logprobs, finish, answer["version"])
            for tokens, logprobs, finish in answer["rows"]
        ]
        return list(usable(found, len(prompts), self.name))

    def update_weights(self, tensors: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Through a folder: whole tensors in a safetensors file beside the model's own config."""
        from safetensors.torch import save_file

        folder = self.scratch / f"weights-{version}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            for file in self._folder.glob("*.json"):
                if not file.name.endswith(".index.json"):
                    shutil.copy(file, folder)
            save_file(
                {name: tensor.detach().cpu().contiguous() for name, tensor in tensors},
                folder / "model.safetensors",
            )
            self.load(str(folder), version)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def load(self, folder: str, version: int) -> None:
        self._ask({"do": "update", "folder": folder, "version": version})
        self.version = version

    def sleep(self) -> None:
        self._ask({"do": "sleep"})

    def wake(self) -> None:
        self._ask({"do": "wake"})

    def abort(self) -> None:
        self._send({"do": "abort"})

    def close(self, patience: float = 10.0) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(OSError, ValueError):
            process.stdin.close()  # type: ignore[union-attr] - the worker ends when nothing more can come
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
        with contextlib.suppress(ProcessLookupError):  # what it started goes with it
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self._answers.close()

    def _environment(self) -> dict[str, str]:
        """This process's, without what belongs to its own group of ranks and its own packages."""
        ours = (
            "RANK",
            "WORLD_SIZE",
            "LOCAL_RANK",
            "LOCAL_WORLD_SIZE",
            "MASTER_ADDR",
            "MASTER_PORT",
            "PYTHONPATH",
        )
        families = ("PMI_", "PMIX_", "OMPI_", "SLURM_", "TORCHELASTIC_")
        kept = {k: v for k, v in os.environ.items() if k not in ours and not k.startswith(families)}
        return kept | {"HF_HUB_OFFLINE": "1"} | self.environment

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self._send(request)
        answer = self._answer(time.monotonic() + self.timeout, str(request["do"]))
        if error := answer.get("error"):
            if answer.get("missing"):
                error = f"{error}; {self.install}"
            self.close()
            raise EngineFailed(f"engine `{self.name}`: {error}")
        return answer

    def _send(self, request: Mapping[str, Any]) -> None:
        if self._process is None or self._process.stdin is None:
            raise EngineFailed(f"engine `{self.name}` is not running; start it first")
        try:
            with self._writing:
                frames.write(self._process.stdin, json.dumps(request).encode())
        except OSError:
            raise self._died(str(request["do"])) from None

    def _answer(self, deadline: float, what: str) -> dict[str, Any]:
        received = b""
        wanted = frames.HEAD
        while len(received) < wanted:
            ready, _, _ = select.select([self._answers], [], [], max(deadline - time.monotonic(), 0))
            if not ready:
                self.close(patience=0.0)
                raise EngineFailed(
                    f"engine `{self.name}` did not answer `{what}` within {self.timeout:.0f} s"
                )
            part = os.read(self._answers.fileno(), wanted - len(received))
            if not part:
                raise self._died(what)
            received += part
            if len(received) == wanted == frames.HEAD:
                wanted += frames.length(received)
        return json.loads(received[frames.HEAD :])

    def _died(self, what: str) -> EngineFailed:
        self.close()
        with contextlib.suppress(OSError):
            lines = (self.scratch / f"{self.name}.log").read_text(errors="replace").splitlines()[-15:]
            return EngineFailed(
                "\n".join([f"engine `{self.name}` ended during `{what}`; its last words:", *lines])
            )
        return EngineFailed(f"engine `{self.name}` ended during `{what}`")
