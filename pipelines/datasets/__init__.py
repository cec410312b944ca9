"""Readers of published data sets, in the files in which their authors give them out.

Each makes rows with the fields that the prompts of the library and the kinds of tasks
(`core.recipe_answers.KINDS`) know: `question` with `answer` and `choices`; `premise`, `hypothesis`
and `label`; `document` and `summary`; or `turns`. What is no row of its set becomes a rejection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from pipelines.row_work import Rejection

DatasetFormat = Literal[
    "anli",
    "aqua",
    "arc",
    "baize_alpaca",
    "baize_quora",
    "bbc_news",
    "bioasq",
    "chain_of_density",
    "commonsense_qa",
    "conjnli",
    "control",
    "dream",
    "govreport",
    "gsm8k",
    "help",
    "mmlu",
    "multiarith",
    "openbookqa",
    "piqa",
    "piqa_dev",
    "pubmedqa",
    "qasc",
    "race",
    "riddlesense",
    "svamp",
    "tinyllm",
]
"""The twelve sets of language understanding, three of summaries and two of chats of 2410.18588; the
six of 2402.04616, two of which are among those, and `tinyllm`, the form in which its authors give
all of theirs; and MMLU, by which 2412.09807 measures, beside RACE and DREAM, of other domains."""

Fields = dict[str, Any]
Reader = Callable[[Path], Iterator[tuple[int, Fields | Rejection]]]

MODULES = {
    "arithmetic": ("aqua", "gsm8k", "multiarith", "svamp"),
    "biomedical": ("bioasq", "pubmedqa"),
    "inference": ("anli", "conjnli", "control", "help"),
    "question_answering": ("arc", "commonsense_qa", "openbookqa", "qasc", "riddlesense"),
    "choices": ("piqa", "piqa_dev", "tinyllm"),
    "examinations": ("dream", "mmlu", "race"),
    "summaries": ("bbc_news", "chain_of_density", "govreport"),
    "chats": ("baize_alpaca", "baize_quora"),
}
"""Where the readers stand; each is named as its format is, but for `read_` before it."""


def dataset_rows(name: DatasetFormat, file: Path) -> Iterator[tuple[int, Fields | Rejection]]:
    """The rows of a file of a published data set, with their numbers from 1.

    Args:
        name: Which set.
        file: As its authors give it out; of sets of many files an archive of one part.

    Raises:
        UseError: The whole file is not in the set's form.
    """
    module = next(module for module, names in MODULES.items() if name in names)
    reader: Reader = getattr(import_module(f"pipelines.datasets.{module}"), f"read_{name}")
    return reader(file)
