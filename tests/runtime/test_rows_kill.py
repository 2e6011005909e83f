"""A short form of `make campaign-rows-kill`: three kills at random moments, the same bytes."""

import random

import campaign_rows_kill as campaign
import pytest

from specc.plan import Layout

pytestmark = [pytest.mark.torch, pytest.mark.slow]


def test_three_kills_do_not_show(forks, tmp_path):
    layout, prompts = Layout(tp=2), 8
    whole = campaign.undisturbed(forks, tmp_path / "whole", layout, prompts)
    hit, wrong = campaign.disturbed(
        forks, tmp_path / "killed", layout, prompts, whole, random.Random(7), kills=1
    )
    assert wrong == []
    assert hit >= 1
