"""The arithmetic of the comparison, by hand-worked examples."""

import math

import pytest

from core.errors import UseError
from core.recipe_section import Device
from core.teacher import Usage
from serving.compared import Chooser
from serving.figures import (
    at_objective,
    device_seconds_per_thousand,
    figures,
    latency_ms,
    merge,
    rate_figures,
    tokens,
)
from serving.load import Load, LoadResult, Reply, Request, load_result
from serving.models import Description
from serving.stage import choose_rows, split
from serving.teacher import choice_probabilities

CORE = Device()
TWO_GPUS = Device(kind="h100", cpus=8, gpus=2)
ANSWER = {"results": [{"label": "yes", "probabilities": {"yes": 0.75, "no": 0.25}}]}


def reply(milliseconds, **usage):
    told = {"usage": usage} if usage else {}
    return Reply(milliseconds / 1000, ANSWER | told)


FAILED = Reply(0.0, error="500 Internal Server Error")


def test_percentiles_and_mean_of_the_answered_requests():
    # 1 to 101 ms: the percentiles fall on replies.
    replies = [reply(milliseconds) for milliseconds in range(101, 0, -1)]
    assert latency_ms([*replies, FAILED]) == pytest.approx(
        {"p50": 51, "p90": 91, "p95": 96, "p99": 100, "mean": 51}
    )


def test_a_percentile_between_two_replies_is_interpolated():
    found = latency_ms([reply(10), reply(20)])
    assert found == pytest.approx({"p50": 15, "p90": 19, "p95": 19.5, "p99": 19.9, "mean": 15})


def test_turns_add_up_in_their_order():
    first = LoadResult([reply(1), reply(2)], 1.0, 0.5, 0.25)
    second = LoadResult([reply(3)], 2.0, 0.75, 0.5)
    assert merge([first, second]) == LoadResult([reply(1), reply(2), reply(3)], 3.0, 1.25, 0.75)


def test_tokens_are_unknown_where_nobody_counts_them():
    assert tokens([reply(1)]) is None
    counted = [
        reply(1, tokens_in=100, tokens_cached=80, tokens_out=1),
        # In OpenAI's words.
        reply(
            1,
            prompt_tokens=120,
            completion_tokens=1,
            total_tokens=121,
            prompt_tokens_details={"cached_tokens": 80},
        ),
    ]
    assert tokens([*counted, FAILED]) == Usage(2, 220, 160, 2)


def test_device_seconds_are_processor_time_on_cores():
    result = LoadResult(
        [reply(1)] * 4 + [FAILED], wall_seconds=3, model_cpu_seconds=1.5, path_cpu_seconds=0.5
    )
    assert device_seconds_per_thousand(result, CORE, 2, sustained=None) == 500
    assert device_seconds_per_thousand(result, CORE, 2, sustained=1.0) == 500


def test_device_seconds_of_a_gpu_are_those_that_the_objective_leaves_it_for():
    result = LoadResult([reply(1)] * 4 + [FAILED], 3, 1.5, 0.5)
    # Two replicas of two GPUs; at 0.8 requests a second they take 1,250 s for a thousand.
    assert device_seconds_per_thousand(result, TWO_GPUS, 2, sustained=0.8) == 5000
    # Where no rate kept the objective: 4 answers in 3 s.
    assert device_seconds_per_thousand(result, TWO_GPUS, 2, sustained=None) == 3000
    assert device_seconds_per_thousand(result, None, 1, sustained=1.0) == 0


def at(rate, p95, errors=0):
    return {"rate": rate, "errors": errors, "latency_ms": {"p95": p95}}


@pytest.mark.parametrize(
    ("rates", "kept"),
    [
        ([at(2, 90), at(1, 80), at(4, 300)], 2),
        ([at(1, 80), at(2, 150), at(4, 90)], 1),  # one beyond a failure is luck
        ([at(1, 80), at(2, 90, errors=1)], 1),
        ([at(1, 101)], None),
        ([at(1, 100)], 1),
        ([], None),
    ],
)
def test_the_highest_rate_at_the_objective(rates, kept):
    assert at_objective(rates, 100.0) == kept


def test_what_the_generator_tells_becomes_a_result():
    load = Load("http://HOST", [Request("/v1/classify", {})] * 2, rate=5.0)
    told = {
        "duration": 2.0,
        "completed": 1,
        "ttfts": [0.125, 0.0],
        "generated_texts": ['{"seconds": 0.25, "answer": {"results": []}}', ""],
        "errors": ["", "429 later"],
        "mean_e2el_ms": 250.0,
        "p95_e2el_ms": 250.0,
        "request_goodput": 0.5,
    }
    result = load_result(told, load)
    answered = Reply(0.25, {"results": []}, first_seconds=0.125)
    assert result.replies == [answered, Reply(0.0, error="429 later")]
    assert result.latency_ms == {"mean": 250.0, "p95": 250.0}
    assert rate_figures(result) == {
        "rate": 5.0,
        "requests": 2,
        "errors": 1,
        "answered_per_second": 0.5,
        "good_per_second": 0.5,
        "latency_ms": {"mean": 250.0, "p95": 250.0},
        "cpu_seconds_per_thousand": 0.0,
    }
    assert load_result(told | {"completed": 0}, load).latency_ms is None


