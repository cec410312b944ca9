"""Examinations: MMLU by its subjects, and RACE and DREAM, which ask about a passage."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from pipelines.datasets import Fields
from pipelines.datasets.records import archive_texts, json_records, made, split, text_of
from pipelines.permutations import LETTERS
from pipelines.row_work import Rejection

Rows = Iterator[tuple[int, Fields | Rejection]]


def read_mmlu(file: Path) -> Rows:
    """MMLU (2009.03300): one part of it, a file for each of its subjects.

    A line is a question, four choices and the letter of the right one; the file's name tells the
    subject.
    """
    return made(split(_members(file, ".csv"), _subject), _mmlu_row)


def read_race(file: Path) -> Rows:
    """RACE (1704.04683): one part of it, a file for each passage with its questions."""
    return made(split(_members(file, ".txt"), _passage), _race_row)


def read_dream(file: Path) -> Rows:
    """DREAM (1902.00164): a list of dialogues, each with its questions."""
    return made(split(json_records(file), _dialogue), _dream_row)


def _members(file: Path, ending: str) -> Iterator[tuple[int, tuple[str, bytes]]]:
    """The files of an archive that hold rows, with their numbers from 1."""
    found = (member for member in archive_texts(file) if member[0].endswith(ending))
    return enumerate(found, start=1)


def _subject(member: tuple[str, bytes]) -> Iterator[Any]:
    name, content = member
    subject = re.sub(r"_(dev|val|test)$", "", PurePosixPath(name).stem).replace("_", " ")
    for line in csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")):
        yield subject, line


def _mmlu_row(record: tuple[str, list[str]]) -> Fields:
    subject, line = record
    question, *choices, letter = (cell.strip() for cell in line)
    if len(choices) != 4 or not question:
        raise ValueError("a line is a question, four choices and a letter")
    return _row(question, choices, letter) | {"subject": subject}


def _passage(member: tuple[str, bytes]) -> Iterator[Any]:
    passage = json.loads(member[1].decode("utf-8-sig"))
    article = text_of(passage, "article")
    asked = zip(passage["questions"], passage["options"], passage["answers"], strict=True)
    return ((article, *one) for one in asked)


def _race_row(record: tuple[str, str, list[str], str]) -> Fields:
    article, question, choices, letter = record
    return _row(_about(article, question), [choice.strip() for choice in choices], letter)


def _dialogue(record: list[Any]) -> Iterator[Any]:
    turns, asked, _ = record
    dialogue = "\n".join(turn.strip() for turn in turns)
    return ((dialogue, one) for one in asked)


def _dream_row(record: tuple[str, Any]) -> Fields:
    dialogue, asked = record
    choices = [choice.strip() for choice in asked["choice"]]
    letter = LETTERS[choices.index(text_of(asked, "answer"))]
    return _row(_about(dialogue, text_of(asked, "question")), choices, letter)


def _about(passage: str, question: str) -> str:
    if not passage.strip() or not question.strip():
        raise ValueError("the passage or the question is empty")
    return f"{passage.strip()}\n\n{question.strip()}"


def _row(question: str, choices: list[str], letter: str) -> Fields:
    if "" in choices:
        raise ValueError("a choice is empty")
    return {"question": question, "choices": choices, "answer": choices[LETTERS.index(letter)]}
