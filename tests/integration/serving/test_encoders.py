"""Student and teacher over HTTP: real Serve, real tiny models, real requests."""

import asyncio
import dataclasses
import json
import math
import time
from pathlib import Path

import aiohttp
import httpx
import pyarrow as pa
import pytest
import ray
from ray import serve

from core.errors import UseError, WorkError
from core.identity import content_id
from core.ledger import Ledger
from core.recipe import LoadedRecipe, StudentRecipe
from core.recipe_section import Device
from core.recipe_serving import Serve
from core.rows import INPUT, PREDICTION, REJECTED, TASK
from core.run import Folder, Manifest, Run
from core.stage import StageContext
from core.teacher import Completion, LabelScores, Sampling, Usage
from serving.application import deploy
from serving.compared import Chooser, student_chooser
from serving.encoder import encoder_student
from serving.instance import start_serve
from serving.load import Load, LoadGenerator, Request
from serving.stage import compare
from serving.teacher import PromptedTeacher
from serving.text_teacher import TextTeacher
from stillhouse.methods import lay_out
from stillhouse.methods.frontier import FrontierRecipe
from stillhouse.methods.frontier import compare as compare_frontier
from tests.students import CHOICES
from tests.tiny_models import make_chooser

LABELS = [f" {choice}" for choice in CHOICES]
OFFSETS = [-6.0, -6.5, -5.5, -6.2, -5.9]
HEADLINES = [
    "Central bank holds interest rates",
    "Late goal sends underdogs into the cup final",
    "New vaccine cuts hospital stays among older patients",
    "Senate passes budget bill",
    "Chipmaker unveils processor built for faster AI",
]
MAX_TOKENS = 1024


class TinyEngine:
    """The body of an engine actor, on transformers."""

    def __init__(self, folder):
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(1)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.began = time.monotonic()
        self.useful = 0.0
        self.usage = Usage()

    def score_labels(self, prompt, labels):
        import torch

        began = time.monotonic()
        tokens = self.tokenizer.encode(prompt)
        if len(tokens) + 1 > MAX_TOKENS:
            return LabelScores([], error=f"the prompt has {len(tokens)} tokens")
        ids = []
        for label in labels:
            together = self.tokenizer.encode(prompt + label)
            if len(together) != len(tokens) + 1:
                raise UseError(f"choice '{label}'", "it is not one token.", "Choose another.")
            ids.append(together[-1])
        with torch.inference_mode():
            logits = self.model(torch.tensor([tokens])).logits[0, -1]
        usage = Usage(1, len(tokens), 0, 1)
        self.usage += usage
        self.useful += time.monotonic() - began
        return LabelScores(logits.log_softmax(-1)[ids].tolist(), usage)

    def complete(self, prompt, sampling):
        import torch

        tokens = self.tokenizer(prompt, return_tensors="pt")
        with torch.inference_mode():
            written = self.model.generate(
                **tokens, max_new_tokens=sampling.max_tokens, do_sample=False, pad_token_id=1
            )[0, tokens["input_ids"].shape[1] :]
        usage = Usage(1, tokens["input_ids"].shape[1], 0, len(written))
        return Completion(f"{sampling.number}:{self.tokenizer.decode(written)}", usage, "length")

    def statistics(self):
        held = time.monotonic() - self.began
        used = {"startup": 1.5, "useful": self.useful, "idle": held - self.useful}
        return used | vars(self.usage)

    def process(self):
        import os

        return os.getpid()


class TinyPool:
    """What a stage and a replica hold of the engine; it travels."""

    teacher = "gemma"
    model = "a tiny one"
    replicas = 1
    device = Device(kind="cpu-core", cpus=1)

    def __init__(self, actor):
        self.actor = actor
        self.accounted = {}

    async def score_labels(self, prompt, labels):
        try:
            return await self.actor.score_labels.remote(prompt, labels)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None

    async def complete(self, prompt, sampling):
        return await self.actor.complete.remote(prompt, sampling)

    def statistics(self):
        return ray.get(self.actor.statistics.remote())

    def processes(self):
        return [ray.get(self.actor.process.remote())]

    def forget_prompts(self):
        """It has no prefix cache."""


class Scorer:
    """How the tiny teacher is asked."""

    choices = CHOICES
    offsets = OFFSETS

    def __init__(self, labels):
        self.labels = labels

    async def score(self, engine, question, choices):
        return await engine.score_labels(prompt(question), self.labels)


