"""What every test may use: a spec as text in, a compilation out; a toy cluster; `--update`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples on every run: what chance finds belongs into a test of its own, not into somebody's CI.
settings.register_profile("suite", derandomize=True, deadline=None)
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
