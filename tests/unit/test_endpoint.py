"""An endpoint as a teacher, against a real HTTP server that misbehaves as it is told."""

import asyncio
import email.utils
import json
import math
import pickle
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest
from aiohttp import web
from pydantic import ValidationError

from core.errors import UseError, WorkError
from core.recipe_teachers import EndpointTeacher
from core.teacher import Completion, Sampling, Usage
from pipelines.endpoint import Endpoint
from pipelines.openai_form import retry_after_seconds
from pipelines.rate_limit import Allowance, Line
from tests.endpoint_server import DROP, Server, failed, said, server

__all__ = ["server"]

KEY = "Th1s-1s-the-secret"
KEY_NAME = "ENDPOINT_TEST_KEY"
SHORT = Sampling(max_tokens=8, temperature=0.0)
LABELS = [" business", " politics", " sports"]


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_NAME, KEY)


def endpoint(server: Server, *, patience: float = 60.0, **settings: Any) -> Endpoint:
    section = EndpointTeacher(
        **{
            "backend": "openai",
            "model": "big",
            "base_url": server.url,
            "api_key_env": KEY_NAME,
            **settings,
        }
    )
    return Endpoint("large", section, backoff_seconds=0.01, patience_seconds=patience)


def run(teacher: Endpoint, work: Callable[[], Any]) -> Any:
    """Run a coroutine to its end; a call that hangs fails instead of holding the tests up."""

    async def whole() -> Any:
        try:
            return await asyncio.wait_for(work(), 30)
        finally:
            await teacher.disconnect()

    return asyncio.run(whole())


def ask(teacher: Endpoint, prompt: str = "Say it.", sampling: Sampling = SHORT) -> Completion:
    return run(teacher, lambda: teacher.complete(prompt, sampling))


def score(teacher: Endpoint, prompt: str = "Desk:") -> Any:
    return run(teacher, lambda: teacher.score_labels(prompt, LABELS))


def test_a_chat_sends_the_prompt_as_the_users_message(server):
    answer = said(None, "length", content="fine")
    answer["usage"]["prompt_tokens_details"] = {"cached_tokens": 4}
    server.behave = lambda number, body: answer
    usage = Usage(requests=1, tokens_in=10, tokens_cached=4, tokens_out=3)
    assert ask(endpoint(server)) == Completion("fine", usage, "length")
    (arrival,) = server.arrivals
    assert arrival.path == "/v1/chat/completions"
    assert arrival.headers["Authorization"] == f"Bearer {KEY}"
    assert arrival.body == {
        "model": "big",
        "messages": [{"role": "user", "content": "Say it."}],
        "max_tokens": 8,
        "temperature": 0.0,
        "top_p": 1.0,
    }


def test_completions_send_the_raw_prompt_and_all_of_the_sampling(server):
    schema = {"type": "object"}
    sampling = Sampling(9, 0.7, top_p=0.9, min_p=0.1, stop=("\n",), json_schema=schema)
    teacher = endpoint(server, api="completions", base_url=f"{server.url}/", api_key_env=None)
    assert ask(teacher, "Once", sampling) == Completion("fine", Usage(1, 10, 0, 3), "stop")
    (arrival,) = server.arrivals
    assert arrival.path == "/v1/completions"
    assert "Authorization" not in arrival.headers
    form = arrival.body.pop("response_format")
    assert form["type"] == "json_schema"
    assert form["json_schema"]["schema"] == schema
    assert arrival.body == {
        "model": "big",
        "prompt": "Once",
        "max_tokens": 9,
        "temperature": 0.7,
        "top_p": 0.9,
        "min_p": 0.1,
        "stop": ["\n"],
    }


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (said("half", "content_filter"), "the endpoint's content filter stopped the answer"),
        (said(None, refusal="I may not."), "the teacher refuses: I may not."),
    ],
    ids=["filter", "refusal"],
)
def test_an_answer_that_is_withheld_is_an_error_that_was_paid_for(server, answer, error):
    server.behave = lambda number, body: answer
    teacher = endpoint(server)
    found = ask(teacher)
    assert (found.finish, found.error, found.usage) == ("error", error, Usage(1, 10, 0, 3))
    assert teacher.statistics()["tokens_out"] == 3


