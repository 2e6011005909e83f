"""Groups that serve a tiny critic and reward model: what they say, learn, save and refuse, how they end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_ppo
import toy_served
import tritonclient.http as triton
import worlds
from tritonclient.utils import InferenceServerException

from runtime.problem import Problem
from runtime.serving.app import Tensor
from runtime.serving.client import Client, Patience
from specc.plan import Layout, Plan, Weights

pytestmark = [pytest.mark.torch, pytest.mark.timeout(180)]

RM = Weights(kind="stage", stage="rm")
VALUES = Tensor("values", "FP32", (-1, -1))
STANDARD = {"scorer": {"function": "", "standardise": True}}


@dataclass
class Asker:
    """A stock client of one server."""

    client: triton.InferenceServerClient
    token: str

    def ask(self, model: str, id: str = "", **inputs: Any) -> dict[str, np.ndarray]:
        tensors = []
        for name, value in inputs.items():
            kind = {"f": "FP32", "O": "BYTES"}.get(value.dtype.kind, "INT64")
            tensors.append(triton.InferInput(name, list(value.shape), kind))
            tensors[-1].set_data_from_numpy(value)
        headers = {"Authorization": f"Bearer {self.token}"}
        reply = self.client.infer(model, tensors, headers=headers, request_id=id)
        return {out["name"]: reply.as_numpy(out["name"]) for out in reply.get_response()["outputs"]}


@pytest.fixture
def asker() -> Iterator[Any]:
    clients = []

    def made(address: str, token: str, codes: Any) -> Asker:
        clients.append(triton.InferenceServerClient(address, network_timeout=60, connection_timeout=60))
        assert clients[-1].is_server_live()

        def ready() -> None:
            if not clients[-1].is_server_ready():
                raise OSError

        toy_served.eventually(ready, codes)
        return Asker(clients[-1], token)

    yield made
    for client in clients:
        client.close()


def rows(count: int = 6, longest: int = 20) -> dict[str, np.ndarray]:
    """Rows of unlike lengths with garbage behind their ends."""
    draw = np.random.default_rng(3)
    lengths = draw.integers(2, longest, count)
    return {
        "tokens": draw.integers(0, 259, (count, longest)),
        "sequence_lengths": lengths[:, None].astype(np.int64),
    }


def lessons(count: int = 12, longest: int = 20) -> dict[str, np.ndarray]:
    """Something to learn: more rows than the critic's global batch of 8."""
    draw = np.random.default_rng(4)
    found = rows(count, longest)
    columns = np.arange(longest - 1)[None]
    mask = (columns > 1) & (columns < found["sequence_lengths"] - 1)
    numbers = draw.normal(size=(2, count, longest - 1)).astype(np.float32)
    return found | {"returns": numbers[0], "prev_values": numbers[1] / 9, "mask": mask.astype(np.float32)}


def near(plan_file: str) -> dict[str, Any]:
    """The same questions to the same models in this process: before and after the same lesson."""
    import os

    from runtime import cast, cpu, parallel
    from runtime.engine import Engine
    from runtime.judges import Lesson, Near
    from runtime.place import place_of
    from runtime.rollouts import Rollout
    from runtime.scoring import scoring_of
    from runtime.weights import take_weights
    from specc.plan import from_json

    cpu.install()
    plan = from_json(Path(plan_file).read_text())
    [job] = plan.jobs
    roles = {role.name: role for role in job.roles}
    here = parallel.start(Layout(), "gloo", "cpu", 60, plan.seed)

    class Run:
        """What of a run the models need."""

        settings, train, max_steps, pad_id = job.settings["ppo"], job.settings["train"], 3, 0
        place = place_of(Path(plan_file), job, "actor", os.environ)
        say = alive = staticmethod(lambda *text: None)

    run: Any = Run()
    run.plan, run.job = plan, job
    alone = {name: _alone(role) for name, role in roles.items()}
    critic = Engine(alone["critic"], here, cast.optimizer_of(run, "critic"), plan.seed)
    reward = Engine(alone["reward"], here, None, plan.seed)
    take_weights(reward, alone["reward"], run.place)
    judges = Near(
        critic,
        cast.table_of(alone["critic"], critic, 0),
        reward=lambda: cast.itself(reward),
        scoring=scoring_of(job.settings["reward"], roles["reward"], run.place.run_folder),
    )

    def rollouts(given: dict[str, np.ndarray]) -> list[Rollout]:
        lengths = given["sequence_lengths"][:, 0]
        lines = [row[:n].tolist() for row, n in zip(given["tokens"], lengths, strict=True)]
        return [Rollout(i, i, tuple(line[:1]), tuple(line[1:]), (), "stop") for i, line in enumerate(lines)]

    def said() -> Any:
        answers = judges.answers(rollouts(rows()))
        return [answers.values[i].tolist() for i in sorted(answers.values)], list(answers.scores.values())

    before = said()
    given = lessons()
    taught = [
        Lesson(r, *(given[name][i, : len(r.tokens) - 1] for name in ("returns", "prev_values", "mask")))
        for i, r in enumerate(rollouts(given))
    ]
    metrics = cast.fit_critic(run, critic, alone["critic"], taught, 0)
    return {"before": before, "after": said(), "metrics": metrics}


