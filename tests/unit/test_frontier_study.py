"""Several data sets in one run: their stages, and malformed answers of every kind of task."""

from __future__ import annotations

import json
import random

import pytest

from core.errors import UseError
from core.recipe_file import load_recipe
from core.recipe_prompts import as_prompt
from core.run import Folder, Manifest, Run
from core.student_reading import StudentReading
from pipelines.asked_texts import fill_in
from stillhouse.endpoint import student_family
from stillhouse.methods import lay_out, recipe_model
from stillhouse.workflow import Workflow, plan_run, trained_student
from tests.commands import command
from tests.unit.test_recorded import stage_of, write_lines
from tests.unit.test_step_lists import malformed

RECIPE = """\
name: study
method: frontier_study
teachers:
  llama: {backend: recorded, model: llama, files: [llama.jsonl], columns: {system: system}}
ask:
  llama: {prompt: {library: chain_of_thought}, sampling: {max_tokens: 512}}
arms: {plain_teacher: true, undistilled: true, undistilled_elaborate: true}
datasets:
  sums:
    task: {kind: math}
    inputs: {file: sums.jsonl, format: gsm8k}
    evaluation: {file: sums.jsonl, format: gsm8k}
  rain:
    task: {kind: nli}
    inputs: {file: rain.jsonl}
    evaluation: {file: rain.jsonl}
  riddles:
    task: {kind: multiple_choice}
    inputs: {file: riddles.jsonl}
    evaluation: {file: riddles.jsonl}
  news:
    task: {kind: summarization}
    inputs: {file: news.jsonl}
    evaluation: {file: news.jsonl}
    prompts: {llama: {library: chain_of_density}}
students:
  small: {family: causal, model: embedded://smollm2-135m-instruct}
"""
ROWS = 125
"""Of each of four data sets: 500 in all."""


def spoilt(random_, right):
    """An answer as a model may spoil it."""
    parts = ["Answer:", "answer", right, "(b)", "\n", "**", "-", ",", "\x00", "\u202e", "9" * 400]
    parts += ["{", "}}", "\ud800", "\u0667", "I cannot say.", "Answer: both", "entailment", "A B"]
    return " ".join(random_.choices(parts, k=random_.randint(1, 8)))


@pytest.fixture
def study(tmp_path):
    random_, numbers = random.Random(0), range(ROWS)
    sums = [{"question": f"What is {n} + 1?", "answer": f"#### {n + 1}"} for n in numbers]
    rain = [
        {"premise": f"It rains {n}.", "hypothesis": "It is wet.", "label": "neutral"}
        for n in numbers
    ]
    riddles = [
        {"question": f"Where {n}?", "choices": ["lake", "dam"], "answer": "dam"} for n in numbers
    ]
    news = [{"document": f"Lisbon fell in {n}."} for n in numbers]
    files = {"sums": sums, "rain": rain, "riddles": riddles, "news": news}
    for name, rows in files.items():
        write_lines(tmp_path / f"{name}.jsonl", rows)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "llama.jsonl").touch()
    records = []
    loaded = load_recipe(tmp_path / "recipe.yaml", recipe_model)
    for name, rows in files.items():
        prompt = loaded.recipe.datasets[name].prompts["llama"]
        chains = malformed(ROWS)
        for n, row in enumerate(rows):
            asked = fill_in(prompt.text, prompt.system, row)
            text = chains[n] if name == "news" else spoilt(random_, "42")
            records.append({"prompt": asked.turns[0], "system": asked.system, "text": text})
    write_lines(tmp_path / "llama.jsonl", records)
    return tmp_path