def told(api: str, tokens: dict[str, float]) -> dict[str, Any]:
    """An answer with the log-probabilities of the likeliest next tokens."""
    answer = said(next(iter(tokens)), "length", (7, 1))
    if api == "chat":
        tops = [{"token": token, "logprob": logprob} for token, logprob in tokens.items()]
        logprobs = {"content": [{**tops[0], "top_logprobs": tops}]}
    else:
        logprobs = {"tokens": [next(iter(tokens))], "top_logprobs": [tokens]}
    answer["choices"][0]["logprobs"] = logprobs
    return answer


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_scores_labels_by_the_likeliest_tokens_with_a_floor(server, api):
    tokens = {"politics": -0.3, " politics": -1.5, "business": -2.0, "The": -7.5}
    server.behave = lambda number, body: told(api, tokens)
    scores = score(endpoint(server, api=api, top_logprobs=15))
    # Its own token first; then one that differs by a blank; then the smallest that is told.
    assert scores.logprobs == [-2.0, -1.5, -7.5]
    assert scores.usage == Usage(1, 7, 0, 1)
    body = server.arrivals[0].body
    asked = {"chat": {"logprobs": True, "top_logprobs": 15}, "completions": {"logprobs": 15}}
    assert body.items() >= {"max_tokens": 1, "temperature": 0, **asked[api]}.items()


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_an_answer_without_any_label_is_an_error_of_its_row(server, api):
    server.behave = lambda number, body: told(api, {"The": -0.1, "I": -2.0})
    scores = score(endpoint(server, api=api))
    assert scores.logprobs == []
    assert "no label is among the 2 likeliest" in scores.error


def test_an_empty_answer_is_an_error_of_its_row(server):
    answer = said("", "stop")
    answer["choices"][0]["logprobs"] = {"content": []}
    server.behave = lambda number, body: answer
    assert "no label is among the 0 likeliest" in score(endpoint(server)).error


@pytest.mark.parametrize(
    "answer",
    [
        said("politics"),
        said("politics") | {"choices": [said("p")["choices"][0] | {"logprobs": None}]},
        {
            **said("p"),
            "choices": [
                said("p")["choices"][0]
                | {"logprobs": {"content": [{"token": "p", "logprob": -1.0, "top_logprobs": []}]}}
            ],
        },
        {
            **said("p"),
            "choices": [
                said("p")["choices"][0] | {"logprobs": {"tokens": ["p"], "top_logprobs": None}}
            ],
        },
    ],
    ids=["absent", "null", "chat without top", "completions without top"],
)
def test_an_endpoint_without_logprobs_cannot_score(server, answer):
    server.behave = lambda number, body: answer
    with pytest.raises(UseError, match="answers without log-probabilities") as caught:
        score(endpoint(server))
    assert caught.value.place == "teacher 'large'"
    assert caught.value.mend == "Score with another teacher."


def test_asking_for_more_logprobs_than_allowed_says_what_to_lower(server):
    server.behave = lambda number, body: failed(400, "logprobs must be at most 5")
    with pytest.raises(UseError, match=r"at most 5.*teachers\.large\.top_logprobs"):
        score(endpoint(server))


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_prompt_rejects_its_row_and_stops_nothing(server, status):
    def behave(number, body):
        too_long = "far too long" in json.dumps(body)
        return failed(status, "context length exceeded") if too_long else said("fine")

    server.behave = behave
    teacher = endpoint(server)

    async def work():
        prompts = ["one", "far too long", "three"]
        answers = await asyncio.gather(*(teacher.complete(p, SHORT) for p in prompts))
        return answers, await teacher.score_labels("far too long", LABELS)

    (first, refused, third), scores = run(teacher, work)
    assert (first.text, third.text) == ("fine", "fine")
    message = f"the endpoint refuses the prompt ({status}): context length exceeded"
    assert refused == Completion("", Usage(), "error", message, "refused")
    assert (scores.logprobs, scores.error) == ([], message)
    assert len(server.arrivals) == 4
    assert teacher.statistics()["requests"] == 2


