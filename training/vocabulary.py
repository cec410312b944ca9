"""Whether a token's number means the same to a teacher and its student."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from core.errors import UseError

ANOTHER_STUDENT = (
    "Name a student of the teacher's family, or let it learn by what the teacher wrote: "
    "objective {kind: sequence}."
)


def check_same_vocabulary(
    place: str,
    teacher: PreTrainedTokenizerBase,
    student: PreTrainedTokenizerBase,
    student_outputs: int,
) -> None:
    """Refuse a student that cannot learn the probabilities of a teacher's tokens by their ids.

    Every token must have the same id with both, and the same one must end a text: a student that
    learnt to write another end than its own would never stop. Logits beyond the last token are no
    difference: models of one family are padded to several sizes. Nor are the tokens for a text's
    beginning and for padding, which nobody writes.

    Args:
        place: Where the recipe asks for it.
        teacher: Its tokenizer.
        student: Its tokenizer.
        student_outputs: How many logits the student has for each place.

    Raises:
        UseError: The two differ; it names the first difference.
    """
    theirs, ours = teacher.get_vocab(), student.get_vocab()
    difference = _first_difference(theirs, ours)
    if difference is not None:
        sizes = f"the teacher has {len(theirs)} tokens, the student {len(ours)}"
        raise UseError(place, f"{sizes}; {difference}.", ANOTHER_STUDENT)
    if teacher.eos_token != student.eos_token:
        raise UseError(
            place,
            f"the teacher ends a text with {teacher.eos_token!r}, the student with "
            f"{student.eos_token!r}.",
            "Name the student's model that is tuned as the teacher is, or write the teacher's "
            "eos_token into the student's tokenizer_config.json.",
        )
    last = max(theirs.values())
    if last >= student_outputs:
        cause = f"the student has {student_outputs} logits, and the last token has number {last}."
        raise UseError(place, cause, ANOTHER_STUDENT)


def _first_difference(theirs: dict[str, int], ours: dict[str, int]) -> str | None:
    for token, number in sorted(theirs.items(), key=lambda item: item[1]):
        if token not in ours:
            return f"the student does not know the teacher's token {number}, {token!r}"
        if ours[token] != number:
            return f"{token!r} is the teacher's token {number}, but the student's {ours[token]}"
    if len(ours) > len(theirs):
        token = min(ours.keys() - theirs.keys(), key=ours.__getitem__)
        return f"the teacher does not know the student's token {ours[token]}, {token!r}"
    return None
