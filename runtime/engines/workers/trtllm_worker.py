"""TensorRT-LLM behind the frames, against the documented interface of 1.2 (PyTorch backend under Ray).

Its TorchSampler gives raw log-probabilities. New weights are read from the folder into GPU memory and
handed over by CUDA's inter-process handles, a gigabyte at a time, under Hugging Face's names.
"""

from __future__ import annotations

import asyncio
import base64
import os
import pickle
from pathlib import Path
from typing import Any

from serve import serve

BUCKET_BYTES = 1 << 30


class Program:
    """The asynchronous engine on a loop of its own."""

    def __init__(self, folder: str, settings: dict[str, Any]) -> None:
        from tensorrt_llm import AsyncLLM  # type: ignore
        from tensorrt_llm.llmapi import KvCacheConfig  # type: ignore

        os.environ["TRT_LLM_DISABLE_LOAD_WEIGHTS_IN_PARALLEL"] = "1"
        cache = KvCacheConfig(
            free_gpu_memory_fraction=settings.pop("free_gpu_memory_fraction", 0.4),
            enable_block_reuse=False,  # blocks of earlier weights are not to be met again
        )
        defaults = {"backend": "pytorch", "max_input_len": settings.get("max_seq_len", 4096)}
        fixed = {"model": folder, "sampler_type": "TorchSampler"}
        if settings.pop("sleep", False):
            defaults |= _sleeping()
        self.loop = asyncio.new_event_loop()
        self.llm = AsyncLLM(**(defaults | settings | fixed), kv_cache_config=cache)
        self._wait(self.llm.setup_async())

    def generate(self, prompts: Any, seeds: Any, sampling: dict[str, Any], aborted: Any) -> list[Any]:
        from tensorrt_llm import SamplingParams  # type: ignore

        if sampling["stop"]:
            raise ValueError("stop texts are not detokenised here; name stop_token_ids")
        ends = sampling["stop_token_ids"]
        greedy = sampling["temperature"] == 0
        shared = {
            "max_tokens": sampling["max_tokens"],
            "min_tokens": sampling["min_tokens"],
            "temperature": None if greedy else sampling["temperature"],
            "top_k": 1 if greedy else sampling["top_k"],  # 0 is off
            "top_p": sampling["top_p"],
            "repetition_penalty": sampling["repetition_penalty"],
            "end_id": ends[0] if ends else -1,
            "pad_id": 0,
            "stop_token_ids": ends,
            "include_stop_str_in_output": True,
            "detokenize": False,
            "logprobs": 0,
        }
        params = [SamplingParams(**shared, seed=seed) for seed in seeds]
        return self._wait(self._all(prompts, params, aborted))

    async def _all(self, prompts: Any, params: Any, aborted: Any) -> list[Any]:
        asked = [
            self.llm.generate_async(inputs=prompt, sampling_params=one)
            for prompt, one in zip(prompts, params, strict=True)
        ]
        waiting = asyncio.gather(*(one.aresult() for one in asked))
        while not waiting.done():
            await asyncio.wait([waiting], timeout=0.2)
            if aborted.is_set():
                for one in asked:
                    one.abort()
        return [_row(result.outputs[0]) for result in await waiting]

    def update(self, folder: str) -> None:
        import torch
        from safetensors import safe_open
        from torch.multiprocessing.reductions import reduce_tensor

        gpu = f"GPU-{torch.cuda.get_device_properties(0).uuid}"
        bucket: list[Any] = []

        def hand_over() -> None:
            handles = [(name, reduce_tensor(tensor)) for name, tensor in bucket]
            given = {gpu: base64.b64encode(pickle.dumps(handles)).decode()}
            self._wait(self.llm.collective_rpc("update_weights", args=(given,)))
            bucket.clear()

        for file in sorted(Path(folder).glob("*.safetensors")):
            with safe_open(file, framework="pt", device="cuda:0") as tensors:
                for name in tensors.keys():  # noqa: SIM118 - not a dictionary
                    bucket.append((name, tensors.get_tensor(name).clone()))
                    if sum(tensor.nbytes for _, tensor in bucket) >= BUCKET_BYTES:
                        hand_over()
        if bucket:
            hand_over()
        self._wait(self.llm.collective_rpc("update_weights", args=(None,)))  # the transfer is complete

    def sleep(self) -> None:
        self._wait(self.llm.release(["kv_cache", "model"]))

    def wake(self) -> None:
        self._wait(self.llm.resume(["kv_cache", "model"]))

    def _wait(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)


def _sleeping() -> dict[str, Any]:
    """What makes `release` possible: an option until 1.2, a configuration after it."""
    try:
        from tensorrt_llm.llmapi import SleepConfig  # type: ignore
    except ImportError:
        return {"enable_sleep": True}
    return {"sleep_config": SleepConfig()}


def _row(output: Any) -> list[Any]:
    tokens = list(output.token_ids)
    logprobs = [
        step if isinstance(step, float) else step[token].logprob
        for token, step in zip(tokens, output.logprobs, strict=True)
    ]
    ended = {"stop": "stop", "length": "length"}
    return [tokens, logprobs, ended.get(output.finish_reason, "abort")]


if __name__ == "__main__":
    serve(Program)
