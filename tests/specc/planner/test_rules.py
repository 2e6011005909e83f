"""Each rule by an example: what it says, and that the legal neighbour passes."""

import dataclasses
from typing import Any

import pytest

from specc import models
from specc.plan import Layout
from specc.planner import hardware, rules
from specc.planner.memory import Workload
from specc.planner.rules import Case


def case(
    model: str = "llama3-70b", nodes: int = 4, gpus: int = 8, gpu: str = "h100-80gb", **said: Any
) -> Case:
    layout = {key: said.pop(key) for key in list(said) if key in Layout.__dataclass_fields__}
    sizes = {"tp": 1, "pp": 1, "cp": 1} | {k: v for k, v in layout.items() if k in ("tp", "pp", "cp")}
    cut = sizes["tp"] * sizes["pp"] * sizes["cp"]
    rest = nodes * gpus // cut if cut > 0 else 1
    layout = {"dp": max(1, rest), "sequence_parallel": sizes["tp"] > 1} | layout
    micro_batch = said.pop("micro_batch", 1)
    work = Workload(models.catalog()[model].shape, **({"seq_length": 4096, "global_batch": 128} | said))
    found = hardware.gpu(gpu)
    assert found is not None
    return Case(work, found, nodes, gpus, Layout(**layout), micro_batch)


def said(given: Case) -> list[tuple[str, str]]:
    return [(broken.code, broken.message) for broken in rules.broken(given)]


@pytest.mark.parametrize(
    "given",
    [
        case(tp=8, pp=2),
        case(tp=8, pp=4, vp=2, micro_batch=1),
        case("llama3.1-405b", nodes=16, tp=8, pp=16, stage_layers=(7, *[8] * 14, 7)),
        case("llama3.1-405b", nodes=16, tp=4, pp=16, vp=8, stage_layers=(0, *[1] * 126, 0)),
        case("qwen2.5-7b", nodes=1, tp=4),
        case("qwen3-30b-a3b", nodes=1, tp=8, etp=8),  # more TP than KV groups
        case("mixtral-8x7b", nodes=2, tp=2, ep=8),
        case("llama3.1-8b", nodes=2, cp=4, tp=2, seq_length=131072, global_batch=8),
        case("tiny-llama", gpu="cpu", nodes=1, gpus=4, tp=2, pp=2, implementation="local"),
        case("llama3.1-405b", nodes=18, gpus=4, gpu="gb200", tp=8, pp=9, global_batch=144),
        case("llama3.1-405b", nodes=64, gpus=4, gpu="gb200", tp=16, pp=16),  # of a rack, 64 GPUs
        case("llama3.1-8b", cp=2, tp=4, seq_length=4104, framework="megatron"),
    ],
    ids=lambda given: str(given.layout),
)
def test_layouts_that_people_run_are_legal(given: Case):
    assert said(given) == []
    assert rules.is_legal(given)


