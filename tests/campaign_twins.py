"""The tiny twin of every shipped spec, run to the end of its last stage on this machine.

`python tests/campaign_twins.py [NAME ...]` prints of each spec how long it took, how it ended, and its stages
with the program of each group of processes. The exit code is 1 when one of them failed.

2026-11-21, this command, beside other campaigns on two cores: 31 of 31 finished, 5 to 20 s each, 6 minutes.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from specc import shipped


def main(names: list[str]) -> int:
    specs = [path for path in sorted(shipped.specs().glob("*.yaml")) if not names or path.stem in names]
    failed = 0
    for spec in specs:
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            words = [sys.executable, "-m", "specc", "run", str(spec), "--tiny", "--dir", folder]
            ran = subprocess.run(words, capture_output=True, text=True)
            seconds = time.monotonic() - began
            failed += ran.returncode != 0
            how = "finished" if ran.returncode == 0 else f"failed with {ran.returncode}"
            print(f"{spec.stem:<30} {seconds:4.0f} s  {how}: {stages(Path(folder))}", flush=True)
            if ran.returncode:
                print(ran.stderr[-2000:], flush=True)
    print(f"{len(specs) - failed} of {len(specs)} twins finished")
    return 1 if failed else 0


def stages(folder: Path) -> str:
    """Each stage with the programs of its groups; one that did not finish is in brackets."""
    said = []
    for job in json.loads((folder / "plan.json").read_text(encoding="utf-8"))["jobs"]:
        hosts = [role for role in job["roles"] if role["group"] in ("", role["name"])]
        text = f"{job['stage']} ({' + '.join(role['program'] for role in hosts)})"
        said.append(text if (folder / job["stage"] / "output.json").exists() else f"[{text}]")
    return ", ".join(said)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
