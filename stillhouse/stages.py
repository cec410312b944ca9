"""A stage of a method: what runs, on what, and the fingerprint of all that decides its outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from core.identity import content_id, file_digest
from core.models import model_revision, teacher_revision
from core.recipe import LoadedRecipe, Recipe
from core.recipe_section import Device
from core.recipe_teachers import AnyTeacher, Teacher
from core.run import Run
from pipelines.prompt_files import prompt_version


@dataclass(frozen=True)
class Stage:
    """One step of a method."""

    name: str
    run: str
    """The stage function, as `module:function`; imported when it runs."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What the function is told, and what decides each of its rows."""
    extent: dict[str, Any] = field(default_factory=dict)
    """Settings that decide how many rows there are, and none of them."""
    inputs: dict[str, str] = field(default_factory=dict)
    """Stages that it reads, by role; all of their rows decide each of its rows."""
    growing: dict[str, str] = field(default_factory=dict)
    """Stages of which it answers row by row: more rows there mean more rows here."""
    decisions: dict[str, str] = field(default_factory=dict)
    """Stages that choose something for it, by role: what was chosen decides its rows, and not how.
    A choice is the fact `chosen` of such a stage."""
    teachers: list[str] = field(default_factory=list)
    """The teachers whose engines it uses."""
    asks: dict[str, int] = field(default_factory=dict)
    """Where it answers rows with them: rows by teacher, for each row of `growing`, or in all where
    nothing grows."""
    ray: bool = True
    """Whether it needs Ray, beside what its teachers need."""
    holds: dict[str, float] = field(default_factory=dict)
    """Ray resources that it holds beside them, such as those of training workers."""
    models: list[str] = field(default_factory=list)
    """Other models that it starts from."""
    prompts: list[str] = field(default_factory=list)
    """Prompt files that it fills in."""
    files: list[str] = field(default_factory=list)
    """Input files that it reads, as the recipe names them."""
    predicts: str = ""
    """The student whose answers to the evaluation rows it commits: what ablations compare."""
    made_from: dict[str, Any] = field(default_factory=dict)
    """Whatever else decides its rows."""

    @property
    def reads(self) -> dict[str, str]:
        """All stages before it, by role."""
        return {**self.inputs, **self.growing, **self.decisions}


def needs_ray(stage: Stage, recipe: Recipe) -> bool:
    """Whether a stage cannot run without Ray."""
    return stage.ray or any(isinstance(recipe.teachers[name], Teacher) for name in stage.teachers)


def teacher_resources(teacher: AnyTeacher) -> dict[str, float]:
    """Ray resources of a teacher's engines at their least number; without engines, none."""
    if isinstance(teacher, Teacher):
        return resources(teacher.device, teacher.replica_bounds.min)
    return {}


def resources(device: Device, number: int) -> dict[str, float]:
    """Ray resources of a number of equal engines, workers or replicas."""
    return {"CPU": number * device.cpus, "GPU": number * device.gpus}


@dataclass(frozen=True)
class Fingerprint:
    """What a stage is made from."""

    work: str
    """Of all that decides each row: names the folder."""
    whole: str
    """Of that and of the number of rows: says whether the stage is done."""
    made_from: dict[str, Any]
    """The readable content, to show differences."""


def fingerprint(
    stage: Stage, loaded: LoadedRecipe, known: Mapping[str, Fingerprint], run: Run | None = None
) -> Fingerprint:
    """Fingerprint a stage whose inputs are `known`.

    Args:
        stage: Whose.
        loaded: The recipe.
        known: Of the stages before it.
        run: In which choices may have been made; none has if absent.
    """
    made_from: dict[str, Any] = {
        "settings": stage.settings,
        "prompts": {name: prompt_version(name) for name in stage.prompts},
        "files": {name: file_digest(loaded.path(name)) for name in stage.files},
        "inputs": {role: known[name].whole for role, name in stage.inputs.items()},
        "also": stage.made_from,
    }
    made_from["models"] = {name: model_revision(name) for name in stage.models}
    # By their own names: two endpoints, recordings or adapters may be of one model.
    made_from["teachers"] = {name: teacher_revision(name, loaded) for name in stage.teachers}
    made_from["engines"] = {
        name: teacher.engine
        for name in stage.teachers
        if isinstance(teacher := loaded.recipe.teachers[name], Teacher)
    }
    if stage.decisions:
        made_from["decisions"] = {
            role: _chosen(name, known[name], run) for role, name in stage.decisions.items()
        }
    work = content_id(stage.run, made_from)
    growing = {role: known[name].whole for role, name in stage.growing.items()}
    return Fingerprint(
        work=work,
        whole=content_id(work, stage.extent, growing),
        made_from={**made_from, "extent": stage.extent, "growing": growing},
    )


def _chosen(name: str, made: Fingerprint, run: Run | None) -> Any:
    """What a stage has chosen, or while it has not, how it will."""
    manifest = run.stage(name, made.work, made.whole).manifest() if run else None
    if manifest is None:
        return {"undecided": made.whole}
    return manifest.facts["chosen"]


def fingerprints(
    stages: list[Stage], loaded: LoadedRecipe, run: Run | None = None
) -> dict[str, Fingerprint]:
    """Fingerprint all stages of a recipe, with the choices that a run has made."""
    known: dict[str, Fingerprint] = {}
    for stage in stages:
        known[stage.name] = fingerprint(stage, loaded, known, run)
    return known
