"""Rewards that are functions of a user's own module."""

import sys

import pytest

from runtime.problem import Problem

pytestmark = pytest.mark.torch


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("def good(prompt, response:\n    return 1.0\n", "SyntaxError: '(' was never closed"),
        ("raise RuntimeError('no licence')\n", "RuntimeError: no licence"),
        ("open('/nonexistent/words.txt')\n", "FileNotFoundError: [Errno 2] No such file or directory"),
        ("import a_library_nobody_has\n", "ModuleNotFoundError: No module named 'a_library_nobody_has'"),
        ("better = 1\n", "AttributeError: module 'broken_reward' has no attribute 'good'"),
        ("good = 1\n", "TypeError: 1 is not a callable object"),
    ],
)
def test_a_module_that_cannot_be_used_is_the_users_to_mend_whatever_breaks(tmp_path, monkeypatch, body, said):
    from runtime.scoring import function_of

    (tmp_path / "broken_reward.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "broken_reward", raising=False)
    with pytest.raises(Problem) as refused:
        function_of("broken_reward:good")
    assert refused.value.code == "R016"
    assert refused.value.message.startswith("the reward function `broken_reward:good` cannot be had: " + said)


def test_a_function_may_take_the_row_or_not(tmp_path, monkeypatch):
    from runtime.scoring import function_of

    body = "def two(p, r):\n    return len(p) - len(r)\n\ndef three(p, r, row):\n    return row['x']\n"
    (tmp_path / "own_reward.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    assert function_of("own_reward:two")("abc", "a", {"x": 7}) == 2
    assert function_of("own_reward:three")("abc", "a", {"x": 7}) == 7
