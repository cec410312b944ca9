"""Zero-shot prompts: from recorded answers to rows with a label each, and some rationales."""

from __future__ import annotations

import json

import pytest

from core.errors import UseError
from core.recipe_file import load_recipe
from core.recipe_rationales import Rationales
from core.rows import TEXT_TRAINING
from pipelines.answers import NotFound
from pipelines.drawing import Draw
from pipelines.rationales import RationaleFilter, trimmed
from stillhouse.methods import lay_out, recipe_model
from stillhouse.stages import fingerprints
from tests.commands import command
from tests.unit.test_recorded import stage_of, write_lines

ROWS = 200
PLACES = ["lake", "dam", "sea"]
WHY = "Fish of the kind {n} live in water that stands still."

RECIPE = """\
name: places
method: zero_shot
shard_rows: 30
inputs: {file: train.jsonl}
teachers:
  palm: {backend: recorded, model: palm-540b, files: [palm.jsonl]}
ask:
  palm: {prompt: "Think: {{ question }}"}
task:
  kind: choices
  choices: [lake, dam, sea]
  prompt: "{{ question }}"
  gold: answer
  labels: gold
  answer: {pattern: 'So (.*)', rationale_pattern: '(?s)^(.*?)So'}
students:
  writer:
    family: causal
    model: embedded://smollm2-135m-instruct
    train: {objective: {kind: sequence, rationale_weights: {palm: 1.0}}}
"""


def said_to(n):
    """What the teacher says of a row: of every tenth something that is no rationale, or nothing."""
    wrong = PLACES[(n + (n % 5 == 0)) % 3]
    why = {3: "Fish. ", 13: "", 7: "  "}.get(n % 20, WHY.format(n=n) + " ")
    return "I cannot tell." if n % 20 == 11 else f"{why}So {wrong}"


@pytest.fixture
def run(tmp_path):
    numbers = range(ROWS)
    asked = [{"question": f"Where {n}?", "answer": PLACES[n % 3]} for n in numbers]
    write_lines(tmp_path / "train.jsonl", asked)
    records = [{"prompt": f"Think: Where {n}?", "text": said_to(n)} for n in numbers]
    records += [{"prompt": f"Say: Where {n}?", "text": f"So {PLACES[n % 3]}"} for n in numbers]
    records += [
        {"prompt": f"Why: Where {n}?", "text": f"{WHY.format(n=f'b{n}')} So dam"} for n in numbers
    ]
    write_lines(tmp_path / "palm.jsonl", records)
    (tmp_path / "recipe.yaml").write_text(RECIPE)

    def run(*settings, fails=False):
        sets = [part for one in settings for part in ("--set", one)]
        done = command(
            tmp_path, "run", "recipe.yaml", "--run", "run", "--until", "explain", "--update", *sets
        )
        assert (done.returncode != 0) == fails, done.stderr
        return done.stderr if fails else done.stdout

    run.folder = tmp_path
    return run


def learnt(folder):
    """By the number of the question: its label and its rationale, of the rows that are learnt."""
    stage = stage_of(folder, "explain")
    assert stage.read().schema.equals(TEXT_TRAINING)
    found = {}
    for row in stage.read().to_pylist():
        n = int(row["messages"][-1]["content"].removeprefix("Where ").removesuffix("?"))
        texts = [r["text"] for r in row["rationales"] or []]
        assert len(texts) <= 1
        found[n] = (row["answer"], texts[0] if texts else None)
    return found


def asked(folder, stage="ask"):
    """The numbers of the questions that were put to the teacher."""
    rows = {
        row["id"]: json.loads(row["fields"])
        for row in stage_of(folder, "inputs").read().to_pylist()
    }
    answered = stage_of(folder, stage).read().to_pylist()
    return {int(rows[row["item"]]["question"][6:-1]) for row in answered}


