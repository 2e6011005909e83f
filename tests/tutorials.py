"""Which spec and stage does each step of the tutorials that this project set out from.

`python tests/tutorials.py` prints the table of the README; `tests/test_tutorials.py` holds the README to it,
every name in it to the specs, and its steps to the tutorials where these are at hand.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One step. `heading` begins the line that it stands under in the tutorial; `stages` may end in `*`."""

    tutorial: str
    step: str
    spec: str
    stages: tuple[str, ...] = ()
    note: str = ""
    heading: str = ""


STEERLM, STEERLM2 = "SteerLM", "SteerLM, HelpSteer2"
OFFLINE, SELF, RLHF = "Offline methods", "Self-rewarding", "RLHF"

FILES = {STEERLM: "000_", STEERLM2: "001_", OFFLINE: "002_", SELF: "003_", RLHF: "004_"}
"""How the file of each tutorial begins."""

LLAMA = "`model: meta-llama/…` reads the Hugging Face folder; nothing is converted"
ASK = "`specc serve RUN/steerlm-train`, `specc chat … --attributes quality=4`"

STEPS = (
    Step(STEERLM, "1 get Llama 2", "steerlm_llama2_70b", ("steerlm-train",), LLAMA, "Step 1"),
    Step(
        STEERLM,
        "2 OASST and HelpSteer; merge, repeat, to regression rows",
        "steerlm_llama2_70b",
        ("oasst*", "helpsteer*", "merged*", "steerlm-marks*"),
        "",
        "Step 2",
    ),
    Step(STEERLM, "3 regression reward model", "steerlm_llama2_70b", ("steerlm-reward",), "", "Step 3"),
    Step(STEERLM, "4 annotations", "steerlm_llama2_70b", ("steerlm-annotate*",), "", "Step 4"),
    Step(STEERLM, "5 attribute-conditioned SFT", "steerlm_llama2_70b", ("steerlm-train",), "", "Step 5"),
    Step(STEERLM, "6 inference, steered", "steerlm_llama2_70b", ("steerlm-train",), ASK, "Step 6"),
    Step(
        STEERLM,
        "bootstrapping, which the tutorial leaves out",
        "steerlm_tiny",
        ("steerlm-1-*",),
        "`steerlm: {rounds: 1}`",
    ),
    Step(STEERLM2, "get the models", "steerlm_llama2_70b", ("steerlm-train",), LLAMA, "下载 Llama 2"),
    Step(
        STEERLM2,
        "data: OASST and HelpSteer",
        "reward_regression_13b",
        ("oasst*", "helpsteer*", "merged*", "marks*"),
        "",
        "下载和预处理",
    ),
    Step(STEERLM2, "data: HelpSteer2", "reward_helpsteer2_70b", ("helpsteer2*", "marks*")),
    Step(
        STEERLM2,
        "data: HelpSteer2-Preference, both forms",
        "reward_helpsteer2_preference",
        (
            "helpfulness*",
            "rate-train",
            "rate-validation",
            "preferences*",
            "prefer-train",
            "prefer-validation",
        ),
    ),
    Step(
        STEERLM2,
        "regression reward model, 13B",
        "reward_regression_13b",
        ("reward",),
        "",
        "在 OASST+HelpSteer",
    ),
    Step(STEERLM2, "regression reward model, HelpSteer2, 70B", "reward_helpsteer2_70b", ("reward",)),
    Step(
        STEERLM2,
        "HelpSteer2-Preference: helpfulness, then scaled Bradley-Terry",
        "reward_helpsteer2_preference",
        ("rate", "prefer"),
    ),
    Step(STEERLM2, "annotations", "steerlm_llama2_70b", ("steerlm-annotate*",), "", "生成注释"),
    Step(
        STEERLM2,
        "attribute-conditioned SFT",
        "steerlm_llama2_70b",
        ("steerlm-train",),
        "",
        "训练属性条件 SFT",
    ),
    Step(STEERLM2, "inference, steered", "steerlm_llama2_70b", ("steerlm-train",), ASK, "运行推理"),
    Step(
        OFFLINE,
        "SFT model and reward model",
        "reward_hh",
        ("reward",),
        "and `sft_llama3_70b`",
        "Prepare SFT model",
    ),
    Step(
        OFFLINE,
        "prompts",
        "rejection_sampling",
        ("rejection-1-generate",),
        "rows of `input` as they are",
        "Prepare prompts",
    ),
    Step(
        OFFLINE,
        "n samples a prompt",
        "rejection_sampling",
        ("rejection-1-generate",),
        "",
        "Generate N samples",
    ),
    Step(
        OFFLINE,
        "rewards, the best of each prompt",
        "rejection_sampling",
        ("rejection-1-score", "rejection-1-select"),
        "",
        "Reward Annotation",
    ),
    Step(OFFLINE, "SFT on them", "rejection_sampling", ("rejection-1-train",), "", "SFT Training with"),
    Step(OFFLINE, "ReST: rewards above a threshold", "rest", ("rest-1-*",), "", "Reinforced Self-Training"),
    Step(
        OFFLINE,
        "decision transformer: the reward in the prompt, three sets blended",
        "decision_transformer",
        ("decision_transformer-1-*",),
        "",
        "Decision Transformer",
    ),
    Step(
        OFFLINE,
        "online rejection sampling, 20 rounds",
        "online_rejection",
        ("rejection-*",),
        "",
        "Iterative training scripts",
    ),
    Step(OFFLINE, "online ReST", "online_rest", ("rest-*",)),
    Step(
        SELF,
        "a pretrained model: 2B, or Llama 2 7B",
        "self_rewarding_llama2_7b",
        ("self_rewarding-1",),
        LLAMA,
        "Obtaining a pretrained",
    ),
    Step(
        SELF,
        "an SFT model to begin from, or a base one",
        "sft_llama2_7b",
        ("sft",),
        "",
        "SFT vs Foundational",
    ),
    Step(
        SELF,
        "self-rewarding, three iterations",
        "self_rewarding_2b",
        ("self_rewarding-*",),
        "",
        "Self-Rewarding Model Training",
    ),
    Step(SELF, "meta-rewarding, length control", "meta_rewarding", ("meta_rewarding-*",)),
    Step(RLHF, "HH comparisons and prompts", "reward_hh", ("reward",), "`format: hh`", "Data Processing"),
    Step(RLHF, "data of the reward model", "reward_hh", ("reward",), "`format: hh`", "Data Preprocessing"),
    Step(RLHF, "reward model", "reward_hh", ("reward",), "", "Reward Model Training"),
    Step(RLHF, "PPO", "ppo_hh", ("ppo",), "", "PPO Training"),
    Step(
        RLHF,
        "reward model and critic server",
        "ppo_hh",
        ("ppo",),
        "its critic and reward roles",
        "Launch the Reward Model",
    ),
    Step(
        RLHF,
        "initial policy and actor",
        "ppo_hh",
        ("ppo",),
        "its actor and reference",
        "Launch the Initial Policy",
    ),
    Step(RLHF, "both on Slurm, as a hetjob", "ppo_hh", ("ppo",), "`specc compile`", "Launch Both Servers"),
    Step(RLHF, "TensorRT-LLM", "ppo_llama70b", ("ppo",), "`generate: {engine: trtllm}`", "Speed up PPO"),
    Step(
        RLHF,
        "the scaling table of 70B",
        "ppo_llama70b_scaling",
        ("nodes_*",),
        "",
        "PPO Performance Results",
    ),
    Step(RLHF, "405B", "ppo_llama405b", ("ppo",), "", "Scale the Tutorial"),
)

NO_STEPS = (
    "Model Alignment",
    "Future work",
    "Rejection Sampling",
    "Train a SteerLM",
    "PPO Results",
    "|",
    "通过 SteerLM",
    "SteerLM",
    "训练 SteerLM 模型",
)
"""Headings of the tutorials under which nothing is done, or the steps of others."""


def table() -> str:
    """The steps as the README shows them."""
    lines = ["| tutorial | step | spec | stages |", "|---|---|---|---|"]
    for step in STEPS:
        stages = ", ".join(f"`{stage}`" for stage in step.stages)
        stages += f"; {step.note}" if step.note else ""
        lines.append(f"| {step.tutorial} | {step.step} | `{step.spec}` | {stages} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
