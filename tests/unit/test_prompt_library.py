"""The prompt library: its templates, files beside a recipe, and what a change of one runs again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from core.errors import UseError
from core.recipe_answers import KINDS, AnswerTask
from core.recipe_file import load_recipe
from core.recipe_prompts import Answer, Prompt, combined
from core.run import Folder, Run
from pipelines.answers import AnswerReader, Found
from pipelines.asked_texts import fill_in
from pipelines.datasets import dataset_rows
from pipelines.prompt_library import parse_template, read_template, template_names
from stillhouse.methods import lay_out, recipe_model
from stillhouse.stages import fingerprints
from stillhouse.workflow import recipe_of
from tests.commands import command
from tests.unit.test_recorded import write_lines

ROWS = {
    "math": {"question": "What is 6 * 7?", "answer": "42"},
    "nli": {"premise": "It rains.", "hypothesis": "It is wet.", "label": "entailment"},
    "multiple_choice": {"question": "Where?", "choices": ["lake", "dam"], "answer": "dam"},
    "summarization": {"document": "Ada Lovelace was born in London."},
    "chat": {"turns": ["Hello?", "And?"]},
}
KINDS_WITH_PROMPTS = [name for name in template_names() if name.split("/")[0] in KINDS]


def task(kind, **more):
    return AnswerTask.model_validate({"kind": kind, **more})


def test_every_kind_of_task_has_a_plain_and_an_elaborate_template():
    for kind in KINDS:
        names = [name for name in KINDS_WITH_PROMPTS if name.startswith(f"{kind}/")]
        assert f"{kind}/vanilla" in names
        assert len(names) >= 2, kind


@pytest.mark.parametrize("name", KINDS_WITH_PROMPTS)
def test_a_template_is_filled_in_with_the_fields_of_its_kind(name):
    kind = name.split("/")[0]
    head, prompt = read_template(name)
    assert head.about.endswith(".")
    right = {"text": "entailment", "letter": "B"}
    example = {**ROWS[kind], "why": "So it is.", "right": right}
    fields = {**ROWS[kind], "examples": [example], "right": right}
    asked = fill_in(prompt.text, prompt.system, fields, task(kind).turns)
    for value in ROWS[kind].values():
        for text in value if isinstance(value, list) else [value]:
            if text not in ("42", "entailment"):
                assert any(text in turn for turn in asked.turns)
    assert "{" not in asked.system


SAID = {
    "math/vanilla": ("The answer is 1,042.00 apples.", "1042"),
    "math/chain_of_thought": ("6 * 7 = 42.\nWait.\n**Answer:** $-1,042", "-1042"),
    "math/plan_and_solve": ("Known: 6.\nanswer: 42 apples", "42"),
    "nli/vanilla": ("The label is Entailed.", "entailment"),
    "nli/chain_of_thought": ("Not neutral.\nAnswer: **contradictory**.", "contradiction"),
    "nli/counterexample": ("Both exist.\nANSWER: neutral", "neutral"),
    "multiple_choice/vanilla": ("The correct answer is (b) dam.", "dam"),
    "multiple_choice/chain_of_thought": ("A is dry.\n**Answer: B**", "dam"),
    "math/chain_of_thought_json": ('{"explanation": "6 * 7", "answer": -42.0}', "-42"),
    "nli/chain_of_thought_json": (
        '{"explanation": "It \\"is\\".", "answer": "neutral"}',
        "neutral",
    ),
    "multiple_choice/chain_of_thought_json": ('{"explanation": "A?", "answer": "b"}', "dam"),
    "multiple_choice/elimination": ("Answer: A? No.\nAnswer: dam", "dam"),
}


@pytest.mark.parametrize("name", SAID)
def test_a_templates_answer_is_found_in_what_is_written(name):
    kind = name.split("/")[0]
    said, right = SAID[name]
    made = task(kind)
    general = made.forms if name.endswith("vanilla") else made.answer
    answer = combined(general, read_template(name)[1].answer)
    choices = made.choices or ROWS[kind].get("choices", [])
    found = AnswerReader(made, answer).read(said, choices)
    assert isinstance(found, Found), found
    assert found.text == right
    if "vanilla" not in name:
        assert found.rationale
        assert not found.rationale.endswith(right)


def test_an_answer_with_a_choice_that_begins_with_an_article_is_that_choice():
    made = task("multiple_choice")
    reader = AnswerReader(
        made, combined(made.forms, read_template("multiple_choice/vanilla")[1].answer)
    )
    assert reader.read("The lake", ["The lake", "lake"]).choice == 0
    assert reader.read("-5", ["5", "-5"]).choice == 1


def test_what_a_prompt_says_of_answers_comes_before_what_the_task_says():
    general = Answer(form="number", map={"one": "1"}, pattern="Result:(.*)")
    own = Answer(pattern="Answer:(.*)")
    both = combined(general, own)
    assert (both.form, both.map, both.pattern) == ("number", {"one": "1"}, "Answer:(.*)")
    # A run's recipe holds it whole: read again, it stays as it is.
    again = combined(general, Answer.model_validate(both.model_dump()))
    assert again == both
    assert combined(None, own) is own
    assert combined(general, None) is general


def test_a_file_without_a_head_is_the_text_alone():
    head, prompt = parse_template("Question: {{ question }}\n\nAnswer:\n", "mine.j2")
    assert prompt == Prompt(user="Question: {{ question }}\n\nAnswer:", source="mine.j2")
    assert head.about == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("---\nabout: x\n{{ a }}", "does not end"),
        ("---\nsytem: x\n---\n{{ a }}", "A head has: about, system, answer"),
        ("---\nanswer: {pattern: '('}\n---\n{{ a }}", "no regular expression"),
        ("---\nanswer: {pattern: x, steps: {key: y}}\n---\n{{ a }}", "keep one"),
        ("---\n: [\n---\n{{ a }}", "not YAML"),
        ("---\n- a\n---\n{{ a }}", "A head has"),
        ("---\nabout: x\n---\n \n", "has no text"),
        ("{{ a", "is not Jinja"),
        ("{% include 'other.j2' %}", "includes another template, other.j2"),
        ("---\nsystem: '{{ a'\n---\nx", "is not Jinja"),
    ],
)
def test_what_is_no_template(text, said):
    with pytest.raises(UseError) as caught:
        parse_template(text, "mine.j2")
    assert said in str(caught.value)


SHARED = os.environ.get("STILLHOUSE_SHARED")
REAL = pytest.mark.skipif(SHARED is None, reason="STILLHOUSE_SHARED names no folder with data")


def read_by(kind, template):
    made = task(kind)
    return AnswerReader(made, combined(made.answer, read_template(f"{kind}/{template}")[1].answer))


@REAL
def test_answers_are_found_behind_the_real_solutions_of_gsm8k():
    """1,319 written solutions, with calculations and numbers of all kinds before the answer."""
    reader = read_by("math", "chain_of_thought")
    for _, row in dataset_rows("gsm8k", Path(SHARED) / "data" / "gsm8k" / "test.jsonl"):
        for end in ("Answer: {}", "**Answer:** ${}.", "answer : {} dollars"):
            found = reader.read(f"{row['solution']}\n{end.format(row['answer'])}", [])
            assert isinstance(found, Found)
            assert float(found.text) == float(row["answer"])
            assert found.rationale == row["solution"] or "**" in end


@REAL
def test_letters_are_found_behind_the_real_rationales_of_aqua():
    """254 of them; where they end with an answer of their own, that is found, too."""
    reader = read_by("multiple_choice", "chain_of_thought")
    file = Path(SHARED) / "data" / "aqua" / "test.json"
    rows = [row for _, row in dataset_rows("aqua", file)]
    rationales = [json.loads(line)["rationale"] for line in file.read_text().splitlines()]
    said, right = 0, 0
    for row, rationale in zip(rows, rationales, strict=True):
        letter = "ABCDE"[row["choices"].index(row["answer"])]
        for end in (f"Answer: {letter}", f"**Answer: ({letter.lower()})**", f"Answer: {letter}."):
            found = reader.read(f"{rationale}\n{end}", row["choices"])
            assert isinstance(found, Found)
            assert found.text == row["answer"]
        own = reader.read(rationale, row["choices"])
        said += isinstance(own, Found)
        right += isinstance(own, Found) and own.text == row["answer"]
    assert said > 60
    assert right / said > 0.95


RECIPE = """\
name: sums
method: frontier
inputs: {file: rows.jsonl}
evaluation: {file: test.jsonl}
teachers:
  one: {backend: recorded, model: one, files: [one.jsonl], columns: {system: before}}
  two: {backend: recorded, model: two, files: [two.jsonl], columns: {system: before}}