def test_gold_rows_learn_the_rationales_that_are_some(run):
    said = run()
    rows = learnt(run.folder)
    assert sorted(rows) == list(range(ROWS))
    for n, (label, why) in rows.items():
        assert label == PLACES[n % 3]
        none = n % 20 in (3, 7, 11, 13)
        # A rationale of a wrong answer is learnt too: the label is right, whatever it says.
        assert why == (None if none else WHY.format(n=n))
    manifest = stage_of(run.folder, "explain").manifest()
    tenth = ROWS // 20
    assert manifest.rejected == {
        "no-rationale": 2 * tenth,
        "short-rationale": tenth,
        "unparsed": tenth,
    }
    explained = manifest.facts["explained"]
    assert explained["drawn"] == ROWS
    assert explained["rows"] == ROWS - 4 * tenth
    assert explained["words"] == [11, 11, 11]
    assert "200" in said
    report = json.loads((run.folder / "run" / "report.json").read_text())
    assert report["training_rows"][0]["explained"]["rows"] == ROWS - 4 * tenth
    page = (run.folder / "run" / "report.html").read_text()
    assert "200 rows of 200 were drawn to be explained" in page


def test_a_larger_rate_explains_the_same_rows_and_more_and_asks_about_no_others(run):
    explained = {}
    for share in (0, 0.25, 0.75, 1):
        run(f"rationales.share={share}")
        rows = learnt(run.folder)
        assert len(rows) == ROWS, "every row is learnt"
        explained[share] = {n for n, (_, why) in rows.items() if why}
        if share:
            drawn = asked(run.folder)
            assert explained[share] <= drawn
            assert abs(len(drawn) - share * ROWS) < 4 * (ROWS * share * (1 - share)) ** 0.5 + 1
    assert explained[0] == set()
    assert explained[0.25] < explained[0.75] < explained[1]
    run("rationales.share=0.25", "rationales.seed=1")
    other = {n for n, (_, why) in learnt(run.folder).items() if why}
    assert other != explained[0.25]
    # Where nothing is explained and labels are gold nobody is asked.
    loaded = load_recipe(run.folder / "recipe.yaml", recipe_model, None, ["rationales.share=0"])
    assert "ask" not in [stage.name for stage in lay_out(loaded)]


def test_a_blank_stands_for_a_rationale_that_is_missing_where_that_is_wanted(run):
    run("rationales.share=0.5", "rationales.missing=blank")
    rows = learnt(run.folder)
    assert {why for _, why in rows.values() if why is None or not why.strip()} == {" "}
    assert len(rows) == ROWS


def test_labels_of_the_teacher_leave_out_what_cannot_be_read(run):
    run("task.labels=teacher", "rationales.share=0.5")
    rows = learnt(run.folder)
    assert set(rows) == {n for n in range(ROWS) if n % 20 != 11}
    assert all(label == PLACES[(n + (n % 5 == 0)) % 3] for n, (label, _) in rows.items())
    assert len(asked(run.folder)) == ROWS, "each row needs a label"
    assert 0 < sum(why is not None for _, why in rows.values()) < ROWS


MIX = (
    "mix={prompts: {say: 'Say: {{ question }}', why: 'Why: {{ question }}'}, "
    "labels: {as-asked: 0.5, say: 0.5}, rationales: {as-asked: 0.4, why: 0.6}}"
)


def test_a_mix_takes_labels_and_rationales_of_different_prompts(run):
    run("task.labels=teacher", "rationales.share=0.5", MIX)
    rows = learnt(run.folder)
    by = {
        name: asked(run.folder, stage)
        for name, stage in (("as-asked", "ask"), ("say", "ask-say"), ("why", "ask-why"))
    }
    right = {n for n, (label, _) in rows.items() if label == PLACES[n % 3]}
    assert {n for n in rows if n % 5 == 0} & right <= by["say"]
    assert by["say"] <= set(rows) | {11}
    for n, (_, why) in rows.items():
        if why is not None:
            prompt = "why" if "kind b" in why else "as-asked"
            assert n in by[prompt]
    shares = [len(by[name]) / ROWS for name in ("say", "why")]
    assert shares == pytest.approx([0.5, 0.3], abs=0.12)
    assert len(by["as-asked"]) < 0.8 * ROWS, "a prompt is asked about its own rows alone"


