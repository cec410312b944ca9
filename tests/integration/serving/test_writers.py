"""Students that write behind the OpenAI API: vLLM and transformers in one application."""

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pyarrow as pa
import pytest

from core.errors import UseError
from core.recipe_section import Device
from core.recipe_serving import RequestLimits, Serve
from core.student_reading import StudentReading
from pipelines.student_texts import WritingPredictor
from serving.application import build
from serving.seq2seq import Seq2SeqServer, Wanted
from serving.writers import deploy_writers, writing_student
from tests.tiny_models import make_writer, reading

MESSAGES = [{"role": "user", "content": "Headline: Senate passes budget bill"}]
OTHERS = [{"role": "user", "content": "Headline: Late goal wins the cup\nNews desk:"}]


@pytest.fixture(scope="module")
def folders(tiny_teacher, tiny_seq2seq, tmp_path_factory):
    folder = tmp_path_factory.mktemp("writers")
    make_writer(tiny_teacher, folder / "causal")
    (folder / "causal" / "README.md").write_text("# It writes\n")
    teach(tiny_seq2seq, folder / "seq2seq")
    reading("seq2seq").write(folder / "seq2seq")
    make_adapter(folder / "causal", folder / "adapter")
    return folder


def teach(base, folder):
    """The tiny T5 after a few steps, so that it writes something."""
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForSeq2SeqLM.from_pretrained(base)
    asked = ["predict: " + one[0]["content"] for one in (MESSAGES, OTHERS)]
    inputs = tokenizer(asked, padding=True, return_tensors="pt")
    labels = tokenizer(["News desk: politics", "News desk: sports"], padding=True).input_ids
    labels = torch.tensor(labels)
    labels[labels == tokenizer.pad_token_id] = -100
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        model(**inputs, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_adapter(base, folder):
    """A LoRA adapter that changes what is written."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        LoraConfig(r=8, lora_alpha=64, target_modules=["q_proj", "v_proj"]),
    )
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "lora_B" in name:
                weights.normal_()
    model.save_pretrained(folder)


@pytest.fixture(scope="module")
def endpoint(folders):
    students = {
        "writer": writing_student(
            str(folders / "causal"),
            engine={"max_model_len": 256, "max_lora_rank": 8},
            adapters={"other": str(folders / "adapter")},
        ),
        "t5": writing_student(str(folders / "seq2seq")),
    }
    limits = RequestLimits(body_bytes=2**20)
    running = deploy_writers(
        students, Serve(port=0, device=Device(cpus=1), limits=limits), name="writers"
    )
    yield running
    running.close()


def post(endpoint, route, **body):
    return httpx.post(f"{endpoint.url}/v1/{route}", json=body, timeout=120)


def said(answer):
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["message"]["content"]


def direct(folder, *conversations):
    rows = [
        {"id": str(number), "system": "", "turns": [message["content"] for message in messages]}
        for number, messages in enumerate(conversations)
    ]
    predictor = WritingPredictor(folder, StudentReading.of(folder))
    return [replies[-1] for replies in predictor(pa.Table.from_pylist(rows))["replies"].to_pylist()]


def streamed(endpoint, route, **body):
    """The data of a stream, and its text."""
    with httpx.stream(
        "POST", f"{endpoint.url}/v1/{route}", json=body | {"stream": True}, timeout=120
    ) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    parts = [json.loads(line) for line in lines[:-1]]
    choices = [part["choices"][0] for part in parts if part["choices"]]
    text = "".join(
        choice["delta"].get("content") or "" if "delta" in choice else choice["text"]
        for choice in choices
    )
    return parts, text


def test_an_engine_of_one_worker_has_no_process_beside_it_that_waits(endpoint):
    names = [process.name() for process in psutil.Process().children(recursive=True)]
    assert "VLLM::EngineCore" in names
    assert not [name for name in names if name.startswith("VLLM::Worker")]


def test_students_and_adapters_stand_in_one_application(endpoint):
    found = httpx.get(f"{endpoint.url}/v1/models").json()["data"]
    assert [one["id"] for one in found] == ["writer", "writer:other", "t5"]
    assert [one["family"] for one in found] == ["causal", "causal", "seq2seq"]
    card = httpx.get(f"{endpoint.url}/v1/models/writer").json()
    assert card["card"] == "# It writes\n"
    assert httpx.get(f"{endpoint.url}/v1/models/gpt").status_code == 404
    for probe in ("healthz", "readyz"):
        assert httpx.get(f"{endpoint.url}/{probe}").json() == {"status": "ok"}
    paths = httpx.get(f"{endpoint.url}/openapi.json").json()["paths"]
    assert {"/v1/chat/completions", "/v1/completions", "/v1/models"} <= set(paths)


@pytest.mark.parametrize(("model", "family"), [("writer", "causal"), ("t5", "seq2seq")])
def test_a_student_answers_as_it_was_judged(endpoint, folders, model, family):
    expected = direct(folders / family, MESSAGES, OTHERS)
    found = [
        said(post(endpoint, "chat/completions", model=model, messages=messages))
        for messages in (MESSAGES, OTHERS)
    ]
    assert found == expected
    usage = post(endpoint, "chat/completions", model=model, messages=MESSAGES).json()["usage"]
    assert 0 < usage["completion_tokens"] <= 12  # what the student's folder says
    assert usage["prompt_tokens"] > 5


@pytest.mark.parametrize("model", ["writer", "t5"])
def test_a_stream_is_the_same_text_in_parts(endpoint, model):
    whole = said(post(endpoint, "chat/completions", model=model, messages=MESSAGES))
    parts, text = streamed(
        endpoint,
        "chat/completions",
        model=model,
        messages=MESSAGES,
        stream_options={"include_usage": True},
    )
    assert text == whole
    assert all(part["model"] == model for part in parts)
    assert parts[-1]["usage"]["completion_tokens"] > 0


@pytest.mark.parametrize("model", ["writer", "t5"])
def test_a_text_is_written_on(endpoint, model):
    body = {"model": model, "prompt": "Headline: Senate", "max_tokens": 6, "temperature": 0}
    answer = post(endpoint, "completions", **body)
    assert answer.status_code == 200, answer.text
    whole = answer.json()["choices"][0]["text"]
    assert answer.json()["usage"]["completion_tokens"] <= 6
    assert streamed(endpoint, "completions", **body)[1] == whole


def test_a_text_ends_before_what_stops_it(endpoint):
    asked = {"model": "t5", "messages": MESSAGES, "stop": ["desk"]}
    assert said(post(endpoint, "chat/completions", **asked)) == "News "
    assert streamed(endpoint, "chat/completions", **asked)[1] == "News "


def test_requests_that_are_drawn_differently_are_answered_together(endpoint, folders):
    import asyncio

    greedy = direct(folders / "seq2seq", MESSAGES)[0]

    async def together():
        async with httpx.AsyncClient(timeout=120) as client:
            url = f"{endpoint.url}/v1/chat/completions"
            bodies = [
                {"model": "t5", "messages": MESSAGES, **more}
                for more in ({}, {"temperature": 1.5, "seed": 3}, {"max_tokens": 2}, {}) * 4
            ]
            return await asyncio.gather(*(client.post(url, json=body) for body in bodies))

    answers = asyncio.run(together())
    assert [said(answer) for answer in answers[::4]] == [greedy] * 4
    assert len({said(answer) for answer in answers[1::4]}) == 1  # one seed, one text
    for answer in answers[2::4]:
        assert answer.json()["usage"]["completion_tokens"] <= 2


def test_an_adapter_changes_what_is_written(endpoint):
    def ask(model):
        return said(post(endpoint, "chat/completions", model=model, messages=MESSAGES))

    assert ask("writer:other") != ask("writer")
    assert ask("writer:other") == ask("writer:other")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"model": "gpt", "messages": MESSAGES}, 404),
        ({"model": "writer:nobody", "messages": MESSAGES}, 404),
        ({"model": "t5", "messages": MESSAGES, "n": 2}, 400),
        ({"model": "t5", "messages": MESSAGES, "temperature": 0.5, "top_p": -1}, 400),
        ({"model": "t5", "messages": MESSAGES, "temperature": -1}, 400),
        ({"model": "writer", "messages": MESSAGES, "n": 257}, 422),
        ({"model": "writer", "messages": [{"role": "user", "content": "a" * 8001}]}, 422),
        ({"model": "writer", "messages": "hello"}, 400),
        ({"model": "writer", "messages": None}, 400),
        ({"model": "t5", "messages": 3}, 400),
        ({"model": "writer", "messages": MESSAGES, "max_tokens": -1}, 400),
        ({"model": "writer", "messages": [{"role": "user", "content": "word " * 3000}]}, 400),
        ({"model": "writer", "messages": MESSAGES, "user": "a" * 2**21}, 413),
    ],
)
def test_bad_requests_are_refused(endpoint, body, status):
    answer = post(endpoint, "chat/completions", **body)
    assert answer.status_code in (status, 422), answer.text


def test_a_request_may_ask_for_so_many_answers(endpoint):
    answer = post(endpoint, "completions", model="t5", prompt=["a"] * 300)
    assert answer.status_code == 422
    assert answer.json() == {"detail": "A request may ask for 256 answers at most."}
    answer = post(endpoint, "completions", model="writer", prompt=["a", "a" * 8001], max_tokens=1)
    assert answer.status_code == 422
    answer = post(endpoint, "completions", model="writer", prompt=["a", "b"], max_tokens=1)
    assert len(answer.json()["choices"]) == 2


@pytest.mark.parametrize("model", ["writer", "t5"])
def test_a_message_comes_in_parts_or_without_any(endpoint, model):
    part = [{"type": "text", "text": MESSAGES[0]["content"]}]
    whole = said(post(endpoint, "chat/completions", model=model, messages=MESSAGES))
    parts = [{"role": "user", "content": part}]
    assert said(post(endpoint, "chat/completions", model=model, messages=parts)) == whole
    empty = [{"role": "user", "content": None}]
    assert post(endpoint, "chat/completions", model=model, messages=empty).status_code < 500


def test_what_a_caller_no_longer_waits_for_is_not_written(folders):
    settings = Serve(device=Device(cpus=1))
    server = Seq2SeqServer("t5", writing_student(str(folders / "seq2seq")), settings)
    drawing = server._drawing
    server._drawing = lambda wanted, most: drawing(wanted, most) | {"min_new_tokens": most}
    wanted = Wanted((5, 6, 7), 100_000, 0.0, 1.0, None, ())

    async def leave():
        stream = server._stream(wanted)
        await anext(stream)
        await stream.aclose()
        # The one thread that writes is free again.
        await asyncio.wait_for(
            asyncio.get_running_loop().run_in_executor(server._thread, int), timeout=20
        )

    asyncio.run(leave())


def test_a_text_that_is_none_is_refused(endpoint):
    for prompt in (None, "", [], [[]], {}):
        answer = post(endpoint, "completions", model="writer", prompt=prompt)
        assert answer.status_code in (400, 422), (prompt, answer.text)


def test_no_request_is_answered_with_500(endpoint, tmp_path):
    done = subprocess.run(
        [
            *(Path(sys.executable).parent / "st", "run", f"{endpoint.url}/openapi.json"),
            *("--url", endpoint.url, "--checks", "not_a_server_error", "--max-examples", "8"),
            *("--seed", "1", "--request-timeout", "60", "--phases", "coverage,fuzzing"),
        ],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout


def test_what_does_not_write_is_refused(folders, tiny_encoder, tmp_path):
    with pytest.raises(UseError, match="no student here that writes"):
        writing_student(str(tiny_encoder))
    with pytest.raises(UseError, match="without engine and adapters"):
        writing_student(str(folders / "seq2seq"), engine={"max_model_len": 64})
    shutil.copytree(tiny_encoder, tmp_path / "encoder")
    students = {"a": {"folder": str(folders / "causal")}, "b": {"folder": str(tmp_path)}}
    with pytest.raises(UseError, match="different APIs"):
        build({"students": students})
