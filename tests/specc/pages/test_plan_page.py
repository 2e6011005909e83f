"""The page of a plan, looked at in a real browser without a network."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from specc import cli
from specc.compile import compile_spec
from specc.plan import to_json

pytestmark = pytest.mark.slow  # a browser is started

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

OUTSIDE = """() => [...document.querySelectorAll('svg')].flatMap(svg => {
  const box = svg.getBoundingClientRect();
  return [...svg.querySelectorAll('text,rect,circle')].filter(e => {
    const r = e.getBoundingClientRect();
    return r.left < box.left - 2 || r.right > box.right + 2 ||
           r.top < box.top - 6 || r.bottom > box.bottom + 6;
  }).map(e => e.textContent || e.tagName);
})"""

OVERLAP = """() => [...document.querySelectorAll('svg')].flatMap(svg => {
  const all = [...svg.querySelectorAll('text')].map(e => [e.textContent, e.getBoundingClientRect()]);
  return all.flatMap(([a, p], i) => all.slice(i + 1).filter(([b, q]) =>
    p.left < q.right - 1 && q.left < p.right - 1 && p.top < q.bottom - 3 && q.top < p.bottom - 3)
    .map(([b]) => a + ' / ' + b));
})"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.mark.parametrize("width", [1100, 420])
@pytest.mark.parametrize("spec", ["sft_llama3_70b", "sft_two_stages", "sft_tiny"])
def test_the_page_shows_everything_and_loads_nothing(
    spec: str, width: int, browser: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "plan.html"
    overrides = ["--set", "nodes=null"] if spec == "sft_llama3_70b" else []
    assert cli.run(["plan", f"specs/{spec}.yaml", "--html", str(file), *overrides]) == 0
    assert "wrote" in capsys.readouterr().err

    page = browser.new_page(viewport={"width": width, "height": 800}, offline=True)
    asked: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(file.as_uri())
    assert asked == [file.as_uri()]
    assert not errors
    assert page.inner_text("h1")
    headings = page.locator("h2").all_inner_texts()
    assert headings[0] == "Stages"
    assert headings[-1] == "Numbers"
    if spec == "sft_llama3_70b":
        assert headings[1:-1] == ["Memory", "Phases", "Choices for sft"]
    assert page.evaluate(OUTSIDE) == []
    assert page.evaluate(OVERLAP) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_the_report_of_a_run_is_drawn_within_its_frames(browser: Any, tmp_path: Path) -> None:
    """The folder is written by hand: what a run leaves is read, not trained, here."""
    plan = compile_spec("specs/sft_tiny.yaml").plan
    assert plan is not None
    folder = tmp_path / "run"
    (folder / "sft").mkdir(parents=True)
    (folder / "plan.json").write_text(to_json(plan))
    values = [{"step": i, "loss": 6 / i, "lr": 1e-5, "grad_norm": -(i % 3)} for i in range(1, 400)]
    (folder / "sft/metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in values))
    assert cli.run(["report", str(folder)]) == 0
    for width in (1100, 420):
        page = browser.new_page(viewport={"width": width, "height": 800}, offline=True)
        page.goto((folder / "report.html").as_uri())
        assert page.locator("polyline").count() == 6  # three metrics, each with its average
        assert page.evaluate(OUTSIDE) == []
        assert page.evaluate(OVERLAP) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.close()


def test_a_page_that_cannot_be_written_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["plan", "specs/sft_tiny.yaml", "--html", str(tmp_path / "none" / "p.html")]) == 3
    assert "cannot write" in capsys.readouterr().err
