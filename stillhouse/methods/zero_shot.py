"""Zero-shot prompts and rationales (2403.15886): label and rationale from one call, by no example.

inputs ─┬ draw ─ ask ───────────┬ explain ─ train-NAME ─ predict-NAME
        └ draw-OTHER ─ ask-OTHER┘

Each row is dealt to the prompt that gives
its label and, if it is drawn at the explanation rate, to the one that gives its rationale; a prompt
is asked about its rows alone, so what is not learnt is not paid. Students write: they learn labels
and rationales as two tasks, and answer without a rationale.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

from jinja2 import meta
from pydantic import model_validator

from core.errors import UseError
from core.recipe import LoadedRecipe
from core.recipe_optimize import Optimize
from core.recipe_prompts import Prompt, as_prompt
from core.recipe_rationales import FewShot, Mix, Rationales, Words
from core.recipe_selection import AS_ASKED
from core.recipe_teachers import RecordedTeacher
from pipelines.drawing import Draw
from pipelines.explaining import ANSWERS
from pipelines.prompt_files import parse_prompt
from stillhouse.asking import Ask, Decided, ask_stage, prompt_files
from stillhouse.distilling import (
    OneSetRecipe,
    resolve_prompts,
)
from stillhouse.part_layout import PartLayout
from stillhouse.prompt_examples import read_examples
from stillhouse.searching import OPTIMIZE, check_frame, resolve_search, search_stages
from stillhouse.stages import Stage

FEW_SHOT = "few-shot"
"""What the prompt with examples is called."""

MEASURE = "measure-prompts"
"""The stage that compares it with the others."""


class ZeroShotRecipe(OneSetRecipe):
    """A recipe of this method."""

    method: Literal["zero_shot"]
    rationales: Rationales = Rationales()
    """Which rationales students learn, of those that the teacher wrote."""
    mix: Mix | None = None
    """Several prompts, each for some of the rows; that of `ask` for all of them if absent."""
    optimize: Optimize | None = None
    """The search for the instruction in the prompt of `ask`; it is as it stands if absent."""
    few_shot: FewShot | None = None
    """A prompt with examples to compare with that of `ask`; nothing is compared if absent."""

    @property
    def teacher(self) -> str:
        """Who is asked."""
        return next(iter(self.ask))

    @property
    def draw(self) -> Draw:
        """How rows are dealt out to prompts."""
        mix, rationales = self.mix, self.rationales
        return Draw(
            labels=None
            if self.task.labels == "gold"
            else dict(mix.labels)
            if mix
            else {AS_ASKED: 1.0},
            rationales=dict(mix.rationales) if mix else {AS_ASKED: 1.0},
            share=rationales.share if self.wanted_rationales() else 0.0,
            seed=self.seed if rationales.seed is None else rationales.seed,
        )

    @property
    def used_prompts(self) -> dict[str, str | Prompt]:
        """By name: the prompts that rows are dealt to."""
        known = {AS_ASKED: self.ask[self.teacher].prompt, **(self.mix.prompts if self.mix else {})}
        draw = self.draw
        dealt = {**(draw.labels or {}), **(draw.rationales if draw.share else {})}
        return {name: prompt for name, prompt in known.items() if name in dealt}

    def files(self) -> dict[str, str]:
        """Input files that the recipe names, by the dotted key that names them."""
        mixed = self.mix.prompts if self.mix else {}
        named = {f"mix.prompts.{name}": as_prompt(prompt) for name, prompt in mixed.items()}
        if self.optimize is not None:
            named["optimize.meta_prompt"] = as_prompt(self.optimize.meta_prompt)
        examples = {}
        if self.few_shot is not None:
            named["few_shot.prompt"] = as_prompt(self.few_shot.prompt)
            examples = {"few_shot.examples": self.few_shot.examples}
        return {**examples, **prompt_files(named), **super().files()}

    @model_validator(mode="after")
    def _one_teacher_is_asked(self) -> Self:
        if len(self.ask) > 1:
            raise ValueError("ask has several teachers: zero_shot asks one, in several ways by mix")
        if self.compare is not None:
            raise ValueError("compare is not for zero_shot: a prompt of frontier can be compared")
        return self

    @model_validator(mode="after")
    def _search_can_be_done(self) -> Self:
        search = self.optimize
        if search is None:
            return self
        if search.optimizer not in self.teachers:
            known = ", ".join(self.teachers)
            raise ValueError(
                f"optimize.optimizer is '{search.optimizer}', but teachers has: {known}"
            )
        asked = (search.optimizer, self.teacher)
        recorded = [name for name in asked if isinstance(self.teachers[name], RecordedTeacher)]
        if recorded:
            raise ValueError(
                f"optimize asks what nobody has recorded of '{recorded[0]}': take a teacher that "
                "runs"
            )
        if self.task.gold is None:
            raise ValueError("optimize scores by right answers: name their field in task.gold")
        return self

    @model_validator(mode="after")
    def _prompts_can_be_compared(self) -> Self:
        if self.few_shot is None:
            return self
        recorded = isinstance(self.teachers[self.teacher], RecordedTeacher)
        if recorded or AS_ASKED not in self.used_prompts:
            raise ValueError(
                "few_shot is compared with the prompt of ask: a teacher that runs must be asked by "
                "both, and recorded answers, or a prompt that no row is dealt to, are not"
            )
        if self.mix is not None and FEW_SHOT in self.mix.prompts:
            raise ValueError(f"mix.prompts has '{FEW_SHOT}', which is that of few_shot")
        return self

    @model_validator(mode="after")
    def _students_write(self) -> Self:
        for name, student in self.students.items():
            if student.objective.kind != "sequence":
                raise ValueError(
                    f"students.{name} must write and learn by sequences: it is a task of its own "
                    "to write a rationale"
                )
        if self.task.weight != "equal":
            raise ValueError("task.weight must be equal: a row has the label of one prompt")
        if not self.task.extracts:
            raise ValueError("task.answer is missing: it says what of a text is the label")
        return self

    def with_prompts(self, folder: Path, place: Callable[[str], str]) -> Self:
        """The same recipe with the texts of its prompts in the place of templates' names."""
        words = self.rationales.words

        def texts(prompts: dict[str, str | Prompt], key: str) -> dict[str, str | Prompt]:
            keys = {name: key.format(name) for name in prompts}
            found = resolve_prompts(prompts, self.task, folder, keys, place)
            return {name: _worded(one, words) for name, one in found.items()}

        changed = self.written(folder, place)
        changed["ask"] = {
            name: ask.model_copy(update={"prompt": _worded(ask.prompt, words)})
            for name, ask in changed["ask"].items()
        }
        if self.mix is not None:
            mixed = texts(dict(self.mix.prompts), "mix.prompts.{}")
            changed["mix"] = self.mix.model_copy(update={"prompts": mixed})
        if self.optimize is not None:
            changed["optimize"] = resolve_search(self.optimize, folder, place)
        if self.few_shot is not None:
            (prompt,) = texts({"few_shot": self.few_shot.prompt}, "{}.prompt").values()
            file = folder / self.few_shot.examples
            shown = _with_values(prompt, examples=read_examples(file))
            changed["few_shot"] = self.few_shot.model_copy(update={"prompt": shown})
        recipe = self.model_copy(update=changed)
        check_frame(recipe.optimize, as_prompt(recipe.ask[self.teacher].prompt), place)
        recipe._check_rationales(place)
        return recipe

    def _check_rationales(self, place: Callable[[str], str]) -> None:
        """Refuse a prompt that is to give rationales and does not say where one stands.

        Raises:
            UseError: Naming it.
        """
        draw = self.draw
        for name, prompt in self.used_prompts.items():
            answer = as_prompt(prompt).answer or self.task.answer
            wanted = draw.share and name in draw.rationales
            if wanted and (answer is None or answer.rationale_pattern is None):
                raise UseError(
                    place("mix.rationales"),
                    f"rationales are to come from the prompt '{name}', and nothing says how one is "
                    "found in what is written.",
                    "Say it in the prompt's own answer.rationale_pattern, or in task.answer.",
                )


