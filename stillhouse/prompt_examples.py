"""The examples of a prompt, from their file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from core.errors import UseError


def read_examples(file: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file.

    Raises:
        UseError: A line is none, or there is none.
    """
    found = []
    if not file.is_file():
        raise UseError(str(file), "there is no such file.", "Paths start from the recipe's folder.")
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            example = json.loads(line)
        except json.JSONDecodeError as error:
            raise UseError(
                f"{file}, line {number}", f"this is not JSON: {error.msg}.", "Mend it."
            ) from None
        if not isinstance(example, dict):
            raise UseError(f"{file}, line {number}", "this is no object of fields.", "Mend it.")
        found.append(example)
    if not found:
        raise UseError(str(file), "there is no example in it.", "Write one a line.")
    return found
