"""What a changed recipe, prompt or file runs again, and what it keeps."""

from collections import Counter
from pathlib import Path

import pytest

from core.errors import UseError
from core.recipe_file import load_recipe
from core.run import Folder, Manifest, Run
from stillhouse.engines import Engines
from stillhouse.methods import recipe_model
from stillhouse.workflow import Workflow, differences, plan_run, refuse_other_recipe
from tests.unit.test_recipe_file import RECIPE


@pytest.fixture
def plan_of(tmp_path):
    for name in ("examples.jsonl", "evaluation.jsonl"):
        (tmp_path / name).write_text('{"question": "Who won?", "answer": "sports"}\n')
    (tmp_path / "recipe.yaml").write_text(RECIPE)

    def plan(*settings):
        loaded = load_recipe(tmp_path / "recipe.yaml", recipe_model, settings=settings)
        return plan_run(loaded, Run(Folder(str(tmp_path / "run"))))

    plan.folder = tmp_path
    return plan


def changed(before, after, part="whole") -> set[str]:
    return {
        name
        for name, found in before.fingerprints.items()
        if getattr(found, part) != getattr(after.fingerprints[name], part)
    }


AFTER_SELECT = {"train-encoder", "predict-encoder", "compare-encoder"}


def test_a_plan_is_the_same_every_time(plan_of):
    assert plan_of().fingerprints == plan_of().fingerprints


def test_a_model_folder_is_hashed_once_for_all_its_stages(plan_of, monkeypatch):
    import core.models

    model = plan_of.folder / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    hashed = []
    digest = core.models.folder_digest
    monkeypatch.setattr(
        core.models, "folder_digest", lambda folder: hashed.append(folder) or digest(folder)
    )
    plan = plan_of(f"teachers.small.model={model}")
    assert sum("small" in stage.teachers for stage in plan.stages) > 1
    assert hashed == [model]


@pytest.mark.parametrize(
    ("student", "stage"),
    [("encoder-examples-alone", "train-encoder-examples-alone"), ("teacher", "predict-teacher")],
)
def test_students_whose_stages_would_have_one_name_are_refused(plan_of, student, stage):
    with pytest.raises(UseError) as caught:
        plan_of(f"students.{student}={{model: embedded://all-minilm-l6-v2}}")
    assert stage in caught.value.cause
    assert "another name" in caught.value.mend


def test_more_rows_keep_the_work_that_is_there(plan_of):
    before, after = plan_of(), plan_of("generate.decomposed.rows=20")
    assert changed(before, after) == {"write", "clean", "score", "select"} | AFTER_SELECT
    # The folders of what a teacher did stay the same, so its committed rows are found again.
    assert not changed(before, after, "work") & {"write", "write-json", "score"}


def test_another_learning_rate_trains_again_and_asks_no_teacher(plan_of):
    after = plan_of("students.encoder.train.learning_rate=0.5")
    assert changed(plan_of(), after) == AFTER_SELECT | {
        "train-encoder-examples-alone",
        "predict-encoder-examples-alone",
    }


def test_letters_and_their_permutations_score_again_and_write_nothing(plan_of):
    words, letters = plan_of(), plan_of("score.labels=letters")
    scored = {"score", "select", "score-evaluation", "predict-teacher"} | AFTER_SELECT
    assert changed(words, letters) == scored
    two = plan_of("score.labels=letters", "score.permutations=2")
    assert changed(letters, two) == scored


def test_serving_settings_measure_again_and_train_nothing(plan_of):
    assert changed(plan_of(), plan_of("serve.max_batch_size=4")) == {"compare-encoder"}


def test_prices_and_ports_change_nothing(plan_of):
    assert not changed(plan_of(), plan_of("compare.requests_per_day=7", "serve.port=0"))


def another_evaluation_set(plan_of, *settings) -> tuple:
    """Plans before and after the evaluation set changed."""
    before = plan_of(*settings)
    with (plan_of.folder / "evaluation.jsonl").open("a") as stream:
        stream.write('{"question": "Rates rise", "answer": "business"}\n')
    return before, plan_of(*settings)


EVALUATED = {
    "evaluation",
    "score-evaluation",
    "predict-teacher",
    "predict-encoder",
    "predict-encoder-examples-alone",
    "compare-encoder",
}


def test_another_evaluation_set_generates_nothing_again(plan_of):
    before, after = another_evaluation_set(plan_of, "curate.contamination_ngram=null")
    assert changed(before, after) == EVALUATED


def test_another_evaluation_set_is_checked_for_copies_and_keeps_what_teachers_did(plan_of):
    before, after = another_evaluation_set(plan_of)
    assert changed(before, after) == EVALUATED | {"clean", "score", "select"} | AFTER_SELECT
    assert not changed(before, after, "work") & {"write", "write-json", "score"}


def test_one_prompt_file_runs_again_only_what_uses_it(plan_of, monkeypatch):
    import stillhouse.stages

    before = plan_of()
    version = stillhouse.stages.prompt_version
    monkeypatch.setattr(
        stillhouse.stages,
        "prompt_version",
        lambda name: "edited" if name.endswith("write_json.j2") else version(name),
    )
    found = changed(before, plan_of())
    assert "write-json" in found
    assert not found & {"write", "score-evaluation", "predict-teacher", "examples"}


