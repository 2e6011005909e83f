"""Below the table of `specc plan`: time, runs, money and room."""

import json


def test_time_and_runs_and_room_stand_below_the_table(specc, spec):
    ran = specc("plan", spec)
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert any(line.startswith("sft: 10 steps x ") and "1 run of at most 4.0 h" in line for line in lines)
    assert any("a checkpoint is 112 GB" in line and "of the quota of 20 TB" in line for line in lines)


def test_a_long_stage_says_how_often_it_is_queued_again(specc, spec):
    ran = specc("plan", spec, "--set", "train.steps=1000000")
    assert "queued again" in ran.out


def test_the_outlook_is_data_too(specc, spec):
    (one,) = json.loads(specc("plan", spec, "--json").out)["outlook"]
    assert (one["stage"], one["steps"], one["runs"], one["limit_seconds"]) == ("sft", 10, 1, 4 * 3600)


def test_the_cost_is_said_where_the_profile_has_a_price(specc, spec, tmp_path):
    (tmp_path / "clusters").mkdir()
    profile = "gpus: {type: h100-80gb}\nslurm: {time: 4h}\nprice: 3\n"
    (tmp_path / "clusters" / "priced.yaml").write_text(profile)
    ran = specc("plan", spec, "--cluster", "priced", "--set", "train.steps=1000")
    total = next(line for line in ran.out.splitlines() if line.startswith("total: "))
    assert ", cost " in total


def test_no_time_limit_is_made_up_on_a_machine_of_ones_own(specc, spec):
    ran = specc("plan", spec, "--cluster", "local-gpu")
    assert "at most" not in ran.out
