"""Real input: GSM8K as chats, a tokenizer trained on it, a small Llama that begins to learn it."""

import os
import sys
from pathlib import Path

import pytest
import toy_runs

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench_gsm8k import gsm8k_plan

pytestmark = pytest.mark.torch

SHARED = Path(os.environ.get("SPECC_SHARED", Path(__file__).parents[3] / "shared"))
DATA = SHARED / "data" / "gsm8k"


@pytest.mark.skipif(
    not DATA.exists(), reason="GSM8K is not there: set SPECC_SHARED to the folder with data/gsm8k"
)
def test_the_loss_on_gsm8k_falls(world, tmp_path):
    file = toy_runs.written(tmp_path, gsm8k_plan(DATA, tmp_path, steps=12, rows=400))
    assert world(2, toy_runs.attempt, str(file), timeout=240) == [0, 0]
    losses = [line["loss"] for line in toy_runs.metrics(tmp_path)]
    assert losses[0] == pytest.approx(7.6, abs=0.2)  # ln 2000
    assert losses[-1] < 6.7
