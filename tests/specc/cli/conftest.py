"""Run the command in this process, in a folder of its own."""

import dataclasses
import io
import os
import sys

import pytest

from specc import cli

SPEC = """\
name: small
cluster: example-h100
algorithm: sft
model: llama3-8b
data: {train: "builtin:arithmetic"}
train: {steps: 10, global_batch: 8, seq_length: 1024, lr: 1e-5, warmup_steps: 1}
nodes: 1
"""


@dataclasses.dataclass
class Ran:
    code: int
    out: str
    err: str


@pytest.fixture
def spec(tmp_path):
    """A sound spec in its own folder."""
    path = tmp_path / "small.yaml"
    path.write_text(SPEC)
    return path


@pytest.fixture
def specc(tmp_path, monkeypatch):
    """`specc WORDS`, run from `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FORCE_COLOR", raising=False)

    def run(*words) -> Ran:
        out, err = io.StringIO(), io.StringIO()
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        code = cli.run([os.fspath(word) for word in words])
        return Ran(code, out.getvalue(), err.getvalue())

    return run