def prompt(question):
    return f"Headline: {question}\nNews desk:"


SOUND, MISLED = Scorer(LABELS), Scorer([f"{label}, perhaps" for label in LABELS])


@pytest.fixture(scope="module")
def student_folder(students):
    return Path(students["first"].folder)


@pytest.fixture(scope="module")
def pool(tiny_teacher):
    return TinyPool(ray.remote(TinyEngine).options(num_cpus=1).remote(str(tiny_teacher)))


@pytest.fixture(scope="module")
def endpoint(pool, student_folder):
    running = deploy(
        {
            "minilm": encoder_student(str(student_folder), CHOICES),
            "gemma": PromptedTeacher(pool, SOUND),
            "misled": PromptedTeacher(pool, MISLED),
            "writer": TextTeacher(pool, Sampling(max_tokens=5), samples=2),
        },
        Serve(port=0, max_batch_size=16, batch_wait_ms=5),
        name="desk",
    )
    yield running
    running.close()


def ask(endpoint, model, texts):
    answer = httpx.post(
        f"{endpoint.url}/v1/classify", json={"model": model, "input": texts}, timeout=60
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


def direct_student(folder, texts):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = []
    for text in texts:  # one by one: no padding
        with torch.inference_mode():
            logits = model(**tokenizer(text, truncation=True, return_tensors="pt")).logits[0]
        found.append(dict(zip(CHOICES, logits.softmax(-1).tolist(), strict=True)))
    return found


def direct_teacher(folder, texts):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = []
    for text in texts:
        asked = prompt(text)
        ids = [tokenizer.encode(asked + label)[-1] for label in LABELS]
        with torch.inference_mode():
            logits = model(torch.tensor([tokenizer.encode(asked)])).logits[0, -1]
        scores = logits.log_softmax(-1)[ids] - torch.tensor(OFFSETS)
        found.append(dict(zip(CHOICES, scores.softmax(-1).tolist(), strict=True)))
    return found


def test_lists_its_models_and_is_healthy(endpoint):
    models = httpx.get(f"{endpoint.url}/v1/models").json()["data"]
    assert [model["id"] for model in models] == ["minilm", "gemma", "misled", "writer"]
    assert [model["role"] for model in models] == ["student", "teacher", "teacher", "teacher"]
    assert [model["choices"] for model in models] == [CHOICES] * 3 + [None]
    card = httpx.get(f"{endpoint.url}/v1/models/minilm").json()
    assert card == models[0] | {"card": "# A tiny one\n"}
    assert card["runs_on"] == "cpu-core, torch"
    assert card["max_tokens"] == 128
    assert card["revision"]
    assert httpx.get(f"{endpoint.url}/v1/models/gpt").status_code == 404
    for probe in ("healthz", "readyz"):
        assert httpx.get(f"{endpoint.url}/{probe}").json() == {"status": "ok"}
    paths = httpx.get(f"{endpoint.url}/openapi.json").json()["paths"]
    assert set(paths) == {
        *("/v1/classify", "/v1/multiple-choice", "/v1/models", "/v1/models/{name}"),
        *("/v1/completions", "/healthz", "/readyz"),
    }
    assert httpx.get(f"{endpoint.url}/docs").status_code == 200
    # The page to try a student is there only where somebody asked for it.
    assert httpx.get(f"{endpoint.url}/try").status_code == 404


@pytest.mark.parametrize("model", ["minilm", "gemma"])
def test_answers_a_text_and_a_list_alike(endpoint, model):
    many = ask(endpoint, model, HEADLINES)
    assert many["model"] == model
    assert len(many["results"]) == len(HEADLINES)
    for headline, result in zip(HEADLINES, many["results"], strict=True):
        probabilities = result["probabilities"]
        assert list(probabilities) == CHOICES
        assert math.isclose(sum(probabilities.values()), 1, abs_tol=1e-6)
        assert result["label"] == max(probabilities, key=probabilities.get)
        one = ask(endpoint, model, headline)["results"]
        assert len(one) == 1
        assert one[0]["probabilities"] == pytest.approx(probabilities, abs=1e-5)


def test_student_over_http_is_the_student(endpoint, student_folder):
    # Longer than the model takes: cut, as in training.
    texts = [*HEADLINES, " ".join(HEADLINES * 20)]
    served = [result["probabilities"] for result in ask(endpoint, "minilm", texts)["results"]]
    expected = direct_student(student_folder, texts)
    different = {tuple(round(share, 4) for share in one.values()) for one in expected}
    assert len(different) == len(texts), "a wrong order would not show"
    for found, wanted in zip(served, expected, strict=True):
        assert found == pytest.approx(wanted, abs=1e-5)


def test_teacher_over_http_is_the_calibrated_teacher(endpoint, tiny_teacher):
    answer = ask(endpoint, "gemma", HEADLINES)
    served = [result["probabilities"] for result in answer["results"]]
    for found, wanted in zip(served, direct_teacher(tiny_teacher, HEADLINES), strict=True):
        assert found == pytest.approx(wanted, abs=1e-5)


def test_tells_tokens_where_the_engine_counts_them(endpoint, tiny_teacher):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_teacher)
    tokens = sum(len(tokenizer.encode(prompt(text))) for text in HEADLINES)
    assert ask(endpoint, "gemma", HEADLINES)["usage"] == {
        "tokens_in": tokens,
        "tokens_cached": 0,
        "tokens_out": len(HEADLINES),
    }
    assert "usage" not in ask(endpoint, "minilm", HEADLINES)


