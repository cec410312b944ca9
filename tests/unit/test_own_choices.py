"""Items with choices of their own, from examples to training rows, by an endpoint over HTTP."""

from collections import Counter

from tests.endpoint_server import said, server  # noqa: F401, a fixture
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
