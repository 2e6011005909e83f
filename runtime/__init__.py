"""The runtime: one plan in, one trained checkpoint out, on Megatron-core.

What lives here: the loop and what it calls. `__main__` starts one process of one role of one job;
`preflight` compares the plan with reality in the first second; `run` gathers what an algorithm may
touch; `loop` turns; `algorithms/` holds one file per program. Only `engine`, `model`, `parallel`,
`checkpoint`, `norm`, `attention`, `cpu` and `hf` know Megatron.

What comes in: `plan.json` (`specc.plan`, the only part of the compiler known here). What goes out:
a stage's folder with `metrics.jsonl`, `checkpoint/`, `hf/` and, last of all, `output.json`.
"""