@pytest.mark.parametrize(
    ("given", "code", "message"),
    [
        (case(tp=0), "P010", "tp 0 is not a size"),
        (case(tp=1, micro_batch=0), "P010", "micro_batch 0 is not a size"),
        (case(tp=8, pp=3), "P011", "4 nodes x 8 GPUs = 32 is not a multiple of tp 8 x pp 3 = 24"),
        (case("qwen2.5-7b", tp=8), "P012", "28 attention heads do not divide by tp 8"),
        (
            case("qwen2.5-14b", gpus=5, tp=5),
            "P013",
            "tp 5 is neither a divisor nor a multiple of 8 key-value groups",
        ),
        (
            case("gpt-2b-001", gpus=16, nodes=1, tp=3),
            "P014",
            "the feed-forward width 5440 does not divide by tp 3",
        ),
        (case(tp=16), "P015", "tp 16 is larger than a node of 8 GPUs"),
        (case(gpus=6, nodes=2, tp=4), "P015", "tp 4 does not divide a node of 6 GPUs"),
        (case(nodes=16, pp=128, global_batch=1), "P016", "80 layers cannot fill pp 128 = 128 stages"),
        (case(tp=8, pp=4, stage_layers=(20, 20, 20, 21)), "P016", "does not deal 80 layers to pp 4"),
        (case(tp=8, pp=4, stage_layers=(0, 30, 30, 20)), "P016", "a stage of stage_layers has no layer"),
        (case(pp=4, vp=2, stage_layers=(20, 0, 10, 10, 10, 10, 10, 10)), "P016", "a stage of stage_layers"),
        (case(pp=4, vp=32), "P016", "80 layers cannot fill pp 4 x vp 32 = 128 stages"),
        (case(vp=2), "P017", "vp 2 needs a pipeline, but pp is 1"),
        (case(tp=8, pp=4, vp=2, global_batch=2), "P017", "micro-batches (2) that are a multiple of pp 4"),
        (
            case(tp=8, global_batch=6),
            "P018",
            "global_batch 6 is not a multiple of micro_batch 1 x data-parallel 4 = 4",
        ),
        (case(tp=8, seq_length=1001), "P019", "seq_length 1001 is not a multiple of tp 8 = 8"),
        (
            case(tp=8, cp=4, seq_length=4104),
            "P019",
            "seq_length 4104 is not a multiple of 2 x cp 4 x tp 8 = 64",
        ),
        (case(cp=2, implementation="local"), "P020", "cp 2 needs Transformer Engine's attention"),
        (
            case(cp=2, tp=4, seq_length=4104),
            "P019",
            "seq_length 4104 is not a multiple of 2 x cp 2 x tp 4 = 16",
        ),
        (case(nodes=32, gpus=4, gpu="gb200", tp=128), "P015", "tp 128 is larger than an NVLink domain of 72"),
        (case(ep=2), "P021", "ep 2 needs experts, but the model is dense"),
        (case("mixtral-8x7b", ep=3, nodes=3), "P021", "8 experts do not divide by ep 3"),
        (
            case("mixtral-8x7b", nodes=1, tp=4, pp=2, ep=8),
            "P021",
            "ep 8 x etp 1 does not divide tp x cp x dp = 4",
        ),
        (case(gpu="a100-80gb", precision="fp8"), "P027", "a100-80gb has no fp8 products"),
    ],
    ids=lambda given: given if isinstance(given, str) and given.startswith("P") else "",
)
def test_an_illegal_layout_is_told_which_rule_and_which_numbers(given: Case, code: str, message: str):
    assert any(found == code and message in text for found, text in said(given)), said(given)
    assert not rules.is_legal(given)


def test_layers_need_not_divide_by_pp():
    assert said(case("llama3.1-405b", nodes=16, tp=8, pp=16, stage_layers=(8,) * 15 + (6,))) == []


def test_learned_positions_bound_a_row():
    shape = dataclasses.replace(models.catalog()["gpt-2b-001"].shape, position="learned")
    given = case("gpt-2b-001", seq_length=8192)
    given = dataclasses.replace(given, work=dataclasses.replace(given.work, shape=shape))
    assert ("P022", "seq_length 8192 is more than the 4096 learned positions of the model") in said(given)


def test_every_rule_says_what_to_do_about_it():
    for given in (case(tp=8, pp=3), case(tp=16), case("qwen2.5-7b", tp=8), case(vp=2), case(ep=2)):
        assert all(broken.help for broken in rules.broken(given))


def test_the_help_names_sizes_that_work():
    assert rules.broken(case(tp=8, pp=3))[0].help == "use nodes: 3, or a smaller layout"
    assert rules.broken(case("qwen2.5-7b", tp=8))[0].help == "use tp: 1, 2 or 4"


def test_every_code_belongs_to_one_rule():
    """The code of a rule is written once, in the function that checks it."""
    import inspect
    import re

    codes = [set(re.findall(r'"(P\d{3})"', inspect.getsource(rule))) for rule in rules.RULES]
    assert all(len(found) == 1 for found in codes)
    assert len(set.union(*codes)) == len(rules.RULES)


def test_every_code_that_is_raised_is_explained():
    import re
    from pathlib import Path

    import specc
    from specc.codes import CODES

    root = Path(specc.__file__).parent
    files = [root / "models.py", *(root / "planner").glob("*.py")]
    raised = {code for file in files for code in re.findall(r'"(P\d{3})"', file.read_text())}
    assert raised <= set(CODES)
