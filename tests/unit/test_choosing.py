"""The choice of sampling and prompt, against a real endpoint that answers by both."""

from __future__ import annotations

import json
import re

import pytest

from core.errors import UseError
from core.recipe_file import load_recipe
from core.rows import CANDIDATE
from core.run import Folder, Run
from stillhouse.methods import lay_out, recipe_model
from stillhouse.workflow import plan_run
from tests.commands import command
from tests.endpoint_server import said, server
from tests.unit.test_recorded import stage_of, write_lines

__all__ = ["server"]

RECIPE = """\
name: sums
method: frontier
inputs: {{file: train.jsonl}}
evaluation: {{file: test.jsonl}}
teachers:
  big: {{backend: openai, model: big, base_url: "{url}"}}
ask:
  big: {{prompt: {{library: chain_of_thought}}, sampling: {{temperature: 0.9, max_tokens: 64}}}}
select:
  rows: 12
  sampling:
    cold: {{temperature: 0.0}}
    warm: {{temperature: 0.5}}
  prompts:
    plan: {{library: plan_and_solve}}
    mine: {{file: mine.j2}}
task: {{kind: math}}
arms: {{plain_teacher: true}}
students: {{small: {{family: causal, model: embedded://smollm2-135m-instruct}}}}
"""
MINE = "---\nsystem: Be brief.\nanswer: {pattern: 'Result:(.*)'}\n---\n{{ question }}\n"


def teacher(number, body):
    """Right by chance of the temperature, and always by the prompt of the user's own."""
    text = "".join(message["content"] for message in body["messages"])
    one = int(re.search(r"What is (\d+)", text)[1])
    hot = round(10 * body["temperature"])
    if "Be brief." in text:
        return said(f"Result: {one + 1}", tokens=(20, 5))
    wrong = one % 10 < hot
    return said(f"Well.\nAnswer: {one + (7 if wrong else 1)}", tokens=(30, 9))


@pytest.fixture
def sums(tmp_path, server):
    server.behave = teacher
    rows = [{"question": f"What is {n} + 1?", "answer": n + 1} for n in range(60)]
    write_lines(tmp_path / "train.jsonl", rows[:50])
    write_lines(tmp_path / "test.jsonl", rows[40:])  # ten of them stand in both files
    (tmp_path / "mine.j2").write_text(MINE)
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(url=server.url))

    def run(until, *more):
        done = command(tmp_path, "run", "recipe.yaml", "--run", "run", "--until", until, *more)
        assert done.returncode == 0, done.stderr
        return done

    run.folder = tmp_path
    return run


def chosen(folder, what):
    rows = stage_of(folder, f"choose-{what}").read()
    assert rows.schema.equals(CANDIDATE)
    return {row["candidate"]: (row["score"], row["chosen"]) for row in rows.to_pylist()}


def asked(server, begin=0):
    """Temperatures of the requests since one, by whether they had the chosen prompt."""
    bodies = [arrival.body for arrival in server.arrivals[begin:]]
    return [(b["temperature"], "Be brief." in b["messages"][0]["content"]) for b in bodies]


def test_the_sampling_is_chosen_first_and_then_the_prompt(sums, server):
    sums("extract-text")
    folder = sums.folder
    rows = stage_of(folder, "selection").read().to_pylist()
    numbers = {int(re.search(r"\d+", json.loads(row["fields"])["question"])[0]) for row in rows}
    assert len(rows) == 12
    assert max(numbers) < 40, "no row that models are judged on"
    assert stage_of(folder, "selection").manifest().rejected == {"evaluation-row": 10}
    sampling, prompt = chosen(folder, "sampling"), chosen(folder, "prompt")
    right = {hot: sum(n % 10 >= hot for n in numbers) / 12 for hot in (0, 5, 9)}
    assert sampling == {
        "as-asked": (pytest.approx(right[9]), False),
        "cold": (pytest.approx(right[0]), True),
        "warm": (pytest.approx(right[5]), False),
    }
    # At the temperature that was chosen all prompts are right: of equals the first one stays.
    assert prompt == {"as-asked": (1.0, True), "plan": (1.0, False), "mine": (1.0, False)}
    # 12 rows by three settings and two prompts, and 50 by what was chosen.
    assert len(server.arrivals) == 12 * 5 + 50
    assert set(asked(server, 60)) == {(0.0, False)}


def test_answers_are_asked_for_and_read_as_was_chosen(sums, server):
    """Without the cold setting the user's own prompt is the best, and its answer is its own."""
    sums("extract-text", "--set", "select.sampling={warm: {temperature: 0.5}}")
    assert chosen(sums.folder, "prompt")["mine"] == (1.0, True)
    manifest = stage_of(sums.folder, "extract-text").manifest()
    assert (manifest.rows, manifest.rejected) == (50, {})
    answers = [row["answer"] for row in stage_of(sums.folder, "extract-text").read().to_pylist()]
    assert answers == [str(n + 1) for n in range(50)]
    assert set(asked(server, 12 * 4)) == {(0.5, True)}
    before = len(server.arrivals)
    sums("predict-teachers", "--set", "select.sampling={warm: {temperature: 0.5}}")
    facts = stage_of(sums.folder, "predict-teachers").manifest().facts
    assert facts["accuracy"] == {"big": 1.0}
    sums("predict-teachers-plain", "--set", "select.sampling={warm: {temperature: 0.5}}")
    # The plain prompt has the sampling that was chosen, and its own words.
    assert set(asked(server, before + 20)) == {(0.5, False)}
    report = json.loads((sums.folder / "run" / "report.json").read_text())
    (choice,) = report["choices"]
    assert [one["name"] for one in choice["candidates"] if one["chosen"]] == ["warm", "mine"]
    assert report["rows"]["rows"][0]["asked"][0]["prompt"].startswith("Be brief.\n\nWhat is")
    page = (sums.folder / "run" / "report.html").read_text()
    assert "that no model is judged on" in page
    assert "<strong>mine</strong>" in page