def test_a_teacher_that_writes_gives_as_many_texts_as_it_was_asked_for(endpoint):
    body = {"model": "writer", "prompt": prompt(HEADLINES[0])}
    answer = httpx.post(f"{endpoint.url}/v1/completions", json=body, timeout=60).json()
    first, second = (choice["text"] for choice in answer["choices"])
    assert (first[:2], second[:2]) == ("0:", "1:")
    assert first[2:] == second[2:]
    assert answer["usage"]["completion_tokens"] == 10
    wrong = httpx.post(f"{endpoint.url}/v1/completions", json=body | {"model": "minilm"})
    assert wrong.status_code == 404
    answer = httpx.post(f"{endpoint.url}/v1/classify", json=GOOD | {"model": "writer"})
    assert "ask /v1/completions" in answer.json()["detail"]


def test_requests_share_forward_passes(endpoint):
    front = serve.get_deployment_handle("front", "desk")

    async def together(requests):
        body = {"model": "minilm", "input": HEADLINES[0]}
        async with aiohttp.ClientSession() as session:

            async def one():
                async with session.post(f"{endpoint.url}/v1/classify", json=body) as answer:
                    return answer.status

            return await asyncio.gather(*(one() for _ in range(requests)))

    before = front.statistics.remote("minilm").result()
    assert set(asyncio.run(together(160))) == {200}
    after = front.statistics.remote("minilm").result()
    rows = after["sequences"] - before["sequences"]
    forwards = after["forwards"] - before["forwards"]
    assert rows == 160
    assert forwards <= 80  # at least two a pass, the first and the last included
    # A list joins up to the batch's limit, and no further.
    ask(endpoint, "minilm", HEADLINES * 8)
    last = front.statistics.remote("minilm").result()
    assert last["sequences"] - after["sequences"] == 40
    assert last["forwards"] - after["forwards"] == 3


