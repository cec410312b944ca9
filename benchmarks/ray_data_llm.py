"""Ray's own batch inference, as it comes, on the prompts of `generation.py`."""

from __future__ import annotations

from typing import Any

import ray
from engine_arms import ENGINE, SEQUENCES, Lap, Prompt

from core.models import model_folder

BATCH_ROWS = 16
"""Small batches, many at once, are what Ray's documentation recommends."""


def ray_data_llm(model: str, prompts: list[Prompt], environment: dict[str, str]) -> Lap:
    """Ask an engine that Ray Data starts for this dataset; its start-up is not in the lap.

    Args:
        model: As a recipe names it.
        prompts: What to ask.
        environment: Of the engine's process, as Stillhouse gives it to its own.
    """
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    config = vLLMEngineProcessorConfig(
        model_source=str(model_folder(model)),
        # The log keeps the time at which each question came and left.
        engine_kwargs={**ENGINE, "disable_log_stats": False},
        batch_size=BATCH_ROWS,
        max_concurrent_batches=max(8, SEQUENCES // BATCH_ROWS),
        concurrency=(1, 1),
        placement_group_config={"bundles": [{"CPU": 1}]},
        runtime_env={"env_vars": environment},
        chat_template_stage={"enabled": False},
    )

    def sampling(row: dict[str, Any]) -> dict[str, Any]:
        parameters = {"max_tokens": row["length"], "temperature": 0.0, "ignore_eos": True}
        return {"prompt": row["prompt"], "sampling_params": parameters}

    def times(row: dict[str, Any]) -> dict[str, Any]:
        metrics = row["metrics"]
        return {
            "first": metrics["queued_ts"],
            "last": metrics["last_token_ts"],
            "tokens": row["num_generated_tokens"],
        }

    rows = [{"prompt": prompt, "length": length} for prompt, length in prompts]
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows) // BATCH_ROWS)
    found = build_processor(config, preprocess=sampling, postprocess=times)(dataset).take_all()
    assert len(found) == len(prompts)
    first, last = min(row["first"] for row in found), max(row["last"] for row in found)
    return Lap(first, last, sum(row["tokens"] for row in found))
