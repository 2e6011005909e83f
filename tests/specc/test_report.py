"""Run folders read with care, and drawn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from specc import cli
from specc.compile import compile_spec
from specc.pages.lines import MOST_POINTS, Curve, lines, rounded_range, smoothed, thinned
from specc.plan import to_json
from specc.report import gains, read_curves, read_run


def a_run(folder: Path, losses: list[float]) -> Path:
    """A run folder of the two-stage spec, its first stage finished."""
    plan = compile_spec("specs/sft_two_stages.yaml").plan
    assert plan is not None
    first = folder / plan.jobs[0].stage
    first.mkdir(parents=True)
    (folder / "plan.json").write_text(to_json(plan))
    lines = [{"step": i + 1, "loss": x, "step_seconds": 0.5, "tokens": 90} for i, x in enumerate(losses)]
    (first / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (first / "output.json").write_text("{}")
    (first / "samples.jsonl").write_text(
        json.dumps({"prompt": "1+1=<b>", "response": "2", "reward": 1.0}) + "\n"
    )
    measured = {"seconds": {"step_seconds": 0.5}, "tokens": 90, "steps": 3, "ranks": [{"resident_gib": 1.0}]}
    (first / "measured.json").write_text(json.dumps(measured))
    return folder


def test_a_run_says_what_its_stages_came_to(tmp_path: Path) -> None:
    run = read_run(a_run(tmp_path / "mine", [3.0, 2.0, 1.0]))
    assert list(run.state.values()) == ["finished", "not begun"]
    assert run.roles[0].curves["loss"] == ((1.0, 3.0), (2.0, 2.0), (3.0, 1.0))
    assert run.roles[0].samples[0]["response"] == "2"
    assert len(run.measurements) == 1


def test_what_a_stage_changed_is_the_mean_of_its_first_and_last_tenth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = a_run(tmp_path / "mine", [5.0, 3.0, *[2.0] * 16, 1.0, 0.5])
    [gain] = gains(read_run(folder))
    assert (gain.metric, gain.first, gain.last) == ("loss", 4.0, 0.75)
    assert cli.run(["report", str(folder)]) == 0
    said = capsys.readouterr()
    assert said.out == f"{folder}/report.html\n"
    assert said.err.splitlines()[-1].split() == [gain.role, "loss", "4", "->", "0.75"]


def test_a_reward_tells_more_than_the_loss_beside_it(tmp_path: Path) -> None:
    folder = a_run(tmp_path / "mine", [1.0])
    stage = read_run(folder).plan.jobs[0].stage
    (folder / stage / "metrics.jsonl").write_text('{"step": 1, "loss": 1, "reward": 0.5, "kl": 0}\n')
    assert [gain.metric for gain in gains(read_run(folder))] == ["reward", "kl"]


def test_torn_lines_are_counted_but_for_one_that_is_being_written(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text(
        '{"step": 1, "loss": 2}\nnot json\n[3]\n{"step": 2, "loss": NaN, "note": "x"}\n{"step": 3, "lo'
    )
    curves, torn = read_curves(file)
    assert torn == 2
    assert [step for step, _ in curves["loss"]] == [1.0, 2.0]
    assert "note" not in curves


def test_the_page_and_the_data_of_two_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = a_run(tmp_path / "one", [3.0, 2.0]), a_run(tmp_path / "two", [3.0, 1.0])
    assert cli.run(["report", str(one), str(two), "-o", str(tmp_path / "p.html")]) == 0
    text = (tmp_path / "p.html").read_text()
    assert text.count("<polyline") == 4  # loss and step time of two runs
    assert "1+1=&lt;b&gt;" in text
    assert "<script" not in text
    capsys.readouterr()
    assert cli.run(["report", str(one), "--json"]) == 0
    [data] = json.loads(capsys.readouterr().out)
    assert next(iter(data["last"].values()))["loss"] == 2.0


def test_a_folder_that_is_no_run_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["report", str(tmp_path)]) == 1
    assert "is no run folder" in capsys.readouterr().err
    (tmp_path / "plan.json").write_text("{")
    assert cli.run(["report", str(tmp_path)]) == 1
    assert "cannot be used" in capsys.readouterr().err


def test_a_curve_keeps_its_ends_and_its_spikes() -> None:
    points = [(float(i), float(i % 7)) for i in range(10_000)]
    points[5003] = (5003.0, 99.0)
    found = thinned(points)
    assert len(found) <= MOST_POINTS + 2
    assert (5003.0, 99.0) in found
    assert (found[0], found[-1]) == (points[0], points[-1])
    assert found == sorted(found)


def test_an_average_begins_at_the_first_value_and_follows() -> None:
    flat = smoothed([(float(i), 5.0) for i in range(50)])
    assert all(value == pytest.approx(5.0) for _, value in flat)
    step = smoothed([(float(i), float(i >= 50)) for i in range(100)])
    assert step[49][1] == 0
    assert 0.99 < step[99][1] <= 1


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3, 7), (5, 5), (0, 0), (1e-6, 3e-6), (-0.25, -0.2)])
def test_an_axis_is_round_and_holds_the_range(low: float, high: float) -> None:
    bottom, top, gap = rounded_range(low, high)
    assert bottom <= low + 1e-12
    assert top >= high - 1e-12
    assert 1 <= round((top - bottom) / gap) <= 7


def test_what_is_not_finite_is_not_drawn() -> None:
    curve = Curve("a", ((1, float("nan")), (2, float("inf"))), "#000")
    assert lines("loss", [curve]) is None
    assert lines("loss", [curve, Curve("b", ((1, 2.0),), "#000")]) is not None