GOOD = {"model": "minilm", "input": "Senate passes budget bill"}
BAD_BODIES = {
    "malformed JSON": b'{"model": "minilm", "input": ',
    "no JSON": b"hello",
    "nothing": b"",
    "a list": b"[]",
    "deep": b"[" * 100_000,
    "not UTF-8": b'{"model": "minilm", "input": "\xff\xfe"}',
    "half a character": b'{"model": "minilm", "input": "\\ud800"}',
    "half a character in a list": b'{"model": "minilm", "input": ["a", "\\ud800"]}',
    "half a character in the model": b'{"model": "\\ud800", "input": "a"}',
    "half a character as a key": b'{"model": "minilm", "input": "a", "\\ud800": 1}',
    "no model": json.dumps({"input": "a"}),
    "no input": json.dumps({"model": "minilm"}),
    "unknown key": json.dumps(GOOD | {"temperature": 1}),
    "model of a wrong type": json.dumps(GOOD | {"model": 3}),
    "number as input": json.dumps(GOOD | {"input": 3}),
    "object as input": json.dumps(GOOD | {"input": {"text": "a"}}),
    "null as input": json.dumps(GOOD | {"input": None}),
    "list of numbers": json.dumps(GOOD | {"input": ["a", 3]}),
    "empty": json.dumps(GOOD | {"input": ""}),
    "blank": json.dumps(GOOD | {"input": " \n\t "}),
    "no texts": json.dumps(GOOD | {"input": []}),
    "one of two empty": json.dumps(GOOD | {"input": ["a", ""]}),
    "too many texts": json.dumps(GOOD | {"input": ["a"] * 257}),
    "10,000 characters": json.dumps(GOOD | {"input": "a" * 10_000}),
    "too long for the teacher": json.dumps({"model": "gemma", "input": "z q " * 1500}),
}


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES)
def test_bad_bodies_are_refused_with_a_reason(endpoint, body):
    answer = httpx.post(
        f"{endpoint.url}/v1/classify",
        content=body,
        headers={"content-type": "application/json"},
        timeout=60,
    )
    assert answer.status_code in (400, 422), answer.text
    assert set(answer.json()) == {"detail"}
    assert answer.json()["detail"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"input": ""}, "the text is empty"),
        ({"input": "a" * 10_000}, "at most 8000 characters"),
        ({"input": 3}, "input.text: Input should be a valid string"),
        ({"temperature": 1}, "temperature: Extra inputs are not permitted"),
        ({"model": "gemma", "input": "z q " * 1500}, "Text 0: the prompt has"),
    ],
)
def test_the_reason_is_clear(endpoint, change, reason):
    answer = httpx.post(f"{endpoint.url}/v1/classify", json=GOOD | change, timeout=60)
    assert answer.status_code == 422
    assert reason in answer.json()["detail"]


def test_unknown_models_and_paths_are_not_found(endpoint):
    answer = httpx.post(f"{endpoint.url}/v1/classify", json=GOOD | {"model": "gpt"})
    assert answer.status_code == 404
    assert answer.json()["detail"] == (
        "There is no model 'gpt'; there are: minilm, gemma, misled, writer."
    )
    assert httpx.get(f"{endpoint.url}/v1/nothing").status_code == 404
    assert httpx.get(f"{endpoint.url}/v1/classify").status_code == 405
    form = httpx.post(f"{endpoint.url}/v1/classify", data={"model": "minilm", "input": "a"})
    assert form.status_code == 422


def test_a_model_that_cannot_answer_says_why(endpoint):
    answer = httpx.post(f"{endpoint.url}/v1/classify", json=GOOD | {"model": "misled"}, timeout=60)
    assert answer.status_code == 503
    assert "it is not one token" in answer.json()["detail"]


def test_two_applications_share_a_port_and_nothing_reaches_the_terminal(
    endpoint, student_folder, tmp_path, capfd
):
    logs = tmp_path / "logs"
    student = encoder_student(str(student_folder), CHOICES)
    second = deploy({"other": student}, Serve(port=0), name="other", prefix="/", logs=logs)
    assert second.url == endpoint.url.removesuffix("/desk")
    assert ask(second, "other", HEADLINES) == ask(endpoint, "minilm", HEADLINES) | {
        "model": "other"
    }
    assert not set(second.processes()) & set(endpoint.processes())
    second.close()
    assert httpx.post(f"{second.url}/v1/classify", json=GOOD).status_code == 404
    ask(endpoint, "minilm", HEADLINES)
    assert capfd.readouterr() == ("", "")
    written = [file.read_text() for file in logs.iterdir()]
    assert written
    assert any('"route": "/v1/classify"' in text for text in written)
    assert not any("Senate" in text for text in written), "a text stands in the log"


def test_another_port_than_that_of_the_running_serve_is_refused(endpoint):
    with pytest.raises(UseError, match="listens on port"):
        start_serve(Serve(port=1), None)


def test_a_folder_that_does_not_fit_is_refused_before_anything_starts(student_folder, tmp_path):
    with pytest.raises(UseError, match="no encoder student"):
        encoder_student(str(tmp_path), CHOICES)
    with pytest.raises(UseError, match="chooses from"):
        encoder_student(str(student_folder), ["yes", "no"])


