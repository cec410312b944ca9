"""Judges in a recipe, and their stages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from core.recipe_prompts import Prompt, as_prompt
from core.recipe_section import Name, Section
from pipelines.prompt_library import resolved
from stillhouse.asking import Sampling
from stillhouse.stages import Stage

RATE_ANSWERS = "pipelines.judging:rate_answers"
RATE_QUESTIONS = "pipelines.judging:rate_questions"
COMPARE = "pipelines.judging:compare_answers"

AnyPrompt = Annotated[str, Field(min_length=1)] | Prompt

COMPLEXITY = ["reasoning_steps", "arithmetic", "concepts", "precision", "education"]
"""What makes a math problem complex (2410.18588, section 4.3.1)."""


class Judge(Section):
    """A model that judges what others wrote."""

    teacher: Name
    """Who judges: one of `teachers`, of any kind."""
    rates: Literal["answers", "questions"] = "answers"
    """`answers`: each reply of each model. `questions`: the evaluation rows themselves, such as how
    complex they are."""
    prompts: dict[Name, AnyPrompt] = {}
    """By name: what it is asked. Ratings are the mean over them, with their spread. If absent, the
    library's three for how helpful, honest and harmless a reply is, or its one for complexity."""
    criteria: list[Name] = []
    """Of `questions`: what they are rated by beside the rating in all; those of the library's
    prompt if that is taken."""
    pairs: bool = False
    """Of `answers`: also which of two is better, each student beside itself undistilled and beside
    the first teacher, in both orders."""
    pair_prompt: AnyPrompt = Prompt(library="judge/pair")
    """What it is asked about two."""
    scale: tuple[float, float] = (1.0, 5.0)
    """The least and the greatest rating."""
    sampling: Sampling = Sampling(temperature=0.0, chat=True)
    """How its words are drawn."""
    datasets: list[Name] | None = None
    """Of several data sets: those that it judges; all if absent."""

    @model_validator(mode="before")
    @classmethod
    def _as_the_library_has_it(cls, said: Any) -> Any:
        if not isinstance(said, dict) or said.get("prompts"):
            return said
        if said.get("rates") == "questions":
            found = {"complexity": {"library": "judge/math_complexity"}}
            return {"criteria": COMPLEXITY, **said, "prompts": found}
        names = ("hhh", "hhh_brief", "hhh_faults")
        return {**said, "prompts": {name: {"library": f"judge/{name}"} for name in names}}

    @model_validator(mode="before")
    @classmethod
    def _scale_is_a_list(cls, said: Any) -> Any:
        if isinstance(said, dict) and isinstance(said.get("scale"), list):
            return {**said, "scale": tuple(float(end) for end in said["scale"])}
        return said

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.scale[0] >= self.scale[1]:
            raise ValueError(f"scale ends with {self.scale[1]:g}, not above {self.scale[0]:g}")
        if self.rates == "questions" and self.pairs:
            raise ValueError("pairs are of answers, and rates is questions")
        if self.rates == "answers" and self.criteria:
            raise ValueError("criteria are of questions, and rates is answers")
        return self

    def judges(self, dataset: str) -> bool:
        """Whether it judges a data set, by its name."""
        return self.datasets is None or dataset in self.datasets


def resolve_judge(judge: Judge, folder: Path, key: str, place: Callable[[str], str]) -> Judge:
    """A judge with the texts of its prompts.

    Args:
        judge: As the recipe has it.
        folder: The recipe's.
        key: Of its section.
        place: Tells the line of a key.
    """
    prompts = {
        name: resolved(prompt, "judge", folder, None, key=f"{key}.prompts.{name}", place=place)
        for name, prompt in judge.prompts.items()
    }
    pair = resolved(judge.pair_prompt, "judge", folder, None, key=f"{key}.pair_prompt", place=place)
    return judge.model_copy(update={"prompts": prompts, "pair_prompt": pair})


def judge_files(name: str, judge: Judge) -> dict[str, Prompt]:
    """A judge's prompts, by the dotted keys that name them."""
    prompts = {f"judges.{name}.prompts.{key}": p for key, p in judge.prompts.items()}
    prompts[f"judges.{name}.pair_prompt"] = judge.pair_prompt
    return {key: as_prompt(prompt) for key, prompt in prompts.items()}


def _texts(prompt: AnyPrompt) -> dict[str, Any]:
    whole = as_prompt(prompt)
    answer = whole.answer and whole.answer.model_dump()
    texts = {"user": whole.text, "system": whole.system, "answer": answer}
    return texts | ({"json_schema": whole.json_schema} if whole.json_schema else {})


def judge_stage(
    name: str,
    run: str,
    judge: Judge,
    seed: int,
    inputs: dict[str, str],
    **more: Any,
) -> Stage:
    """A stage in which a judge is asked.

    Args:
        name: The stage's.
        run: Its function.
        judge: As the recipe has it.
        seed: Of the run.
        inputs: Stages that it reads, by role. It judges their rows one by one, so a stage more
            leaves what it said of the others.
        more: Settings of the function's own.
    """
    prompts = {"pair": judge.pair_prompt} if run == COMPARE else judge.prompts
    return Stage(
        name=name,
        run=run,
        ray=False,
        settings={
            "judge": judge.teacher,
            "prompts": {key: _texts(prompt) for key, prompt in prompts.items()},
            "sampling": judge.sampling.model_dump(),
            **more,
        },
        growing=inputs,
        # No `asks`: a sample of what it says would want trained students first.
        teachers=[judge.teacher],
        made_from={"seed": seed},
    )
