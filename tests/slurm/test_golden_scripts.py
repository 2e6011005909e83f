"""A real sbatch takes every golden script, on a cluster as wide as the widest of them."""

from __future__ import annotations

import re
from pathlib import Path

import cluster as lab
import pytest

pytestmark = pytest.mark.slurm

TESTS = Path(__file__).parents[1]
GOLDEN = (TESTS / "golden", TESTS / "specc" / "emit" / "golden")
SCRIPTS = sorted(script for folder in GOLDEN for script in folder.rglob("*.sbatch"))


def nodes_of(script: Path) -> int:
    """Nodes that a script asks for, all components together."""
    return sum(int(count) for count in re.findall(r"^#SBATCH --nodes=(\d+)", script.read_text(), re.M))


@pytest.fixture(scope="module")
def wide_cluster():
    """Nodes of 8 GPUs, with the partition that the example profiles name."""
    if missing := lab.missing_programs():
        pytest.skip(f"no {', '.join(missing)} here: install slurmctld, slurmd, slurm-client and munge")
    widest = max(map(nodes_of, SCRIPTS))
    with lab.Cluster.started(nodes=widest, gpus=8, partitions=("main", "batch")) as started:
        yield started


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: "/".join(path.parts[-3:]))
def test_sbatch_would_start_it(wide_cluster, script):
    answer = wide_cluster.run("sbatch", "--test-only", str(script), "/results/of/run").stderr
    assert " to start at " in answer


@pytest.mark.parametrize("line", ['--comment="two words"', '--comment="a \\"b\\" # c"'])
def test_sbatch_reads_a_quoted_directive_as_it_was_meant(wide_cluster, tmp_path, line):
    script = tmp_path / "job.sh"
    script.write_text(f"#!/bin/bash\n#SBATCH {line}\n#SBATCH --hold\n#SBATCH --nodes=2\ntrue\n")
    job_id = wide_cluster.run("sbatch", "--parsable", str(script)).stdout.strip()
    record = wide_cluster.scontrol("show", "job", job_id)
    meant = {'--comment="two words"': "two words"}.get(line, 'a "b" # c')
    assert f"Comment={meant}" in record
    assert "NumNodes=2" in record