@pytest.mark.slow
def test_a_student_that_does_not_load_is_an_error(endpoint, student_folder, tmp_path):
    (tmp_path / "config.json").write_bytes((student_folder / "config.json").read_bytes())
    with pytest.raises(WorkError, match="no file named model"):
        deploy({"broken": encoder_student(str(tmp_path))}, Serve(port=0), name="broken")
    assert "broken" not in serve.status().applications


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    with LoadGenerator(tmp_path_factory.mktemp("load") / "load.log") as running:
        yield running


def requests(model, texts):
    return [Request("/v1/classify", {"model": model, "input": text}) for text in texts]


def test_load_returns_answers_in_order_and_counts_errors(endpoint, student_folder, generator):
    texts = [*HEADLINES[:4], "a" * 10_000, *HEADLINES[4:]]
    result = generator.send(endpoint, Load(endpoint.url, requests("minilm", texts), concurrency=3))
    assert [bool(reply.error) for reply in result.replies] == [False] * 4 + [True] + [False]
    assert result.replies[4].error.startswith("422")
    expected = direct_student(student_folder, HEADLINES)
    for reply, wanted in zip(result.answered, expected, strict=True):
        found = reply.answer["results"][0]
        assert found["probabilities"] == pytest.approx(wanted, abs=1e-5)
        assert found["label"] == max(wanted, key=wanted.get)
        assert 0 < reply.latency_seconds <= result.wall_seconds


def test_an_open_loop_does_not_wait_for_answers(endpoint, generator):
    load = Load(endpoint.url, requests("minilm", HEADLINES * 20), rate=50.0, objective_ms=5000)
    result = generator.send(endpoint, load)
    assert len(result.answered) == 100
    assert 1.5 < result.wall_seconds < 4  # 100 at 50 a second take 2 s, whatever comes back
    assert result.latency_ms["p50"] <= result.latency_ms["p95"] <= result.latency_ms["p99"]
    assert result.good_per_second == pytest.approx(100 / result.wall_seconds)
    # A thousand times as many as a tiny model can answer: they wait, and the latency shows it.
    flood = dataclasses.replace(load, rate=50_000.0)
    assert generator.send(endpoint, flood).latency_ms["p50"] > result.latency_ms["p50"]


@pytest.mark.parametrize("model", ["minilm", "gemma"])
def test_load_measures_the_processor_time_of_the_model_and_of_the_shared_path(
    endpoint, model, generator
):
    load = Load(endpoint.url, requests(model, HEADLINES * 20), concurrency=4)
    result = generator.send(endpoint, load)
    assert len(result.answered) == 100
    # A request takes a tiny model and Serve together between 0.2 and 50 ms.
    assert 0.02 < result.model_cpu_seconds < 5
    assert 0 <= result.path_cpu_seconds < 1


def test_engine_time_belongs_to_the_teacher(endpoint, pool):
    assert set(pool.processes()) < set(endpoint.processes())
    assert len(endpoint.processes()) == 2
    # HAProxy's, and Serve's own, which answers where there is no replica.
    assert len(endpoint.shared_processes()) == 2


def make_context(tmp_path, pool, student_folder, **compare_settings):
    recipe = StudentRecipe.model_validate(
        {
            "name": "desk",
            "method": "fewshot_mcqa",
            "task": {
                "instruction": "Each headline goes to one news desk.",
                "choices": CHOICES,
                "examples": "examples.jsonl",
                "evaluation": "evaluation.jsonl",
            },
            "teachers": {"gemma": {"model": "tiny"}},
            "students": {"minilm": {"model": "tiny"}},
            "serve": {"batch_wait_ms": 1.0},
        }
    )
    run = Run(Folder(str(tmp_path)))
    evaluation = run.stage("evaluation", "0" * 12)
    rows = [
        {
            "id": content_id(number),
            "question": f"{headline} {number}",
            "choices": CHOICES,
            "answer": number % 5 if number else None,
            "difficulty": "plain",
        }
        for number, headline in enumerate(HEADLINES * 5)
    ]
    evaluation.commit_shard("all", pa.Table.from_pylist(rows, TASK), REJECTED.empty_table())
    evaluation.commit(Manifest("evaluation", "", {}, ["all"], len(rows), {}))
    student = run.stage("train-minilm", "1" * 12)
    Path(student.folder.location).mkdir(parents=True)
    (Path(student.folder.location) / "student").symlink_to(student_folder)
    shown = []
    context = StageContext(
        stage=run.stage("compare-minilm", "2" * 12),
        recipe=LoadedRecipe(recipe, tmp_path),
        settings={
            "student": "minilm",
            "teacher": "gemma",
            "compare": {
                "requests": 18,
                "concurrency": 3,
                "rates": [20.0, 40.0],
                "seconds_per_rate": 1.0,
                **compare_settings,
            },
            "seed": 7,
        },
        inputs={"student": student, "evaluation": evaluation},
        engine={"gemma": pool}.__getitem__,
        model=Path,
        fingerprint="f",
        over_budget=lambda _: None,
        attempt="a1",
        write_entry=Ledger(run.ledger).write,
        show=shown.append,
        logs=tmp_path / "logs",
    )
    return context, {row["id"]: row for row in rows}, Ledger(run.ledger), shown


