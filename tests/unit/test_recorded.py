"""Recorded teachers: real files, real SQLite, whole runs by the command that users run."""

from __future__ import annotations

import asyncio
import json
import math
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import UseError
from core.ledger import Ledger, total
from core.prices import BUILT_IN, load_prices
from core.recipe import Task
from core.recipe_file import load_recipe
from core.recipe_teachers import RecordColumns, RecordedTeacher
from core.run import Folder, Run
from core.teacher import Sampling
from pipelines.fewshot_prompts import FewshotPrompts
from pipelines.record_index import RecordIndex
from pipelines.recorded import RecordedAnswers
from pipelines.scoring import CONTENT_FREE
from pipelines.tasks import parse_rows
from stillhouse.methods import lay_out, recipe_model
from tests.commands import command
from tests.fuzzed_rows import fuzzed_lines

ROOT = Path(__file__).parents[2]

RECIPE = """\
name: chains
method: teacher_data
shard_rows: 16
inputs: {file: questions.jsonl}
teachers:
  palm:
    backend: recorded
    model: palm-540b
    files: [palm_0.jsonl, palm_1.parquet]
    columns: {prompt: question, text: rationale, tokens_out: length}
  flan:
    backend: recorded
    model: flan-t5-xl
    files: [flan.jsonl]
ask:
  palm: {prompt: "{{ question }}", samples: 2, sampling: {stop: ["\\n\\nQ:"]}}
  flan: {prompt: "{{ id }}"}
budget: {money: 1.0, tokens: 1000}
"""


