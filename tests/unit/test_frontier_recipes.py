"""The recipes of 2410.18588 by every profile: they load, and have the paper's arms and models."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.recipe_file import load_recipe
from pipelines.datasets import DatasetFormat, dataset_rows
from pipelines.inputs import _check
from pipelines.questions import Questions
from pipelines.row_work import Rejection
from stillhouse.arms import arm_columns
from stillhouse.methods import lay_out, recipe_model
from tests.unit.test_memory_large import config
from training.memory import Memory

RECIPES = Path(__file__).parents[2] / "recipes"
PROFILES = [None, "local", "kubernetes"]


def load(name, profile):
    return load_recipe(RECIPES / f"frontier_{name}.yaml", recipe_model, profile)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", ["nlu", "summarize", "chat"])
def test_every_row_of_the_recipes_can_be_asked_and_judged(name, profile):
    recipe = load(name, profile).recipe
    for part in recipe.parts():
        questions = Questions(part.task)
        for rows in (part.inputs, part.evaluation):
            found = list(dataset_rows(rows.format, RECIPES / rows.file))
            assert len(found) >= 3
            for number, row in found:
                assert not isinstance(row, Rejection), (part.name, row)
                question = questions.to_be_judged(_check(number, row, {}))
                assert not isinstance(question, Rejection), (part.name, question)


def test_the_paper_has_twelve_three_and_two_data_sets_and_two_students():
    formats = set()
    for name, number in (("nlu", 12), ("summarize", 3), ("chat", 2)):
        recipe = load(name, "kubernetes").recipe
        assert len(recipe.datasets) == number
        formats |= {part.inputs.format for part in recipe.parts()}
        models = [student.model for student in recipe.students.values()]
        assert [model.rpartition("-")[0][-3:] for model in models] == ["-8B", "70B"]
        assert recipe.teachers["teacher"].model == "meta-llama/Llama-3.1-405B-Instruct"
        assert recipe.name.startswith("llama")
        for student in recipe.students.values():
            assert (student.train.epochs, student.train.learning_rate) == (5, 2e-5)
        assert recipe.ask["teacher"].sampling.max_tokens <= 1024
    assert len(formats) == 17, "each as its authors give it"
    assert formats <= set(DatasetFormat.__args__)


def test_the_arms_of_the_papers_tables():
    names = {stage.name for stage in lay_out(load("summarize", "kubernetes"))}
    eight = {
        *("predict-teachers-plain", "predict-teachers"),
        *(f"predict-{s}{a}" for s in ("small", "large") for a in ("-undistilled", "-plain", "")),
    }
    for dataset in ("chain_of_density", "govreport", "bbc_news"):
        assert {f"{arm}-{dataset}" for arm in eight} <= names
    nlu = load("nlu", "kubernetes")
    assert sum(len(arms) for arms in arm_columns(nlu.recipe).values()) == 10
    names = {stage.name for stage in lay_out(nlu)}
    assert "predict-large-undistilled-elaborate-riddlesense" in names
    assert {n for n in names if n.startswith("rate-")} == {
        f"rate-complexity-{s}" for s in ("aqua", "gsm8k", "multiarith", "svamp")
    }
    chat = {stage.name for stage in lay_out(load("chat", "kubernetes"))}
    assert {"rate-hhh-alpaca", "rate-hhh-quora", "prefer-hhh-quora"} <= chat


@pytest.mark.parametrize("name", ["nlu", "summarize", "chat"])
@pytest.mark.parametrize(("student", "size"), [("small", "8b"), ("large", "70b")])
def test_the_students_of_the_cluster_fit_their_gpus(tmp_path, name, student, size):
    (tmp_path / "config.json").write_text(config(size).to_json_string())
    section = load(name, "kubernetes").recipe.students[student]
    memory = Memory(tmp_path, section, 0)
    assert memory.needs(memory.own).fit(section.train.device.memory)
