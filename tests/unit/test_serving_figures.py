"""The arithmetic of the comparison, by hand-worked examples."""

import math

import pytest

from core.errors import UseError
from core.recipe_section import Device
from core.teacher import Usage
from serving.figures import device_seconds_per_thousand, figures, latency_ms, merge, tokens
from serving.load import LoadResult, Reply
from serving.stage import choose_rows, prediction_rows, split
from serving.teacher import choice_probabilities

CORE = Device()
TWO_GPUS = Device(kind="h100", cpus=8, gpus=2)


def reply(milliseconds, **more):
    return Reply(milliseconds / 1000, "yes", {"yes": 0.75, "no": 0.25}, **more)


FAILED = Reply(9.0, error="500 Internal Server Error")


def test_percentiles_and_mean_of_the_answered_requests():
    # 1 to 101 ms: the percentiles fall on replies.
    replies = [reply(milliseconds) for milliseconds in range(101, 0, -1)]
    assert latency_ms([*replies, FAILED]) == pytest.approx(
        {"p50": 51, "p90": 91, "p99": 100, "mean": 51}
    )


def test_a_percentile_between_two_replies_is_interpolated():
    found = latency_ms([reply(10), reply(20)])
    assert found == pytest.approx({"p50": 15, "p90": 19, "p99": 19.9, "mean": 15})


def test_turns_add_up_in_their_order():
    first = LoadResult([reply(1), reply(2)], 1.0, 0.5, 0.25)
    second = LoadResult([reply(3)], 2.0, 0.75, 0.5)
    assert merge([first, second]) == LoadResult([reply(1), reply(2), reply(3)], 3.0, 1.25, 0.75)


def test_tokens_are_unknown_where_nobody_counts_them():
    assert tokens([reply(1)]) is None
    counted = [reply(1, usage=Usage(1, 100, 80, 1)), reply(1, usage=Usage(1, 120, 80, 1))]
    assert tokens([*counted, FAILED]) == Usage(2, 220, 160, 2)


def test_device_seconds_are_processor_time_on_cores_and_wall_time_on_gpus():
    result = LoadResult(
        [reply(1)] * 4 + [FAILED], wall_seconds=3, model_cpu_seconds=1.5, path_cpu_seconds=0.5
    )
    assert device_seconds_per_thousand(result, CORE, replicas=2) == 500
    # Two replicas of two GPUs for 3 s, and 4 answers.
    assert device_seconds_per_thousand(result, TWO_GPUS, replicas=2) == 3000


def test_figures_of_a_model():
    usage = Usage(1, 100, 60, 1)
    result = LoadResult([reply(10, usage=usage)] * 4 + [FAILED], 2.0, 0.4, 0.1)
    assert figures(result, CORE, replicas=1, correct=3) == {
        "requests": 5,
        "errors": 1,
        "device": "cpu-core",
        "devices": 1,
        "latency_ms": pytest.approx({"p50": 10, "p90": 10, "p99": 10, "mean": 10}),
        "requests_per_second": 2.0,
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


def test_prediction_rows_are_in_the_order_of_the_rows_choices():
    found = prediction_rows(rows(3), [reply(1), FAILED, reply(1)], "minilm")
    assert [row["id"] for row in found] == ["0", "2"]
    assert found[0] == rows(1)[0] | {
        "model": "minilm",
        "predicted": 1,
        "probabilities": [0.25, 0.75],
    }