def test_five_hundred_malformed_answers_are_counted_and_none_stops_the_run(study):
    reasons = set()
    for name in ("sums", "rain", "riddles", "news"):
        stage = f"extract-text-{name}"
        done = command(study, "run", "recipe.yaml", "--run", "run", "--until", stage)
        assert done.returncode == 0, done.stderr
        manifest = stage_of(study, stage).manifest()
        asked = stage_of(study, f"ask-{name}").manifest()
        # Texts of blanks alone are rejected where teachers are asked.
        empty = sum(asked.rejected.values())
        assert manifest.rows + sum(manifest.rejected.values()) + empty == ROWS
        assert manifest.rows
        assert sum(manifest.rejected.values()) > 20
        reasons |= set(manifest.rejected)
        if name == "riddles":
            answers = {row["answer"] for row in stage_of(study, stage).read().to_pylist()}
            assert answers <= {"lake", "dam"}
    assert reasons == {"unparsed", "outside-choices"}
    report = json.loads((study / "run" / "report.json").read_text())
    assert sum(made["answers"] for made in report["training_rows"]) >= 4 * ROWS - 20
    assert {teacher["name"] for teacher in report["teachers"]} >= {"llama, sums", "llama, news"}


def test_every_data_set_has_every_arm(study):
    names = [stage.name for stage in lay_out(load_recipe(study / "recipe.yaml", recipe_model))]
    for part in ("sums", "rain", "riddles", "news"):
        for stage in (
            *("inputs", "evaluation", "ask", "ask-plain", "extract-text", "extract-text-plain"),
            *("ask-evaluation", "ask-evaluation-plain", "predict-teachers"),
            *("predict-teachers-plain", "train-small", "train-small-plain", "predict-small"),
            *("predict-small-plain", "predict-small-undistilled"),
            "predict-small-undistilled-elaborate",
        ):
            assert f"{stage}-{part}" in names
    # Summaries are measured too.
    assert {"density-teachers-news", "density-students-news"} < set(names)
    assert len(names) == len(set(names)) == 4 * 16 + 2


def test_a_student_is_taken_by_the_data_set_that_it_was_trained_on(study):
    run = Run(Folder(str(study / "run")))
    plan = plan_run(load_recipe(study / "recipe.yaml", recipe_model), run)
    for name in ("train-small-sums", "train-small-plain-rain"):
        student = plan.folder(name).folder.child("student").local
        student.mkdir(parents=True)
        StudentReading("causal", None, "sequence", "", 64, 8).write(student)
        plan.folder(name).commit(Manifest(name, plan.fingerprints[name].whole, {}, [], 1, {}))
    Workflow(plan, display=None, stages=[])._write_state()
    name, trained = trained_student(run, "small-plain-rain")
    assert (name, trained.stage) == ("small-plain-rain", "train-small-plain-rain")
    assert student_family(trained) == "causal"
    with pytest.raises(UseError, match="small-sums"):
        trained_student(run, None)
    with pytest.raises(UseError, match="not trained yet"):
        trained_student(run, "small-news")
    with pytest.raises(UseError, match="no such student"):
        trained_student(run, "large")


ARTICLES = [
    "Ada Lovelace was born in London in 1815. She worked with Charles Babbage.",
    "Google bought a company in Paris for $5 million. Nobody knows why.",
    "Marie Curie came from Warsaw to Paris in 1891 and won the Nobel Prize twice.",
]
NEWS = """\
name: news
method: frontier
inputs: {file: news.jsonl}
evaluation: {file: news.jsonl}
prices: prices.yaml
teachers:
  llama:
    backend: recorded
    model: llama
    files: [llama.jsonl]
    columns: {tokens_in: in, tokens_out: out}
ask: {llama: {prompt: {library: chain_of_density}}}
task: {kind: summarization}
arms: {plain_teacher: true, undistilled: true}
students: {small: {family: causal, model: embedded://smollm2-135m-instruct}}
"""


