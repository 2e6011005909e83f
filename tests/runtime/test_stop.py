"""How a run is asked to stop: by a file that is looked for now and then, or by a signal, at once."""

import itertools

from runtime import stop
from runtime.stop import StopFlag


def test_who_asks_at_every_token_looks_for_the_file_a_few_times_a_second(tmp_path, monkeypatch):
    looked = []

    class File(type(tmp_path)):
        def exists(self, **more):
            looked.append(self)
            return super().exists(**more)

    clock = itertools.count(0, 0.01)  # a token each 10 ms
    monkeypatch.setattr(stop.time, "monotonic", lambda: next(clock))
    flag = StopFlag(File(tmp_path / "stop"), tmp_path, 0)
    assert not any(flag.is_seen(0.25) for _ in range(1000))
    assert 30 < len(looked) < 50
    (tmp_path / "stop").touch()
    assert any(flag.is_seen(0.25) for _ in range(30))


def test_a_signal_is_seen_at_once(tmp_path):
    flag = StopFlag(tmp_path / "stop", tmp_path, 0)
    assert not flag.is_seen(1e9)
    flag._note(15, None)
    assert flag.is_seen(1e9)
    assert flag.is_raised()
