"""Biomedical questions with abstracts: PubMedQA and the yes/no questions of BioASQ."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pipelines.datasets import Fields
from pipelines.datasets.records import json_records, made, text_of
from pipelines.row_work import Rejection

Rows = Iterator[tuple[int, Fields | Rejection]]


def read_pubmedqa(file: Path) -> Rows:
    """PubMedQA (1909.06146): an object of records by PubMed's number, or rows of the same.

    `question` is the abstract without its conclusion, and then the question.
    """
    return made(_by_key(file), _pubmedqa)


def _pubmedqa(record: Any) -> Fields:
    labelled = {key.casefold(): value for key, value in record.items()}
    contexts = labelled["contexts"] if "contexts" in labelled else labelled["context"]["contexts"]
    fields = {
        "question": _behind(contexts, text_of(labelled, "question")),
        "choices": ["yes", "no", "maybe"],
    }
    if labelled.get("final_decision") is not None:  # of the test set it is in a file of its own
        fields["answer"] = text_of(labelled, "final_decision")
    return fields


def read_bioasq(file: Path) -> Rows:
    """BioASQ, task B (Tsatsaronis et al., 2015): an object with a list under `questions`.

    Its yes/no questions; `question` is all snippets, and then the question. Those of other types,
    which no choice answers, are rejected.
    """
    return made(_listed(file, "questions"), _bioasq)


def _bioasq(record: Any) -> Fields:
    if record["type"] != "yesno":
        raise ValueError(f"it is of type {record['type']}, and yesno is wanted")
    snippets = [text_of(snippet, "text") for snippet in record.get("snippets", [])]
    fields = {
        "question": _behind(snippets, text_of(record, "body")),
        "choices": ["yes", "no"],
    }
    if "exact_answer" in record:
        answer = record["exact_answer"]
        fields["answer"] = (answer[0] if isinstance(answer, list) else answer).casefold()
    return fields


def _behind(texts: Iterable[str], question: str) -> str:
    """A question behind the texts that it is about, a line each."""
    return "\n".join([*(" ".join(text.split()) for text in texts), question])


def _by_key(file: Path) -> Iterator[tuple[int, Any]]:
    """The values of a file that is one JSON object of objects, or else its rows."""
    whole = _object(file)
    if whole is None or not all(isinstance(value, dict) for value in whole.values()):
        return json_records(file)
    return enumerate(whole.values(), start=1)


def _listed(file: Path, key: str) -> Iterator[tuple[int, Any]]:
    """What is listed under a key of a file that is one JSON object, or else its rows."""
    whole = _object(file)
    if whole is None or not isinstance(whole.get(key), list):
        return json_records(file)
    return enumerate(whole[key], start=1)


def _object(file: Path) -> dict[str, Any] | None:
    """What a file is that is one JSON object; None where it is rows."""
    if file.suffix == ".parquet":
        return None
    try:
        whole = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    return whole if isinstance(whole, dict) else None
