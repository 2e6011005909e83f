"""What a spec says of a stage that makes rows is what its program does: text in, rows out, no torch.

Each program without a model gets the settings that its spec's section becomes, and rows; what comes out has
to change with each of them as the section's docstrings say. Every key that is emitted is read, and nothing
else.
"""

from __future__ import annotations

import ast
import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from runtime.data.blend import blended
from runtime.making import Making
from runtime.place import Place
from runtime.problem import Problem
from specc import source
from specc.experiment import check
from specc.graph import Stage, lower
from specc.plan import FORMAT, NO_MODEL, Cluster, Job, Layout, Plan, Role

ROOT = Path(__file__).parent.parent
CLUSTER = Cluster("local-cpu", "none", "cpu", 1, "cpu", "gloo")


class Kept(Making):
    """A stage whose rows stay in memory, in one process."""

    kept: list[dict[str, Any]]

    def put(self, rows: Any) -> None:
        self.kept += [dict(row) for row in rows]

    def on_first(self, action: Any) -> Any:
        return action()

    def is_told_to_stop(self) -> bool:
        return False


def stage(algorithm: str, data: Any, **section: Any) -> Stage:
    """The only stage of a spec of this algorithm."""
    own = {key: value for key, value in section.items() if key in ("model", "function")}
    said = {key: value for key, value in section.items() if key not in own}
    spec = {"name": "toy", "algorithm": algorithm, "data": data, **own} | ({algorithm: said} if said else {})
    read, _ = source.parse(source.dump(spec), "spec.yaml")
    experiment, wrong = check(read)
    assert experiment, [d.message for d in wrong]
    graph, wrong = lower(experiment)
    assert not wrong, [d.message for d in wrong]
    return graph.stages[0]


def made(folder: Path, lowered: Stage) -> list[dict[str, Any]]:
    """The rows that the stage's program makes."""
    program = lowered.algorithm
    [asked] = lowered.roles
    role = Role("clerk", program, 1, 0, Layout(), 1, asked.global_batch, NO_MODEL, trains=False)
    job = Job("s", "s", 1, (), (role,), json.loads(json.dumps(lowered.settings)), {})
    [use] = lowered.data.values()
    parts = blended(use if isinstance(use, list) else [use], seed=1, cache=folder)
    place = Place(folder, folder, folder, folder, 0, 1, 0, 1)
    run = Kept(Plan(FORMAT, "toy", "0", 1, CLUSTER, (job,)), job, role, place, None, parts)  # type: ignore[arg-type]
    run.kept = []
    module = importlib.import_module(f"runtime.algorithms.{program}")
    run.opened = module.opening(run) if hasattr(module, "opening") else None
    while run.step < run.max_steps:
        module.step(run)
        run.step += 1
    closing = getattr(module, "closing", None)
    return list(closing(run, lambda: iter(run.kept))) if closing else run.kept


@pytest.fixture
def rows(tmp_path):
    """rows(algorithm, its rows, settings...): what comes out."""

    def rows(algorithm: str, given: list[dict[str, Any]], **section: Any) -> list[dict[str, Any]]:
        data = {"rows": written(tmp_path / "rows.jsonl", given)}
        return made(tmp_path, stage(algorithm, data, **section))

    return rows


def written(file: Path, rows: list[dict[str, Any]]) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(file)


def answers(*said: tuple[str, float, str]) -> list[dict[str, Any]]:
    return [
        {"input": prompt, "output": f"{number}", "reward": reward, "finish": finish}
        for number, (prompt, reward, finish) in enumerate(said)
    ]


ANSWERS = answers(
    ("a", 1.0, "stop"), ("a", 3.0, "length"), ("a", 2.0, "stop"), ("b", 0.25, "stop"), ("b", 0.0, "length")
)  # fmt: skip


def numbers(found: list[dict[str, Any]]) -> list[int]:
    """The places that rows had."""
    return [int(row["output"]) for row in found]


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ({}, [1, 3]),
        ({"keep": 2}, [1, 2, 3, 4]),
        ({"truncated": "drop"}, [2, 3]),
        ({"keep": 2, "truncated": "drop"}, [2, 0, 3]),
    ],
)
def test_best_of_n_does_as_its_section_says(rows, said, left):
    assert numbers(rows("best_of_n", ANSWERS, **said)) == left


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ({}, [0, 1, 2, 3]),
        ({"threshold": 1}, [1, 2]),
        ({"threshold": -1}, [0, 1, 2, 3, 4]),
        ({"truncated": "drop"}, [0, 2, 3]),
    ],
)
def test_above_does_as_its_section_says(rows, said, left):
    assert numbers(rows("above", ANSWERS, **said)) == left


@pytest.mark.parametrize(
    ("said", "prompt"),
    [
        ({}, "b <rm_score>: 0.2 "),
        ({"decimals": 3}, "b <rm_score>: 0.250 "),
        ({"decimals": 0, "template": "[{reward}] {input}"}, "[0] b"),
    ],
)
def test_reward_prompt_does_as_its_section_says(rows, said, prompt):
    found = rows("reward_prompt", ANSWERS, **said)
    assert numbers(found) == [0, 1, 2, 3, 4]
    assert found[3]["input"] == prompt


# ── score ────────────────────────────────────────────────────────────────────────────────────────

TEXTS = [{"input": "x" * n, "output": "y", "other": "zz" * n} for n in (1, 2, 3)]