def write_lines(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def run(tmp_path):
    """The command, in a folder where 40 questions have recorded answers, but for a few."""
    write_lines(
        tmp_path / "questions.jsonl", [{"id": n, "question": f"Why {n}?"} for n in range(40)]
    )
    write_lines(
        tmp_path / "palm_0.jsonl",
        [
            # Blanks around a prompt do not count, and the answer runs on to another question.
            {"question": f" Why {n}?\n", "rationale": f"First {n}.\n\nQ: And?", "length": 7}
            for n in range(1, 40)
        ],
    )
    pq.write_table(
        pa.table(
            {
                "rationale": [None if n == 7 else f"Second {n}." for n in range(30)],
                "length": pa.array([None] * 30, pa.int64()),
                "question": [f"Why {n}?" for n in range(30)],
            }
        ),
        tmp_path / "palm_1.parquet",
    )
    write_lines(tmp_path / "flan.jsonl", [{"prompt": n, "text": f"Flan {n}."} for n in range(40)])
    (tmp_path / "recipe.yaml").write_text(RECIPE)

    def run(*arguments, **environment):
        return command(tmp_path, "run", "recipe.yaml", "--run", "run", *arguments, **environment)

    run.folder = tmp_path
    return run


def stage_of(folder, name):
    return Run(Folder(str(folder / "run"))).finished_stages()[name]


def test_two_recorded_teachers_answer_in_one_pass_from_jsonl_and_parquet(run):
    scratch = run.folder / "scratch"
    scratch.mkdir()
    done = run(TMPDIR=str(scratch))
    assert done.returncode == 0, done.stderr
    assert not list(scratch.iterdir()), "the index is gone"
    assert not (run.folder / "run" / "logs" / "ray").exists(), "no Ray was started"
    stage = stage_of(run.folder, "ask")
    rows = stage.read().to_pylist()
    asked = {
        row["id"]: json.loads(row["fields"])["id"]
        for row in stage_of(run.folder, "inputs").read().to_pylist()
    }
    found = {(r["teacher"], asked[r["item"]], r["sample"]): r for r in rows}
    assert {key: row["text"] for key, row in found.items()} == {
        **{("flan", n, 0): f"Flan {n}." for n in range(40)},
        # The JSONL file comes first; of prompt 0 it has no record, so the other's is the first.
        **{("palm", n, 0): f"First {n}." for n in range(1, 40)},
        ("palm", 0, 0): "Second 0.",
        **{("palm", n, 1): f"Second {n}." for n in range(1, 30) if n != 7},
    }
    assert found["palm", 1, 0]["finish"] == "stop"
    assert found["palm", 1, 1]["finish"] == "recorded"
    assert found["palm", 1, 0]["usage"] == {
        "requests": 1,
        "tokens_in": None,
        "tokens_cached": None,
        "tokens_out": 7,
    }
    assert found["palm", 1, 1]["usage"]["tokens_out"] is None
    assert stage.manifest().rejected == {"not-recorded": 11, "no-text": 1}
    details = {row["detail"] for row in stage.read_rejected().to_pylist()}
    assert "this prompt has 1 record, and answer 2 is wanted" in details


def test_recorded_answers_are_free_and_a_rerun_does_nothing(run):
    done = run()
    assert done.returncode == 0, done.stderr
    entries = [
        entry
        for entry in Ledger(Run(Folder(str(run.folder / "run"))).ledger).entries()
        if entry.teacher
    ]
    # Nobody has told the price of either model, and yet it is known what this run has paid: the
    # recipe's budget of money holds without a price.
    summed = total(entries, load_prices(BUILT_IN))
    assert summed.money == 0.0
    assert {(e.teacher, e.model, e.device) for e in entries} == {
        ("palm", "palm-540b", ""),
        ("flan", "flan-t5-xl", ""),
    }
    assert (summed.entry.rows, summed.entry.requests, summed.entry.tokens) == (108, 109, 0)
    assert "2 teachers answered 108 of 120 questions for $0.00." in done.stdout
    attempts = sorted((run.folder / "run" / "ledger").iterdir())
    again = run()
    assert "Everything was done already" in again.stdout
    assert sorted((run.folder / "run" / "ledger").iterdir()) == attempts


def test_a_changed_file_is_a_changed_recipe(run):
    # Two recordings of one model are two teachers, and the files of each count.
    one_model = ("--set", "teachers.flan.model=palm-540b")
    assert run(*one_model).returncode == 0
    with (run.folder / "palm_0.jsonl").open("a") as stream:
        stream.write(json.dumps({"question": "Why 0?", "rationale": "Late 0.", "length": 1}) + "\n")
    done = run(*one_model)
    assert done.returncode == 2
    assert "a file that the recipe names" in done.stderr
    done = run(*one_model, "--update")
    assert done.returncode == 0, done.stderr
    assert "Late 0." in stage_of(run.folder, "ask").read()["text"].to_pylist()


def test_another_map_of_columns_is_another_teacher(run):
    assert run().returncode == 0
    done = run("--set", "teachers.palm.columns.tokens_out=null")
    assert done.returncode == 2
    assert "teachers.palm.columns.tokens_out: 'length' -> None" in done.stderr


def test_an_unusable_file_stops_the_run_before_anything_is_asked(run):
    write_lines(run.folder / "flan.jsonl", [{"prompt": "0", "answer": "Flan 0."}])
    done = run()
    assert done.returncode == 2
    place, cause, mend = done.stderr.splitlines()[-3:]
    assert place.endswith("flan.jsonl")
    assert "line 1 has no text under 'text'" in cause
    assert "teachers.flan.columns" in mend
    assert not list((run.folder / "run" / "stages").glob("ask/*/rows/*"))


SCORING = """\
name: scores
method: fewshot_mcqa
shard_rows: 4
task:
  instruction: Say which desk.
  choices: [business, sports]
  examples: examples.jsonl
  evaluation: evaluation.jsonl
teachers:
  writer: {backend: openai, model: nobody, base_url: "http://127.0.0.1:9/v1"}
  past: {backend: recorded, model: palm-540b, files: [scores.jsonl],
         columns: {text: null, labels: logprobs}}
generate: {teacher: writer, decomposed: {rows: 4}}
score: {teacher: past}
students:
  encoder: {model: embedded://all-minilm-l6-v2}
"""


@pytest.fixture
def scored(tmp_path):
    write_lines(
        tmp_path / "examples.jsonl",
        [
            {"question": "Rates rise", "answer": "business"},
            {"question": "Cup won", "answer": "sports"},
        ],
    )
    write_lines(
        tmp_path / "evaluation.jsonl",
        [{"question": f"Late goal {n}", "answer": "sports"} for n in range(10)],
    )
    (tmp_path / "recipe.yaml").write_text(SCORING)
    task = Task(
        instruction="Say which desk.",
        choices=["business", "sports"],
        examples="examples.jsonl",
        evaluation="evaluation.jsonl",
    )
    rows, _ = parse_rows(tmp_path / "examples.jsonl", task)
    prompts = FewshotPrompts(task, rows)

    def records(questions):
        return [
            {
                "prompt": prompts.score_choice(question, 0),
                # One label as the stage names it, with its blank, and one without.
                "logprobs": {" business": -2.0 - n / 8, "sports": -0.5},
            }
            for n, question in enumerate(questions)
        ]

    return tmp_path, records


def test_recorded_scores_of_labels_go_through_scoring_and_calibration(scored):
    folder, records = scored
    found = records([f"Late goal {n}" for n in range(10)])
    del found[3]["logprobs"]["sports"]
    del found[4]
    free = records(CONTENT_FREE)
    write_lines(folder / "scores.jsonl", found)
    until = ("run", "recipe.yaml", "--run", "run", "--until", "score-evaluation")
    failed = command(folder, *until)
    assert failed.returncode == 1
    assert "no record has the prompt" in failed.stderr
    assert "'N/A', '[MASK]'" in failed.stderr
    write_lines(folder / "scores.jsonl", [*found, *free])
    done = command(folder, *until, "--update")
    assert done.returncode == 0, done.stderr
    stage = stage_of(folder, "score-evaluation")
    rows = {row["question"]: row for row in stage.read().to_pylist()}
    assert stage.manifest().rejected == {"no-score": 1, "not-recorded": 1}
    assert rows["Late goal 8"]["logprobs"] == [-3.0, -0.5]
    free_mean = math.log(sum(math.exp(-2.0 - n / 8) for n in range(3)) / 3)
    assert rows["Late goal 8"]["calibrated"] == pytest.approx([-3.0 - free_mean, 0.0], abs=1e-6)
    refused = command(folder, *until, "--update", "--set", "teachers.past.columns={text: logprobs}")
    assert refused.returncode == 2
    assert "no usable record" in refused.stderr


def test_a_recorded_teacher_scores_but_is_not_served_nor_does_it_write(scored):
    folder, records = scored
    write_lines(folder / "scores.jsonl", records(["Late goal 1"]))
    file = folder / "recipe.yaml"
    names = [stage.name for stage in lay_out(load_recipe(file, recipe_model))]
    assert "predict-teacher" in names
    assert not [name for name in names if name.startswith("compare")]
    with pytest.raises(UseError, match="it writes nothing new"):
        load_recipe(file, recipe_model, None, ["generate.teacher=past"])


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("ask.palm.sampling.top_logprobs=4", "ask.palm.sampling.top_logprobs cannot be had"),
        (
            "ask.flan.sampling.json_schema={type: object}",
            "ask.flan.sampling.json_schema cannot be had",
        ),
        ("teachers.palm.files=[gone.jsonl]", "names a file that does not exist"),
        ("teachers.palm.files=[]", "at least 1 item"),
        ("teachers.palm.files=[flan.jsonl, flan.jsonl]", "a file twice"),
        ("teachers.palm.columns={text: null}", "there is no answer in it"),
        ("teachers.palm.columns={promt: question}", "Did you mean 'prompt'"),
        ("teachers.palm.base_url=https://host/v1", "is not a key that a recipe has"),
    ],
)
def test_what_a_recipe_cannot_want_of_recorded_answers(run, setting, said):
    with pytest.raises(UseError) as caught:
        load_recipe(run.folder / "recipe.yaml", recipe_model, None, [setting])
    assert said in str(caught.value)


