"""What every test may use: a spec as text in, a compilation out; a toy cluster; `--update`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples on every run: what chance finds belongs into a test of its own, not into somebody's CI.
# A test that wants more or fewer than others asks for a multiple of `settings().max_examples`.
settings.register_profile("suite", derandomize=True, deadline=None, max_examples=100)
settings.register_profile("fast", settings.get_profile("suite"), max_examples=20)
settings.load_profile("suite")

TOY_CLUSTER = "gpus: {type: h100-80gb, per_node: 8}\nslurm: {account: toy, partition: batch, time: 4h}\n"

TOY_SPEC = """\
name: toy
cluster: toy
algorithm: sft
model: {shape: {layers: 2, hidden: 64, heads: 4}}
data: {train: "builtin:arithmetic"}
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update", action="store_true", help="rewrite the expected texts; the diff is the review"
    )


def pytest_configure(config: pytest.Config) -> None:
    """The lane without the slow tests tries a fifth of the examples of a law; the whole suite tries all."""
    if _leaves_out("slow", config):
        settings.load_profile("fast")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A lane without torch does not import the modules of which every test needs it: it takes seconds."""
    if not _leaves_out("torch", config) or collection_path.suffix != ".py":
        return None
    return bool(_ALL_TORCH.search(collection_path.read_text(encoding="utf-8"))) or None


_ALL_TORCH = re.compile(r"^pytestmark = .*\bpytest\.mark\.torch\b", re.MULTILINE)


def _leaves_out(mark: str, config: pytest.Config) -> bool:
    """Whether no test of this mark is asked for: `-m 'not torch and not slow'`."""
    asked = config.option.markexpr
    return " or " not in asked and f"not {mark}" in [each.strip() for each in asked.split(" and ")]


@pytest.fixture(autouse=True)
def _no_profiles_of_this_person(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Cluster profiles and settings of whoever runs the tests stay out of them."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.getbasetemp() / "no-config"))


@pytest.fixture
def toy_spec() -> str:
    """A complete spec of a tiny model on generated data."""
    return TOY_SPEC


@pytest.fixture
def compile_text(tmp_path: Path) -> Callable[..., object]:
    """Compile a spec given as text: `compile_text("name: toy...", overrides=["train.lr=1"], files={...})`."""

    def compiled(
        text: str = TOY_SPEC,
        overrides: Sequence[str] = (),
        files: Mapping[str, str | bytes] = {},
        **more: object,
    ) -> object:
        from specc.compile import compile_spec

        for name, content in {"clusters/toy.yaml": TOY_CLUSTER, **files, "spec.yaml": text}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return compile_spec(tmp_path / "spec.yaml", overrides, **more)  # type: ignore[arg-type]

    return compiled


def updating(request: pytest.FixtureRequest) -> bool:
    """Whether expected texts are to be rewritten."""
    return bool(request.config.getoption("--update"))
