"""Items with choices of their own, from examples to training rows, by an endpoint over HTTP."""

import csv
import re
import tarfile
from collections import Counter

import pytest

from core.recipe import Task
from pipelines.evaluation import accuracies
from pipelines.scoring import label_prompts
from pipelines.tasks import first_of_each_subject, published_rows
from tests.endpoint_server import said, server  # noqa: F401, a fixture
from tests.unit.test_datasets import DATA, REAL
from tests.unit.test_recorded import command, stage_of, write_lines

RECIPE = """\
name: exams
method: fewshot_mcqa
shard_rows: 4
task:
  instruction: Questions about {subject}.
  examples: examples.jsonl
  evaluation: evaluation.jsonl
teachers: {one: {backend: openai, model: small, base_url: "URL", api: completions}}
generate:
  teacher: one
  negatives: 2
  decomposed: {rows: 6}
  json: {rows: 4, structured: false}
curate: {min_words: 1}
score: {teacher: one, labels: letters, permutations: 3, scores: raw}
select: {agree: false, hard_label: written}
students: {encoder: {model: embedded://all-minilm-l6-v2, head: choices}}
"""
EXAMPLES = [
    {"question": f"{subject} {n}?", "choices": ["red", "green", "blue"], "answer": "green"}
    | {"subject": subject}
    for subject in ("dams", "sums")
    for n in range(2)
]


class Teacher:
    """Writes new questions, and prefers what stands first to what says `right`."""

    def __init__(self):
        self.prompts, self.written = [], 0

    def __call__(self, number, body):
        prompt = body["prompt"]
        self.prompts.append(prompt)
        asked = prompt.rsplit("\n\n", 1)[-1]
        if body.get("logprobs"):
            listed = [line for line in asked.splitlines() if line[1:3] == ". "]
            scores = {
                f" {line[0]}": -1.0 - place + 2.5 * ("right" in line)
                for place, line in enumerate(listed)
            }
            answer = said(" A")
            answer["choices"][0]["logprobs"] = {"top_logprobs": [scores], "tokens": [" A"]}
            return answer
        self.written += 1
        if asked.startswith("Questions about") or asked.splitlines()[-1].startswith("{"):
            sound = (
                '{"question": "Where is the old dam?", "choices": ["a", "right"], "answer": "B"}'
            )
            return said(sound if self.written % 2 else '{"question": "cut sho')
        if asked == "Question:":
            return said(f" What about {['lakes', 'rivers', 'beavers'][self.written % 3]}?\nAnswer:")
        return said(f" wrong {self.written}" if "Wrong" in asked else " right")


def test_items_are_written_by_subject_scored_by_letters_and_selected(tmp_path, server):  # noqa: F811
    server.behave = teacher = Teacher()
    write_lines(tmp_path / "examples.jsonl", EXAMPLES)
    write_lines(
        tmp_path / "evaluation.jsonl",
        [
            {"question": "Where now?", "choices": ["sea", "right"], "answer": "right"}
            | {"subject": subject}
            for subject in ("dams", "sums")
        ],
    )
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("URL", server.url))
    for until in ("select", "predict-teacher"):
        done = command(tmp_path, "run", "recipe.yaml", "--run", "run", "--until", until)
        assert done.returncode == 0, done.stderr

    items = stage_of(tmp_path, "write").read().to_pylist()
    assert Counter(item["subject"] for item in items) == {"dams": 3, "sums": 3}
    assert all(item["choices"][item["intended"]] == "right" for item in items)
    assert all(len(item["choices"]) == 3 and item["usage"]["requests"] == 4 for item in items)
    assert len({item["intended"] for item in items}) > 1, "the right one has no fixed place"
    whole = stage_of(tmp_path, "write-json")
    assert whole.manifest().rejected == {"unparseable": 2}
    assert {item["intended"] for item in whole.read().to_pylist()} == {1}

    kept = stage_of(tmp_path, "clean").manifest().facts
    assert kept["rejected_by_mode"]["json"]["duplicate"] == 1
    scored = stage_of(tmp_path, "score").read().to_pylist()
    for row in scored:
        # Over all rotations a letter's place is worth the same to each choice.
        best = max(range(len(row["choices"])), key=row["logprobs"].__getitem__)
        assert row["choices"][best] == "right"
        assert row["calibrated"] is None
    rows = stage_of(tmp_path, "select").read().to_pylist()
    assert Counter(row["source"] for row in rows)["example"] == 4
    learnt = [row for row in rows if row["source"] != "example"]
    assert all(row["choices"][row["answer"]] == "right" and row["logits"] for row in learnt)
    told = stage_of(tmp_path, "predict-teacher")
    assert told.manifest().facts["accuracy"] == {"one raw": 1.0}
    assert {row["subject"] for row in told.read().to_pylist()} == {"dams", "sums"}
    about = [prompt for prompt in teacher.prompts if prompt.startswith("Questions about dams")]
    assert about
    assert not any("sums" in prompt for prompt in about)

    # Another shape of items asks again; what only selects does not.
    before = len(teacher.prompts)
    alone = ("--set", "select.most=0", "--update")
    done = command(tmp_path, "run", "recipe.yaml", "--run", "run", "--until", "select", *alone)
    assert done.returncode == 0, done.stderr
    assert len(teacher.prompts) == before
    assert {row["source"] for row in stage_of(tmp_path, "select").read().to_pylist()} == {"example"}


@REAL
def test_mmlu_is_counted_by_subject_and_by_row(tmp_path):
    read = {}
    for part in ("dev", "test"):
        file = tmp_path / f"{part}.tar"
        with tarfile.open(file, "w") as archive:
            archive.add(DATA / "mmlu" / part, part)
        read[part], rejections = published_rows("mmlu", file)
        assert not rejections
    rows = read["test"]
    assert len({row["id"] for row in rows}) == 14_042, "equal rows are counted, too"
    assert len(first_of_each_subject(read["dev"], 5)) == 5 * 57
    assert len(first_of_each_subject(read["dev"], 1)) == 57

    # Whoever always says A has the share of the rows whose answer is A, in all and by subject.
    letters = [
        (re.sub("_test$", "", file.stem).replace("_", " "), line[-1])
        for file in sorted((DATA / "mmlu" / "test").glob("*.csv"))
        for line in csv.reader(file.open(encoding="utf-8", newline=""))
    ]
    answers = [
        {**row, "model": "always A", "predicted": row["choices"].index(row["choices"][0])}
        for row in rows
    ]
    share = sum(letter == "A" for _, letter in letters) / len(letters)
    # In nine rows a choice stands twice, and its first letter counts for both.
    assert dict(accuracies(answers))["always A"] == pytest.approx(share, abs=9 / 14_042)
    law = [row for row in answers if row["subject"] == "professional law"]
    right = [letter == "A" for subject, letter in letters if subject == "professional law"]
    assert len(law) == len(right) == 1534
    assert sum(row["answer"] == 0 for row in law) == sum(right)
    # A real row's prompt has the five examples of its subject, with their letters.
    task = Task(instruction="About {subject}.", examples="x", evaluation="y")
    prompts = label_prompts(task, read["dev"], orders=1, permutations=1, whole=False, shots=None)
    (prompt,) = prompts.ask(rows[0]["question"], rows[0]["choices"], rows[0]["subject"])
    assert prompt.text.startswith(
        "About abstract algebra.\n\nQuestion: Find all c in Z_3 such that"
    )
    assert len(re.findall(r"^Answer: [A-D]$", prompt.text, re.M)) == 5
    assert prompt.labels == [" A", " B", " C", " D"]