@pytest.mark.parametrize(
    "fault",
    [
        lambda: failed(500, "cannot read it"),
        lambda: DROP,
        lambda: web.json_response([]),
        lambda: said("broken off", "abort"),
    ],
    ids=["500", "dropped", "a list", "broken off"],
)
def test_a_prompt_that_always_fails_rejects_its_row_and_stops_nothing(server, fault):
    server.behave = lambda number, body: fault() if "POISON" in str(body) else said("fine")
    teacher = endpoint(server, max_tries=2)

    async def work():
        prompts = ["one", "POISON", "three"]
        return await asyncio.gather(*(teacher.complete(p, SHORT) for p in prompts))

    first, poison, third = run(teacher, work)
    assert (first.text, third.text) == ("fine", "fine")
    assert (poison.finish, poison.reason) == ("error", "failed")
    assert "of this prompt alone" in poison.error
    assert ask(teacher).text == "fine"
    # Also where nothing else is asked at the time.
    assert ask(teacher, "POISON").reason == "failed"


def test_a_prompt_that_moderation_refuses_is_not_a_refused_key(server):
    server.behave = lambda number, body: (
        failed(403, "flagged") if "rude" in str(body) else said("fine")
    )
    teacher = endpoint(server)
    refused = ask(teacher, "rude")
    assert (refused.reason, refused.error) == (
        "refused",
        "the endpoint refuses the prompt (403): flagged",
    )
    assert ask(teacher).text == "fine"


def test_a_probe_that_is_told_to_wait_finds_no_dead_endpoint(server):
    server.behave = lambda number, body: (
        failed(403, "flagged") if "rude" in str(body) else failed(429, "too many")
    )
    assert ask(endpoint(server), "rude").reason == "refused"


def test_what_stands_before_a_conversation_is_sent_with_it(server):
    sampling = replace(SHORT, system="You are brief.")
    run(teacher := endpoint(server), lambda: teacher.complete("Hello?", sampling))
    assert server.arrivals[0].body["messages"] == [
        {"role": "system", "content": "You are brief."},
        {"role": "user", "content": "Hello?"},
    ]
    plain = endpoint(server, api="completions")
    run(plain, lambda: plain.complete("Hello?", sampling))
    assert server.arrivals[1].body["prompt"] == "You are brief.\n\nHello?"


def test_what_was_said_before_is_sent_with_a_prompt(server):
    sampling = replace(SHORT, history=(("Hello?", "Hello."),))
    run(teacher := endpoint(server), lambda: teacher.complete("And?", sampling))
    assert server.arrivals[0].body["messages"] == [
        {"role": "user", "content": "Hello?"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "And?"},
    ]


def stopped(server: Server, kind: type[Exception], teacher: Endpoint) -> Any:
    """The error that stops an endpoint; later calls raise it too, and send nothing."""
    with pytest.raises(kind) as first:
        ask(teacher)
    sent = len(server.arrivals)
    with pytest.raises(kind) as later:
        ask(teacher)
    assert len(server.arrivals) == sent
    assert str(later.value) == str(first.value)
    assert KEY not in f"{first.value!r} {first.value} {first.getrepr(showlocals=False)}"
    assert first.value.place == "teacher 'large'"
    return first.value


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_names_its_variable_and_never_itself(server, status):
    server.behave = lambda number, body: failed(status, f"the key {KEY} is wrong")
    error = stopped(server, UseError, endpoint(server))
    assert KEY_NAME in error.mend
    # A 403 can be of the prompt, so a harmless one is sent after it.
    assert len(server.arrivals) == (1 if status == 401 else 2)


def test_an_endpoint_that_wants_a_key_and_has_none_says_where_to_name_it(server):
    server.behave = lambda number, body: failed(401)
    error = stopped(server, UseError, endpoint(server, api_key_env=None))
    assert "teachers.large.api_key_env" in error.mend


def test_an_unknown_model_is_an_error_of_use(server):
    server.behave = lambda number, body: failed(404, "no model 'big' here")
    error = stopped(server, UseError, endpoint(server))
    assert "no model 'big' here" in error.cause
    assert "teachers.large.model" in error.mend


def test_an_option_that_the_model_has_not_stops_all(server):
    message = "'max_tokens' is not supported"
    server.behave = lambda number, body: (
        failed(400, message, "unsupported_parameter") if "max_tokens" in body else said("fine")
    )
    error = stopped(server, UseError, endpoint(server))
    assert message in error.cause
    assert "teachers.large.length_key" in error.mend
    assert ask(endpoint(server, length_key="max_completion_tokens")).text == "fine"
    assert server.arrivals[-1].body["max_completion_tokens"] == SHORT.max_tokens


