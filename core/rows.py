"""The contract between rooms: the Arrow schema of every dataset in a run.

Units and sources stand beside each column. Numbers that a loss or a price is computed from are
plain float32 or int64 lists, never pickled objects, so that any Parquet reader can check them.
"""

from __future__ import annotations

import pyarrow as pa

_strings = pa.list_(pa.string())
_floats = pa.list_(pa.float32())


def _required(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


TASK = pa.schema(
    [
        _required("id", pa.string()),  # content hash of question and choices
        _required("question", pa.string()),
        _required("choices", _strings),
        pa.field("answer", pa.int32()),  # index into choices; null where nobody knows it
        pa.field("difficulty", pa.string()),  # the evaluation file's own word, if it has one
        pa.field("subject", pa.string()),  # of which the row is, if the file has several
    ]
)
"""Labelled rows that a person wrote: the examples and the evaluation set."""

USAGE = pa.struct(
    [
        _required("requests", pa.int32()),
        pa.field("tokens_in", pa.int32()),  # prompt tokens, cached ones included
        pa.field("tokens_cached", pa.int32()),  # prompt tokens that the prefix cache answered
        pa.field("tokens_out", pa.int32()),
    ]
)
"""What a row cost its teacher, counted by the engine; of a recorded answer what its record says,
and null where it does not. The ledger has what was used for this run: of recorded answers nothing.
"""

GENERATED = pa.schema(
    [
        _required("id", pa.string()),  # hash of prompt version, model revision, sampling, sample
        _required("teacher", pa.string()),
        _required("mode", pa.string()),  # how it was generated: decomposed or json
        _required("question", pa.string()),
        _required("choices", _strings),
        _required("intended", pa.int32()),  # index of the choice that the teacher was to write for
        pa.field("subject", pa.string()),  # of the examples that it was shown
        _required("usage", USAGE),
    ]
)
"""Items that a teacher wrote, as it wrote them."""

INPUT = pa.schema(
    [
        _required("id", pa.string()),  # content hash of the fields
        _required("fields", pa.string()),  # the row as a JSON object: what prompts are filled with
    ]
)
"""Rows of a file that teachers are asked about; equal rows have equal ids."""

ANSWERED = pa.schema(
    [
        _required("id", pa.string()),  # hash of item, prompt, model revision, sampling, sample
        _required("item", pa.string()),  # id of the input row
        _required("teacher", pa.string()),
        _required("sample", pa.int32()),  # number of the answer to the same question, from 0
        _required("text", pa.string()),  # of a conversation the last reply
        pa.field("replies", _strings),  # of a conversation, one to each turn; null elsewhere
        _required("finish", pa.string()),  # stop, length where any was cut, recorded if unknown
        _required("usage", USAGE),
        # With `top_logprobs: k`, for T tokens: what was written [T], the likeliest tokens at each
        # place [T*k] in falling order, and their natural-log probabilities over the whole
        # vocabulary before any temperature [T*k]. 4 + 6k bytes a token before compression.
        pa.field("token_ids", pa.list_(pa.int32())),
        pa.field("top_ids", pa.list_(pa.int32())),
        pa.field("top_logprobs", pa.list_(pa.float16())),
    ]
)
"""What teachers answered to input rows."""

SCORED = pa.schema(
    [
        _required("id", pa.string()),  # hash of item, prompt version, model revision, settings
        _required("item", pa.string()),  # id of the generated or task row
        _required("teacher", pa.string()),
        _required("question", pa.string()),
        _required("choices", _strings),
        pa.field("intended", pa.int32()),  # of a generated item
        pa.field("subject", pa.string()),  # of the row, and so of the examples in the prompt
        # Natural-log probability of each choice's label, or of its whole text, over the whole
        # vocabulary, before any temperature; the mean over orders of the examples and permutations
        # of listed choices, where there are several.
        _required("logprobs", _floats),
        # The same after subtracting the log-probabilities for inputs without content (contextual
        # calibration, Zhao et al. 2021); null of choices under letters that differ by row.
        pa.field("calibrated", _floats),
        _required("usage", USAGE),
    ]
)
"""Choice scores of a teacher."""

TRAINING = pa.schema(
    [
        _required("id", pa.string()),
        _required("question", pa.string()),
        _required("choices", _strings),
        pa.field("answer", pa.int32()),  # hard label, index into choices
        pa.field("logits", _floats),  # teacher's scores before the student's temperature, or null
        _required("weight", pa.float32()),  # of the row in the loss
        _required("source", pa.string()),  # example, decomposed or json
    ]
)
"""What a student that chooses learns from."""

MESSAGE = pa.struct([_required("role", pa.string()), _required("content", pa.string())])
"""One turn of a conversation: system, user or assistant."""

RATIONALE = pa.struct([_required("teacher", pa.string()), _required("text", pa.string())])
"""Why an answer is right, in the words of one teacher."""

TEXT_TRAINING = pa.schema(
    [
        _required("id", pa.string()),
        _required("messages", pa.list_(MESSAGE)),  # what is asked; the last one is the user's
        _required("answer", pa.string()),
        pa.field("rationales", pa.list_(RATIONALE)),  # one for each teacher at most; none is null
        # The teacher's own tokens of the answer and its likeliest ones at each place, as in
        # `ANSWERED`; null where they are not kept.
        pa.field("token_ids", pa.list_(pa.int32())),
        pa.field("top_ids", pa.list_(pa.int32())),
        pa.field("top_logprobs", pa.list_(pa.float16())),
        _required("weight", pa.float32()),  # of the row in the loss, such as a confidence
        _required("source", pa.string()),  # the teacher that answered, or gold
    ]
)
"""What a student that writes learns from."""

PREDICTION = pa.schema(
    [
        _required("id", pa.string()),  # of the task row
        _required("model", pa.string()),
        _required("question", pa.string()),
        _required("choices", _strings),
        _required("answer", pa.int32()),  # the label that a person gave
        _required("predicted", pa.int32()),
        _required("probabilities", _floats),  # sum to 1 over the choices
        pa.field("difficulty", pa.string()),
        pa.field("subject", pa.string()),
    ]
)
"""Answers to the evaluation rows."""

WRITTEN = pa.schema(
    [
        _required("id", pa.string()),  # of the input row
        _required(
            "model", pa.string()
        ),  # who wrote it: a teacher or a student, and how it was asked
        _required("question", pa.string()),  # what a student is asked; all turns of a conversation
        pa.field("answer", pa.string()),  # the right one, as the file has it; null where none is
        _required("text", pa.string()),  # what the model wrote; the first of several samples
        pa.field("turns", _strings),  # of a conversation: what the user says
        pa.field("replies", _strings),  # of a conversation: one to each turn; null elsewhere
        pa.field("predicted", pa.string()),  # the answer found in it; null where there is none
        pa.field("right", pa.bool_()),  # null where no answer is the right one
        pa.field("tokens_in", pa.int32()),  # of the prompts; null where nobody has counted them
        pa.field("tokens_out", pa.int32()),
        # Where choices are scored: the natural-log probability that the model writes just the text
        # of each, with what ends it, and whether the likeliest is the right one.
        pa.field("choice_logprobs", _floats),
        pa.field("right_choice", pa.bool_()),
    ]
)
"""Answers to the evaluation rows, of models that write them."""

SCORED_TEXT = pa.schema(
    [
        _required("id", pa.string()),  # of the input row
        _required("model", pa.string()),  # as in `WRITTEN`
        _required("score", pa.float32()),  # the more the better; 0 where no answer was found
    ]
)
"""How good each of a model's answers is, by a metric that is no comparison with a right one."""

CANDIDATE = pa.schema(
    [
        _required("candidate", pa.string()),  # a setting or a prompt, by its name in the recipe
        _required("teacher", pa.string()),
        _required("score", pa.float64()),  # the mean over the rows, by the task's metric
        _required("chosen", pa.bool_()),
    ]
)
"""Ways to ask a teacher, compared."""

PROMPT_QUERY = pa.schema(
    [
        _required("id", pa.string()),  # hash of the prompt, model revision, sampling, number
        _required("round", pa.int32()),  # of the search, from 1; 0 before and after the rounds
        _required("use", pa.string()),  # proposal, scoring, validation or held_out
        pa.field("instruction", pa.string()),  # hash of the one that is scored
        pa.field("item", pa.string()),  # id of the input row that it is scored on
        _required("teacher", pa.string()),
        _required("text", pa.string()),
        pa.field("right", pa.bool_()),  # null of a proposal
        _required("usage", USAGE),
    ]
)
"""Questions of a search for a prompt: proposals, and what they are scored by."""

PROMPT_MEASURE = pa.schema(
    [
        _required("prompt", pa.string()),
        _required("rows", pa.int32()),  # that prompts are compared on
        _required("answers", pa.int32()),  # to them
        _required("labelled", pa.int32()),  # answers in which a label was found
        _required("judged", pa.int32()),  # answers to rows with a right one
        _required("right", pa.int32()),  # labels that are the right one
        _required("explained", pa.int32()),  # answers with label and rationale
        pa.field("mean_words", pa.float32()),  # of a rationale; null where there are none
        pa.field("tokens_in", pa.int64()),  # of all these answers; null where nobody has counted
        pa.field("tokens_cached", pa.int64()),
        pa.field("tokens_out", pa.int64()),
    ]
)
"""What prompts to one teacher cost and give."""

SAMPLED = pa.schema(
    [
        _required("id", pa.string()),  # of the input row
        _required("fields", pa.string()),  # as in `INPUT`
        _required("texts", _strings),  # what the student wrote, sample by sample
        pa.field("answer", pa.string()),  # that most samples came to; null where none has one
        _required("consistency", pa.float32()),  # share of the samples that came to it
        pa.field("right", pa.bool_()),  # whether it is the right one; null where nobody knows
        _required("tokens_in", pa.int32()),  # of the prompt, which is read once
        _required("tokens_out", pa.int32()),  # of all samples
    ]
)
"""A student's own answers to input rows, drawn several times."""

ASSESSED = pa.schema(
    [
        _required("id", pa.string()),  # hash of item, answer, prompt, model revision, form
        _required("item", pa.string()),  # id of the input row
        _required("teacher", pa.string()),  # the assistant
        _required("answer", pa.string()),  # that is assessed
        pa.field("rationale", pa.string()),  # that the assistant read with it; null for none
        _required("confidence", pa.float32()),  # that it is right, from 0 to 1
        pa.field("right", pa.bool_()),  # whether it is; null where nobody knows
        _required("usage", USAGE),
    ]
)
"""A teaching assistant's confidence in answers of a student or of a teacher."""

RATED = pa.schema(
    [
        _required("id", pa.string()),  # hash of all that the judge was asked, and how
        _required("item", pa.string()),  # id of the input row
        _required("model", pa.string()),  # as in `WRITTEN`; empty where the row itself is rated
        _required("turn", pa.int32()),  # of the conversation, from 0
        _required("prompt", pa.string()),  # name of the judge's prompt
        _required("judge", pa.string()),  # the teacher that judges
        _required("rating", pa.float32()),  # on the recipe's scale
        pa.field(
            "criteria",
            pa.list_(
                pa.struct([_required("name", pa.string()), _required("rating", pa.float32())])
            ),
        ),
        _required("words", pa.int32()),  # of what is rated
        _required("text", pa.string()),  # what the judge wrote
        _required("usage", USAGE),
    ]
)
"""Ratings by judges: of each reply, or of a question."""

COMPARED = pa.schema(
    [
        _required("id", pa.string()),
        _required("item", pa.string()),  # id of the input row
        _required("first", pa.string()),  # the model that stood first, as in `WRITTEN`
        _required("second", pa.string()),
        _required("prompt", pa.string()),
        _required("judge", pa.string()),
        _required("verdict", pa.string()),  # first, second or tie
        _required("words_first", pa.int32()),  # of all its replies
        _required("words_second", pa.int32()),
        _required("text", pa.string()),
        _required("usage", USAGE),
    ]
)
"""Which of two models a judge prefers; each pair stands here in both orders."""

REJECTED = pa.schema(
    [
        _required("id", pa.string()),
        _required("stage", pa.string()),
        pa.field("teacher", pa.string()),  # who was asked; null where nobody was
        _required("reason", pa.string()),  # a short fixed word, to be counted
        _required("detail", pa.string()),  # one sentence for a person
        _required("original", pa.string()),  # the row as JSON, bytes as \\x escapes
    ]
)
"""Rows that a stage could not use: one table, whatever the stage."""
