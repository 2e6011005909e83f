"""How long the search takes, beside the number of legal choices it is exact over, up to 16,384 GPUs.

Per case the seconds of this process's CPU time (best of three) and the choices: layouts with their
micro-batch and pieces, ways to recompute aside. Exits 1 when 405B on up to 126 nodes takes a second, or
when a search takes longer per choice than small ones do (MOST_PER_CHOICE). `make bench-planner` runs it.
"""

import sys
import time
from collections.abc import Callable

from specc import models
from specc.planner import hardware, objectives, targets
from specc.planner.hardware import Gpu
from specc.planner.layouts import fewest_nodes, search
from specc.planner.memory import Workload
from specc.planner.space import Pins, Space

MOST_SECONDS, MOST_PER_CHOICE = 1.0, 100e-6


def work(model: str, batch: int, seq_length: int = 4096) -> Workload:
    known = models.catalog()
    shape = known[model].shape if model in known else targets.catalog()[model].shape
    return Workload(shape, seq_length, batch)


def gpu() -> Gpu:
    found = hardware.gpu("h100-80gb")
    assert found is not None
    return found


def timed(call: Callable[[], object]) -> float:
    times = []
    for _ in range(3):
        began = time.process_time()
        call()
        times.append(time.process_time() - began)
    return min(times)


def choices(given: Workload, nodes: range) -> int:
    space = Space(given, gpu(), 8, Pins())
    return sum(space.count(count) for count in nodes)


def main() -> int:
    wrong = []
    print(f"{'one number of nodes':44} GPUs    seconds  legal choices  per choice")
    for model, batch, sizes in (
        ("llama3-8b", 1024, (1, 8, 64)),
        ("llama3-70b", 1024, (4, 32, 256, 2048)),
        ("llama3.1-405b", 2048, (16, 128, 2048)),
        ("qwen3-235b-a22b", 2048, (16, 128, 2048)),
        ("kimi-k2", 8192, (64, 256, 2048)),
    ):
        given = work(model, batch)
        for nodes in sizes:
            seconds = timed(lambda: search(given, gpu(), nodes, 8, Pins()))  # noqa: B023
            legal = choices(given, range(nodes, nodes + 1))
            each = seconds / max(1, legal)
            wrong += [f"{model} on {nodes} nodes"] if each > MOST_PER_CHOICE and seconds > 0.1 else []
            print(f"{model:44} {nodes * 8:6,} {seconds:8.3f} {legal:14,} {each * 1e6:8.1f} us")

    print(f"\n{'many numbers of nodes':44} nodes   seconds  legal choices")
    for model, batch, most in (("llama3.1-405b", 128, 126), ("qwen3-235b-a22b", 1024, 126)):
        given = work(model, batch)
        for what, call in (
            ("fewest nodes", lambda: fewest_nodes(given, gpu(), 8, Pins(), most)),  # noqa: B023
            ("fastest", lambda: objectives.choose(given, gpu(), 8, Pins(), "fastest", most)),  # noqa: B023
            ("cheapest", lambda: objectives.choose(given, gpu(), 8, Pins(), "cheapest", most)),  # noqa: B023
            ("options", lambda: list(objectives.front(given, gpu(), 8, Pins(), most))),  # noqa: B023
        ):
            seconds = timed(call)
            wrong += [f"{model}, {what}"] if "405b" in model and seconds >= MOST_SECONDS else []
            legal = choices(given, range(1, most + 1))
            print(f"{model + ', ' + what:44} <= {most:3} {seconds:8.3f} {legal:14,}")
    print(f"too slow: {', '.join(wrong)}" if wrong else "all inside the bounds")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