def test_the_teachers_arms_come_out_as_a_table_with_their_tokens(tmp_path):
    write_lines(tmp_path / "news.jsonl", [{"document": text} for text in ARTICLES])
    (tmp_path / "recipe.yaml").write_text(NEWS)
    (tmp_path / "prices.yaml").write_text("currency: USD\n")
    (tmp_path / "llama.jsonl").touch()
    recipe = load_recipe(tmp_path / "recipe.yaml", recipe_model).recipe
    records = []
    for number, text in enumerate(ARTICLES):
        chain, plain = (
            fill_in(as_prompt(prompt).text, "", {"document": text}).turns[0]
            for prompt in (recipe.ask["llama"].prompt, recipe.task.prompt)
        )
        steps = [{"Missing_Entities": "x", "Denser_Summary": "It was."}] * 3
        steps = [*steps, {"Missing_Entities": "x", "Denser_Summary": text.split(".")[0]}]
        said = json.dumps(steps[: 4 if number else 2])  # of the first two steps are missing
        records.append({"prompt": chain, "text": said, "in": 400, "out": 320})
        records.append(
            {"prompt": plain, "text": f"Somebody did it in {number}.", "in": 90, "out": 80}
        )
    write_lines(tmp_path / "llama.jsonl", records)
    done = command(tmp_path, "run", "recipe.yaml", "--run", "run", "--until", "density-teachers")
    assert done.returncode == 0, done.stderr
    assert "Entity density" in done.stdout
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    (table,) = report["arms"]
    assert table["measure"] == "entity_density"
    assert [column["arm"] for column in table["columns"]] == ["llama, plain prompt", "llama"]
    scores = table["rows"][0]["scores"]
    rows = stage_of(tmp_path, "density-teachers").read().to_pylist()
    dense = [row["score"] for row in rows if row["model"] == "llama"]
    assert scores["llama"]["value"] == pytest.approx(sum(dense) / 3)
    # A chain that is not whole has no summary, which has no entities.
    assert sorted(dense)[0] == 0 < sorted(dense)[1]
    assert (scores["llama"]["unparsed"], scores["llama, plain prompt"]["unparsed"]) == (1, 0)
    assert scores["llama"]["value"] > scores["llama, plain prompt"]["value"]
    # All that was written is billed, and not the last summary alone.
    assert (scores["llama"]["tokens_in"], scores["llama"]["tokens_out"]) == (400, 320)
    assert scores["llama"]["paid_by"] == "recorded"
    assert scores["llama"]["low"] >= 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert "1 of 3 without an answer" in page
    assert "elaborate prompt" in page


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["datasets.sums.evaluation=null"], "datasets.sums.evaluation"),
        (["datasets.sums.task.gold=null"], "datasets.sums.task.gold"),
        (["datasets.sums.prompts={gpt: x}"], "datasets.sums.prompts has 'gpt'"),
        (["datasets.news.prompts={llama: {library: dense}}"], "no template 'summarization/dense'"),
        (["ask.llama.prompt={library: summarization}"], "no template 'math/summarization'"),
        (["students.small={family: encoder, model: x}"], "is an encoder, which chooses"),
        (["datasets={}"], "at least 1"),
        (["select={rows: 4, sampling: {cold: {temperature: 0.0}}}"], "what llama answered is rec"),
        (["teachers.llama.columns={}"], "prompts of sums differ in their system text alone"),
        (["datasets.sums.inputs.format=gsm9k"], "'gsm8k'"),
        (
            [
                "datasets.talk={task: {kind: chat}, inputs: {file: news.jsonl}, "
                "evaluation: {file: news.jsonl}}",
                "teachers.llama={model: x}",
                "judges={hhh: {teacher: llama}}",
            ],
            "set ask.llama.sampling.chat",
        ),
        (
            ["datasets.news.task.metric=judge", "datasets.news.task.turns=x"],
            "turns is for kind chat",
        ),
    ],
)
def test_what_a_study_cannot_want(study, settings, said):
    with pytest.raises(UseError) as caught:
        load_recipe(study / "recipe.yaml", recipe_model, None, settings)
    assert said in str(caught.value)
