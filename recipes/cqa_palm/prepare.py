"""Writes the files of recipes/cqa_palm.yaml from PaLM-540B's recorded answers.

    python recipes/cqa_palm/prepare.py FOLDER

FOLDER is the `datasets/cqa` folder of github.com/google-research/distilling-step-by-step (the zip
in it, unpacked): cqa_train.json and cqa_test.json with a question a line, and in palm/ the answers
to them in the same order, as lists of texts.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

KEPT = ("id", "question", "choices", "answer")
FILES = {"train": 10, "test": 2}
"""Files of answers to each set of questions."""


def prepare(source: Path, target: Path) -> None:
    """Write questions and answers as JSONL, the answers under their questions' ids."""
    for name, files in FILES.items():
        lines = (source / f"cqa_{name}.json").read_text(encoding="utf-8").splitlines()
        questions = [json.loads(line) for line in lines]
        texts = list(_texts(source / "palm" / f"{name}_CoT_{n}.json" for n in range(files)))
        rows = ({key: question[key] for key in KEPT} for question in questions)
        _write(target / f"{name}.jsonl", rows)
        pairs = zip(questions, texts, strict=True)
        records = ({"prompt": question["id"], "text": text} for question, text in pairs)
        _write(target / f"palm_{name}.jsonl", records)


def _texts(files: Iterable[Path]) -> Iterator[str]:
    for file in files:
        yield from json.loads(file.read_text(encoding="utf-8"))


def _write(file: Path, rows: Iterable[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    prepare(Path(sys.argv[1]), Path(__file__).parent)
