"""`plan` tells what trainings take, and `run` and `plan` refuse what cannot fit."""

from __future__ import annotations

import re

import pytest

from core.errors import UseError
from core.recipe_file import load_recipe
from core.run import Folder, Manifest, Run
from stillhouse.display import show_plan, show_run
from stillhouse.memory_table import refuse_what_cannot_fit
from stillhouse.methods import recipe_model
from stillhouse.workflow import plan_run
from tests.unit.test_recipe_file import RECIPE


@pytest.fixture
def plan_of(tmp_path, tiny_encoder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("examples.jsonl", "evaluation.jsonl"):
        (tmp_path / name).write_text('{"question": "Who won?", "answer": "sports"}\n')
    (tmp_path / "recipe.yaml").write_text(RECIPE)

    def plan(*settings, model=tiny_encoder):
        settings = (
            f"students.encoder.model={model}",
            "students.encoder.train.max_length=64",
            *settings,
        )
        loaded = load_recipe(tmp_path / "recipe.yaml", recipe_model, settings=settings)
        return plan_run(loaded, Run(Folder(str(tmp_path / "run"))))

    plan.folder = tmp_path
    return plan


def memory(gib: float) -> str:
    return f"students.encoder.train.device={{kind: cpu-core, memory_gib: {gib}}}"


def lines_of(text: str) -> dict[str, str]:
    """The lines by the setting that they tell of, offload included, without the mark."""
    found = {}
    for line in text.splitlines():
        name = re.match(r"[* ]? ?((DDP|ZeRO \d)( +(optimizer|both))?)", line)
        if name:
            found[" ".join(name[1].split())] = line
    return found


def test_a_plan_has_a_line_for_every_stage_and_offload(plan_of, capsys):
    show_plan(plan_of("students.encoder.train.zero_stage=2", "students.encoder.train.workers=2"))
    out = capsys.readouterr().out
    lines = lines_of(out)
    names = ["DDP", "ZeRO 0", "ZeRO 1", "ZeRO 2", "ZeRO 2 optimizer", "ZeRO 3"]
    names += ["ZeRO 3 optimizer", "ZeRO 3 both"]
    assert [name for name in lines if name.startswith(("DDP", "ZeRO"))] == names
    assert [name for name in names if lines[name].startswith("*")] == ["ZeRO 2"]
    assert "2 workers, each 8 sequences of 64 tokens" in " ".join(out.split())
    assert "nothing is refused" in " ".join(out.split())
    assert "fits" not in out


def test_a_plan_says_what_fits_where_the_memory_is_known(plan_of, capsys):
    show_plan(plan_of(memory(1)))
    out = capsys.readouterr().out
    assert "1.0 GiB there, of which 10% stay free" in " ".join(out.split())
    assert all(" yes " in line for name, line in lines_of(out).items() if name.startswith("ZeRO"))


def test_a_plan_refuses_what_cannot_fit_behind_its_table(plan_of, capsys):
    with pytest.raises(UseError) as caught:
        show_plan(plan_of(memory(0.001)))
    assert " no " in lines_of(capsys.readouterr().out)["DDP"]
    assert caught.value.place == "students.encoder.train"
    assert "on each worker, and 0.0 GiB are there" in caught.value.cause
    assert "micro_batch_size" in caught.value.mend


def test_a_run_refuses_it_before_anything_is_written(plan_of):
    with pytest.raises(UseError, match=r"students\.encoder\.train"):
        show_run(plan_of(memory(0.001)))
    assert not (plan_of.folder / "run").exists()


def test_only_trainings_that_will_run_are_refused(plan_of):
    plan = plan_of(memory(0.001))
    refuse_what_cannot_fit(plan, plan.until("score"))
    trainings = [stage for stage in plan.stages if stage.name.startswith("train-")]
    with pytest.raises(UseError):
        refuse_what_cannot_fit(plan, trainings)
    for stage in trainings:
        made = Manifest(stage.name, plan.fingerprints[stage.name].whole, {}, [], 0, {})
        plan.folder(stage.name).commit(made)
    refuse_what_cannot_fit(plan, trainings)


def test_a_run_looks_at_no_model_where_the_memory_is_unknown(plan_of):
    model = plan_of.folder / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    unknown, known = plan_of(model=model), plan_of(memory(1), model=model)
    refuse_what_cannot_fit(unknown, unknown.stages)
    with pytest.raises(UseError, match=r"config\.json cannot be used"):
        refuse_what_cannot_fit(known, known.stages)
