"""vLLM behind the frames. Log-probabilities are raw: before temperature and truncation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from serve import serve


class Program:
    """vLLM's offline engine, stepped by hand so that it can be stopped."""

    def __init__(self, folder: str, settings: dict[str, Any]) -> None:
        from vllm import LLM  # type: ignore

        self.has_tokenizer = (Path(folder) / "tokenizer.json").exists()
        defaults = {"enforce_eager": True, "skip_tokenizer_init": not self.has_tokenizer}
        fixed = {"model": folder, "logprobs_mode": "raw_logprobs"}
        self.sleeps = bool(settings.get("enable_sleep_mode"))
        self.llm = LLM(**(defaults | settings | fixed))
        self.count = 0

    def generate(self, prompts: Any, seeds: Any, sampling: dict[str, Any], aborted: Any) -> list[Any]:
        from vllm import SamplingParams  # type: ignore

        if sampling["stop"] and not self.has_tokenizer:
            raise ValueError("stop texts need a tokenizer beside the model")
        engine, rows = self.llm.llm_engine, {}
        for prompt, seed in zip(prompts, seeds, strict=True):
            rows[str(self.count)] = None
            params = SamplingParams(
                max_tokens=sampling["max_tokens"],
                min_tokens=sampling["min_tokens"],
                temperature=sampling["temperature"],
                top_k=sampling["top_k"] or -1,
                top_p=sampling["top_p"],
                repetition_penalty=sampling["repetition_penalty"],
                stop=sampling["stop"] or None,
                include_stop_str_in_output=True,
                stop_token_ids=sampling["stop_token_ids"],
                ignore_eos=True,  # what ends a response is said by the request
                detokenize=bool(sampling["stop"]),
                logprobs=0,
                seed=seed,
            )
            engine.add_request(str(self.count), {"prompt_token_ids": prompt}, params)
            self.count += 1
        while engine.has_unfinished_requests():
            if aborted.is_set():
                engine.abort_request([name for name, row in rows.items() if row is None])
                break
            for output in engine.step():
                if output.finished:
                    rows[output.request_id.split("-")[0]] = _row(output.outputs[0])
        return [row or [[], [], "abort"] for row in rows.values()]

    def update(self, folder: str) -> None:
        self.llm.collective_rpc("reload_weights", kwargs={"weights_path": folder})
        self.llm.reset_prefix_cache()

    def sleep(self) -> None:
        if self.sleeps:
            self.llm.sleep(level=1)

    def wake(self) -> None:
        if self.sleeps:
            self.llm.wake_up()


def _row(output: Any) -> list[Any]:
    tokens = list(output.token_ids)
    logprobs = [step[token].logprob for token, step in zip(tokens, output.logprobs, strict=True)]
    return [tokens, logprobs, output.finish_reason]


if __name__ == "__main__":
    serve(Program)
