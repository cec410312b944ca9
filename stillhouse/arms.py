"""What the arms of the tables of 2410.18588 are called, and in which order they stand."""

from __future__ import annotations

from typing import Literal

from stillhouse.distilling import DistillingRecipe

Way = Literal["elaborate", "plain"]
"""How a teacher was asked, or a student that has learnt nothing."""


def teacher_arm(name: str, way: Way) -> str:
    """What a teacher is called that was asked one way."""
    return f"{name}, plain prompt" if way == "plain" else name


def student_arm(name: str, way: Way) -> str:
    """What a student is called that learnt from teachers who were asked one way."""
    return f"{name}, of the plain prompt" if way == "plain" else name


def untrained_arm(name: str, way: Way) -> str:
    """What a student is called that has learnt nothing, and was asked one way."""
    return f"{name}, undistilled" + (", elaborate prompt" if way == "elaborate" else "")


def arm_columns(recipe: DistillingRecipe) -> dict[str, list[tuple[str, str]]]:
    """The arms in the order of the paper's tables.

    Returns:
        By model: what each of its arms is called, and the head of its column.
    """
    found = {
        name: [
            (teacher_arm(name, "plain"), "plain prompt"),
            (teacher_arm(name, "elaborate"), "elaborate prompt"),
        ]
        for name in recipe.ask
    }
    for name in recipe.students:
        found[name] = [
            (untrained_arm(name, "plain"), "undistilled"),
            (untrained_arm(name, "elaborate"), "undistilled, elaborate prompt"),
            (student_arm(name, "plain"), "distilled, plain prompt"),
            (student_arm(name, "elaborate"), "distilled, elaborate prompt"),
        ]
    return found
