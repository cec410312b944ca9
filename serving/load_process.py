"""Sends requests, in a process of its own: `python -m serving.load_process`.

The load generator is vLLM's (`vllm bench serve`): open-loop arrivals, timing and percentiles are
its own, and this adds our routes to those that it knows. A line of JSON on standard input is one
load (`serving.load.Load`); a line on standard output is what came of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from typing import Any

PERCENTILES = (50.0, 90.0, 95.0, 99.0)
"""Of the latency."""

BACKEND = "stillhouse"
"""What vLLM's generator calls our routes."""


def main() -> None:
    """Answer lines until there are no more."""
    told = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # the generator prints what it finds
        from vllm.benchmarks.lib import endpoint_request_func
        from vllm.benchmarks.serve import ASYNC_REQUEST_FUNCS

        ASYNC_REQUEST_FUNCS[BACKEND] = _post
        assert endpoint_request_func.RequestFuncOutput, "it is there"
        print(json.dumps({"ready": True}), file=told, flush=True)
        for line in sys.stdin:
            found = asyncio.run(_run(json.loads(line)))
            print(json.dumps(found), file=told, flush=True)


async def _run(load: dict[str, Any]) -> dict[str, Any]:
    """One load, as vLLM's generator does it."""
    import numpy as np
    from vllm.benchmarks.datasets import SampleRequest
    from vllm.benchmarks.serve import TaskType, benchmark

    np.random.seed(load["seed"])  # of its arrivals
    rate = float("inf") if load["rate"] is None else load["rate"]
    return dict(
        await benchmark(
            task_type=TaskType.GENERATION,
            endpoint_type=BACKEND,
            api_url=load["url"],
            base_url=load["url"],
            model_id="",
            model_name="",
            tokenizer=None,
            input_requests=[
                SampleRequest(prompt=json.dumps(request), prompt_len=0)
                for request in load["requests"]
            ],
            logprobs=None,
            request_rate=rate,
            burstiness=1.0,  # arrivals are a Poisson process
            disable_tqdm=True,
            num_warmups=0,
            profile=False,
            selected_percentile_metrics=["e2el"],
            selected_percentiles=list(PERCENTILES),
            ignore_eos=False,
            goodput_config_dict={"e2el": load["objective_ms"]},
            max_concurrency=load["concurrency"],
            lora_modules=None,
            extra_headers=None,
            extra_body=None,
            ready_check_timeout_sec=0,
        )
    )


async def _post(request_func_input: Any, session: Any, pbar: Any = None) -> Any:
    """Send one request, as the generator's own functions do for other routes."""
    import aiohttp
    from vllm.benchmarks.lib.endpoint_request_func import RequestFuncOutput

    request = json.loads(request_func_input.prompt)
    output = RequestFuncOutput()
    output.start_time = began = time.perf_counter()
    try:
        async with session.post(
            request_func_input.api_url + request["route"], json=request["body"]
        ) as response:
            parts = []
            async for part in response.content.iter_any():
                output.ttft = output.ttft or time.perf_counter() - began
                parts.append(part)
            output.latency = time.perf_counter() - began
            text = b"".join(parts).decode(errors="replace")
            output.success = response.status == 200
            if output.success:
                streamed = response.content_type == "text/event-stream"
                answer = {"stream": text} if streamed else json.loads(text)
                told = {"seconds": output.latency, "answer": answer}
                output.generated_text = json.dumps(told)
            else:
                output.error = f"{response.status} {text}"
    except (aiohttp.ClientError, TimeoutError) as error:
        output.error = f"{type(error).__name__}: {error}"
    if pbar:
        pbar.update(1)
    return output


if __name__ == "__main__":
    main()