def sides(context, pool, scorer=SOUND):
    teacher = PromptedTeacher(pool, scorer)
    return {
        "teacher": Chooser("gemma", pool.model, teacher, pool.device, 1, "teacher"),
        "student": student_chooser(context),
    }


def test_compare_stage_from_end_to_end(tmp_path, pool, student_folder, tiny_teacher):
    context, rows, ledger, shown = make_context(tmp_path, pool, student_folder)
    before = pool.statistics()
    pool.accounted = before | {"startup": 0.0}
    result = compare(context, sides(context, pool), list(rows.values()))
    assert set(serve.status().applications) == {"desk"}

    table = context.stage.rows.read_table(f"{result.shards[0]}.parquet")
    assert table.schema == PREDICTION
    assert table.num_rows == result.rows == 36
    by_model = {"gemma": [], "minilm": []}
    for row in table.to_pylist():
        by_model[row["model"]].append(row)
    asked = [row["id"] for row in by_model["gemma"]]
    assert asked == [row["id"] for row in by_model["minilm"]]
    assert len(set(asked)) == 18
    assert content_id(0) not in asked  # it has no answer to compare with
    questions = [rows[row_id]["question"] for row_id in asked]
    for model, direct in (
        ("minilm", direct_student(student_folder, questions)),
        ("gemma", direct_teacher(tiny_teacher, questions)),
    ):
        for row, wanted in zip(by_model[model], direct, strict=True):
            assert row["probabilities"] == pytest.approx(list(wanted.values()), abs=1e-5)
            assert CHOICES[row["predicted"]] == max(wanted, key=wanted.get)
            assert row["answer"] == rows[row["id"]]["answer"]

    facts = json.loads(json.dumps(result.facts))
    assert facts["concurrency"] == 3
    for role, name in (("teacher", "gemma"), ("student", "minilm")):
        found = facts[role]
        assert (found["name"], found["requests"], found["errors"]) == (name, 18, 0)
        assert (found["device"], found["devices"]) == ("cpu-core", 1)
        latency = found["latency_ms"]
        assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"]
        assert min(found["requests_per_second"], found["cpu_seconds_per_thousand"]) > 0
        assert found["path_cpu_seconds_per_thousand"] >= 0  # it is counted in steps of 10 ms
        # On the CPU the processor time is what is paid for.
        assert found["device_seconds_per_thousand"] == found["cpu_seconds_per_thousand"]
        right = sum(row["predicted"] == row["answer"] for row in by_model[name])
        assert found["accuracy"] == right / 18
        assert [one["rate"] for one in found["rates"]] == [20, 40]
        assert [one["requests"] - one["errors"] for one in found["rates"]] == [20, 40]
        kept = [one["rate"] for one in found["rates"] if one["latency_ms"]["p95"] <= 1000]
        assert found["sustained_per_second"] == (max(kept) if 20 in kept else None)
    assert facts["student"]["tokens_in"] is None
    assert facts["teacher"]["tokens_in"] > 5 * facts["teacher"]["tokens_out"] == 5 * 18
    assert facts["cpu_ratio"] == pytest.approx(
        facts["student"]["cpu_seconds_per_thousand"] / facts["teacher"]["cpu_seconds_per_thousand"]
    )

    entries = {entry.model: entry for entry in ledger.entries()}
    assert set(entries) == {pool.model, "minilm"}
    measured, warm_ups = 18 + 20 + 40, (4 + 2) * 3
    assert entries[pool.model].requests == measured + warm_ups
    assert entries[pool.model].startup_seconds == 1.5
    assert entries[pool.model].tokens_out == measured + warm_ups
    assert pool.accounted["requests"] == before["requests"] + measured + warm_ups
    assert (entries["minilm"].requests, entries["minilm"].rows) == (measured, measured)
    for entry in entries.values():
        assert entry.useful_seconds > 0
        assert entry.idle_seconds > 0
    held = entries["minilm"]
    assert held.device_seconds == pytest.approx(held.wall_seconds)
    assert [(step.done, step.total) for step in shown][-1] == (2 * measured, 2 * measured)