def length(prompt: str, response: str) -> float:
    """A reward for a test: what it was given."""
    return float(len(prompt) + 100 * len(response))


@pytest.mark.parametrize(
    ("said", "rewards"),
    [
        ({}, [101, 102, 103]),
        ({"prompt": "{other}"}, [102, 104, 106]),
        ({"response": "{output}{output}"}, [201, 202, 203]),
        ({"clip": 102.5}, [101, 102, 102.5]),
        ({"standardise": True}, [-1, 0, 1]),
        ({"standardise": True, "clip": 0.5}, [-0.5, 0, 0.5]),
        ({"standardise": {"mean": 101, "std": 2}}, [0, 0.5, 1]),
        ({"standardise": {"mean": 101, "std": 2}, "clip": 0.75}, [0, 0.5, 0.75]),
        ({"batch": 1}, [101, 102, 103]),
    ],
)
def test_a_score_by_a_function_does_as_its_section_says(rows, said, rewards):
    found = rows("score", TEXTS, function=f"{__name__}:length", **said)
    assert [row["reward"] for row in found] == pytest.approx(rewards)


# ── mix ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("first", "second", "order"),
    [
        ({}, {}, "aaab"),
        ({"repeat": 2}, {}, "aaaaaab"),
        ({"limit": 1}, {}, "ab"),
        ({"weight": 1}, {"weight": 1}, "abab"),
        ({"weight": 3}, {"weight": 1}, "aaba"),
    ],
)
def test_mix_does_as_its_sources_say(tmp_path, first, second, order):
    files = {
        name: written(tmp_path / f"{name}.jsonl", [{"of": name}] * n) for name, n in (("a", 3), ("b", 1))
    }
    sources = [{"path": files["a"], **first}, {"path": files["b"], **second}]
    found = made(tmp_path, stage("mix", {"sources": sources}))
    assert "".join(row["of"] for row in found) == order


def test_a_source_of_a_mix_that_is_not_there_is_told(tmp_path):
    with pytest.raises(Problem, match="gone"):
        made(tmp_path, stage("mix", {"sources": [str(tmp_path / "gone.jsonl")]}))


# ── keys ─────────────────────────────────────────────────────────────────────────────────────────

ELSEWHERE = {
    "score": {"batch": "making", "merge": "scoring", "mean": "scoring", "std": "scoring"},
    "generate": {"batch": "making", "slice": "making"}
    | dict.fromkeys(("engine", "rows", "reshard", "unload"), "samplers"),
}
"""Keys that other modules of the runtime read of a program's section."""

PLANNED = {"generate": {"expected_tokens", "expected_prompt_tokens", "family"}}
"""Keys that stand in the plan for people: what its predictions are made of, and a name that engines read off
the weights themselves."""

SPECS = {
    "above": {},
    "best_of_n": {},
    "reward_prompt": {},
    "mix": {},
    "score": {"function": "builtin:gsm8k"},
    "generate": {"model": "tiny-llama"},
}
DATA = {"mix": {"sources": ["x.jsonl"]}, "generate": {"prompts": "x.jsonl"}}


def fields_of(module: str, name: str) -> set[str]:
    """The fields of a dataclass, read off the text: its module may need torch."""
    tree = ast.parse((ROOT / "runtime" / f"{module}.py").read_text(encoding="utf-8"))
    found = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    return {each.target.id for node in found for each in node.body if isinstance(each, ast.AnnAssign)}  # type: ignore[union-attr]


@pytest.mark.parametrize("program", SPECS)
def test_what_the_plan_says_is_what_the_program_reads(program):
    emitted = set(stage(program, DATA.get(program, {"rows": "x.jsonl"}), **SPECS[program]).settings[program])
    read = fields_of(f"algorithms/{program}", "Settings") | PLANNED.get(program, set())
    if program == "generate":
        read |= fields_of("sampling", "Sampling") - {"seed"}
    for key, module in ELSEWHERE.get(program, {}).items():
        text = (ROOT / "runtime" / f"{module}.py").read_text(encoding="utf-8")
        assert f'.get("{key}")' in text or f'["{key}"]' in text, f"{module} does not read `{key}`"
        read.add(key)
    assert emitted == read


def test_a_section_holds_nothing_that_is_lost_on_the_way():
    """Keys of the spec's section are keys of the plan's, but for what the planner takes up itself."""
    for program in ("above", "best_of_n", "reward_prompt", "score", "generate"):
        module = importlib.import_module(f"specc.algorithms.{program}")
        section = set(module.Spec.model_fields[program].annotation.model_fields)
        emitted = set(
            stage(program, DATA.get(program, {"rows": "x.jsonl"}), **SPECS[program]).settings[program]
        )
        taken = {"score": {"attributes", "micro_batch"}}.get(program, set())
        assert section - taken <= emitted


# ── nothing is left ──────────────────────────────────────────────────────────────────────────────


def test_a_selector_that_leaves_nothing_says_so_itself(rows):
    cut = [{"input": "a", "output": "b", "reward": 1.0, "finish": "length"}]
    with pytest.raises(Problem, match=r"R011: none of the 1 rows has a reward above the threshold of 2"):
        rows("above", cut, threshold=2)
    with pytest.raises(Problem, match=r"R011: all 1 responses were cut .* use truncated: keep"):
        rows("best_of_n", cut, truncated="drop")
