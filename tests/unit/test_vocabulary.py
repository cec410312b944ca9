import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from core.errors import UseError
from training.vocabulary import check_same_vocabulary

WORDS = ["<pad>", "</s>", "<end>", "cat", "dog"]


def tokenizer(words=WORDS, **special):
    vocabulary = {word: number for number, word in enumerate(words)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(vocabulary)), **({"eos_token": "</s>"} | special)
    )


def check(student, outputs=5, teacher=None):
    check_same_vocabulary("recipe.yaml:9", teacher or tokenizer(), student, outputs)


def test_equal_vocabularies_pass_whatever_the_outputs_are_padded_to():
    check(tokenizer())
    check(tokenizer(), outputs=64)


def test_padding_and_beginnings_may_differ():
    check(tokenizer(pad_token="<pad>", bos_token="</s>"), teacher=tokenizer(pad_token="<end>"))


@pytest.mark.parametrize(
    ("student", "cause"),
    [
        pytest.param(
            tokenizer(["<pad>", "</s>", "<end>", "dog", "cat"]),
            "the teacher has 5 tokens, the student 5; "
            "'cat' is the teacher's token 3, but the student's 4.",
            id="another number",
        ),
        pytest.param(
            tokenizer([*WORDS[:4], "cow", "owl"]),
            "the teacher has 5 tokens, the student 6; "
            "the student does not know the teacher's token 4, 'dog'.",
            id="a token missing",
        ),
        pytest.param(
            tokenizer([*WORDS, "cow", "owl"]),
            "the teacher has 5 tokens, the student 7; "
            "the teacher does not know the student's token 5, 'cow'.",
            id="a token more",
        ),
        pytest.param(
            tokenizer(additional_special_tokens=["<tool>"]),
            "the teacher has 5 tokens, the student 6; "
            "the teacher does not know the student's token 5, '<tool>'.",
            id="a special token more",
        ),
        pytest.param(
            tokenizer(eos_token="<end>"),
            "the teacher ends a text with '</s>', the student with '<end>'.",
            id="another end",
        ),
    ],
)
def test_the_first_difference_is_named(student, cause):
    with pytest.raises(UseError) as refused:
        check(student, outputs=64)
    assert refused.value.place == "recipe.yaml:9"
    assert refused.value.cause == cause
    assert refused.value.mend


def test_every_token_needs_a_logit():
    with pytest.raises(UseError, match="the student has 4 logits, and the last token has number 4"):
        check(tokenizer(), outputs=4)
