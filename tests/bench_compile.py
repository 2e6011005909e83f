"""How long check, plan and compile take for every shipped spec, layouts unpinned.

Beside `python -c "import pydantic, yaml, jinja2"` in the same run: the bounds are 0.30 s and 2.5 times that.
Prints a table; exits 1 when a median is outside the bounds. `make bench-compile` runs it.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
MOST_SECONDS, MOST_TIMES = 0.30, 2.5


def seconds(words: list[str]) -> float:
    """Wall time of one process, as it is once Python has kept the bytecode of every module."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    began = time.perf_counter()
    subprocess.run(words, check=True, capture_output=True, cwd=ROOT, env=env)
    return time.perf_counter() - began


def cases(folder: str) -> dict[str, list[str]]:
    """Name of the case -> command; the base comes first."""
    python = sys.executable
    found = {"import pydantic, yaml, jinja2": [python, "-c", "import pydantic, yaml, jinja2"]}
    for spec in sorted((ROOT / "specs").glob("*.yaml")):
        call = [python, "-m", "specc"]
        found[f"check   {spec.stem}"] = [*call, "check", str(spec)]
        found[f"plan    {spec.stem}"] = [*call, "plan", str(spec)]
        compiled = [*call, "compile", str(spec), "--target", "slurm", "-o", f"{folder}/{spec.stem}"]
        found[f"compile {spec.stem}"] = compiled
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="how often each is run (default: 9)")
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        commands = cases(folder)
        times: dict[str, list[float]] = {name: [] for name in commands}
        for words in commands.values():
            seconds(words)
        for _ in range(rounds):  # in turns, so that a busy moment hits all alike
            for name, words in commands.items():
                times[name].append(seconds(words))
    medians = {name: statistics.median(values) for name, values in times.items()}
    base = next(iter(medians.values()))
    print(f"{'':32} median      best   times the imports")
    for name, median in medians.items():
        print(f"{name:32} {median * 1000:4.0f} ms   {min(times[name]) * 1000:4.0f} ms   {median / base:.2f}")
    outside = [name for name, m in medians.items() if m > MOST_SECONDS or m > MOST_TIMES * base]
    print(
        f"bounds: {MOST_SECONDS * 1000:.0f} ms and {MOST_TIMES} times; "
        + (f"outside: {outside}" if outside else "all inside")
    )
    return 1 if outside else 0


if __name__ == "__main__":
    sys.exit(main())
