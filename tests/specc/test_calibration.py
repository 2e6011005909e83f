"""What is learnt from measured runs, and how it is kept."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specc.calibration import Calibration, Correction, Measurement, Unusable, read, write
from specc.spec.cluster import find_profile

ONE = Measurement("a", "sft", "model", "h100-80gb", "bf16", "te", "TP2·DP4", 20, 1.0, 1.2, 40.0, 50.0)


def changed(**values: object) -> Measurement:
    return dataclasses.replace(ONE, **values)  # type: ignore[arg-type]


def test_a_correction_is_the_geometric_mean_of_measured_over_predicted() -> None:
    twice = changed(run="b", measured_seconds=2.0, measured_gib=0.0)
    other = changed(run="c", gpu="h200", measured_seconds=9.0)
    found = Calibration((ONE, twice, other)).correction("h100-80gb", "bf16", "te")
    assert found.time == pytest.approx((1.2 * 2.0) ** 0.5, abs=1e-4)
    assert found.memory == 1.25  # only one run measured memory
    assert found.runs == 2
    assert str(found) == "calibrated by 2 runs: time x1.55, memory x1.25"
    assert str(Calibration((other,)).correction("h100-80gb", "bf16", "te")) == "not calibrated"


def test_the_same_role_of_a_run_counts_once() -> None:
    again = changed(measured_seconds=3.0)
    assert Calibration((ONE,)).with_run([again]).measurements == (again,)
    assert len(Calibration((ONE,)).with_run([changed(role="critic")]).measurements) == 2


@given(st.lists(st.tuples(st.text(max_size=4), st.floats(1e-6, 1e6), st.floats(1e-6, 1e6)), max_size=4))
def test_what_is_written_is_read_back(runs: list[tuple[str, float, float]]) -> None:
    import tempfile

    new = [changed(run=name, predicted_seconds=a, measured_seconds=b) for name, a, b in runs]
    kept = Calibration().with_run(list({m.run: m for m in new}.values()))
    with tempfile.TemporaryDirectory() as folder:
        write(kept, Path(folder) / "new" / "x.calibration.json")
        assert read(Path(folder) / "new" / "x.calibration.json") == kept


def test_without_a_file_nothing_is_corrected(tmp_path: Path) -> None:
    assert read(tmp_path / "none").correction("h100-80gb", "bf16", "te") == Correction()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no calibration"),
        ("[]", "of format 1"),
        ('{"format": 2}', "of format 1"),
        ('{"format": 1}', "measurements"),
        ('{"format": 1, "measurements": 3}', "is no calibration"),
        (json.dumps({"format": 1, "measurements": [{**vars(ONE), "steps": "3"}]}), "steps is '3'"),
        (json.dumps({"format": 1, "measurements": [{**vars(ONE), "measured_seconds": -1}]}), "is -1"),
        (json.dumps({"format": 1, "measurements": [{**vars(ONE), "measured_gib": 1e999}]}), "is inf"),
        (json.dumps({"format": 1, "measurements": [{**vars(ONE), "predicted_seconds": 0}]}), "are 0"),
        (json.dumps({"format": 1, "measurements": [{**vars(ONE), "more": 1}]}), "more"),
    ],
)
def test_a_file_that_is_no_calibration_is_refused_with_its_name(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "x.calibration.json"
    file.write_text(text)
    with pytest.raises(Unusable, match=said) as caught:
        read(file)
    assert str(file) in str(caught.value)


def test_a_profile_carries_what_lies_beside_it(tmp_path: Path) -> None:
    clusters = tmp_path / "clusters"
    clusters.mkdir()
    (clusters / "mine.yaml").write_text("gpus: {type: h100-80gb}\n")
    write(Calibration((ONE,)), clusters / "mine.calibration.json")
    profile, _, said = find_profile("mine", tmp_path)
    assert not said
    assert profile is not None
    assert profile.calibration.correction("h100-80gb", "bf16", "te").runs == 1

    (clusters / "mine.calibration.json").write_text("half")
    _, _, said = find_profile("mine", tmp_path)
    assert [(d.code, d.severity) for d in said] == [("T013", "error")]
