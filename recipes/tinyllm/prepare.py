"""Writes the files of recipes/openbookqa.yaml: a data set of 2402.04616 and its recorded teacher.

    python recipes/tinyllm/prepare.py FOLDER [SET]

FOLDER is the `datasets` folder of github.com/YikunHan42/TinyLLM, SET one of arc, bioasq, obqa (the
default), pubmedqa and riddle; of piqa it has no training rows. In SET/llm/ are rationales in the
order of the rows. Those of FLAN-T5-XL are written, each with the answer that it was told. Those of
Llama 2 behind them are left out: its licence does not allow another model to learn from them.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

TRAIN, TEST = "train", "test"
ROW = ("id", "question", "choices", "answer")


def prepare(source: Path, name: str, target: Path) -> None:
    """Write rows and rationales as JSONL, the rationales under their rows' ids."""
    for part in (TRAIN, TEST):
        rows = _rows(source / name / f"{name}_{part}.json")
        files = sorted((source / name / "llm").glob(f"{part}_CoT_*.json"), key=_number)
        texts = [text for file in files for text in json.loads(file.read_text(encoding="utf-8"))]
        _write(target / f"{name}_{part}.jsonl", ({key: row[key] for key in ROW} for row in rows))
        pairs = zip(rows, texts, strict=True)
        records = ({"prompt": str(row["id"]), "text": _flan(text)} for row, text in pairs)
        _write(target / f"{name}_flan_{part}.jsonl", records)


def _rows(file: Path) -> list[Any]:
    """The rows of a file that is one JSON list, or lines of JSON."""
    text = file.read_text(encoding="utf-8")
    if text.lstrip().startswith("["):
        found: list[Any] = json.loads(text)
        return found
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def _flan(text: str) -> str:
    """What FLAN-T5-XL wrote, with the answer, and without the question behind it."""
    return text.partition("llama rationale: ")[0].partition("\n\nQ:")[0].strip()


def _number(file: Path) -> int:
    return int(re.findall(r"\d+", file.stem)[-1])


def _write(file: Path, rows: Iterable[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    prepare(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) == 3 else "obqa", Path(__file__).parent)