def test_a_missing_file_is_told_with_the_line_of_the_recipe(run):
    (run.folder / "flan.jsonl").unlink()
    with pytest.raises(UseError) as caught:
        load_recipe(run.folder / "recipe.yaml", recipe_model)
    line = RECIPE.splitlines().index("    files: [flan.jsonl]") + 1
    assert caught.value.place.endswith(f"line {line}")
    assert "teachers.flan.files.0" in caught.value.cause


def opened(*files, **columns):
    settings = RecordedTeacher(
        backend="recorded",
        model="past",
        files=[file.name for file in files],
        columns=RecordColumns(**columns),
    )
    return RecordedAnswers("old", settings, files)


def complete(engine, prompt, number=0, **how):
    return asyncio.run(engine.complete(prompt, Sampling(8, number=number, **how)))


def score(engine, prompt, labels):
    return asyncio.run(engine.score_labels(prompt, labels))


def test_prompts_are_compared_exactly_but_for_the_blanks_around_them(tmp_path):
    texts = ["a  b", "A B", "\ud800 half a pair", "nul\x00inside", "e\u0301", "x" * 100_000]
    write_lines(tmp_path / "r.jsonl", [{"prompt": f"\t{t} \n", "text": f"to {t}"} for t in texts])
    engine = opened(tmp_path / "r.jsonl")
    for text in texts:
        answer = complete(engine, f" {text}\n").text
        assert answer == f"to {text}".encode("utf-8", "backslashreplace").decode()
    for other in ("a b", "a B", "nul", "\u00e9", "x" * 99_999):
        assert complete(engine, other).reason == "not-recorded"