def test_another_rate_asks_again_about_no_row(run):
    def made(*settings):
        loaded = load_recipe(run.folder / "recipe.yaml", recipe_model, None, settings)
        layout = [stage for stage in lay_out(loaded) if not stage.models]
        light = [s for s in layout if not s.name.startswith(("train", "predict"))]
        return {name: f.work for name, f in fingerprints(light, loaded).items()}

    before, after = made(), made("rationales.share=0.5")
    assert before["ask"] == after["ask"]
    assert before["explain"] != after["explain"]
    trimmed_ = made("rationales.trim_words=9")
    assert {name for name in before if before[name] != trimmed_[name]} == {"explain"}


def test_words_stand_in_prompts_that_ask_for_them(run):
    prompt = "ask.palm.prompt='In {{ words.min }} to {{ words.max }}: {{ question }}'"

    def text(*settings):
        loaded = load_recipe(run.folder / "recipe.yaml", recipe_model, None, [prompt, *settings])
        return lay_out(loaded)[2].settings["ask"]["palm"]["prompt"]

    from pipelines.prompt_files import compile_prompt

    written = text("rationales.words={min: 20, max: 40}")
    assert compile_prompt(written).render(question="Why?") == "In 20 to 40: Why?"
    assert text("rationales.words={min: 5, max: 10}") != written


def test_a_teacher_that_always_says_the_same_is_told(run):
    records = [
        {"prompt": f"Think: Where {n}?", "text": "Because that is how it is here. So dam"}
        for n in range(ROWS)
    ]
    write_lines(run.folder / "palm.jsonl", records)
    run("task.labels=teacher", "rationales.most_repeats=3")
    rows = learnt(run.folder)
    assert {label for label, _ in rows.values()} == {"dam"}
    assert sum(why is not None for _, why in rows.values()) == 3
    manifest = stage_of(run.folder, "explain").manifest()
    assert manifest.rejected == {"repeated-rationale": ROWS - 3}
    page = (run.folder / "run" / "report.html").read_text()
    assert "100.0% of the rows have the label dam: there is hardly anything to learn" in page


def test_a_pattern_that_finds_no_label_is_told_before_any_training(run):
    said = run("task.labels=teacher", "task.answer.pattern='ANSWER (.*)'", fails=True)
    assert f"no label can be learnt; rejected: {ROWS} unparsed" in said


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["rationales.share=1.5"], "less than or equal to 1"),
        (["rationales={trim_words: 3}"], "trim_words is 3, below min_words, 5"),
        (["rationales={words: {min: 9, max: 3}}"], "max is 3, below min, 9"),
        ([MIX.replace("0.6", "0.5")], "rationales has shares that make 0.9, not 1"),
        (
            [MIX.replace("say: 0.5", "tell: 0.5")],
            "labels has 'tell', but the prompts are: as-asked",
        ),
        (["mix={prompts: {as-asked: x}}"], "which is the prompt of `ask`"),
        (["students.writer={model: embedded://all-minilm-l6-v2}"], "students.writer must write"),
        (
            ["task.answer.rationale_pattern=null"],
            "rationales are to come from the prompt 'as-asked'",
        ),
        (
            [
                "teachers.flan={backend: recorded, model: x, files: [palm.jsonl]}",
                "ask.flan={prompt: x}",
            ],
            "ask has several teachers",
        ),
        (["compare={}", "evaluation={file: train.jsonl}"], "compare is not for zero_shot"),
    ],
)
def test_what_a_recipe_cannot_want(run, settings, said):
    with pytest.raises(UseError) as caught:
        load_recipe(run.folder / "recipe.yaml", recipe_model, None, settings)
    assert said in str(caught.value)


