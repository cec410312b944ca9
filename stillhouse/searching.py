"""The search for a teacher's instruction: its stages, and what is checked before it begins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from core.errors import UseError
from core.recipe_optimize import INSTRUCTION, Optimize
from core.recipe_prompts import Prompt, as_prompt
from pipelines.instructions import Checks, key_of
from pipelines.prompt_files import compile_prompt
from pipelines.prompt_library import resolved
from stillhouse.asking import Ask
from stillhouse.part_layout import PartLayout
from stillhouse.stages import Stage

OPTIMIZE = "optimize-prompt"
"""The stage that finds the instruction."""


def resolve_search(search: Optimize, folder: Path, place: Callable[[str], str]) -> Optimize:
    """The same section with the text of its meta-prompt.

    Args:
        search: As the recipe has it.
        folder: The recipe's.
        place: Tells the line of a key.
    """
    key = "optimize.meta_prompt"
    meta = resolved(search.meta_prompt, None, folder, None, key=key, place=place)
    return search.model_copy(update={"meta_prompt": meta})


def check_frame(search: Optimize | None, prompt: Prompt, place: Callable[[str], str]) -> None:
    """Refuse a prompt that has no place for an instruction, or has one and gets none.

    Args:
        search: The recipe's section, if it has one.
        prompt: The teacher's, with its texts.
        place: Tells the line of a key.

    Raises:
        UseError: It is so, or an instruction to begin with is none.
    """
    holds = any(INSTRUCTION.search(text) for text in (prompt.text, prompt.system))
    if search is None:
        if holds:
            raise UseError(
                place("ask"),
                "the prompt has a place for {{ instruction }}, and nothing finds one.",
                "Write the instruction there, or add a section optimize.",
            )
        return
    if not holds:
        raise UseError(
            place("ask"),
            "optimize finds an instruction, and the prompt of ask has no place for it.",
            "Put {{ instruction }} where it is to stand.",
        )
    checks = Checks(search.placeholders, search.max_characters)
    known: set[str] = set()
    for number, text in enumerate(search.start):
        fault = checks.fault(text, known)
        if fault is not None:
            raise UseError(
                place(f"optimize.start.{number}"),
                f"this instruction cannot be one to begin with: {fault.detail}.",
                "Change it, or optimize.placeholders.",
            )
        known.add(key_of(text))
    for name, text in search.placeholders.items():
        try:
            compile_prompt(text)
        except UseError as error:
            key = f"optimize.placeholders.{name}"
            raise UseError(place(key), f"{key}: {error.cause}", error.mend) from None


def refuse_without_search(stages: list[Stage], name: str) -> None:
    """Refuse a recipe that has no search.

    Args:
        stages: The recipe's.
        name: Its name.

    Raises:
        UseError: There is none.
    """
    if not any(stage.name == OPTIMIZE for stage in stages):
        raise UseError(
            f"recipe '{name}'",
            "it has no section 'optimize', which says how a prompt is searched for.",
            "Add one, in a recipe of method zero_shot.",
        )


def search_stages(
    layout: PartLayout, search: Optimize, teacher: str, asks: dict[str, Ask], rows: str
) -> list[Stage]:
    """The rows of a search, and the search.

    Args:
        layout: Of the data set.
        search: The recipe's section.
        teacher: Whose prompt it is.
        asks: How the teacher is asked.
        rows: The stage that has rows with right answers.
    """
    recipe, ask = layout.recipe, asks[teacher]
    prompt, meta = as_prompt(ask.prompt), as_prompt(search.meta_prompt)
    section = search.model_dump(exclude={"rounds", "meta_prompt"})
    evaluation = layout.part.evaluation
    return [
        Stage(
            name="search-rows",
            run="pipelines.choosing:selection_rows",
            ray=False,
            settings={
                "task": layout.read_by(),
                "rows": search.scoring + search.validation + search.held_out,
            },
            inputs={"inputs": rows, **({"evaluation": "evaluation"} if evaluation else {})},
        ),
        Stage(
            name=OPTIMIZE,
            run="pipelines.prompt_search:optimize",
            ray=False,
            settings={
                "task": layout.read_by(),
                "teacher": teacher,
                "prompt": {"user": prompt.text, "system": prompt.system},
                "answer": layout.answer(prompt),
                "seeded": ask.seeded,
                "sampling": ask.sampling.model_dump(),
                "search": {
                    **section,
                    "meta_prompt": {
                        "user": meta.text,
                        "system": meta.system,
                        "answer": meta.answer and meta.answer.model_dump(),
                    },
                },
            },
            extent={"rounds": search.rounds},
            inputs={"rows": "search-rows"},
            teachers=list(dict.fromkeys([search.optimizer, teacher])),
            made_from={"seed": recipe.seed},
        ),
    ]
