"""TensorRT-LLM in its own environment, on the same GPUs as training or on its own.

Written against the documented interface of TensorRT-LLM 1.2; nobody here could run it.
"""

from __future__ import annotations

from runtime.engines.environments import ENVIRONMENTS
from runtime.engines.remote import Remote


class TensorRTLLM(Remote):
    """`settings` are keyword arguments of `tensorrt_llm.AsyncLLM`: dtype, max_seq_len, max_input_len ..."""

    name = "trtllm"
    worker = "trtllm_worker.py"
    install = ENVIRONMENTS["trtllm"].install