def test_prompts_behind_different_system_texts_are_told_apart(tmp_path):
    records = [
        {"prompt": "1 + 1?", "before": "Think.", "text": "Well: 2"},
        {"prompt": "1 + 1?", "before": None, "text": "2"},
        {"prompt": "1 + 1?", "before": " Think.\n", "text": "So: 2"},
        {"prompt": "1 + 1?", "before": 7, "text": "of no use"},
    ]
    write_lines(tmp_path / "a.jsonl", records)
    engine = opened(tmp_path / "a.jsonl", system="before")
    assert complete(engine, "1 + 1?").text == "2"
    assert complete(engine, "1 + 1?", system="Think.").text == "Well: 2"
    assert complete(engine, "1 + 1?", 1, system="Think.").text == "So: 2"
    missing = complete(engine, "1 + 1?", system="Guess.")
    assert missing.reason == "not-recorded"
    assert missing.error.startswith("no record has its system text and the prompt '1 + 1?'")
    assert "line 4 has no text under 'before'" in missing.error
    # Without the column a record answers behind any.
    assert complete(opened(tmp_path / "a.jsonl"), "1 + 1?", system="Guess.").text == "Well: 2"


def test_records_of_one_prompt_are_its_samples_in_the_order_of_the_files(tmp_path):
    files = [tmp_path / "b.jsonl", tmp_path / "a.jsonl"]
    for file in files:
        rows = [{"prompt": str(n % 3), "text": f"{file.name} {n}"} for n in range(9)]
        write_lines(file, rows)
    engine = opened(*files)
    found = [complete(engine, "1", number).text for number in range(6)]
    assert found == [f"{name}.jsonl {n}" for name in "ba" for n in (1, 4, 7)]
    assert complete(engine, "1", 6).error == "this prompt has 6 records, and answer 7 is wanted"
    assert engine.statistics()["requests"] == 6


def test_an_answer_ends_where_the_first_of_the_stops_begins(tmp_path):
    write_lines(tmp_path / "r.jsonl", [{"prompt": "q", "text": "One. Two; three. Four"}])
    engine = opened(tmp_path / "r.jsonl")
    assert complete(engine, "q", stop=(".", ";")).text == "One"
    assert complete(engine, "q", stop=("!", ";")).text == "One. Two"
    assert complete(engine, "q", stop=("!",)).text == "One. Two; three. Four"


def test_what_the_records_do_not_have_is_refused_for_all_rows(tmp_path):
    file = tmp_path / "r.jsonl"
    write_lines(file, [{"prompt": "q", "text": "a", "scores": {"A": -1.0}}])
    with pytest.raises(UseError, match=r"Name the column .* teachers\.old\.columns\.labels"):
        score(opened(file), "q", ["A"])
    with pytest.raises(UseError, match=r"Name the column .* teachers\.old\.columns\.text"):
        complete(opened(file, text=None, labels="scores"), "q")
    with pytest.raises(UseError, match="top_logprobs"):
        complete(opened(file), "q", top_logprobs=2)
    with pytest.raises(UseError, match="cannot score a text"):
        asyncio.run(opened(file).score_text("q", "a"))


@pytest.mark.parametrize("kind", ["struct", "map"])
def test_scores_from_parquet_may_be_a_struct_or_a_map(tmp_path, kind):
    scores = [{"A": -1.0, "B": -2.0}, {"A": -3.0}, None]
    if kind == "map":
        scores = pa.array(
            [list(s.items()) if s else s for s in scores], pa.map_(pa.string(), pa.float64())
        )
    pq.write_table(pa.table({"prompt": [1, 2, 3], "s": scores}), tmp_path / "r.parquet")
    engine = opened(tmp_path / "r.parquet", text=None, labels="s")
    assert score(engine, "1", [" B", "A"]).logprobs == [-2.0, -1.0]
    assert score(engine, "2", ["A"]).logprobs == [-3.0]
    for prompt, labels in (("2", ["A", "B"]), ("3", ["A"])):
        found = score(engine, prompt, labels)
        assert (found.logprobs, found.reason) == ([], "no-score")
        assert repr(labels[-1]) in found.error