def test_another_candidate_that_is_not_chosen_asks_and_trains_nothing_again(sums, server):
    sums("extract-text")
    before = len(server.arrivals)
    made = {s: stage_of(sums.folder, s).manifest().committed for s in ("ask", "extract-text")}
    (sums.folder / "mine.j2").write_text(MINE.replace("brief", "short"))
    more = ("--set", "select.sampling.tepid={temperature: 0.2}")
    sums("extract-text", "--update", *more)
    # Twelve rows by the new setting, and by the changed prompt.
    assert len(server.arrivals) == before + 24
    again = {s: stage_of(sums.folder, s).manifest().committed for s in ("ask", "extract-text")}
    assert again == made


def test_a_choice_that_changes_asks_again_and_goes_back_without(sums, server):
    sums("extract-text")
    first = len(server.arrivals)
    without = ("--set", "select.sampling={warm: {temperature: 0.5}}")
    sums("extract-text", "--update", *without)
    second = len(server.arrivals)
    assert second == first + 12 * 2 + 50  # the prompts at the other setting, and all rows
    sums("extract-text", "--update")
    assert len(server.arrivals) == second


def test_what_comes_after_a_choice_is_named_only_when_it_is_made(sums):
    def folders():
        loaded = load_recipe(sums.folder / "recipe.yaml", recipe_model)
        plan = plan_run(loaded, Run(Folder(str(sums.folder / "run"))))
        return {name: made.work for name, made in plan.fingerprints.items()}

    before = folders()
    sums("choose-prompt")
    after = folders()
    changed = {name for name in before if before[name] != after[name]}
    assert {"ask", "ask-evaluation", "try-prompt-plan", "extract-text", "train-small"} <= changed
    assert not changed & {"selection", "try-sampling-cold", "choose-sampling"}
    state = json.loads((sums.folder / "run" / "run.json").read_text())
    assert state["stages"] == after


def test_a_prompts_schema_goes_with_it_and_not_with_the_plain_prompt(sums, server):
    def by_schema(number, body):
        one = int(re.search(r"What is (\d+)", str(body["messages"]))[1])
        held = "response_format" in body
        return said(json.dumps({"explanation": "So.", "answer": one + 1}) if held else str(one + 1))

    server.behave = by_schema
    more = ("--set", "select=null", "--set", "ask.big.prompt={library: chain_of_thought_json}")
    sums("extract-text", *more)
    assert all("response_format" in arrival.body for arrival in server.arrivals)
    before = len(server.arrivals)
    sums("extract-text-plain", *more)
    assert not any("response_format" in arrival.body for arrival in server.arrivals[before:])
    for stage in ("extract-text", "extract-text-plain"):
        answers = [row["answer"] for row in stage_of(sums.folder, stage).read().to_pylist()]
        assert answers == [str(n + 1) for n in range(50)]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["select.sampling={}", "select.prompts={}"], "nothing to choose from"),
        (["select.sampling={as-asked: {}}"], "is how the candidate of `ask` is called"),
        (["evaluation=null", "arms={}"], "select keeps evaluation rows out"),
        (
            ["sweep={space: {students.small.train.epochs: {choice: [1, 2]}}, trials: 2}"],
            "do not go together",
        ),
        (["select.prompts={x: {library: gone}}"], "no template 'math/gone'"),
        (["select.prompts={x: {file: gone.j2}}"], "does not exist"),
    ],
)
def test_what_cannot_be_chosen(sums, settings, said):
    with pytest.raises(UseError) as caught:
        load_recipe(sums.folder / "recipe.yaml", recipe_model, None, settings)
    assert said in str(caught.value)


def test_summaries_are_chosen_by_their_density_and_chats_by_a_judge(sums):
    recipe = (sums.folder / "recipe.yaml").read_text()
    for kind, stage in (("summarization", "density-prompt"), ("chat", "weigh-prompt")):
        text = recipe.replace("kind: math", f"kind: {kind}").replace("chain_of_thought", "vanilla")
        text = text.replace("plan_and_solve", "vanilla")
        if kind == "chat":
            text += "judges: {hhh: {teacher: big}}\n"
        (sums.folder / "other.yaml").write_text(text)
        layout = {s.name: s for s in lay_out(load_recipe(sums.folder / "other.yaml", recipe_model))}
        choose = layout["choose-prompt"]
        assert choose.inputs["scored"] == stage
        assert set(layout[stage].reads.values()) >= {"tried-prompt-plan", "tried-prompt-mine"}
        assert layout["extract-text"].decisions == {"chosen": "choose-prompt"}
