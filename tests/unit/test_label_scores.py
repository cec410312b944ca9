"""Choices as they are put to a teacher, and its scores brought back to them, by hand."""

import asyncio
import math

import numpy as np
import pytest

from core.recipe import Task
from core.teacher import LabelScores, SequenceScore, Usage
from pipelines.fewshot_prompts import FewshotPrompts
from pipelines.label_prompts import LabelPrompts
from pipelines.permutations import mean_by_choice, most_permutations, permutation
from pipelines.scoring import ScoreChoices, asked_by, label_prompts, log_mean, score_question

CHOICES = ["sea", "sky", "wood"]
TASK = Task(
    instruction="Where does it live?",
    question_name="Animal",
    answer_name="Home",
    choices=CHOICES,
    examples="x",
    evaluation="y",
)
EXAMPLES = [
    {"question": "herring", "choices": CHOICES, "answer": 0, "subject": None},
    {"question": "deer", "choices": CHOICES, "answer": 2, "subject": None},
]


@pytest.mark.parametrize("choices", [2, 3, 4, 5, 26])
def test_rotations_show_each_choice_once_at_each_place_and_no_permutation_twice(choices):
    most = most_permutations(choices)
    found = [permutation(choices, number) for number in range(most)]
    assert found[0] == list(range(choices))
    assert len({tuple(one) for one in found}) == most
    for block in range(0, most, choices):
        places = np.array(found[block : block + choices])
        assert (np.sort(places, axis=0) == np.arange(choices)[:, None]).all()
        assert (np.sort(places, axis=1) == np.arange(choices)).all()


