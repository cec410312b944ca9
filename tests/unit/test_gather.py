"""What is read of a run, where the recipe's own files may be gone, and what of it is shown."""

import json
import shutil

import pyarrow as pa
import pytest

from core.identity import content_id
from core.ledger import Entry, Ledger
from core.recipe_file import load_recipe
from core.rows import GENERATED, PREDICTION, REJECTED, SCORED, TRAINING
from core.run import Folder, Manifest, Run
from stillhouse.gather import _balance, gather
from stillhouse.methods import recipe_model
from stillhouse.report.page import render
from stillhouse.run_reader import SAMPLES, samples
from stillhouse.workflow import Workflow, plan_run, prices_of
from tests.finished_run import make_run
from tests.unit.test_command_line import stillhouse
from tests.unit.test_recipe_file import RECIPE

PRICES = "currency: EUR\ndevices:\n  cpu-core: {per_hour: 3.6, source: the contract}\n"


@pytest.fixture
def run(tmp_path) -> Run:
    """A run of a local teacher that is done with writing, and whose inputs are gone."""
    inputs = tmp_path / "inputs"
    (inputs / "model").mkdir(parents=True)
    (inputs / "model" / "config.json").write_text("{}")
    for name in ("examples.jsonl", "evaluation.jsonl"):
        (inputs / name).write_text('{"question": "Who won?", "answer": "sports"}\n')
    (inputs / "book.yaml").write_text(PRICES)
    (inputs / "recipe.yaml").write_text(RECIPE)
    settings = [f"teachers.small.model={inputs}/model", "prices=book.yaml"]
    run = Run(Folder(str(tmp_path / "run")))
    plan = plan_run(load_recipe(inputs / "recipe.yaml", recipe_model, settings=settings), run)
    Workflow(plan, display=None, stages=plan.stages)._write_state()
    made = plan.fingerprints["write"]
    manifest = Manifest("write", made.whole, made.made_from, [], 10, {})
    plan.folder("write").commit(manifest)
    # 1,000 device-seconds at 3.6 an hour.
    Ledger(run.ledger).write(Entry("write", "a", "cpu-core", "small", useful_seconds=1000))
    shutil.rmtree(inputs)
    return run


def test_a_run_is_read_where_its_inputs_are_gone(run):
    status = stillhouse("status", run.folder.location)
    assert status.returncode == 0, status.stderr
    assert "Cost so far: €1.00" in status.stdout
    report = stillhouse("report", run.folder.location)
    assert report.returncode == 0, report.stderr
    twin = json.loads(run.folder.read("report.json"))
    teacher, student = twin["provenance"]["models"]
    assert teacher["revision"] == _manifest(run)["made_from"]["teachers"][teacher["name"]]
    assert student["revision"] is None, "no stage that used it is done"


def test_the_price_book_of_a_run_is_the_one_that_it_was_started_with(run):
    assert prices_of(run).devices["cpu-core"].source == "the contract"
    assert gather(run).economics.currency == "EUR"


def _manifest(run: Run) -> dict:
    return run.finished_stages()["write"].folder.read_json("manifest.json")