def test_draws_are_as_large_as_they_are_to_be_and_independent():
    draw = Draw({"a": 0.3, "b": 0.7}, {"a": 0.5, "c": 0.5}, 1 / 3, seed=4)
    ids = [f"{n:032x}" for n in range(6000)]
    labels = [draw.label_by(one) for one in ids]
    why = [draw.rationale_by(one) for one in ids]
    assert labels.count("a") / len(ids) == pytest.approx(0.3, abs=0.03)
    explained = [n for n, prompt in enumerate(why) if prompt is not None]
    assert len(explained) / len(ids) == pytest.approx(1 / 3, abs=0.03)
    assert [why[n] for n in explained].count("c") / len(explained) == pytest.approx(0.5, abs=0.05)
    both = [labels[n] for n in explained].count("a") / len(explained)
    assert both == pytest.approx(0.3, abs=0.05)
    assert all(Draw(None, {"a": 1.0}, 1.0, 0).asked_by(one) == {"a"} for one in ids[:50])
    assert all(not Draw(None, {"a": 1.0}, 0.0, 0).asked_by(one) for one in ids[:50])


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (20, 'Fish swim. They need water, as "you know." A dam has some'),
        (11, 'Fish swim. They need water, as "you know."'),
        (4, "Fish swim."),
        (1, "Fish"),
    ],
)
def test_a_long_rationale_ends_with_a_whole_sentence(words, kept):
    assert trimmed('Fish swim. They need water, as "you know." A dam has some', words) == kept


def test_rationales_are_judged_by_what_is_left_of_them():
    judge = RationaleFilter(Rationales(min_words=3, max_words=6, trim_words=5))
    assert judge.learnt("One two. Three four five six seven") == NotFound(
        "short-rationale", "the rationale has 2 words, and 3 are wanted"
    )
    assert judge.learnt(" One two three four. Five six ") == "One two three four."
    judge = RationaleFilter(Rationales(min_words=1, max_words=2))
    found = judge.learnt("One two three")
    assert isinstance(found, NotFound)
    assert found.reason == "long-rationale"
    for nothing in (None, "", " \n"):
        missing = judge.learnt(nothing)
        assert isinstance(missing, NotFound)
        assert missing.reason == "no-rationale"


def test_label_and_rationale_of_inference_come_from_the_prompt_of_the_library(tmp_path):
    """NLI: words other than the label's own are read as what they mean."""
    pairs = [("It rains.", f"It is wet {n}.", n) for n in range(9)]
    meant = ["entailment", "neutral", "contradiction"]
    written = ["Entailed", "neutral", "contradicts"]
    rows = [{"premise": p, "hypothesis": h, "label": meant[n % 3]} for p, h, n in pairs]
    why = "What falls from the sky makes all things wet."
    records = [
        {"prompt": f"Premise: {p}\nHypothesis: {h}", "text": f"{why}\nAnswer: {written[n % 3]}."}
        for p, h, n in pairs
    ]
    write_lines(tmp_path / "train.jsonl", rows)
    write_lines(tmp_path / "palm.jsonl", records)
    recipe = RECIPE[: RECIPE.index("task:")] + RECIPE[RECIPE.index("students:") :]
    recipe = recipe.replace('"Think: {{ question }}"', "{library: explained}")
    (tmp_path / "recipe.yaml").write_text(f"{recipe}task: {{kind: nli}}\n")
    done = command(tmp_path, "run", "recipe.yaml", "--run", "run", "--until", "explain")
    assert done.returncode == 0, done.stderr
    found = stage_of(tmp_path, "explain").read().to_pylist()
    assert sorted(row["answer"] for row in found) == sorted(meant * 3)
    for row in found:
        assert [one["text"] for one in row["rationales"]] == [why]
        assert "It rains." in row["messages"][-1]["content"]