@pytest.mark.slow
def test_compare_says_why_a_model_is_silent(tmp_path, pool, student_folder):
    context, rows, *_ = make_context(tmp_path, pool, student_folder, requests=4)
    with pytest.raises(WorkError, match="it is not one token"):
        compare(context, sides(context, pool, MISLED), list(rows.values()))
    assert set(serve.status().applications) == {"desk"}
    assert not context.stage.committed_shards()


@pytest.mark.slow
def test_a_teacher_that_writes_is_compared_with_a_student_that_chooses(
    tmp_path, pool, tiny_encoder
):
    options = [["sports", "politics"], ["health", "business", "technology"]]
    fields = [
        {"text": headline, "options": options[n % 2], "right": options[n % 2][n % 2]}
        for n, headline in enumerate(HEADLINES)
    ]
    recipe = FrontierRecipe.model_validate(
        {
            "name": "desk",
            "method": "frontier",
            "inputs": {"file": "train.jsonl"},
            "evaluation": {"file": "test.jsonl"},
            "teachers": {"gemma": {"model": "tiny"}},
            "ask": {
                "gemma": {
                    "prompt": "Think. {{ text }}",
                    "samples": 2,
                    "sampling": {"max_tokens": 5},
                }
            },
            "task": {
                "kind": "choices",
                "choices_field": "options",
                "prompt": "{{ text }}",
                "gold": "right",
            },
            "students": {"chooser": {"head": "choices", "model": "tiny"}},
            "serve": {"device": {"cpus": 0.1}},
            "compare": {"concurrency": 2, "rates": [20.0], "seconds_per_rate": 1.0},
        }
    )
    loaded = LoadedRecipe(recipe, tmp_path)
    stage = next(one for one in lay_out(loaded) if one.name == "compare-chooser")
    run = Run(Folder(str(tmp_path / "run")))
    evaluation, student = run.stage("evaluation", "0" * 12), run.stage("train-chooser", "1" * 12)
    rows = [{"id": content_id(n), "fields": json.dumps(one)} for n, one in enumerate(fields)]
    evaluation.commit_shard("all", pa.Table.from_pylist(rows, INPUT), REJECTED.empty_table())
    evaluation.commit(Manifest("evaluation", "", {}, ["all"], len(rows), {}))
    make_chooser(tiny_encoder, Path(student.folder.location) / "student")
    context = StageContext(
        stage=run.stage("compare-chooser", "2" * 12),
        recipe=loaded,
        settings=stage.settings,
        inputs={"student": student, "evaluation": evaluation},
        engine={"gemma": pool}.__getitem__,
        model=Path,
        fingerprint="f",
        over_budget=lambda _: None,
        attempt="a1",
        write_entry=Ledger(run.ledger).write,
        show=lambda _: None,
        logs=tmp_path / "logs",
    )
    result = compare_frontier(context)
    teacher, chooser = result.facts["teacher"], result.facts["student"]
    assert (teacher["name"], chooser["name"]) == ("gemma", "chooser")
    assert teacher["requests"] == chooser["requests"] == 5
    assert teacher["errors"] == chooser["errors"] == 0
    assert teacher["tokens_out"] == 5 * 2 * 5  # rows, samples, tokens
    assert teacher["accuracy"] == 0  # it babbles, and no answer is found
    told = context.stage.rows.read_table(f"{result.shards[0]}.parquet").to_pylist()
    assert [row["model"] for row in told] == ["chooser"] * 5
    for row in told:
        wanted = next(one for one in fields if one["text"] == row["question"])
        assert row["choices"] == wanted["options"]
        assert sum(row["probabilities"]) == pytest.approx(1)
    right = sum(row["predicted"] == row["answer"] for row in told)
    assert chooser["accuracy"] == right / 5
