"""The families of students by their names in recipes."""

from __future__ import annotations

from pathlib import Path

from core.recipe_students import Student
from training.causal import Causal
from training.encoder import Encoder
from training.family import Family
from training.seq2seq import Seq2Seq

FAMILIES: dict[str, type[Family]] = {"encoder": Encoder, "seq2seq": Seq2Seq, "causal": Causal}


def family_of(student: Student, base: Path, choices: list[str], seed: int) -> Family:
    """A student's family, on the model in a folder."""
    return FAMILIES[student.family](student, base, choices, seed)
