"""What is computed again: the value, its way from a spec into the plan, and what it saves."""

import dataclasses

import pytest

from specc import models
from specc.plan import Layout
from specc.planner import activations, hardware, rules
from specc.planner.recompute import MODULES, Recompute
from specc.planner.rules import Case
from specc.planner.workload import Workload

LLAMA, MIXTRAL = (models.catalog()[name].shape for name in ("llama3-8b", "mixtral-8x7b"))
BIASED = dataclasses.replace(LLAMA, linear_bias=True)


def kept(work: Workload, recompute: str, layers: int = 8) -> float:
    return activations.chunk_bytes(work, Layout(), 1, recompute).held(layers)


def test_a_block_counts_layers_and_nothing_said_is_all_of_them():
    assert [Recompute("full", n).whole_layers(8) for n in (0, 3, 9)] == [8, 3, 8]
    assert Recompute("selective", 3).whole_layers(8) == 0


@pytest.mark.parametrize("implementation", ["te", "local"])
@pytest.mark.parametrize("shape", [LLAMA, MIXTRAL], ids=["dense", "experts"])
def test_more_that_is_computed_again_never_keeps_more(shape, implementation):
    plain = Workload(shape, 2048, 8, implementation=implementation)
    whole = kept(plain, "none")
    blocks = [kept(dataclasses.replace(plain, recompute_layers=n), "full") for n in range(1, 9)]
    assert [whole, *blocks] == sorted([whole, *blocks], reverse=True)
    assert blocks[-1] == kept(plain, "full")
    for module in MODULES:
        one = kept(dataclasses.replace(plain, recompute_modules=(module,)), "selective")
        both = kept(dataclasses.replace(plain, recompute_modules=("core_attn", module)), "selective")
        assert both <= one <= whole


def codes(work: Workload, recompute: str) -> list[str]:
    case = Case(work, hardware.gpu("h100-80gb"), 1, 8, Layout(dp=8), 1, recompute)
    return [each.code for each in rules.broken(case)]


@pytest.mark.parametrize(
    ("shape", "recompute", "details", "code"),
    [
        (LLAMA, "full", {"recompute_layers": 4}, []),
        (LLAMA, "selective", {"recompute_layers": 4}, ["P024"]),
        (LLAMA, "full", {"recompute_layers": 33}, ["P024"]),
        (LLAMA, "full", {"recompute_modules": ("mlp",)}, ["P024"]),
        (LLAMA, "selective", {"recompute_modules": ("mlp", "layernorm")}, []),
        (LLAMA, "selective", {"recompute_modules": ("moe",)}, ["P025"]),
        (LLAMA, "selective", {"recompute_modules": ("mla_up_proj",)}, ["P025"]),
        (MIXTRAL, "selective", {"recompute_modules": ("moe",)}, []),
        (MIXTRAL, "selective", {"recompute_modules": ("moe_act",)}, ["P025"]),  # needs grouped products
        (MIXTRAL, "selective", {"recompute_modules": ("moe_act",), "framework": "megatron"}, []),
        (MIXTRAL, "selective", {"recompute_modules": ("mlp",)}, ["P025"]),
        (BIASED, "selective", {"recompute_modules": ("mlp",)}, ["P025"]),
    ],
)  # fmt: skip
def test_what_megatron_forbids_is_told_by_its_code(shape, recompute, details, code):
    assert codes(Workload(shape, 4096, 8, **details), recompute) == code


@pytest.mark.parametrize(
    ("said", "kind", "layers", "modules"),
    [
        ("recompute_layers: 2", "full", 2, ()),
        ("recompute: full", "full", 0, ()),
        ("recompute_modules: [mlp, layernorm]", "selective", 0, ("mlp", "layernorm")),
        ("recompute: selective", "selective", 0, ()),
    ],
)
def test_a_spec_says_it_and_the_plan_holds_it(compile_text, toy_spec, said, kind, layers, modules):
    compiled = compile_text(f"{toy_spec}\nparallel: {{{said}}}\n")
    assert compiled.plan is not None, compiled.diagnostics
    role = compiled.plan.jobs[0].roles[0]
    assert (role.recompute, role.recompute_layers, role.recompute_modules) == (kind, layers, modules)