ask:
  one: {prompt: {file: mine/one.j2}}
  two: {prompt: {library: chain_of_thought}}
task: {kind: math, prompt: {file: mine/plain.j2}}
arms: {plain_teacher: true}
students:
  writer: {family: causal, model: embedded://smollm2-135m-instruct}
"""
ONE = "---\nsystem: Think, {{ who }}.\nanswer: {pattern: 'Result:(.*)'}\n---\n{{ question }}\n"


@pytest.fixture
def recipe(tmp_path):
    rows = [{"question": f"What is {n} + 1?", "answer": n + 1, "who": "Ada"} for n in range(6)]
    write_lines(tmp_path / "rows.jsonl", rows)
    write_lines(tmp_path / "test.jsonl", rows[:3])
    said = {
        "one": ("Think, Ada.", "So it is.\nResult: {}"),
        "two": (read_template("math/chain_of_thought")[1].system, "Count.\nAnswer: {} apples"),
    }
    for name, (before, form) in said.items():
        records = [
            {"before": before, "prompt": row["question"], "text": form.format(row["answer"])}
            for row in rows
        ]
        write_lines(tmp_path / f"{name}.jsonl", records)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "one.j2").write_text(ONE)
    (tmp_path / "mine" / "plain.j2").write_text("{{ question }}\n")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def made(folder):
    """The light stages' fingerprints: no model is hashed."""
    loaded = load_recipe(folder / "recipe.yaml", recipe_model)
    stages = [
        stage for stage in lay_out(loaded) if not stage.name.startswith(("train", "predict-w"))
    ]
    return {name: found.whole for name, found in fingerprints(stages, loaded).items()}


ASKING = {"ask", "ask-evaluation"}
READING = {"extract-text", "predict-teachers"}
PLAIN = {"ask-plain", "ask-evaluation-plain", "extract-text-plain", "predict-teachers-plain"}


@pytest.mark.parametrize(
    ("file", "before", "after", "again"),
    [
        ("one.j2", "Think, ", "Think hard, ", ASKING | READING),
        ("one.j2", "{{ question }}", "Q: {{ question }}", ASKING | READING),
        # How an answer is read asks nobody again.
        ("one.j2", "Result:", "Outcome:", READING),
        ("one.j2", "---\nsystem", "---\nabout: A sentence.\nsystem", set()),
        ("plain.j2", "{{", "Q: {{", READING | PLAIN),
    ],
)
def test_a_changed_prompt_file_runs_only_what_depends_on_it_again(
    recipe, file, before, after, again
):
    first = made(recipe)
    path = recipe / "mine" / file
    path.write_text(path.read_text().replace(before, after, 1))
    second = made(recipe)
    assert {name for name in first if first[name] != second[name]} == again


def test_a_run_keeps_its_prompts_and_tells_what_a_changed_file_means(recipe):
    done = command(recipe, "run", "recipe.yaml", "--run", "run", "--until", "extract-text")
    assert done.returncode == 0, done.stderr
    run = Run(Folder(str(recipe / "run")))
    rows = run.finished_stages()["extract-text"].read().to_pylist()
    assert {row["answer"] for row in rows} == {str(n + 1) for n in range(6)}
    assert all(row["source"] == "one+two" for row in rows)
    assert all([m["role"] for m in row["messages"]] == ["user"] for row in rows)
    kept = recipe_of(run).recipe
    assert kept.ask["one"].prompt.system == "Think, {{ who }}."
    assert kept.ask["two"].prompt.source == "math/chain_of_thought"
    (recipe / "mine" / "one.j2").write_text(ONE.replace("Think", "Think hard"))
    done = command(recipe, "run", "recipe.yaml", "--run", "run", "--until", "extract-text")
    assert done.returncode == 2
    assert "ask.one.prompt.system: 'Think, {{ who }}.' -> 'Think hard, {{ who }}.'" in done.stderr
    (recipe / "mine" / "one.j2").unlink()
    assert command(recipe, "report", "run").returncode == 0
    page = json.loads((recipe / "run" / "report.json").read_text())
    assert page["rows"]["rows"][0]["asked"][0]["prompt"].startswith("Think, Ada.\n\nWhat is")


def test_the_library_can_be_listed_and_shown(tmp_path):
    listed = command(tmp_path, "prompts", "list").stdout
    assert all(name in listed for name in template_names())
    shown = command(tmp_path, "prompts", "show", "math/vanilla").stdout
    assert parse_template(shown, "x")[1].system == read_template("math/vanilla")[1].system
    wrong = command(tmp_path, "prompts", "show", "math/vanila")
    assert wrong.returncode == 2
    assert "Did you mean math/vanilla?" in wrong.stderr
