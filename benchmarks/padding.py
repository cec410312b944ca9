"""Padding that training would feed to a model, for several kinds of rows; nothing is trained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from training_rows import DESKS, choice_rows, commonsense, headlines, text_rows

from core.models import model_folder
from core.recipe_students import Student, Train
from training.batches import epoch_batches
from training.causal import Causal
from training.encoder import Encoder
from training.seq2seq import Seq2Seq
from training.units import Units, padding_share, passes_of

BATCH_SIZES = (8, 32, 128)
WORKERS = (1, 2, 8)
MODELS = {"encoder": "embedded://all-minilm-l6-v2", "writer": "embedded://smollm2-135m-instruct"}


class _Halves(Seq2Seq):
    """A seq2seq student's reading and writing, by a tokenizer of another family."""

    def beside(self) -> dict[str, Any]:
        return {"start_token": 0}


def shares() -> dict[str, dict[str, float]]:
    """By kind of rows, in one epoch: the most padding of all sizes, and passes of a batch of 32."""
    found = {}
    for kind, units in _kinds():
        most, rows = 0.0, range(len(units.of_row))
        for size in BATCH_SIZES:
            batches = epoch_batches(rows, units.row_shapes, size, seed=0, epoch=0)
            most = max(most, *(padding_share(batches, units, one, None) for one in WORKERS))
            if size == 32:
                passes = [len(passes_of(units.of(batch), units, 1, None)) for batch in batches]
        found[kind] = {"most": most, "passes": sum(passes) / len(passes)}
    return found


def _kinds() -> Iterator[tuple[str, Units]]:
    desks, questions = headlines(), commonsense()
    yield "headlines, classes", _choosing("classes", desks)
    for family in ("causal", "seq2seq"):
        yield f"headlines, {family}", _writing(family, desks, {})
    if questions is None:
        print("CommonsenseQA is left out: recipes/cqa_palm/prepare.py has not written it.")
        return
    told = [row for row in questions if row["answer"] in row["choices"]]
    yield "CommonsenseQA, choices", _choosing("choices", told)
    for family in ("causal", "seq2seq"):
        yield f"CommonsenseQA, {family}", _writing(family, questions, {})
        yield f"  with rationales, {family}", _writing(family, questions, {"palm": 1.0})


def _choosing(head: str, questions: list[dict[str, Any]]) -> Units:
    student = Student(model="base", head=head, train=Train(max_length=64))
    base = model_folder(MODELS["encoder"])
    return Encoder(student, base, DESKS, 0).units(choice_rows(questions))


def _writing(family: str, questions: list[dict[str, Any]], weights: dict[str, float]) -> Units:
    objective = {"kind": "sequence", "rationale_weights": weights}
    student = Student(model="base", family=family, train=Train(max_length=256, objective=objective))
    reader = Causal if family == "causal" else _Halves
    return reader(student, model_folder(MODELS["writer"]), [], 0).units(text_rows(questions))
