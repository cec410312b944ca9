"""Students of frontier distillation asked on a real Ray, by the command that users run.

Tiny models take the places of trained ones: what is tested is how they are asked and judged.
"""

from __future__ import annotations

import json

import pytest

from core.recipe_file import load_recipe
from core.rows import PREDICTION, WRITTEN
from core.run import Folder, Manifest, Run
from stillhouse.methods import recipe_model
from stillhouse.workflow import plan_run
from tests.commands import fresh_command as command
from tests.tiny_models import make_chooser, make_writer
from tests.unit.test_frontier import PLACES, write_files


@pytest.fixture
def trained(tmp_path, tiny_encoder, tiny_teacher):
    """A recipe whose students are there, and nothing else."""
    write_files(tmp_path)
    run = Run(Folder(str(tmp_path / "run")))
    plan = plan_run(load_recipe(tmp_path / "recipe.yaml", recipe_model), run)
    for name, make, base in (
        ("minilm", make_chooser, tiny_encoder),
        ("writer", make_writer, tiny_teacher),
    ):
        stage, made = plan.folder(f"train-{name}"), plan.fingerprints[f"train-{name}"]
        target = stage.folder.child("student").local
        target.mkdir(parents=True)
        make(base, target)
        stage.commit(Manifest(stage.stage, made.whole, made.made_from, [], 30, {}))
    return tmp_path, run


def test_students_that_choose_and_that_write_are_judged_beside_their_teacher(trained):
    folder, run = trained
    by_choice = ("--set", "evaluation.score_choices=true")
    done = command(folder, "run", "recipe.yaml", "--run", "run", *by_choice, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    stages = run.finished_stages()
    chosen, written = stages["predict-minilm"], stages["predict-writer"]
    assert chosen.read().schema.equals(PREDICTION)
    assert written.read().schema.equals(WRITTEN)
    for row in chosen.read().to_pylist():
        assert len(row["probabilities"]) == len(row["choices"]) in (2, 3)
        assert sum(row["probabilities"]) == pytest.approx(1, abs=1e-5)
        best = max(row["probabilities"])
        assert row["probabilities"][row["predicted"]] == best
    for stage in (chosen, written):
        assert stage.manifest().rejected == {"no-gold": 1}
        assert len({row["id"] for row in stage.read().to_pylist()}) == stage.manifest().rows == 10
    # It babbles: nothing that it writes is a choice, and that is wrong, and counted.
    assert any(row["text"] for row in written.read().to_pylist())
    likeliest = 0
    for row in written.read().to_pylist():
        logprobs = row["choice_logprobs"]
        # Two choices of even questions, and three of odd ones; the answer is the first or second.
        assert len(logprobs) in (2, 3)
        assert max(logprobs) < 0
        best = logprobs.index(max(logprobs))
        assert row["right_choice"] == (PLACES.index(row["answer"]) == best)
        likeliest += row["right_choice"]
    assert written.manifest().facts == {
        "accuracy": {"writer": 0.0},
        "unparsed": {"writer": 10},
        "unanswered": {"writer": 0},
        "choice_accuracy": {"writer": likeliest / 10},
    }
    report = json.loads((folder / "run" / "report.json").read_text())
    judged = {one["name"]: one for one in report["judged"]}
    assert list(judged) == ["palm", "flan", "minilm", "writer"]
    assert judged["writer"]["by_choice"]["correct"] == likeliest
    assert judged["minilm"]["by_choice"] is None
    assert judged["writer"]["beside"] == "palm"
    assert judged["writer"]["paired"] == {
        "both": 0,
        "only_student": 0,
        "only_teacher": 8,
        "neither": 2,
    }
    right = sum(row["predicted"] == row["answer"] for row in chosen.read().to_pylist())
    assert judged["minilm"]["score"]["correct"] == right
    assert "student writer" in done.stdout