def test_another_recipe_in_the_same_folder_is_refused_with_the_difference(plan_of):
    plan = plan_of()
    Workflow(plan, display=None, stages=plan.stages)._write_state()
    # Nothing is committed yet, so nothing could be mixed.
    refuse_other_recipe(plan_of("students.encoder.train.epochs=9"))
    for stage in plan.stages:
        plan.folder(stage.name).commit(Manifest(stage.name, "f", {}, [], 0, {}))
    refuse_other_recipe(plan_of())
    refuse_other_recipe(plan_of("compare.requests_per_day=7"))
    with pytest.raises(UseError) as caught:
        refuse_other_recipe(plan_of("students.encoder.train.epochs=9"))
    assert "students.encoder.train.epochs: 2 -> 9" in caught.value.cause
    assert "train-encoder" in caught.value.mend
    assert "--update" in caught.value.mend
    assert "write" not in caught.value.mend


def test_a_changed_file_is_told_as_what_can_have_changed(plan_of):
    plan = plan_of()
    Workflow(plan, display=None, stages=plan.stages)._write_state()
    for stage in plan.stages:
        plan.folder(stage.name).commit(Manifest(stage.name, "f", {}, [], 0, {}))
    with (plan_of.folder / "examples.jsonl").open("a") as stream:
        stream.write('{"question": "Rates rise", "answer": "business"}\n')
    with pytest.raises(UseError, match="a file that the recipe names") as caught:
        refuse_other_recipe(plan_of())
    assert "Stillhouse itself" not in caught.value.cause


def test_until_takes_a_stage_and_what_it_needs_and_no_more(plan_of):
    plan = plan_of()
    assert [stage.name for stage in plan.until("clean")] == [
        "examples",
        "evaluation",
        "write",
        *(["write-json"] if "write-json" in plan.fingerprints else []),
        "clean",
    ]
    needed = {stage.name for stage in plan.until("predict-encoder")}
    assert {"evaluation", "score", "train-encoder"} <= needed
    assert not needed & {"compare-encoder", "predict-teacher", "train-encoder-examples-alone"}
    with pytest.raises(UseError, match="no such stage"):
        plan.until("predict")


def test_differences_name_keys_and_both_values():
    before = {"a": {"b": 1, "c": [1]}, "d": None}
    assert differences(before, {"a": {"b": 2, "c": [1]}, "d": None}) == ["a.b: 1 -> 2"]
    assert differences(before, before) == []
    assert differences({"a": 1}, {"b": 1}) == ["a: 1 -> None", "b: None -> 1"]


class OpenEngine:
    closed = False

    def close(self):
        self.closed = True


@pytest.fixture
def machine(monkeypatch):
    import stillhouse.workflow

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(
        stillhouse.workflow, "local_resources", lambda: Counter({"CPU": 4.0, "GPU": 1.0})
    )


@pytest.mark.parametrize(("gpus", "closes"), [(0, False), (1, True)])
def test_an_idle_engine_makes_room_for_a_training_that_needs_its_gpu(
    plan_of, machine, monkeypatch, gpus, closes
):
    plan = plan_of(
        "teachers.small.device={gpus: 1}", f"students.encoder.train.device={{gpus: {gpus}}}"
    )
    workflow = Workflow(plan, display=None, stages=plan.stages)
    engine = OpenEngine()
    monkeypatch.setattr("pipelines.teachers.open_teacher", lambda *_: engine)
    workflow.engines.get("small", plan.loaded, Path("logs"))
    workflow.has_ray = True
    by_name = {stage.name: stage for stage in plan.stages}
    workflow._make_room(by_name["train-encoder"])
    assert engine.closed == closes
    assert bool(list(workflow.engines)) != closes


def test_an_engine_serves_several_recipes_until_one_has_another_teacher(
    plan_of, monkeypatch, tmp_path
):
    opened = []

    def open_teacher(*_):
        opened.append(OpenEngine())
        return opened[-1]

    monkeypatch.setattr("pipelines.teachers.open_teacher", open_teacher)
    engines = Engines()
    one, two = plan_of().loaded, plan_of("seed=2").loaded
    other = plan_of("teachers.small.engine={max_num_seqs: 2}").loaded
    assert engines.get("small", one, tmp_path) is engines.get("small", two, tmp_path)
    engines.close_all_but(two.recipe.teachers)
    assert not opened[0].closed
    assert engines.get("small", other, tmp_path) is opened[1]
    assert opened[0].closed, "its model may be another one"
    engines.close_all_but(one.recipe.teachers)
    assert opened[1].closed
    assert not list(engines)


def test_a_stage_that_can_never_fit_is_refused_at_once(plan_of, machine):
    plan = plan_of("students.encoder.train.workers=3", "students.encoder.train.device={cpus: 2}")
    workflow = Workflow(plan, display=None, stages=plan.stages)
    workflow.has_ray = True
    by_name = {stage.name: stage for stage in plan.stages}
    with pytest.raises(UseError, match="asks for 6 CPUs, and this machine has 4"):
        workflow._make_room(by_name["train-encoder"])