@pytest.fixture
def finished(tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    return make_run(tmp_path, base)


def test_break_even_of_a_run_by_hand(finished):
    # A device-second costs a thousandth of a euro. Writing took 1,000, scoring 2,000 and training
    # 1,000: 4.00 euros; scoring evaluation rows is not making. A thousand requests take 1,000
    # device-seconds of the teacher and 200 of the student: 1.00 and 0.20 euros. Each saves 0.0008
    # euros, so 5,000 requests repay the student, a twentieth of a day's 100,000.
    costs = gather(finished).economics
    assert costs.making == pytest.approx(4.0)
    assert costs.teacher_per_thousand == pytest.approx(1.0)
    assert costs.student_per_thousand == pytest.approx(0.2)
    assert costs.break_even_requests == pytest.approx(5000)
    assert costs.break_even_days == pytest.approx(0.05)


def test_a_comparison_is_told_with_its_rates(finished):
    teacher, student = gather(finished).servings
    assert (teacher.name, student.name) == ("large", "encoder")
    assert teacher.tokens_in_per_request == 100
    assert student.tokens_in_per_request is None
    assert student.money_per_thousand == pytest.approx(0.2)
    assert student.sustained_per_second == 4.0
    assert [(point.rate, point.p95_ms) for point in student.rates] == [(4.0, 15.0)]


@pytest.mark.parametrize("total", [0, 1, SAMPLES, SAMPLES + 1, 2 * SAMPLES - 1, 10 * SAMPLES + 7])
def test_samples_are_spread_over_all_rows(total):
    found = samples(list(range(total)))
    assert found.total == total
    assert len(found.rows) <= SAMPLES
    assert len(found.rows) >= min(total, SAMPLES // 2)
    steps = {after - before for before, after in zip(found.rows, found.rows[1:], strict=False)}
    assert len(steps) <= 1
    if total:
        assert found.rows[0] == 0
        assert found.rows[-1] + max(steps, default=1) >= total


def test_the_balance_counts_the_scores_that_the_student_learned_from():
    rows = [
        {"intended": 0, "logprobs": [-1.0, -2.0], "calibrated": [-2.0, -1.0]},
        {"intended": 1, "logprobs": [-1.0, -2.0], "calibrated": [-1.0, -2.0]},
    ]
    raw = _balance(["a", "b"], rows, [], "logprobs")
    assert [balance.teacher for balance in raw] == [2, 0]
    calibrated = _balance(["a", "b"], rows, [], "calibrated")
    assert [balance.teacher for balance in calibrated] == [1, 1]


OWN_CHOICES = """\
name: exams
method: fewshot_mcqa
task: {instruction: Answer., examples: examples.jsonl, evaluation: evaluation.jsonl}
teachers: {large: {model: TEACHER}}
generate: {teacher: large, decomposed: {rows: 10}, json: {rows: 4, structured: false}}
score: {teacher: large, labels: letters, scores: raw}
students: {encoder: {model: TEACHER, head: choices}}
cross_domain: {stories: {file: evaluation.jsonl}}
"""


def commit(plan, stage, schema, rows, **facts):
    folder, made = plan.folder(stage), plan.fingerprints[stage]
    table = pa.Table.from_pylist(rows, schema=schema)
    folder.commit_shard("one", table, REJECTED.empty_table())
    folder.commit(Manifest(stage, made.whole, made.made_from, ["one"], len(rows), {}, facts))


def test_rows_with_choices_of_their_own_are_told_by_subject_and_domain(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    line = '{"question": "Where?", "choices": ["lake", "dam"], "answer": "dam"}\n'
    for name in ("examples.jsonl", "evaluation.jsonl"):
        (tmp_path / name).write_text(line)
    (tmp_path / "recipe.yaml").write_text(OWN_CHOICES.replace("TEACHER", str(tmp_path / "model")))
    run = Run(Folder(str(tmp_path / "run")))
    plan = plan_run(load_recipe(tmp_path / "recipe.yaml", recipe_model), run)
    Workflow(plan, display=None, stages=plan.stages)._write_state()

    def answers(model, right, of_subjects):
        return [
            {
                "id": content_id(subject, n),
                "model": model,
                "question": f"{n}?",
                "choices": ["lake", "dam"],
            }
            | {"answer": 1, "predicted": int(n < right[subject]), "probabilities": [0.4, 0.6]}
            | {"subject": subject}
            for subject, number in of_subjects.items()
            for n in range(number)
        ]

    rows = {"law": 2, "physics": 8}
    commit(
        plan,
        "predict-teacher",
        PREDICTION,
        answers("large raw", {"law": 1, "physics": 8}, rows),
        accuracy={"large raw": 0.9},
    )
    commit(plan, "predict-encoder", PREDICTION, answers("encoder", {"law": 2, "physics": 2}, rows))
    stories = answers("encoder", {"stories": 3}, {"stories": 4})
    commit(plan, "predict-encoder-on-stories", PREDICTION, stories)
    item = {"id": "i", "teacher": "large", "mode": "json", "question": "?", "choices": ["a", "b"]}
    commit(plan, "write", GENERATED, [])
    commit(plan, "write-json", GENERATED, [item | {"intended": 0, "usage": None}] * 3)
    found = {"json": {"duplicate": 1, "near-duplicate": 1, "too-short": 1}}
    commit(plan, "clean", GENERATED, [item | {"intended": 0}], rejected_by_mode=found)
    scored = {"id": "s", "item": "i", "teacher": "large", "question": "?", "choices": ["a", "b"]}
    commit(plan, "score", SCORED, [scored | {"intended": 0, "logprobs": [-1.0, -2.0]}])
    row = {"id": "t", "question": "?", "choices": ["a", "b"], "answer": 0, "logits": [-1.0, -2.0]}
    commit(plan, "select", TRAINING, [row | {"weight": 1.0, "source": "json"}])

    data = gather(run)
    teacher, student = data.qualities
    assert {name: score.share for name, score in student.by_subject.items()} == {
        "law": 1.0,
        "physics": 0.25,
    }
    assert student.score.share == 0.4, "of all rows, as MMLU is told"
    assert student.subject_mean == pytest.approx(0.625)
    assert teacher.subject_mean == pytest.approx(0.75)
    (domain,) = data.domains
    assert (domain.domain, domain.model, domain.score.share) == ("stories", "Student encoder", 0.75)
    _, json_way = data.ways
    assert (json_way.asked, json_way.generated, json_way.duplicates, json_way.kept) == (4, 3, 2, 1)
    assert data.choices == []
    assert data.confusion is None
    assert data.kept.rows[0].choices == ["a", "b"]
    page = render(data)
    for shown in ("By subject", "physics", "25.0%", "62.5%", "In other domains", "stories", "dam"):
        assert shown in page, shown
