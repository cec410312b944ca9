"""What an endpoint must stand: bad callers, too many, lost replicas, updates, and no callers."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import aiohttp
import httpx
import pytest
import ray
from ray import serve

from core.recipe_section import Device
from core.recipe_serving import ApiKeys, Autoscale, RequestLimits, Serve
from serving.application import Beside, Offered, build, deploy
from serving.encoder import encoder_student
from serving.instance import quiet_logging, replica_processes, start_serve
from stillhouse.key_file import add_key, revoke_key
from tests.students import CHOICES

TEXT = "Late goal sends underdogs into the cup final"
QUESTION = {"question": "Where does it belong?", "choices": ["sports", "politics", "sports"]}
PLAIN = Serve(port=0, device=Device(cpus=0.1))
"""Tiny models need no core of their own."""


@pytest.fixture(scope="module")
def desk(students):
    limits = RequestLimits(body_bytes=2**20, inputs=8, characters=500, choices=16)
    settings = PLAIN.model_copy(update={"limits": limits})
    running = deploy(
        {"first": students["first"], "chooser": students["chooser"]}, settings, name="desk"
    )
    yield running
    running.close()


def classify(endpoint, text=TEXT, model="first", **more):
    return httpx.post(
        f"{endpoint.url}/v1/classify", json={"model": model, "input": text}, timeout=60, **more
    )


def choose(endpoint, question, model="chooser"):
    return httpx.post(
        f"{endpoint.url}/v1/multiple-choice", json={"model": model, "input": question}, timeout=60
    )


def direct_choices(folder, question):
    import torch
    from transformers import AutoModelForMultipleChoice, AutoTokenizer

    model = AutoModelForMultipleChoice.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    choices = question["choices"]
    inputs = tokenizer(
        [question["question"]] * len(choices), choices, padding=True, return_tensors="pt"
    )
    with torch.inference_mode():
        logits = model(**{name: ids[None] for name, ids in inputs.items()}).logits[0]
    return logits.softmax(-1).tolist()


async def hammer(endpoint, requests, *, at_once, until=None):
    """Statuses of many requests; with `until`, as many as there is time for."""
    statuses, body = Counter(), {"model": "first", "input": TEXT}
    numbers = iter(range(requests))
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:

        async def caller():
            for _ in numbers:
                if until is not None and time.monotonic() > until():
                    return
                try:
                    async with session.post(f"{endpoint.url}/v1/classify", json=body) as answer:
                        content = await answer.read()
                        statuses[answer.status] += 1
                        if answer.status == 200:
                            label = json.loads(content)["results"][0]["label"]
                            statuses[label] += 1
                except aiohttp.ClientError as error:
                    statuses[type(error).__name__] += 1

        await asyncio.gather(*(caller() for _ in range(at_once)))
    return statuses


# Multiple choice


def test_a_question_brings_its_own_choices(desk, students):
    answer = choose(desk, [QUESTION, {"question": "Is it?", "choices": ["yes", "no"]}])
    assert answer.status_code == 200, answer.text
    first, second = answer.json()["results"]
    expected = direct_choices(students["chooser"].folder, QUESTION)
    assert first["probabilities"] == pytest.approx(expected, abs=1e-5)
    assert first["index"] == expected.index(max(expected))
    assert first["choice"] == QUESTION["choices"][first["index"]]
    assert len(second["probabilities"]) == 2
    # Alone or in a list, the answer is the same.
    alone = choose(desk, QUESTION).json()["results"][0]
    assert alone["probabilities"] == pytest.approx(first["probabilities"], abs=1e-5)


def test_each_model_is_asked_in_its_own_form(desk):
    wrong = classify(desk, model="chooser")
    assert wrong.status_code == 422
    assert "ask /v1/multiple-choice" in wrong.json()["detail"]
    wrong = choose(desk, QUESTION, model="first")
    assert wrong.status_code == 422
    assert "ask /v1/classify" in wrong.json()["detail"]


# Limits


@pytest.mark.parametrize(
    "question",
    [
        QUESTION | {"choices": ["yes"]},
        QUESTION | {"choices": ["yes", " "]},
        QUESTION | {"choices": [str(number) for number in range(10_000)]},
        QUESTION | {"question": "a" * 501},
        [QUESTION] * 9,
        {"question": "Is it?"},
    ],
    ids=["one choice", "a blank one", "10,000 choices", "long", "too many", "no choices"],
)
def test_a_question_beyond_the_limits_is_refused(desk, question):
    answer = choose(desk, question)
    assert answer.status_code == 422
    assert answer.json()["detail"]


def test_a_body_of_20_megabytes_is_refused_whatever_it_says_of_its_length(desk):
    url, size = f"{desk.url}/v1/classify", 20 * 2**20
    before = memory(desk)
    for _ in range(3):
        answer = httpx.post(url, content=b"a" * size, timeout=60)
        assert answer.status_code == 413
        assert "more than 1048576 bytes" in answer.json()["detail"]

        def parts():
            for _ in range(20):
                yield b"a" * 2**20

        # The connection may go while the body is on its way.
        with contextlib.suppress(httpx.WriteError, httpx.RemoteProtocolError):
            assert httpx.post(url, content=parts(), timeout=60).status_code == 413
    assert memory(desk) - before < 15 * 2**20
    assert classify(desk).status_code == 200


def memory(endpoint):
    import psutil

    return sum(psutil.Process(pid).memory_info().rss for pid in endpoint.processes())


def test_the_openapi_page_tells_the_limits(desk):
    schema = httpx.get(f"{desk.url}/openapi.json").json()["components"]["schemas"]
    assert schema["Question"]["properties"]["choices"]["maxItems"] == 16
    assert "maxLength" in json.dumps(schema["ClassifyRequest"])


def test_no_request_that_the_openapi_page_allows_or_forbids_is_answered_with_500(desk, tmp_path):
    # One that the page describes, and many that it does not: schemathesis draws both.
    done = subprocess.run(
        [
            *(Path(sys.executable).parent / "st", "run", f"{desk.url}/openapi.json"),
            *("--url", desk.url, "--checks", "not_a_server_error,status_code_conformance"),
            *("--max-examples", "40", "--seed", "1", "--request-timeout", "30"),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=tmp_path,  # it keeps files of its own
    )
    assert done.returncode == 0, done.stdout
    assert "6 operations" in done.stdout or "Tested: 6" in done.stdout


# Keys


def test_keys_let_in_stop_and_are_revoked(students, tmp_path):
    file = tmp_path / "keys.yaml"
    busy, other = add_key(file, "busy", 5), add_key(file, "other", None)
    assert busy not in file.read_text()
    settings = PLAIN.model_copy(update={"api_keys": ApiKeys(file=str(file))})
    guarded = deploy({"first": students["first"]}, settings, name="guarded")
    try:

        def ask(key, header="Authorization"):
            given = {} if key is None else {header: f"Bearer {key}" if " " not in header else key}
            return classify(guarded, headers=given)

        for key in (None, "wrong", "sh_" + "a" * 43, busy[:-1]):
            answer = ask(key)
            assert answer.status_code == 401, key
            assert answer.headers["www-authenticate"] == "Bearer"
        assert ask("\x7f").status_code == 400  # HAProxy takes no control character in a header
        assert classify(guarded, headers={"X-API-Key": other}).status_code == 200
        assert [ask(busy).status_code for _ in range(7)] == [200] * 5 + [429] * 2
        assert 50 <= int(ask(busy).headers["retry-after"]) <= 60
        assert ask(other).status_code == 200
        for path in ("healthz", "readyz", "openapi.json"):
            assert httpx.get(f"{guarded.url}/{path}").status_code == 200
        assert httpx.get(f"{guarded.url}/v1/models").status_code == 401

        revoke_key(file, "other")
        time.sleep(1.1)
        assert ask(other).status_code == 401
        late = add_key(file, "late", None)
        file.write_text(file.read_text() + "\nnonsense: [")  # half written: nothing changes
        time.sleep(1.1)
        assert ask(other).status_code == 401
        assert ask(late).status_code == 401
        file.write_text(file.read_text().replace("\nnonsense: [", ""))
        time.sleep(1.1)
        assert ask(late).status_code == 200
    finally:
        guarded.close()


# Too many callers, lost replicas, updates


def test_too_many_requests_are_told_to_come_again(students):
    few = PLAIN.model_copy(update={"max_ongoing": 1, "max_queued": 1, "retry_after_seconds": 3})
    small = deploy({"first": students["first"]}, few, name="small")
    try:
        statuses = asyncio.run(hammer(small, 200, at_once=50))
        assert {status for status in statuses if isinstance(status, int)} == {200, 429}

        async def until_refused():
            async with aiohttp.ClientSession() as session:

                async def one():
                    body = {"model": "first", "input": TEXT}
                    async with session.post(f"{small.url}/v1/classify", json=body) as answer:
                        return answer.status, answer.headers.get("Retry-After")

                return await asyncio.gather(*(one() for _ in range(50)))

        assert (429, "3") in asyncio.run(until_refused())
    finally:
        small.close()


def test_a_slow_answer_is_given_up(students):
    hasty = PLAIN.model_copy(update={"timeout_seconds": 0.001})
    slow = deploy({"first": students["first"]}, hasty, name="hasty")
    try:
        answer = classify(slow, [TEXT] * 200)
        assert answer.status_code == 504
        assert answer.json() == {"detail": "There was no answer within 0.001 s."}
    finally:
        slow.close()


def test_a_body_that_does_not_come_is_not_waited_for(students):
    hasty = PLAIN.model_copy(update={"timeout_seconds": 1.0})
    slow = deploy({"first": students["first"]}, hasty, name="hasty")
    url = httpx.URL(slow.url)
    try:
        with socket.create_connection((url.host, url.port), timeout=20) as caller:
            head = f"POST {url.path}/v1/classify HTTP/1.1\r\nHost: me\r\nContent-Length: 99\r\n\r\n"
            caller.sendall(head.encode() + b'{"model"')
            assert caller.recv(100).startswith(b"HTTP/1.1 504")
    finally:
        slow.close()


def test_a_killed_replica_costs_errors_and_no_silence(students):
    two = PLAIN.model_copy(update={"replicas": 2})
    pair = deploy({"first": students["first"]}, two, name="pair")
    try:
        end = time.monotonic() + 8

        async def under_load():
            async def kill():
                await asyncio.sleep(2)
                os.kill(replica_processes("pair")[0], signal.SIGKILL)

            load = hammer(pair, 10**6, at_once=8, until=lambda: end)
            statuses, _ = await asyncio.gather(load, kill())
            return statuses

        statuses = asyncio.run(under_load())
        # What the replica was at work on is told as an error; nothing else is lost. HAProxy tells
        # it by closing the connection where it had asked the replica over one that it kept open, so
        # that callers ask again.
        assert statuses[200] > 100
        failed = {status: n for status, n in statuses.items() if status not in (200, *CHOICES)}
        assert set(failed) <= {500, 502, "ServerDisconnectedError"}, statuses
        assert sum(failed.values()) <= 8, statuses
        deadline = time.monotonic() + 30
        while len(replica_processes("pair")) < 2:
            assert time.monotonic() < deadline, "the replica did not come back"
            time.sleep(0.5)
        assert classify(pair).status_code == 200
    finally:
        pair.close()


def test_an_update_under_load_fails_no_request(students):
    first = deploy({"first": students["first"]}, PLAIN, name="moving")
    try:
        before = classify(first).json()["results"][0]
        end = [time.monotonic() + 60]

        async def under_load():
            loop = asyncio.get_running_loop()

            def update():
                deploy({"first": students["second"]}, PLAIN, name="moving")
                end[0] = time.monotonic() + 6  # the old replica drains

            load = hammer(first, 10**6, at_once=4, until=lambda: end[0])
            statuses, _ = await asyncio.gather(load, loop.run_in_executor(None, update))
            return statuses

        statuses = asyncio.run(under_load())
        assert {status for status in statuses if status not in CHOICES} == {200}, statuses
        after = classify(first).json()["results"][0]
        assert after["probabilities"] != before["probabilities"]
    finally:
        first.close()


@pytest.mark.slow
def test_an_update_to_a_student_that_does_not_load_leaves_the_old_one(students, tmp_path):
    from core.errors import WorkError

    (tmp_path / "config.json").write_bytes(
        (type(tmp_path)(students["first"].folder) / "config.json").read_bytes()
    )
    staying = deploy({"first": students["first"]}, PLAIN, name="staying")
    try:
        with pytest.raises(WorkError, match="did not start"):
            deploy({"first": encoder_student(str(tmp_path))}, PLAIN, name="staying")
        assert classify(staying).status_code == 200
    finally:
        staying.close()


# What a platform team sees


def test_requests_are_metrics_and_lines_of_the_log(students, tmp_path):
    logged = deploy({"first": students["first"]}, PLAIN, name="logged", logs=tmp_path / "logs")
    try:
        answers = [classify(logged, text) for text in (TEXT, [TEXT, TEXT], "")]
        assert [answer.status_code for answer in answers] == [200, 200, 422]
        end = time.monotonic() + 10
        lines = []
        while len(lines) < 3:  # a line is written when its answer is on its way already
            assert time.monotonic() < end, lines
            lines = [
                json.loads(line)
                for file in (tmp_path / "logs").iterdir()
                for line in file.read_text().splitlines()
                if '"message": "request"' in line
            ]
        assert sorted((line["status"], line["inputs"]) for line in lines) == [
            (200, 1),
            (200, 2),
            (422, 0),
        ]
        assert all(line["ms"] > 0 and line["request_id"] for line in lines)
        assert not any("underdogs" in str(line) for line in lines)

        port = ray.nodes()[0]["MetricsExportPort"]
        end = time.monotonic() + 40
        while True:
            found = httpx.get(f"http://127.0.0.1:{port}/metrics").text
            own = [line for line in found.splitlines() if 'application="logged"' in line]
            inputs = [line for line in own if line.startswith("ray_stillhouse_inputs_total{")]
            if sum(float(line.rpartition(" ")[2]) for line in inputs) == 3:
                break
            assert time.monotonic() < end, "\n".join(own)
            time.sleep(1)
        requests = [line for line in own if line.startswith("ray_stillhouse_requests")]
        assert any('status="422"' in line for line in requests)
        assert any(line.startswith("ray_stillhouse_request_latency_ms_bucket") for line in own)
    finally:
        logged.close()


# Shares


@pytest.mark.slow
def test_a_canary_answers_its_share_and_a_shadow_none(students):
    shared = Offered(
        students["first"], Beside(students["second"], 0.5), Beside(students["second"], 1.0)
    )
    running = deploy({"first": shared}, PLAIN, name="shared")
    try:
        answers = [classify(running).json()["results"][0] for _ in range(40)]
        by = Counter(answer.get("answered_by", "first") for answer in answers)
        assert set(by) == {"first", "canary"}
        assert 8 <= by["canary"] <= 32  # 40 draws of one half: out of these 1 time in 10,000
        for who in by:
            own = {
                json.dumps(answer["probabilities"])
                for answer in answers
                if answer.get("answered_by", "first") == who
            }
            assert len(own) == 1
    finally:
        running.close()


# No callers


def test_a_student_scales_to_zero_and_wakes_up_for_a_request(students):
    sleepy = PLAIN.model_copy(
        update={
            "replicas": Autoscale(
                min=0, max=1, target_requests=1, up_after_seconds=0, down_after_seconds=1
            )
        }
    )
    running = deploy({"first": students["first"]}, sleepy, name="sleepy")

    def replicas():
        status = serve.status().applications["sleepy"].deployments["first"]
        return sum(status.replica_states.get(state, 0) for state in ("RUNNING", "STARTING"))

    try:
        deadline = time.monotonic() + 60
        while replicas():
            assert time.monotonic() < deadline, "it did not scale to zero"
            time.sleep(1)
        assert httpx.get(f"{running.url}/readyz").status_code == 200
        assert replicas() == 0  # a probe wakes nobody up
        assert classify(running).status_code == 200
        assert replicas() == 1
    finally:
        running.close()


# The import path of a RayService


def test_the_import_path_serves_what_its_arguments_say(students):
    serve.run(
        build(
            {
                "students": {"first": {"folder": students["first"].folder, "card": "# Mine"}},
                "serve": {"device": {"cpus": 0.1}},
            }
        ),
        name="imported",
        route_prefix="/imported",
        logging_config=quiet_logging(None),
    )
    base = start_serve(PLAIN, None)  # it runs
    card = httpx.get(f"{base}/imported/v1/models/first").json()
    assert card["card"] == "# Mine"
    answer = httpx.post(
        f"{base}/imported/v1/classify", json={"model": "first", "input": TEXT}, timeout=60
    )
    assert answer.json()["results"][0]["label"] in CHOICES
    serve.delete("imported")
