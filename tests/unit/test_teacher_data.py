"""Teacher data from files: two endpoints, one pass, by the command that users run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.run import Folder, Run
from tests.endpoint_server import failed, said, server
from tests.fuzzed_rows import fuzzed_lines

__all__ = ["server"]

ROOT = Path(__file__).parents[2]

RECIPE = """\
name: answers
method: teacher_data
shard_rows: 20
inputs:
  file: {file}
  columns: {{question: text}}
teachers:
  one: {{backend: openai, model: small, base_url: "{url}"}}
  two: {{backend: openai, model: large, base_url: "{url}"}}
ask:
  one: {{prompt: "Q: {{{{ question }}}}", samples: 2, sampling: {{max_tokens: 8}}}}
  two: {{prompt: "Say why: {{{{ question }}}}", sampling: {{max_tokens: 8}}}}
prices: prices.yaml
"""
PRICES = """\
currency: USD
tokens:
  small: {input_per_million: 1.0, output_per_million: 10.0, source: test}
  large: {input_per_million: 10.0, output_per_million: 100.0, source: test}
"""


@pytest.fixture
def run(tmp_path, server):
    (tmp_path / "prices.yaml").write_text(PRICES)

    def run(file="rows.jsonl", *arguments):
        (tmp_path / "recipe.yaml").write_text(RECIPE.format(file=file, url=server.url))
        command = [sys.executable, "-m", "stillhouse.command_line", "run"]
        command += [str(tmp_path / "recipe.yaml"), "--run", str(tmp_path / "run"), *arguments]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"}
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    run.folder = tmp_path
    return run


def stage_of(folder: Path, name: str):
    run = Run(Folder(str(folder / "run")))
    return run.finished_stages()[name]


def prompt_of(body):
    return body["messages"][0]["content"]


def test_two_teachers_answer_a_file_each_in_its_own_words(run, server):
    server.behave = lambda number, body: said(prompt_of(body).upper())
    lines = [json.dumps({"text": f"row {n}", "more": [n]}) for n in range(50)]
    (run.folder / "rows.jsonl").write_text("\n".join([*lines, lines[0], "not json"]))
    done = run()
    assert done.returncode == 0, done.stderr
    rows = stage_of(run.folder, "ask").read().to_pylist()
    assert len(rows) == len({row["id"] for row in rows}) == 150
    by_teacher = {t: [r for r in rows if r["teacher"] == t] for t in ("one", "two")}
    assert {r["text"] for r in by_teacher["two"]} == {f"SAY WHY: ROW {n}" for n in range(50)}
    assert sorted({r["sample"] for r in by_teacher["one"]}) == [0, 1]
    # Two equal lines are one piece of work, and both get its answer: they share the item's id.
    inputs = stage_of(run.folder, "inputs").read()["id"].to_pylist()
    assert len(inputs) == 51
    assert set(inputs) == {row["item"] for row in rows}
    assert len(server.arrivals) == 150
    # 100 questions to `small`, 50 to `large`, of 10 tokens in and 3 out each.
    assert "$0.00400" in done.stdout
    assert "$0.0200" in done.stdout
    assert "1 not-json" in done.stdout
    assert "2 teachers answered 150 of 150 questions for $0.0240." in done.stdout
    assert "Report: " in done.stdout
    page = (run.folder / "run" / "report.html").read_text()
    assert "SAY WHY: ROW 0" in page
    assert not (run.folder / "run" / "logs" / "ray").exists(), "no Ray was started"
    again = run()
    assert "Everything was done already" in again.stdout
    assert len(server.arrivals) == 150


def test_more_samples_ask_only_for_what_is_new(run, server):
    server.behave = lambda number, body: said("fine")
    (run.folder / "rows.jsonl").write_text("\n".join(f'{{"text": "row {n}"}}' for n in range(20)))
    assert run().returncode == 0
    before = len(server.arrivals)
    done = run("rows.jsonl", "--update", "--set", "ask.two.samples=3")
    assert done.returncode == 0, done.stderr
    assert len(server.arrivals) - before == 40


def test_a_changed_prompt_asks_no_other_teacher(run, server):
    server.behave = lambda number, body: said(prompt_of(body).upper())
    (run.folder / "rows.jsonl").write_text("\n".join(f'{{"text": "row {n}"}}' for n in range(70)))
    assert run().returncode == 0
    first = stage_of(run.folder, "ask").read().to_pylist()
    server.arrivals.clear()
    done = run("rows.jsonl", "--update", "--set", "ask.two.prompt='Why: {{ question }}'")
    assert done.returncode == 0, done.stderr
    assert {arrival.body["model"] for arrival in server.arrivals} == {"large"}
    assert len(server.arrivals) == 70
    second = stage_of(run.folder, "ask").read().to_pylist()
    by_one = [
        sorted((r["id"], r["text"]) for r in rows if r["teacher"] == "one")
        for rows in (first, second)
    ]
    assert by_one[0] == by_one[1]
    assert len(by_one[0]) == 140
    # And back: nobody is asked at all.
    server.arrivals.clear()
    assert run("rows.jsonl", "--update").returncode == 0
    assert not server.arrivals


def test_a_parquet_file_is_read_as_a_jsonl_file_is(run, server):
    server.behave = lambda number, body: said("fine")
    texts = [f"row {n}" for n in range(30)]
    pq.write_table(
        pa.table({"text": texts, "raw": [b"\xff"] * 10 + [None] * 20}), run.folder / "rows.parquet"
    )
    done = run("rows.parquet")
    assert done.returncode == 0, done.stderr
    assert stage_of(run.folder, "inputs").manifest().rejected == {"not-json": 10}
    assert stage_of(run.folder, "ask").manifest().rows == 60


def test_a_teacher_that_is_down_leaves_the_other_to_finish(run, server):
    def behave(number, body):
        return failed(401) if body["model"] == "large" else said("fine")

    server.behave = behave
    (run.folder / "rows.jsonl").write_text("\n".join(f'{{"text": "row {n}"}}' for n in range(60)))
    done = run()
    assert done.returncode == 2
    assert done.stderr.splitlines()[-3].startswith("teacher 'two'")
    assert "Traceback" not in done.stderr
    # The report tells how far it is: `one` is asked twice about each row.
    assert stillhouse("report", run.folder / "run").returncode == 0
    twin = json.loads((run.folder / "run" / "report.json").read_text())
    one, two = twin["teachers"]
    assert (one["asked"], one["answered"], two["asked"], two["answered"]) == (120, 120, 60, 0)
    assert "The run is not finished. Missing: ask." in twin["warnings"][0]
    server.behave = lambda number, body: said("fine")
    server.arrivals.clear()
    done = run()
    assert done.returncode == 0, done.stderr
    assert {arrival.body["model"] for arrival in server.arrivals} == {"large"}


def test_no_fuzzed_row_stops_a_run_and_each_is_answered_or_rejected(run, server):
    server.behave = lambda number, body: said("fine")
    lines = fuzzed_lines(1_000, seed=0)
    text = b"\n".join(lines).replace(b'"question"', b'"text"')
    (run.folder / "rows.jsonl").write_bytes(text)
    done = run("rows.jsonl", "--set", "ask.one.samples=1")
    assert done.returncode == 0, done.stderr
    written = [line for line in text.splitlines() if line.strip()]
    inputs = stage_of(run.folder, "inputs").manifest()
    assert inputs.rows + sum(inputs.rejected.values()) == len(written)
    asked = stage_of(run.folder, "ask").manifest()
    different = len(set(stage_of(run.folder, "inputs").read()["id"].to_pylist()))
    assert asked.rows + sum(asked.rejected.values()) == 2 * different
    assert asked.rows > 300
    assert "no-field" in asked.rejected


CURATE = [
    "curate.field=question",
    "curate.min_words=3",
    "curate.max_words=12",
    "curate.near_duplicates={}",
    "curate.languages={wanted: [en]}",
    "curate.evaluation={file: held.jsonl, field: headline, ngram: 4}",
]


def curated(*settings):
    return [part for setting in [*CURATE, *settings] for part in ("--set", setting)]


def test_nothing_is_asked_about_rows_that_curation_drops(run, server):
    server.behave = lambda number, body: said("fine")
    texts = {
        "The city council voted to close the swimming pool this winter": None,
        "the city council voted to close the swimming pool, this winter!": "duplicate",
        "The city council voted to close the swimming pools this winter": "near-duplicate",
        "Il governo annuncia una nuova legge sul lavoro": "language",
        "Rates rise": "too-short",
        "a word " * 10: "too-long",
        "?!": "empty",
        "They say the team wins the cup tomorrow": "contaminated",
        "Half a pair \ud800 in a quite different text": None,
    }
    lines = [json.dumps({"text": text, "source": n}) for n, text in enumerate(texts)]
    (run.folder / "rows.jsonl").write_text("\n".join([*lines, '{"other": 1}', '{"text": 2}']))
    held = ['{"headline": "The team wins the cup"}', '{"headline": null}']
    (run.folder / "held.jsonl").write_text("\n".join(held))
    done = run("rows.jsonl", *curated())
    assert done.returncode == 0, done.stderr
    stage = stage_of(run.folder, "curate")
    kept = [json.loads(row["fields"]) for row in stage.read().to_pylist()]
    assert [row["question"] for row in kept] == [t for t, reason in texts.items() if not reason]
    assert kept[0] == {"question": next(iter(texts)), "source": 0}, "other fields stay"
    rejected = stage.read_rejected().to_pylist()
    found = {}
    for row in rejected:
        assert row["stage"] == "curate"
        fields = json.loads(json.loads(row["original"])["fields"])
        found[fields.get("question")] = row["reason"]
    expected = {text: reason for text, reason in texts.items() if reason}
    assert found == {**expected, None: "no-field", 2: "no-field"}
    contamination = stage.manifest().facts["contamination"]
    assert list(contamination.values()) == [1]
    prompts = {prompt_of(arrival.body) for arrival in server.arrivals}
    assert len(server.arrivals) == 3 * 2
    assert prompts == {f"{words}: {row['question']}" for words in ("Q", "Say why") for row in kept}


def test_curation_that_changes_asks_only_about_what_is_new(run, server):
    server.behave = lambda number, body: said("fine")
    # The first 20 have three words, the others four.
    texts = [f"row number {n}" if n < 20 else f"this is row {n}" for n in range(50)]
    (run.folder / "rows.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in texts))
    some = ["--set", "curate={field: question, min_words: 4}"]
    assert run("rows.jsonl", *some).returncode == 0
    assert len(server.arrivals) == 3 * 30
    more = run("rows.jsonl", "--update", "--set", "curate={field: question}")
    assert more.returncode == 0, more.stderr
    assert len(server.arrivals) == 3 * 50
    assert stage_of(run.folder, "ask").manifest().rows == 150
    fewer = run("rows.jsonl", "--update", *some)
    assert fewer.returncode == 0, fewer.stderr
    assert len(server.arrivals) == 3 * 50
    assert stage_of(run.folder, "ask").manifest().rows == 90


def test_evaluation_rows_without_a_text_are_an_error_before_anything_is_asked(run, server):
    (run.folder / "rows.jsonl").write_text('{"text": "a row of a few words"}')
    (run.folder / "held.jsonl").write_text('{"head": "The team wins the cup"}')
    done = run("rows.jsonl", *curated())
    assert done.returncode == 2, done.stderr
    assert "no row of its file has a text under 'headline'" in done.stderr
    (run.folder / "held.jsonl").unlink()
    gone = run("rows.jsonl", *curated())
    assert gone.returncode == 2, gone.stderr
    assert "curate.evaluation.file" in gone.stderr
    assert not server.arrivals


def test_no_fuzzed_row_stops_curation_and_each_is_kept_or_rejected(run, server):
    server.behave = lambda number, body: said("fine")
    lines = fuzzed_lines(1_000, seed=1)
    text = b"\n".join(lines + lines[-100:]).replace(b'"question"', b'"text"')
    (run.folder / "rows.jsonl").write_bytes(text)
    (run.folder / "held.jsonl").write_bytes(text.replace(b'"text"', b'"headline"')[:20_000])
    done = run("rows.jsonl", *curated("curate.max_words=100000"), "--until", "curate")
    assert done.returncode == 0, done.stderr
    manifests = [stage_of(run.folder, name).manifest() for name in ("inputs", "curate")]
    assert manifests[1].rows + sum(manifests[1].rejected.values()) == manifests[0].rows
    assert manifests[1].rows > 10
    assert {"duplicate", "contaminated", "no-field"} <= set(manifests[1].rejected)


def stillhouse(command, folder):
    return subprocess.run(
        [sys.executable, "-m", "stillhouse.command_line", command, str(folder)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_recipe_without_a_student_has_nothing_to_serve(run, server):
    server.behave = lambda number, body: said("fine")
    (run.folder / "rows.jsonl").write_text('{"text": "row"}')
    assert run().returncode == 0
    done = stillhouse("serve", run.folder / "run")
    assert done.returncode == 2, done.stderr
    assert "method teacher_data" in done.stderr
