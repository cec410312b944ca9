"""The same prompts through distilabel, in an interpreter of its own (see peers.py).

A pipeline as its documentation has it: rows from memory, one `TextGeneration` with an `OpenAILLM`,
a data set at the end. What makes it as quick as it goes: the raw prompt and answer and the
pipeline's own metadata are not stored a second time, nothing is cached from an earlier run, and
each batch is asked all at once by each replica. Prints one line of JSON: rows, and rows answered.
"""

import argparse
import json
from pathlib import Path

from distilabel.models import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts, StepResources
from distilabel.steps.tasks import TextGeneration


def main() -> None:
    """Run the pipeline."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--prompts", type=Path, required=True, help='JSONL of {"instruction": ...}')
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--max-tokens", type=int, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--replicas", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="for all that it writes")
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.prompts.read_text().splitlines()]
    llm = OpenAILLM(
        model="late",
        base_url=options.base_url,
        api_key="none",
        generation_kwargs={"max_new_tokens": options.max_tokens, "temperature": 0.0},
    )
    with Pipeline(name="peer", cache_dir=options.folder, enable_metadata=False) as pipeline:
        load = LoadDataFromDicts(data=rows, batch_size=options.batch_size)
        write = TextGeneration(
            llm=llm,
            input_batch_size=options.batch_size,
            resources=StepResources(replicas=options.replicas),
            add_raw_input=False,
            add_raw_output=False,
        )
        load >> write
    made = pipeline.run(use_cache=False)["default"]["train"]
    answered = sum(text is not None for text in made["generation"])
    print(json.dumps({"rows": len(made), "answered": answered}))


if __name__ == "__main__":  # its steps are processes, which import this file
    main()
