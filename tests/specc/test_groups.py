"""When a job of several groups is over, and who is to blame: rows of exit codes and seconds."""

import subprocess
import sys

import pytest

from specc.groups import ALONE_SECONDS, LEAVE_SECONDS, Verdict, addresses, free_ports
from specc.plan import OVER, SERVE, Group, Layout, Model, Role, Shape, Weights


def group(name, program):
    shape = Shape("llama", 2, 64, 128, 4, 4, 16, 256, 128)
    return Group(name, (Role(name, program, 1, 1, Layout(), 1, 1, Model("tiny", shape, Weights())),))


ACTOR, CRITIC, OTHER = group("actor", "ppo"), group("critic", SERVE), group("other", "sft")
FOREVER = 1e9


@pytest.mark.parametrize(
    ("groups", "told", "waits", "culprit"),
    [
        ([ACTOR], [(None,), (0,)], 0, None),
        ([ACTOR], [(None,), (1,)], 0, ACTOR),
        ([ACTOR, CRITIC], [(0, None)], LEAVE_SECONDS, None),
        ([ACTOR, CRITIC], [(0, None), (0, 1)], 0, None),
        ([ACTOR, CRITIC], [(None, 1)], 0, CRITIC),
        ([ACTOR, CRITIC], [(1, None)], LEAVE_SECONDS, ACTOR),
        ([ACTOR, CRITIC], [(1, None), (1, 1)], 0, CRITIC),
        ([ACTOR, CRITIC], [(None, 0)], ALONE_SECONDS, CRITIC),
        ([ACTOR, CRITIC], [(None, 0), (1, 0)], 0, CRITIC),
        ([ACTOR, CRITIC], [(None, 0), (0, 0)], 0, None),
        ([ACTOR, OTHER, CRITIC], [(0, None, None)], FOREVER, None),
        ([ACTOR, OTHER, CRITIC], [(0, None, None), (0, 0, None)], LEAVE_SECONDS, None),
        ([ACTOR, OTHER, CRITIC], [(0, None, None), (0, 2, None)], 0, OTHER),
    ],
)
def test_how_long_the_others_are_waited_for_and_who_is_to_blame(tmp_path, groups, told, waits, culprit):
    verdict = Verdict(groups, tmp_path)
    for codes in told:
        over = verdict.is_over(codes, now=0.0)
    assert over == (waits == 0)
    if 0 < waits < FOREVER:
        assert not verdict.is_over(told[-1], now=waits - 0.1)
    assert verdict.is_over(told[-1], now=waits) == (waits < FOREVER)
    assert verdict.culprit is culprit
    assert (tmp_path / OVER).exists() == (told[-1][0] == 0)


def test_while_all_run_nobody_is_to_blame(tmp_path):
    verdict = Verdict([ACTOR, CRITIC], tmp_path)
    assert not verdict.is_over([None, None], now=1e9)
    assert verdict.culprit is None


def test_ports_differ_and_only_servers_listen():
    where = addresses([ACTOR, CRITIC])
    assert list(where.listen) == ["critic"]
    assert where.variables(ACTOR) == {"SPECC_PEERS": f"critic={where.listen['critic']}"}
    assert where.variables(CRITIC)["SPECC_LISTEN"] == where.listen["critic"]
    assert addresses([ACTOR]).variables(ACTOR) == {}
    assert len(set(free_ports(50))) == 50


def test_two_launchers_started_at_once_fifty_times_are_never_given_the_same_port():
    """Each holds what it was given: an actor and a server need four ports, long before they bind them."""
    drawn = "print(*[port for _ in range(50) for port in free_ports(4)], flush=True)"
    said = f"from specc.groups import free_ports; {drawn}; input()"
    other = subprocess.Popen(
        [sys.executable, "-c", said], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    ours = [port for _ in range(50) for port in free_ports(4)]
    theirs, _ = other.communicate("\n", timeout=60)
    together = [*ours, *map(int, theirs.split())]
    assert len(set(together)) == len(together) == 400
