"""The search against plain enumeration on thousands of random problems.

Prints how many were asked, and each where the best, the smallest or the number of legal layouts differs;
exits 1 when there is one. `make campaign-search` runs it; the suite asks about 300 others.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "specc" / "planner"))

from enumeration import differences, problem  # pyright: ignore[reportMissingImports]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=4000, help="how many (default: 4000)")
    parser.add_argument("--seed", type=int, default=1000, help="the first one's seed (default: 1000)")
    asked = parser.parse_args()
    began, wrong = time.monotonic(), 0
    for seed in range(asked.seed, asked.seed + asked.problems):
        said = differences(problem(seed))
        if said:
            wrong += 1
            print(f"problem {seed}: {'; '.join(said)}")
    print(f"{asked.problems} problems, {wrong} differ, {time.monotonic() - began:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