def test_a_label_is_taken_with_its_own_blanks_before_one_without(tmp_path):
    write_lines(
        tmp_path / "r.jsonl", [{"prompt": "q", "text": "", "s": {"A": -1.0, " A": -2.0, " B": -3}}]
    )
    engine = opened(tmp_path / "r.jsonl", labels="s")
    assert score(engine, "q", [" A", "A"]).logprobs == [-2.0, -1.0]
    assert score(engine, "q", ["B"]).reason == "no-score"


BAD = [
    (b"not json", "line 2 is not JSON"),
    (b"\xff", "line 2 is not UTF-8"),
    (b"[1]", "line 2 is not a JSON object"),
    (b'{"text": "t"}', "line 2 has no text under 'prompt'"),
    (b'{"prompt": " ", "text": "t"}', "line 2 has no text under 'prompt'"),
    (b'{"prompt": true, "text": "t"}', "line 2 has no text under 'prompt'"),
    (b'{"prompt": "p"}', "line 2 has no text under 'text'"),
    (b'{"prompt": "p", "text": 3}', "line 2 has no text under 'text'"),
    (b'{"prompt": "p", "text": "t", "in": -1}', "line 2 has no number of tokens under 'in'"),
    (b'{"prompt": "p", "text": "t", "in": "3"}', "line 2 has no number of tokens under 'in'"),
    (b'{"prompt": "p", "text": "t", "in": 2147483648}', "line 2 has no number of tokens"),
    (b'{"prompt": "p", "text": "t", "s": [1]}', "line 2 has no object under 's'"),
    (b'{"prompt": "p", "text": "t", "s": {"A": 0.9}}', "line 2 has no natural-log probability"),
    (b'{"prompt": "p", "text": "t", "s": {"A": NaN}}', "line 2 has no natural-log probability"),
]


@pytest.mark.parametrize(("line", "said"), BAD)
def test_a_line_that_is_no_record_is_left_out_and_told_where_an_answer_is_missing(
    tmp_path, line, said
):
    good = b'{"prompt": "good", "text": "t", "in": 1, "s": {"A": -1}}\n'
    (tmp_path / "r.jsonl").write_bytes(good + line + b"\n" + b"also not json\n")
    engine = opened(tmp_path / "r.jsonl", tokens_in="in", labels="s")
    assert complete(engine, "good").usage.tokens_in == 1
    missing = complete(engine, "p")
    assert missing.reason == "not-recorded"
    assert f"2 in the files could not be used, the first: r.jsonl, {said}" in missing.error
    # Where there is no other record, the file is refused.
    (tmp_path / "r.jsonl").write_bytes(b"\n" + line)
    with pytest.raises(UseError) as caught:
        opened(tmp_path / "r.jsonl", tokens_in="in", labels="s")
    assert caught.value.place.endswith("r.jsonl")
    assert f"there is no usable record in it. {said}" in caught.value.cause
    assert "teachers.old.columns" in caught.value.mend


def test_a_column_that_is_nowhere_in_a_file_is_refused(tmp_path):
    write_lines(tmp_path / "r.jsonl", [{"prompt": "q", "text": "a"}] * 3)
    pq.write_table(pa.table({"prompt": ["q"], "text": ["a"]}), tmp_path / "r.parquet")
    for name in ("r.jsonl", "r.parquet"):
        with pytest.raises(UseError, match="no record in it has the column 'lenght'"):
            opened(tmp_path / name, tokens_out="lenght")
    with pytest.raises(UseError, match="no record in it has the column 'question'"):
        opened(tmp_path / "r.parquet", prompt="question")
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(UseError, match="there is no usable record in it"):
        opened(tmp_path / "r.jsonl", tmp_path / "empty.jsonl")
    (tmp_path / "not.parquet").write_text("{}")
    with pytest.raises(UseError, match="not a Parquet file"):
        opened(tmp_path / "not.parquet")


def test_no_fuzzed_line_stops_the_reading_and_each_is_used_or_counted(tmp_path):
    lines = fuzzed_lines(1_000, seed=1)
    (tmp_path / "r.jsonl").write_bytes(b"\n".join(lines))
    columns = RecordColumns(prompt="question", text="question")
    index = RecordIndex("old", [tmp_path / "r.jsonl"], columns)
    sound = [n for n in range(1_000) if lines[n] == b'{"question": "Sound row %d?"}' % n]
    assert all(index.find(f"Sound row {n}?", 0).text == f"Sound row {n}?" for n in sound)
    written = sum(bool(line.strip()) for line in lines)
    assert 200 < index.unusable < written - len(sound) < 1_000


