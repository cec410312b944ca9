"""A finished student as an endpoint of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from core.recipe import Serve
from serving.application import Endpoint, deploy
from serving.encoder import encoder_student


def serve_student(
    name: str,
    student_folder: Path,
    choices: Sequence[str],
    settings: Serve,
    *,
    prefix: str | None = None,
    logs: Path | None = None,
) -> Endpoint:
    """Serve one student until its endpoint is closed or Ray stops.

    Args:
        name: Of the student in the recipe; its name in requests.
        student_folder: Its Hugging Face folder.
        choices: The task's choices.
        settings: The recipe's `serve` section.
        prefix: What its routes begin with, such as `/`; `/NAME` if absent.
        logs: Folder for Serve's logs, or None for Ray's own session folder.

    Raises:
        UseError: The folder holds no such student, or the port cannot be had.
        WorkError: The student could not be loaded.
    """
    student = encoder_student(student_folder, choices)
    return deploy({name: student}, settings, name=name, prefix=prefix, logs=logs)
