"""What vLLM's engine thinks of the tokens of some prompts.

    python -m tests.vllm_logprobs FOLDER PROMPTS OUTPUT

PROMPTS is a JSON list of lists of tokens. OUTPUT gets, for every place of every prompt after its
first, and for the one behind its end, the likeliest tokens and their log-probabilities.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from core.recipe_section import Device
from core.recipe_teachers import Teacher
from pipelines.engine_start import environment_of

MOST = 20


def likeliest(entry: dict) -> list[tuple[int, float]]:
    """The top of what vLLM tells of a place, which may have the prompt's own token beside them."""
    ranked = sorted((value.rank, token, value.logprob) for token, value in entry.items())
    return [(token, logprob) for rank, token, logprob in ranked if rank <= MOST]


def main() -> None:
    folder, prompts, output = sys.argv[1:]
    # As Stillhouse starts its engines.
    os.environ |= environment_of(Teacher(model=folder, device=Device(cpus=1)))
    from vllm import LLM, SamplingParams

    engine = LLM(folder, dtype="float32", max_model_len=256, block_size=32, enforce_eager=True)
    asked = [{"prompt_token_ids": tokens} for tokens in json.loads(Path(prompts).read_text())]
    sampling = SamplingParams(max_tokens=1, temperature=0.0, logprobs=MOST, prompt_logprobs=MOST)
    found = [
        [likeliest(place) for place in (*answer.prompt_logprobs[1:], *answer.outputs[0].logprobs)]
        for answer in engine.generate(asked, sampling)
    ]
    Path(output).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