FILL = """
import sys, time
from pathlib import Path
from core.recipe_teachers import RecordColumns
from pipelines.record_index import RecordIndex
index = RecordIndex("old", [Path(sys.argv[1])], RecordColumns())
print(index.find("19999", 0).text[:1], flush=True)
time.sleep(60)
"""


@pytest.fixture
def large(tmp_path):
    """Records of 40 MB: more than the index holds in memory."""
    file = tmp_path / "large.jsonl"
    write_lines(file, [{"prompt": n, "text": "x" * 2_000} for n in range(20_000)])
    return file


def test_an_index_lies_on_disk_and_a_kill_leaves_nothing_of_it(tmp_path, large):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(scratch)}
    process = subprocess.Popen(
        [sys.executable, "-c", FILL, str(large)], stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert process.stdout.readline() == "x\n"
        descriptors = list(Path(f"/proc/{process.pid}/fd").iterdir())
        held = [d for d in descriptors if str(d.readlink()).startswith(str(scratch))]
        assert sum(d.stat().st_size for d in held) > 40e6
        assert not list(scratch.iterdir()), "its file has no name even while it is used"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert not list(scratch.iterdir())


def test_a_full_disk_is_told_with_the_mend(large):
    done = subprocess.run(
        [sys.executable, "-c", FILL, str(large)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2**24, 2**24)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "WorkError: teacher 'old': the index of its records could not be written" in done.stderr
    assert "Set TMPDIR" in done.stderr


SHARED = os.environ.get("STILLHOUSE_SHARED")
REAL = """\
name: real
method: teacher_data
shard_rows: 1000
inputs: {{file: {file}}}
teachers:
  {name}: {{backend: recorded, model: {name}, files: [records.jsonl], columns: {columns}}}
ask:
  {name}: {{prompt: "{prompt}", samples: {samples}, sampling: {{stop: ["\\n\\nQ:"]}}}}
"""


@pytest.mark.skipif(SHARED is None, reason="STILLHOUSE_SHARED names no folder with recorded data")
def test_the_chains_that_palm_wrote(tmp_path):
    data = Path(SHARED) / "data" / "cqa_palm540b"
    questions = [json.loads(line) for line in (data / "cqa_train.json").read_text().splitlines()]
    files = [data / "palm" / f"train_CoT_{n}.json" for n in range(10)]
    chains = [chain for file in files for chain in json.loads(file.read_text())]
    records = [
        {"key": row["id"], "rationale": chain} for row, chain in zip(questions, chains, strict=True)
    ]
    write_lines(tmp_path / "records.jsonl", records)
    columns = "{prompt: key, text: rationale}"
    (tmp_path / "recipe.yaml").write_text(
        REAL.format(
            name="palm",
            file=data / "cqa_train.json",
            columns=columns,
            prompt="{{ id }}",
            samples=1,
        )
    )
    done = command(tmp_path, "run", "recipe.yaml", "--run", "run")
    assert done.returncode == 0, done.stderr
    rows = stage_of(tmp_path, "ask").read().to_pylist()
    assert len(rows) == 9741
    # Each was cut where it runs on to a question of its own, and most end with an answer.
    assert {row["finish"] for row in rows} == {"stop"}
    assert sum("So the answer is (" in row["text"] for row in rows) > 9000
    assert not [row for row in rows if "\nQ:" in row["text"]]


@pytest.mark.skipif(SHARED is None, reason="STILLHOUSE_SHARED names no folder with recorded data")
def test_the_rationales_that_flan_t5_wrote(tmp_path):
    file = Path(SHARED) / "data" / "obqa" / "train.jsonl"
    (tmp_path / "records.jsonl").write_bytes(file.read_bytes())
    columns = "{prompt: question, text: rationale_flan_t5_xl}"
    (tmp_path / "recipe.yaml").write_text(
        REAL.format(name="flan", file=file, columns=columns, prompt="{{ question }}", samples=2)
    )
    done = command(tmp_path, "run", "recipe.yaml", "--run", "run")
    assert done.returncode == 0, done.stderr
    manifest = stage_of(tmp_path, "ask").manifest()
    # 122 of the 4957 rows ask a question of an earlier row: that one has two records.
    assert manifest.rows + manifest.rejected["not-recorded"] == 2 * 4957
    written = [json.loads(line)["question"].strip() for line in file.read_text().splitlines()]
    again = sum(written.count(question) > 1 for question in written)
    assert manifest.rows == 4957 + again
