"""What the fork server of the tests imports once: torch, Megatron with the CPU shim, the runtime.

It must not run a torch operation or open a process group: forks inherit neither threads nor sockets.
"""

import importlib

from runtime import cpu

cpu.install()

for module in ("model", "engine", "checkpoint"):
    try:
        importlib.import_module(f"runtime.{module}")
    except ImportError:  # a worker will say so with a traceback
        continue