def test_figures_of_a_model():
    counted = {"tokens_in": 100, "tokens_cached": 60, "tokens_out": 1}
    result = LoadResult([reply(10, **counted)] * 4 + [FAILED], 2.0, 0.4, 0.1)
    rates = [at(1.0, 50)]
    assert figures(result, rates, CORE, 1, correct=3, objective_ms=100) == {
        "requests": 5,
        "errors": 1,
        "device": "cpu-core",
        "devices": 1,
        "latency_ms": pytest.approx({"p50": 10, "p90": 10, "p95": 10, "p99": 10, "mean": 10}),
        "requests_per_second": 2.0,
        "rates": rates,
        "sustained_per_second": 1.0,
        "cpu_seconds_per_thousand": pytest.approx(125),
        "path_cpu_seconds_per_thousand": pytest.approx(25),
        "device_seconds_per_thousand": pytest.approx(125),
        "accuracy": 0.75,
        "tokens_in": 400,
        "tokens_cached": 240,
        "tokens_out": 4,
    }


def test_choice_probabilities_after_calibration():
    logprobs = [math.log(0.02), math.log(0.01), math.log(0.01)]
    assert choice_probabilities(logprobs, [0.0] * 3) == pytest.approx([0.5, 0.25, 0.25])
    # Without content the first label is twice as likely as the others: no evidence is left.
    offsets = [math.log(0.4), math.log(0.2), math.log(0.2)]
    assert choice_probabilities(logprobs, offsets) == pytest.approx([1 / 3] * 3)


def test_choice_probabilities_of_very_unlikely_labels():
    assert choice_probabilities([-2000.0, -2001.0], [0.0, 0.0]) == pytest.approx(
        [1 / (1 + math.exp(-1)), 1 / (1 + math.e)]
    )


def rows(count):
    return [
        {
            "id": str(number),
            "question": f"question {number}",
            "choices": ["no", "yes"],
            "answer": number % 2,
            "difficulty": None,
        }
        for number in range(count)
    ]


def test_the_seed_fixes_which_rows_are_asked_and_in_which_order():
    asked, others = choose_rows(rows(50), 20, seed=3)
    assert len(asked) == 20
    assert sorted(row["id"] for row in asked + others) == sorted(row["id"] for row in rows(50))
    assert asked == choose_rows(rows(50), 20, seed=3)[0]
    assert asked != choose_rows(rows(50), 20, seed=4)[0]
    assert asked != rows(50)[:20]


def test_rows_without_an_answer_are_not_asked():
    unlabelled = [row | {"answer": None} for row in rows(3)]
    asked, others = choose_rows([*unlabelled, *rows(2)], 10, seed=0)
    assert all(row["answer"] is not None for row in asked)
    assert len(asked) == 2
    assert others == asked  # nothing else to warm up with
    with pytest.raises(UseError, match="none of them has an answer"):
        choose_rows(unlabelled, 10, seed=0)


@pytest.mark.parametrize(("count", "sizes"), [(10, [2, 3, 2, 3]), (3, [1, 1, 1]), (4, [1] * 4)])
def test_split_cuts_into_parts_of_nearly_equal_length(count, sizes):
    parts = list(split(rows(count), 4))
    assert [len(part) for part in parts] == sizes
    assert [row for part in parts for row in part] == rows(count)


class Described:
    def __init__(self, choices):
        self.description = Description("student", "encoder", choices)


def test_a_model_with_choices_of_its_own_is_asked_for_a_class():
    student = Chooser("minilm", "m", Described(("no", "yes")), CORE, 1, "student")
    row = rows(2)[1]
    assert student.request(row, 0) == Request(
        "/v1/classify", {"model": "student", "input": "question 1"}
    )
    assert student.prediction(row, reply(1)) == row | {
        "model": "minilm",
        "predicted": 1,
        "probabilities": [0.25, 0.75],  # in the order of the row's choices
    }


def test_a_model_without_is_given_the_rows_choices():
    student = Chooser("deberta", "m", Described(None), CORE, 1, "student")
    row = rows(1)[0] | {"choices": ["yes", "no", "yes"]}
    assert student.request(row, 0).route == "/v1/multiple-choice"
    assert student.request(row, 0).body["input"] == {
        "question": "question 0",
        "choices": ["yes", "no", "yes"],
    }
    answer = {"results": [{"choice": "yes", "index": 2, "probabilities": [0.2, 0.3, 0.5]}]}
    found = student.prediction(row, Reply(0.1, answer))
    assert found["predicted"] == 0  # the same answer as the third
    assert found["probabilities"] == [0.2, 0.3, 0.5]