def _alone(role: Any) -> Any:
    import dataclasses

    return dataclasses.replace(role, layout=Layout(), gpus=1)


@pytest.fixture(scope="module")
def folder(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with prompts and a reward model that a stage has left."""
    found = tmp_path_factory.mktemp("served")
    world(1, toy_served.trained_reward, str(found), toy_served.plan(toy_ppo.prompts(found)))
    return found


def plan_in(folder: Path, into: Path, layout: Layout | None = None, **more: Any) -> Plan:
    """A plan whose reward model is that stage's; `into` becomes its run folder."""
    into.mkdir()
    (into / "rm").symlink_to(folder / "rm")
    return toy_served.plan(folder / "prompts.jsonl", layout, reward=RM, **STANDARD, **more)


@pytest.fixture(scope="module")
def expected(world: Any, folder: Path) -> dict[str, Any]:
    import toy_runs

    into = folder / "near"
    [found] = world(1, near, str(toy_runs.written(into, plan_in(folder, into))))
    return found


def close(answer: dict[str, np.ndarray], wanted: Any, bound: float = 1e-6) -> None:
    values, scores = wanted
    for i, row in enumerate(values):
        assert np.abs(answer["values"][i, : len(row)] - row).max() < bound
        assert not answer["values"][i, len(row) + 1 :].any()
    assert np.abs(answer["rewards"][:, 0] - scores).max() < bound


LAYOUTS = {"alone": Layout(), "TP2": Layout(tp=2, sequence_parallel=True), "DP2": Layout(dp=2)}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_served_critic_says_and_learns_what_a_near_one_does(
    world: Any, tmp_path: Path, asker: Any, folder: Path, expected: Any, layout: Layout
) -> None:
    run = tmp_path / "run"
    with toy_served.serving(world, run, plan_in(folder, run, layout)) as (address, token, codes):
        server = asker(address, token, codes)
        close(server.ask("critic_infer", **rows()), expected["before"])
        scores = server.ask("reward_model", **rows())
        assert np.abs(scores["rewards"][:, 0] - expected["before"][1]).max() < 1e-6
        assert set(scores) == {"rewards"}
        learnt = server.ask("critic_train", "step-0", **lessons(), schedule=np.array([0, 3]))
        for name, told in (("loss_mean", "critic_loss"), ("grad_norm", "critic_grad_norm")):
            assert learnt[name][0] == pytest.approx(expected["metrics"][told], rel=1e-5)
        assert learnt["optimizer_steps"].tolist() == [2]  # of 8 rows and of 4
        again = server.ask("critic_train", "step-0", **lessons(), schedule=np.array([0, 3]))
        assert again["loss_mean"] == learnt["loss_mean"]
        close(server.ask("critic_infer", **rows()), expected["after"])
        assert server.ask("critic_save", "save-1", step=np.array([1]))["status"].tolist() == [0]
        assert server.ask("critic_save", step=np.array([1]))["status"].tolist() == [0]
        toy_served.over(run / "plan.json")
        assert codes.result(60) == [0] * layout.world_size
    critic = run / "ppo" / "critic"
    assert [path.name for path in (critic / "checkpoint").glob("step-*")] == ["step-1"]
    [line] = [json.loads(line) for line in (critic / "metrics.jsonl").read_text().splitlines()]
    assert (line["step"], line["rows"], line["optimizer_steps"]) == (1, 12, 2)
    assert line["loss"] == pytest.approx(float(learnt["loss_mean"][0]), rel=1e-6)


def test_a_head_of_attributes_is_served_beside_what_it_is_merged_to(
    world: Any, tmp_path: Path, asker: Any
) -> None:
    found = toy_served.plan(toy_ppo.prompts(tmp_path), attributes=("kind", "clear"), scorer={"function": ""})
    found.jobs[0].settings["reward"]["merge"] = {"kind": 2.0, "clear": -1.0}
    with toy_served.serving(world, tmp_path / "run", found) as served:
        server = asker(*served)
        said = server.ask("reward_model", **rows())
        assert said["attributes"].shape == (6, 2)
        assert np.abs(said["attributes"]).min() > 0
        assert np.abs(said["rewards"][:, 0] - said["attributes"] @ [2.0, -1.0]).max() < 1e-6
        together = server.ask("critic_infer", **rows())
        assert np.array_equal(together["rewards"], said["rewards"])


def garbage(**changes: Any) -> dict[str, np.ndarray]:
    """Good rows but for what is changed: `name=(row, column, value)`, or another array."""
    found = {**lessons(3, 8), "schedule": np.array([0, 3])}
    for name, change in changes.items():
        found[name] = found[name].copy()
        if isinstance(change, tuple):
            found[name][change[:2]] = change[2]
        else:
            found[name] = change
    return found


BAD_ROWS = [
    ({"tokens": (1, 0, 259)}, "row 1 has token 259, outside the vocabulary of 259"),
    ({"tokens": (2, 1, -1)}, "row 2 has token -1"),
    ({"sequence_lengths": (0, 0, 0)}, "row 0 is said to have 0 tokens, but must have"),
    ({"sequence_lengths": (2, 0, 9)}, "row 2 is said to have 9 tokens"),
    ({"sequence_lengths": np.array([[2], [2]])}, "3 rows of tokens and 2 lengths"),
]
BAD_LESSONS = [
    ({"returns": (1, 2, np.nan)}, "row 1 of `returns` holds a number that is not finite"),
    ({"prev_values": (2, 0, np.inf)}, "row 2 of `prev_values`"),
    ({"mask": (0, 1, 0.5)}, "row 0 of `mask` holds a number that is neither 0 nor 1"),
    ({"mask": np.ones((3, 7), np.float32)}, "behind the row's"),
    ({"returns": np.zeros((3, 8), np.float32)}, r"`returns` has shape \[3, 8\], but must have \[3, 7\]"),
    ({"schedule": np.array([1, 3])}, "has learnt 0 steps, so it cannot learn step 2"),
    ({"schedule": np.array([0, 0])}, "says 0 steps in all"),
]


def test_garbage_is_refused_by_row_and_harms_nothing(
    world: Any, tmp_path: Path, asker: Any, folder: Path, expected: Any
) -> None:
    run = tmp_path / "run"
    with toy_served.serving(world, run, plan_in(folder, run)) as found:
        server = asker(*found)
        for changes, said in BAD_ROWS:
            given = garbage(**changes)
            two = {name: given[name] for name in ("tokens", "sequence_lengths")}
            for model, inputs in (("critic_infer", two), ("reward_model", two), ("critic_train", given)):
                with pytest.raises(InferenceServerException, match=said) as error:
                    server.ask(model, "same", **inputs)
                assert error.value.status() == "422"
        for changes, said in BAD_LESSONS:
            with pytest.raises(InferenceServerException, match=said) as error:
                server.ask("critic_train", **garbage(**changes))
            assert error.value.status() == "422"
        with pytest.raises(InferenceServerException, match="cannot be saved as step 4"):
            server.ask("critic_save", step=np.array([4]))
        too_long = {"tokens": np.zeros((1, 25), np.int64), "sequence_lengths": np.array([[25]])}
        with pytest.raises(InferenceServerException, match="row 0 has 25 tokens, and the model takes 24"):
            server.ask("reward_model", **too_long)
        close(server.ask("critic_infer", **rows()), expected["before"])


# ── with an actor ────────────────────────────────────────────────────────────────────────────────


SHORT = {"train": {"steps": 2, "validate_every": 2}, "ppo": {"critic_warmup_steps": 1}}
EQUAL = (
    "loss",
    "grad_norm",
    "reward",
    "kl",
    "response_length",
    "critic_loss",
    "critic_grad_norm",
    "critic_lr",
)


def told(run: Path, role: str) -> list[dict[str, Any]]:
    """A role's metrics, line by line."""
    return [json.loads(line) for line in (run / "ppo" / role / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def all_near(world: Any, folder: Path) -> list[dict[str, Any]]:
    """The run whose critic and reward model are in the actor's own processes."""
    import toy_runs

    into = folder / "all-near"
    into.mkdir()
    (into / "rm").symlink_to(folder / "rm")
    data = folder / "prompts.jsonl"
    found = toy_ppo.plan(data, reward=RM, validation=data, **STANDARD, **SHORT)
    assert world(1, toy_ppo.attempt, str(toy_runs.written(into, found))) == [0]
    return told(into, "actor")


CASTS = {
    "combined": {},
    "apart": {"apart": True},
    "actor-DP2": {"actor": Layout(dp=2)},
    "critic-DP2": {"layout": Layout(dp=2)},
}


@pytest.mark.parametrize("cast", CASTS)
def test_judges_far_away_change_no_number_of_a_run(
    world: Any, tmp_path: Path, folder: Path, all_near: list[dict[str, Any]], cast: str
) -> None:
    run = tmp_path / "run"
    found = plan_in(folder, run, validation=folder / "prompts.jsonl", **SHORT, **CASTS[cast])
    codes = toy_served.run(world, run, found)
    assert codes == [0] * len(codes)
    *steps, measured = told(run, "actor")
    *theirs, wanted = all_near
    assert measured["validation_reward"] == pytest.approx(wanted["validation_reward"], rel=1e-4)
    assert len(steps) == 2
    for step, other in zip(steps, theirs, strict=True):
        for key in EQUAL:
            assert step[key] == pytest.approx(other[key], rel=1e-4, abs=1e-6), key
    warmup, *learnt = told(run, "critic")
    assert (warmup["step"], warmup["warmup"]) == (1, 1)
    assert [line["loss"] for line in learnt] == pytest.approx([step["critic_loss"] for step in steps])
    assert sorted(path.name for path in (run / "ppo" / "commits").iterdir()) == ["1.json", "2.json"]


def lines(run: Path, role: str) -> list[tuple[Any, ...]]:
    """What must not depend on interruptions."""
    keys = ("step", "loss", "grad_norm", "lr", "reward", "kl", "critic_loss")
    return [tuple(line.get(key) for key in keys) for line in told(run, role)]


def test_both_sides_go_on_from_the_commit_when_killed_before_the_next(
    world: Any, tmp_path: Path, folder: Path
) -> None:
    run = tmp_path / "run"
    found = plan_in(folder, run, train={"steps": 3, "keep_last": 2})
    assert toy_served.run(world, run, found) == [0, 0]
    stage = run / "ppo"
    whole = [lines(run, role) for role in ("actor", "critic")]
    assert [line[0] for line in whole[0]] == [line[0] for line in whole[1]] == [1, 2, 3]
    # as if killed when only the critic had saved step 3: the actor has not, and there is no commit
    (stage / "output.json").unlink()
    (stage / "commits" / "3.json").unlink()
    shutil.rmtree(stage / "actor" / "checkpoint" / "step-3")
    assert toy_served.run(world, run, found, "2") == [0, 0]
    assert [lines(run, role) for role in ("actor", "critic")] == whole
    assert sorted(path.name for path in (stage / "commits").iterdir()) == ["1.json", "2.json", "3.json"]
    assert sorted(path.name for path in (stage / "critic/checkpoint").glob("step-*")) == [
        "step-1",
        "step-2",
        "step-3",
    ]
    kept = stage / "attempts" / "2" / "critic" / "metrics-after-step-2.jsonl"
    assert json.loads(kept.read_text())["step"] == 3


# ── faults ───────────────────────────────────────────────────────────────────────────────────────


def error_of(run: Path, group: str = "critic", rank: int = 0) -> dict[str, Any]:
    return json.loads((run / "ppo" / "attempts" / "1" / group / f"error-{rank}.json").read_text())


def test_a_reward_that_is_no_number_is_never_sent_and_ends_the_server(
    world: Any, tmp_path: Path, asker: Any
) -> None:
    plain = toy_served.plan(toy_ppo.prompts(tmp_path))
    world(1, toy_served.trained_reward, str(tmp_path), plain, broken=True)
    run = tmp_path / "run"
    with toy_served.serving(world, run, plan_in(tmp_path, run)) as found:
        server = asker(*found)
        with pytest.raises(InferenceServerException, match="the reward of row 0 is nan") as error:
            server.ask("critic_infer", **rows())
        assert error.value.status() == "500"
        assert found[2].result(30) == [1]
    assert error_of(run)["code"] == "R054"


def test_a_server_that_is_killed_fails_its_clients_by_name(
    world: Any, tmp_path: Path, asker: Any, folder: Path
) -> None:
    run = tmp_path / "run"
    with toy_served.serving(world, run, plan_in(folder, run)) as (address, token, codes):
        asker(address, token, codes).ask("critic_infer", **rows())
        os.kill(json.loads((run / "ppo" / "critic" / ".lock").read_text())["process"], signal.SIGKILL)
        client = Client(f"http://{address}", token, Patience(away=1))
        with pytest.raises(Problem, match=f"R052: the server at http://{address} was away for 1 s"):
            client.infer("critic_infer", rows(), (VALUES,))
        client.close()
        with pytest.raises(worlds.WorldFailed, match="rank 0 died"):
            codes.result(30)


def falling(plan_file: str, groups: dict[str, int], ports: Any, victim: tuple[str, int], moment: str) -> int:
    """One process of the job; the victim is killed at the first lesson, or before its first rows."""
    import runtime.critic as critics
    from runtime.algorithms import serve

    everyone = [(group, rank) for group, size in groups.items() for rank in range(size)]
    if everyone[int(os.environ["RANK"])] == victim:
        kill = lambda *args, **how: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
        if moment == "train":
            critics.critic_loss = kill
        else:
            serve.heard = kill
    return toy_served.started(plan_file, groups, ports)


def codes_of_all(forks: Any, folder: Path, found: Plan, victim: tuple[str, int], moment: str) -> list[int]:
    """Exit codes of the actor's and the servers' processes, one of which is killed (-9)."""
    from functools import partial

    import toy_runs

    file, groups = toy_runs.written(folder, found), toy_served.sizes(found.jobs[0])
    ports, workers = toy_served.ports_of(groups), []
    task = partial(falling, str(file), groups, ports, victim, moment)
    for rank in range(sum(groups.values())):
        environment = worlds.environment_of(rank, sum(groups.values()), 1) | {"SPECC_ATTEMPT": "1"}
        workers.append(forks.Process(target=exits, args=(environment, task)))
        workers[-1].start()
    try:
        for worker in workers:
            worker.join(90)
        return [worker.exitcode for worker in workers]
    finally:
        worlds.stop(workers)


def exits(environment: dict[str, str], task: Any) -> None:
    import torch

    os.setpgid(0, 0)
    os.environ.update(environment)
    torch.set_num_threads(1)
    os._exit(task())


VICTIMS = {
    "one rank of a TP2 server while it scores": (LAYOUTS["TP2"], ("critic", 1), "score"),
    "the leading rank of a TP2 server while it scores": (LAYOUTS["TP2"], ("critic", 0), "score"),
    "the server in the middle of a step it learns": (Layout(), ("critic", 0), "train"),
    "one rank of a server in the middle of a step it learns": (LAYOUTS["TP2"], ("critic", 1), "train"),
}


@pytest.mark.parametrize("name", VICTIMS)
def test_a_rank_that_is_killed_ends_all_and_is_named(
    forks: Any, tmp_path: Path, folder: Path, name: str
) -> None:
    layout, (group, rank), moment = VICTIMS[name]
    run = tmp_path / "run"
    found = plan_in(folder, run, layout, train={"steps": 2}, collective_timeout_seconds=20)
    codes = codes_of_all(forks, run, found, (group, rank), moment)
    actor, *servers = codes
    assert servers[rank] == -signal.SIGKILL
    assert actor in (1, 3)
    assert error_of(run, "actor")["code"] == "R052"
    for other in range(len(servers)):
        if other != rank:
            assert servers[other] in (1, 3)
            said = error_of(run, "critic", other)
            assert said["code"] in ("R054", "R057")
            assert f"rank {rank} of this group went away" in said["message"]
            assert "gloo" not in said["message"]


def test_a_port_that_is_taken_is_said_before_anything_is_loaded(world: Any, tmp_path: Path) -> None:
    import toy_runs

    found = toy_served.plan(toy_ppo.prompts(tmp_path))
    file = toy_runs.written(tmp_path / "run", found)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        ports = {"critic": [worlds.free_port(), taken.getsockname()[1]]}
        began = time.monotonic()
        assert world(1, toy_served.started, str(file), {"critic": 1}, ports) == [1]
    assert time.monotonic() - began < 20
    said = error_of(tmp_path / "run")
    assert (said["code"], "another server may hold that port" in said["message"]) == ("R050", True)
    assert not (tmp_path / "run" / "ppo" / "attempts" / "1" / "token").exists()


@pytest.mark.parametrize("said", ["", "20480", ":20480", "localhost:", "localhost:99999", "localhost:x"])
def test_a_server_that_is_not_told_where_to_listen_says_so(said: str) -> None:
    from runtime.serving.group import listen

    with pytest.raises(Problem, match="R050: SPECC_LISTEN is"):
        listen({"SPECC_LISTEN": said})


def test_roles_that_live_with_others_are_not_started_alone(world: Any, tmp_path: Path) -> None:
    import toy_runs

    file = toy_runs.written(tmp_path / "run", toy_served.plan(toy_ppo.prompts(tmp_path)))
    assert world(1, toy_ppo.attempt, str(file), "1", "reward") == [1]


# ── text ─────────────────────────────────────────────────────────────────────────────────────────


SENTENCES = ["What is it?", "Grüße, 世界", "x"]


def sentences(lines: list[bytes] | None = None) -> dict[str, np.ndarray]:
    """As an annotation client sends them: UTF-8, a line each."""
    given = lines or [line.encode() for line in SENTENCES]
    return {"sentences": np.array(given, dtype=np.object_)[:, None]}


def test_the_stock_client_sends_text_and_gets_what_its_tokens_get(
    world: Any, tmp_path: Path, asker: Any, folder: Path
) -> None:
    from runtime import tokenizer

    encoded = [tokenizer.load("builtin:bytes").encode(line) for line in SENTENCES]
    tokens = np.zeros((3, max(map(len, encoded))), np.int64)
    for row, line in zip(tokens, encoded, strict=True):
        row[: len(line)] = line
    lengths = np.array([[len(line)] for line in encoded])
    run = tmp_path / "run"
    with toy_served.serving(world, run, plan_in(folder, run, train={"tensorboard": True})) as found:
        server = asker(*found)
        for name in ("critic_infer", "reward_model"):
            said = server.ask(name, **sentences())
            wanted = server.ask(name, tokens=tokens, sequence_lengths=lengths)
            assert said.keys() == wanted.keys()
            assert all(np.array_equal(said[key], wanted[key]) for key in said)
        alone = server.ask("reward_model", **sentences([SENTENCES[1].encode()]))  # one at a time, as it does
        assert alone["rewards"].shape == (1, 1)
        assert abs(alone["rewards"][0, 0] - wanted["rewards"][1, 0]) < 1e-5
        bad = [
            (sentences([b"fine", b"\xff\xfe"]), "sentence 1 is not UTF-8: invalid start byte at byte 0"),
            (sentences([b""]), "row 0 is said to have 0 tokens"),
            (sentences([b"a" * 4000]), "row 0 has 4000 tokens, and the model takes 24"),
            ({**sentences(), "tokens": tokens}, "either `sentences` or `tokens`, not both"),
            ({"tokens": tokens}, "needs `tokens` and `sequence_lengths`, or `sentences`"),
        ]
        for inputs, words in bad:
            with pytest.raises(InferenceServerException, match=words):
                server.ask("reward_model", **inputs)
        server.ask("critic_train", **lessons(4, 8), schedule=np.array([0, 3]))
    events = list((run / "ppo" / "critic" / "tensorboard").glob("events.*"))
    assert events
    assert any(b"grad_norm" in file.read_bytes() for file in events)