def _worded(prompt: str | Prompt, words: Words | None) -> str | Prompt:
    """A prompt that knows how many words are wanted, as far as it asks for that."""
    return prompt if words is None else _with_values(prompt, words=words.model_dump())


def _with_values(prompt: str | Prompt, **values: Any) -> str | Prompt:
    """A prompt that sets values by itself, in those of its texts that use them.

    A run keeps it so, and what it was asked does not change with the file that they came from.
    """

    def whole(text: str) -> str:
        used = meta.find_undeclared_variables(parse_prompt(text))
        said = (
            f"{{% set {name} = {json.dumps(value, ensure_ascii=False)} %}}"
            for name, value in values.items()
            if name in used
        )
        return "".join(said) + text

    if isinstance(prompt, str):
        return whole(prompt)
    return prompt.model_copy(update={"user": whole(prompt.text), "system": whole(prompt.system)})


@dataclass(frozen=True)
class ZeroShotLayout(PartLayout):
    """Lays out the stages: each prompt is asked about its own rows."""

    recipe: ZeroShotRecipe

    def stages(self) -> list[Stage]:
        """All of them, each after the ones that it reads."""
        recipe, part = self.recipe, self.part
        layout, rows = self.read()
        found = None
        if recipe.optimize is not None:
            found = Decided(OPTIMIZE, prompt=True)
            asks = self._asks(recipe.ask[recipe.teacher].prompt)
            layout += search_stages(self, recipe.optimize, recipe.teacher, asks, rows)
        for name, prompt in recipe.used_prompts.items():
            drawn, asks = self._draw(name, rows), self._asks(prompt)
            decided = found if name == AS_ASKED else None
            layout += [
                drawn,
                ask_stage(_asking(name), recipe, asks, drawn.name, decided=decided),
            ]
        if part.evaluation is not None and part.evaluation.teachers:
            asks = self.asks("elaborate")
            asked = ask_stage("ask-evaluation", recipe, asks, "evaluation", decided=found)
            layout += [asked, self.judge_teachers("predict-teachers", asked.name)]
        if recipe.few_shot is not None:
            layout += self._compare_prompts(recipe.few_shot, rows)
        layout.append(self._explain(rows))
        for name, student in recipe.students.items():
            layout.append(self.train(name, student, "explain"))
            if part.evaluation is not None:
                layout.append(self.judge_student(name, student))
        return layout

    def _draw(self, prompt: str, rows: str) -> Stage:
        return Stage(
            name=_asking(prompt).replace("ask", "draw", 1),
            run="pipelines.drawing:draw",
            ray=False,
            settings={"draw": asdict(self.recipe.draw), "prompt": prompt},
            inputs={"inputs": rows},
        )

    def _compare_prompts(self, few_shot: FewShot, rows: str) -> list[Stage]:
        """The stages that ask the prompt with examples, and measure it beside the others."""
        recipe = self.recipe
        prompts = {**recipe.used_prompts, FEW_SHOT: few_shot.prompt}
        drawn, asked = f"draw-{FEW_SHOT}", _asking(FEW_SHOT)
        return [
            Stage(
                name=drawn,
                run="pipelines.drawing:draw_some",
                ray=False,
                settings={"rows": few_shot.rows, "seed": recipe.draw.seed},
                inputs={"inputs": "draw"},
            ),
            ask_stage(asked, recipe, self._asks(few_shot.prompt), drawn),
            Stage(
                name=MEASURE,
                run="pipelines.prompt_measures:measure",
                ray=False,
                settings={
                    "task": self.read_by(),
                    "answers": {name: self.answer(prompt) for name, prompt in prompts.items()},
                },
                inputs={
                    "inputs": rows,
                    "rows": drawn,
                    **{f"{ANSWERS}{name}": _asking(name) for name in prompts},
                },
            ),
        ]

    def _asks(self, prompt: str | Prompt) -> dict[str, Ask]:
        teacher = self.recipe.teacher
        return {teacher: self.recipe.ask[teacher].model_copy(update={"prompt": prompt})}

    def _explain(self, rows: str) -> Stage:
        recipe = self.recipe
        prompts = recipe.used_prompts
        return Stage(
            name="explain",
            run="pipelines.explaining:explain",
            ray=False,
            settings={
                "task": recipe.task.model_dump(),
                "answers": {name: self.answer(prompt) for name, prompt in prompts.items()},
                "draw": asdict(recipe.draw),
                "rationales": recipe.rationales.model_dump(exclude={"share", "seed", "words"}),
                "teacher": recipe.teacher,
            },
            inputs={"inputs": rows, **{f"{ANSWERS}{name}": _asking(name) for name in prompts}},
        )


def _asking(prompt: str) -> str:
    """The stage in which a prompt is asked."""
    return "ask" if prompt == AS_ASKED else f"ask-{prompt}"


def stages(loaded: LoadedRecipe) -> list[Stage]:
    """Lay out the method's stages."""
    recipe = loaded.recipe
    assert isinstance(recipe, ZeroShotRecipe)
    (part,) = recipe.parts()
    return ZeroShotLayout(recipe, part).stages()
