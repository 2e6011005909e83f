"""`specc calibrate`: from what a run measured to the plans that follow."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from specc import cli
from specc.compile import compile_spec
from specc.plan import NO_MODEL, Layout, Role, from_json, to_json

SPEC = "specs/sft_llama3_70b.yaml"


def measured_run(folder: Path, slower: float, larger: float) -> Path:
    """A finished run of the 70B spec that took so much more time and memory than is predicted."""
    plan = compile_spec(SPEC).plan
    assert plan is not None
    [job] = plan.jobs
    [role] = job.roles
    inside = sum(gib for name, gib in role.memory.parts.items() if name not in ("outside", "imbalance"))
    stage = folder / job.stage
    stage.mkdir(parents=True)
    (folder / "plan.json").write_text(to_json(plan))
    tokens = role.global_batch * job.settings["train"]["seq_length"]
    content = {
        "steps": 20,
        "seconds": {"step_seconds": slower * role.step_seconds},
        "tokens": tokens,
        "ranks": [{"allocated_gib": 0.5 * inside}, {"allocated_gib": larger * inside}],
    }
    (stage / "measured.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "specc" / "clusters" / "example-h100.calibration.json"


def planned() -> tuple[float, dict[str, float], float, str]:
    plan = compile_spec(SPEC).plan
    assert plan is not None
    role = plan.jobs[0].roles[0]
    return role.step_seconds, role.memory.parts, role.memory.total_gib, role.calibration


def test_later_plans_follow_what_was_measured_and_say_so(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds, parts, total, said = planned()
    assert said == ""
    run = measured_run(tmp_path / "run", slower=1.2, larger=1.02)
    assert cli.run(["calibrate", str(run)]) == 0
    out = capsys.readouterr().out
    assert "1.20" in out
    assert "h100-80gb bf16 te: calibrated by 1 run: time x1.20, memory x1.02" in out
    assert config.is_file()

    slower, with_part, larger, said = planned()
    assert slower == pytest.approx(1.2 * seconds, rel=2e-3)
    inside = sum(gib for name, gib in parts.items() if name != "outside")
    assert with_part["calibration"] == pytest.approx(0.02 * inside, abs=0.01)
    assert larger == pytest.approx(total + 0.02 * inside, abs=0.01)
    assert said == "calibrated by 1 run: time x1.20, memory x1.02"
    assert cli.run(["plan", SPEC]) == 0
    assert f"predictions: {said}" in capsys.readouterr().out

    # once more the same run: it counts once, and what it is compared with is not corrected
    assert cli.run(["calibrate", str(run)]) == 0
    assert planned()[0] == pytest.approx(slower)


def test_a_dry_run_keeps_nothing(tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = measured_run(tmp_path / "run", slower=2.0, larger=1.0)
    assert cli.run(["calibrate", str(run), "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["measurements"][0]["time"] == pytest.approx(2.0, rel=2e-3)
    assert found["corrections"][0]["runs"] == 1
    assert not config.exists()


def test_a_file_beside_the_spec_goes_before_the_users_own(tmp_path: Path, config: Path) -> None:
    run, other = measured_run(tmp_path / "a", 2.0, 1.0), measured_run(tmp_path / "b", 1.5, 1.0)
    assert cli.run(["calibrate", str(run)]) == 0
    spec = tmp_path / "here" / "spec.yaml"
    (spec.parent / "clusters").mkdir(parents=True)
    spec.write_text(Path(SPEC).read_text())
    own = spec.parent / "clusters" / "example-h100.calibration.json"
    assert cli.run(["calibrate", str(other), "-o", str(own)]) == 0
    plan = compile_spec(spec).plan
    assert plan is not None
    assert "time x1.50" in plan.jobs[0].roles[0].calibration


def test_what_is_no_measured_run_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["calibrate", str(tmp_path)]) == 1
    assert "is no run folder" in capsys.readouterr().err
    run = measured_run(tmp_path / "run", 1.0, 1.0)
    (run / "sft" / "measured.json").write_text('{"seconds": {"step_seconds": "soon"}}')
    assert cli.run(["calibrate", str(run)]) == 1
    assert "cannot be used" in capsys.readouterr().err
    (run / "sft" / "measured.json").unlink()
    assert cli.run(["calibrate", str(run)]) == 1
    assert "has not run to an end" in capsys.readouterr().err


def with_rows(run: Path, alone: bool = False) -> Path:
    """The run with a stage that generates, and a clerk that chooses, which leave no measurements."""
    plan = from_json((run / "plan.json").read_text())
    [job] = plan.jobs
    asked = replace(job.roles[0], program="generate", trains=False)
    clerk = Role("clerk", "above", 1, 0, Layout(), 8, 8, NO_MODEL, trains=False)
    rows = [
        replace(job, name=name, stage=name, roles=(role,)) for name, role in (("ask", asked), ("good", clerk))
    ]
    (run / "plan.json").write_text(to_json(replace(plan, jobs=(*rows, *([] if alone else [job])))))
    return run


def test_stages_that_make_rows_are_not_taken_for_unfinished(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = with_rows(measured_run(tmp_path / "run", 1.1, 1.0))
    assert cli.run(["calibrate", str(run)]) == 0
    said = capsys.readouterr()
    assert "specc:" not in said.err
    assert [line.split()[0] for line in said.out.splitlines()[1:2]] == ["sft"]
    with_rows(measured_run(tmp_path / "other", 1.0, 1.0), alone=True)
    assert cli.run(["calibrate", str(tmp_path / "other")]) == 1
    assert "no stage of" in capsys.readouterr().err


def test_a_torn_calibration_stops_the_plan_and_is_named(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.parent.mkdir(parents=True)
    config.write_text("{")
    assert cli.run(["plan", SPEC]) == 1
    assert "T013" in capsys.readouterr().err