def test_a_redirection_is_not_followed(server):
    server.behave = lambda number, body: web.Response(
        status=307, headers={"Location": f"{server.url}/elsewhere"}
    )
    assert "307" in stopped(server, WorkError, endpoint(server)).cause
    assert [arrival.path for arrival in server.arrivals] == ["/v1/chat/completions"]


@pytest.mark.parametrize(
    "fault",
    [
        *(lambda status=status: failed(status) for status in (408, 409, 425, 429, 500, 502, 503)),
        lambda: DROP,
        lambda: web.Response(text='{"choices": [{"text'),
        lambda: web.json_response([]),
        lambda: web.json_response({"error": {"message": "overloaded"}}),
        lambda: {**said("fine"), "usage": None},
        lambda: said("broken off", "abort"),
        lambda: failed(429, "past", **{"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}),
    ],
    ids=[
        *("408", "409", "425", "429", "500", "502", "503", "dropped", "broken JSON", "a list"),
        *("an error as answer", "no usage", "broken off", "a wait that is over"),
    ],
)
def test_what_may_pass_is_tried_again(server, fault):
    server.behave = lambda number, body: fault() if number < 3 else said("fine")
    teacher = endpoint(server)
    answer = ask(teacher)
    assert (answer.text, answer.usage) == ("fine", Usage(1, 10, 0, 3))
    assert len(server.arrivals) == 3
    statistics = teacher.statistics()
    assert (statistics["retries"], statistics["requests"]) == (2, 1)


def test_an_answer_that_does_not_come_is_asked_for_again(server):
    async def much_too_late():
        await asyncio.sleep(2.5)
        return said("late")

    server.behave = lambda number, body: much_too_late() if number == 1 else said("fine")
    teacher = endpoint(server, timeout_seconds=1)
    assert ask(teacher).text == "fine"
    assert teacher.statistics()["retries"] == len(server.arrivals) - 1 >= 1


def test_an_endpoint_that_keeps_failing_is_down(server):
    server.behave = lambda number, body: failed(500, f"{KEY} " + "x" * 500)
    error = stopped(server, WorkError, endpoint(server, max_tries=3))
    assert len(server.arrivals) == 4  # the last is a harmless prompt
    assert "it answers 500: *** xxx" in error.cause
    assert "after 3 tries" in error.cause
    assert error.cause.count("x") == 196  # of 200 characters, `*** ` takes four


def test_an_address_where_nobody_listens_is_down(server):
    teacher = endpoint(server, base_url="http://127.0.0.1:9/v1", max_tries=2)
    assert "cannot be reached" in stopped(server, WorkError, teacher).cause


def test_calls_that_wait_hear_at_once_that_the_endpoint_is_down(server):
    server.behave = lambda number, body: failed(500)
    teacher = endpoint(server, max_tries=1, requests_per_minute=1)

    async def work():
        calls = (teacher.complete(str(number), SHORT) for number in range(100))
        return await asyncio.gather(*calls, return_exceptions=True)

    errors = run(teacher, work)  # the second alone would wait for a minute
    assert {type(error) for error in errors} == {WorkError}
    assert len(server.arrivals) == 2  # the second is a harmless prompt
    assert len({id(error) for error in errors}) == 100


def in_two_seconds() -> str:
    return email.utils.formatdate(math.ceil(time.time()) + 1, usegmt=True)


@pytest.mark.parametrize(
    ("status", "header"),
    [(429, lambda: "1"), (429, in_two_seconds), (503, lambda: "1")],
    ids=["429, seconds", "429, date", "503, seconds"],
)
def test_an_ordered_wait_holds_every_call(server, status, header):
    ordered = []

    def behave(number, body):
        if number > 1:
            return said("fine")
        ordered.append(time.monotonic())
        return failed(status, **{"Retry-After": header()})

    server.behave = behave
    teacher = endpoint(server)

    async def work():
        first = asyncio.create_task(teacher.complete("first", SHORT))
        while not teacher.statistics()["retries"]:
            await asyncio.sleep(0.01)
        others = (teacher.complete(str(number), SHORT) for number in range(5))
        return await asyncio.gather(first, *others)

    assert [answer.text for answer in run(teacher, work)] == ["fine"] * 6
    assert len(server.arrivals) == 7
    assert min(arrival.at for arrival in server.arrivals[1:]) >= ordered[0] + 0.99
    assert teacher.statistics()["rate_limited_seconds"] > 0


def test_reads_both_forms_of_an_ordered_wait():
    assert retry_after_seconds("2.5") == 2.5
    later = email.utils.formatdate(time.time() + 100, usegmt=True)
    assert 90 < retry_after_seconds(later) < 101
    for nothing in (None, "0", "-3", "nan", "soon", "Wed, 21 Oct 2015 07:28:00 GMT"):
        assert retry_after_seconds(nothing) is None


def test_ordered_waits_use_up_no_tries_while_there_is_patience(server):
    def behave(number, body):
        return failed(429, **{"Retry-After": "0.05"}) if number < 6 else said("fine")

    server.behave = behave
    assert ask(endpoint(server, max_tries=2)).text == "fine"
    assert len(server.arrivals) == 6


def test_an_endpoint_that_only_orders_waits_is_down_in_the_end(server):
    server.behave = lambda number, body: failed(429, "slow down", **{"Retry-After": "0.05"})
    error = stopped(server, WorkError, endpoint(server, max_tries=2, patience=0.3))
    assert "it answers 429: slow down (after 2 tries)" in error.cause
    assert len(server.arrivals) >= 2


def test_a_wait_beyond_all_patience_is_an_endpoint_that_is_down(server):
    server.behave = lambda number, body: failed(429, "no quota", **{"Retry-After": "86400"})
    error = stopped(server, WorkError, endpoint(server))
    assert "no quota (and asks to wait 86400 s)" in error.cause
    assert len(server.arrivals) == 1


def test_sends_no_more_requests_than_the_rate_allows(server):
    began = time.monotonic()
    teacher = endpoint(server, requests_per_minute=1200)

    async def work():
        return await asyncio.gather(*(teacher.complete(str(n), SHORT) for n in range(50)))

    assert len(run(teacher, work)) == 50
    # 20 a second, after a burst of one second's worth.
    for number, arrival in enumerate(server.arrivals, 1):
        assert number <= 20 + 20 * (arrival.at - began) + 1e-6


def test_sends_no_more_tokens_than_the_rate_allows_though_it_underestimates(server):
    server.behave = lambda number, body: said("fine", tokens=(90, 10))
    began = time.monotonic()
    teacher = endpoint(server, tokens_per_minute=24000)

    async def work():
        for _ in range(10):
            await teacher.complete("", SHORT)

    run(teacher, work)
    # 400 a second after a burst of 400; what was not foreseen of a request is one of 100 at most.
    for number, arrival in enumerate(server.arrivals):
        assert 100 * number <= 400 + 400 * (arrival.at - began) + 1e-6


def test_tokens_that_were_reserved_and_not_used_come_back(server):
    server.behave = lambda number, body: said("fine", tokens=(1, 1))
    teacher = endpoint(server, tokens_per_minute=6000)

    async def work():
        for _ in range(12):
            await teacher.complete("", Sampling(max_tokens=1000))

    run(teacher, work)
    # Kept, each reservation would hold the next call for ten seconds.
    assert teacher.statistics()["rate_limited_seconds"] < 20


def test_who_waits_for_tokens_goes_when_they_come_back():
    async def work():
        line = Line(Allowance(None, 60))
        await line.admit(1000)  # into a debt of a quarter of an hour
        waits = asyncio.create_task(line.admit(1))
        await asyncio.sleep(0.01)
        assert not waits.done()
        line.correct(1000, 0)
        await asyncio.wait_for(waits, 10)

    asyncio.run(work())


def test_the_first_to_come_is_the_first_to_go_whatever_it_costs():
    gone = []

    async def work():
        line = Line(Allowance(1200, 12000))

        async def call(number):
            await line.admit(160 if number % 3 == 0 else 1)
            gone.append(number)

        await asyncio.gather(*(call(number) for number in range(9)))

    asyncio.run(work())
    assert gone == list(range(9))


def test_a_call_that_gives_up_holds_nobody_up():
    async def work():
        line = Line(Allowance(120, None))
        await line.admit(0)
        await line.admit(0)
        waiting = [asyncio.create_task(line.admit(0)) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        waiting[1].cancel()
        await asyncio.wait_for(waiting[2], 10)

    asyncio.run(work())


def test_keeps_as_many_requests_in_flight_as_it_may(server):
    async def when_all_are_there():
        while server.most_in_flight < 4:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.02)
        return said("fine")

    server.behave = lambda number, body: when_all_are_there()
    teacher = endpoint(server, max_concurrency=4)

    async def work():
        await asyncio.gather(*(teacher.complete(str(n), SHORT) for n in range(24)))

    run(teacher, work)
    assert server.most_in_flight == 4


def test_waiting_for_a_turn_is_no_timeout(server):
    async def slow():
        await asyncio.sleep(0.2)
        return said("fine")

    server.behave = lambda number, body: slow()
    teacher = endpoint(server, max_concurrency=1, timeout_seconds=1.5, max_tries=1)

    async def work():
        await asyncio.gather(*(teacher.complete(str(n), SHORT) for n in range(8)))

    run(teacher, work)
    assert len(server.arrivals) == 8


def test_travels_before_its_first_use(server):
    content = pickle.dumps(endpoint(server))
    assert KEY.encode() not in content
    copied = pickle.loads(content)
    assert (copied.teacher, copied.model, copied.replicas) == ("large", "big", 1)
    assert ask(copied).text == "fine"


def test_neither_key_nor_books_travel_after_its_use(server):
    teacher = endpoint(server)

    async def work():
        await teacher.complete("", SHORT)
        return pickle.dumps(teacher), f"{teacher!r} {vars(teacher)}"

    content, shown = run(teacher, work)
    assert KEY.encode() not in content
    assert KEY not in shown
    copied = pickle.loads(content)
    assert copied.statistics()["requests"] == 0
    assert ask(copied).text == "fine"


def test_a_missing_key_is_found_before_anything_is_sent(server, monkeypatch):
    monkeypatch.delenv(KEY_NAME)
    teacher = endpoint(server)
    with pytest.raises(UseError, match=KEY_NAME):
        teacher.check()
    with pytest.raises(UseError, match=KEY_NAME):
        ask(teacher)
    assert server.arrivals == []
    monkeypatch.setenv(KEY_NAME, KEY)
    teacher.check()
    assert ask(teacher).text == "fine"


def test_goes_on_in_a_new_event_loop(server, caplog):
    teacher = endpoint(server, requests_per_minute=12000)

    async def work():
        await asyncio.gather(*(teacher.complete("", SHORT) for _ in range(110)))

    asyncio.run(work())
    asyncio.run(work())
    run(teacher, work)
    assert teacher.statistics()["requests"] == 330
    # Such as of connections that nobody closed. An earlier test's server may be taken down now.
    ours = [record for record in caplog.records if "web_server.py" not in record.getMessage()]
    assert ours == []


def test_counts_as_an_engine_does(server):
    async def slow():
        await asyncio.sleep(0.1)
        return said("fine")

    server.behave = lambda number, body: slow()
    teacher = endpoint(server)

    async def work():
        await asyncio.gather(*(teacher.complete("", SHORT) for _ in range(8)))
        resting = teacher.statistics()
        await asyncio.sleep(0.05)
        assert teacher.statistics() == resting
        return resting

    began = time.monotonic()
    statistics = run(teacher, work)
    wall = time.monotonic() - began
    assert statistics.keys() >= {"startup", "useful", "idle", *asdict(Usage())}
    assert 0.1 <= statistics["useful"] <= wall  # at once, not one after another
    assert statistics["tokens_in"] == 80
    assert (statistics["startup"], statistics["idle"]) == (0.0, 0.0)
    assert teacher.processes() == []


GOOD = {"backend": "openai", "model": "big", "base_url": "https://example.org/v1"}


@pytest.mark.parametrize(
    "change",
    [
        {"base_url": "example.org/v1"},
        {"base_url": "https://me:secret@example.org/v1"},
        {"api": "responses"},
        {"requests_per_minute": 0},
        {"tokens_per_minute": 0},
        {"max_concurrency": 0},
        {"max_tries": 0},
        {"timeout_seconds": 0},
        {"top_logprobs": 0},
        {"key": KEY},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_section_is_strict(change):
    EndpointTeacher.model_validate(GOOD)
    with pytest.raises(ValidationError):
        EndpointTeacher.model_validate(GOOD | change)


def test_a_key_in_the_place_of_its_variables_name_is_not_shown():
    with pytest.raises(ValidationError) as caught:
        EndpointTeacher.model_validate(GOOD | {"api_key_env": KEY})
    (error,) = caught.value.errors()
    assert "name of an environment variable" in error["msg"]
    # `core.recipe_file` shows an input that is one value, and no section.
    assert isinstance(error["input"], dict)