def test_permutations_of_three_by_hand():
    assert [permutation(3, number) for number in range(6)] == [
        [0, 1, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
        [0, 2, 1],
        [1, 0, 2],
    ]


def test_scores_by_place_come_back_to_the_choices():
    # Listed sky, wood, sea: what stands under A is the second choice.
    found = mean_by_choice([[0, 1, 2], [1, 2, 0]], [[-1.0, -2.0, -3.0], [-4.0, -5.0, -6.0]])
    assert found == [(-1 - 6) / 2, (-2 - 4) / 2, (-3 - 5) / 2]


def test_what_a_letter_adds_is_the_same_for_all_choices_after_all_rotations():
    content, letter = [-0.2, -1.5, -3.0], [0.9, -0.1, -1.1]  # letters add -0.1 on average
    listed = [permutation(3, number) for number in range(3)]
    scores = [[content[c] + letter[place] for place, c in enumerate(one)] for one in listed]
    assert mean_by_choice(listed, scores) == pytest.approx([-0.3, -1.6, -3.1])
    assert mean_by_choice(listed[:1], scores[:1]) == pytest.approx([0.7, -1.6, -4.1])


def test_calibration_takes_from_a_choice_what_was_said_where_it_stood():
    """Two choices and two permutations; of nothing the teacher says A rather than B."""
    listed = [permutation(2, 0), permutation(2, 1)]
    # Probabilities of A and B in both permutations, for two inputs without content.
    free = [[[0.6, 0.3], [0.8, 0.2]], [[0.5, 0.4], [0.5, 0.1]]]
    by_input = [mean_by_choice(listed, np.log(one).tolist()) for one in free]
    # The first choice was A with 0.6 and B with 0.2, the second B with 0.3 and A with 0.8.
    assert np.exp(by_input[0]) == pytest.approx([math.sqrt(0.12), math.sqrt(0.24)])
    assert np.exp(by_input[1]) == pytest.approx([math.sqrt(0.05), math.sqrt(0.20)])
    offsets = log_mean(by_input)
    assert np.exp(offsets) == pytest.approx(
        [(math.sqrt(0.12) + math.sqrt(0.05)) / 2, (math.sqrt(0.24) + math.sqrt(0.20)) / 2]
    )
    # A row of which the teacher says just what it says of the first input: with that one alone,
    # nothing is left.
    row = mean_by_choice(listed, np.log(free[0]).tolist())
    assert np.subtract(row, log_mean(by_input[:1])) == pytest.approx([0, 0])


def test_the_examples_list_their_choices_as_the_row_does():
    asked = LabelPrompts(FewshotPrompts(TASK, EXAMPLES), orders=2, permutations=2)
    found = asked.ask("lark", CHOICES)
    assert len(found) == 4
    assert found[1].labels == [" A", " B", " C"]
    assert found[1].listed == [1, 2, 0]
    assert found[1].text == (
        "Where does it live?\n"
        "\n"
        "Animal: herring\nA. sky\nB. wood\nC. sea\nHome: C\n"
        "\n"
        "Animal: deer\nA. sky\nB. wood\nC. sea\nHome: B\n"
        "\n"
        "Animal: lark\nA. sky\nB. wood\nC. sea\nHome:"
    )
    assert found[2].listed == [0, 1, 2]
    assert found[2].text.index("deer") < found[2].text.index("herring")


def test_a_row_may_list_choices_of_its_own():
    asked = LabelPrompts(FewshotPrompts(TASK, EXAMPLES), orders=1, permutations=1)
    (prompt,) = asked.ask("lark", ["nest", "high sky", "cave", "den"])
    assert prompt.text.endswith("Animal: lark\nA. nest\nB. high sky\nC. cave\nD. den\nHome:")
    assert prompt.labels == [" A", " B", " C", " D"]


def test_words_are_not_listed():
    (prompt,) = LabelPrompts(FewshotPrompts(TASK, EXAMPLES), orders=1).ask("lark", CHOICES)
    assert prompt.labels == [" sea", " sky", " wood"]
    assert prompt.listed == [0, 1, 2]
    assert "A." not in prompt.text
    assert prompt.text.endswith("Animal: deer\nHome: wood\n\nAnimal: lark\nHome:")


class Wordy:
    """An engine that knows a text by what stands before it, a token for each word."""

    def __init__(self, logprobs, failing=""):
        self.logprobs, self.failing, self.asked = logprobs, failing, []

    async def score_text(self, prompt, text):
        self.asked.append(prompt)
        if text == self.failing:
            return SequenceScore([], error="it has 9 tokens", reason="too-long")
        asked = prompt.rsplit("Animal: ", 1)[1].removesuffix("\nHome:")
        return SequenceScore(self.logprobs[asked, text.strip()], Usage(1, 7, 0, 1))


WHOLE = {"orders": 1, "whole": True, "shots": 0}


def test_whole_texts_are_scored_by_all_their_tokens_less_those_of_an_empty_question():
    engine = Wordy(
        {
            ("lark", "a nest"): [-1.0, -2.0],
            ("lark", "the high sky"): [-1.0, -1.0, -3.0],
            ("", "a nest"): [-1.0, -4.0],
            ("", "the high sky"): [-1.0, -2.0, -3.0],
        }
    )
    own = TASK.model_copy(update={"choices": None})
    prompts = label_prompts(own, EXAMPLES, **asked_by(WHOLE))
    work = ScoreChoices(prompts, engine, "large", None, None)
    row = {"id": "1", "question": "lark", "choices": ["a nest", "the high sky"], "subject": None}
    scored = asyncio.run(work(row))
    assert scored["logprobs"] == [-3.0, -5.0]
    assert scored["calibrated"] == [2.0, 1.0]
    assert scored["usage"]["requests"] == 4
    assert engine.asked[0] == "Where does it live?\n\nAnimal: lark\nHome:", "no example is shown"
    engine.failing = " the high sky"
    assert asyncio.run(work(row)).reason == "too-long"


def test_letters_of_own_choices_have_no_calibration():
    class Lettered:
        async def score_labels(self, prompt, labels):
            return LabelScores([-1.0 - number for number in range(len(labels))])

    own = TASK.model_copy(update={"choices": None})
    prompts = label_prompts(own, EXAMPLES, **asked_by({"orders": 1, "permutations": 3}))
    work = ScoreChoices(prompts, Lettered(), "large", None, None)
    row = {"id": "1", "question": "lark", "choices": ["nest", "sky", "sea"], "subject": None}
    scored = asyncio.run(work(row))
    assert scored["logprobs"] == pytest.approx([-2.0] * 3), "each stood under each letter"
    assert scored["calibrated"] is None


def test_examples_of_a_subject_and_so_many_of_them_are_shown():
    rows = [row | {"subject": subject} for subject in ("air", "water") for row in EXAMPLES]
    prompts = label_prompts(TASK, rows, **asked_by({"orders": 1, "shots": 1}))
    (prompt,) = prompts.ask("lark", CHOICES, "water")
    assert prompt.text.count("Animal:") == 2
    asyncio.run(score_question(prompts, Both(), "lark", CHOICES, "water"))


class Both:
    """An engine that takes any label."""

    async def score_labels(self, prompt, labels):
        assert "herring" in prompt
        return LabelScores([-1.0] * len(labels))
