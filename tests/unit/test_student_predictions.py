"""Finished students asked in batches: real tiny models, against one question at a time."""

from __future__ import annotations

import pyarrow as pa
import pytest

from core.recipe_section import Device
from core.student_reading import StudentReading
from pipelines.asked_texts import Asked
from pipelines.student_texts import gpus_that_hold
from tests.tiny_models import CORPUS, make_chooser, make_writer, reading

PLACES = ["business", "health desk", "politics", "sports", "the technology news desk"]
QUESTIONS = ["Late goal", "New vaccine cuts hospital stays among older patients", "", "Senate"]


@pytest.fixture(scope="module")
def chooser(tiny_encoder, tmp_path_factory):
    return make_chooser(tiny_encoder, tmp_path_factory.mktemp("chooser"))


def test_rows_may_have_any_number_of_choices(chooser):
    import torch
    from transformers import AutoModelForMultipleChoice, AutoTokenizer

    from pipelines.student_choices import EncoderPredictor

    rows = [
        {"id": str(n), "question": question, "choices": PLACES[: 2 + n]}
        for n, question in enumerate(QUESTIONS)
    ]
    found = EncoderPredictor(chooser)(pa.Table.from_pylist(rows)).to_pylist()
    model = AutoModelForMultipleChoice.from_pretrained(chooser).eval()
    tokenizer = AutoTokenizer.from_pretrained(chooser)
    for row, answer in zip(rows, found, strict=True):
        pairs = tokenizer(
            [row["question"]] * len(row["choices"]),
            row["choices"],
            padding=True,
            return_tensors="pt",
        )
        with torch.inference_mode():
            logits = model(**{name: ids[None] for name, ids in pairs.items()}).logits[0]
        assert answer["id"] == row["id"]
        assert answer["probabilities"] == pytest.approx(logits.softmax(-1).tolist(), abs=1e-5)
        assert len(set(answer["probabilities"])) == len(row["choices"])


def test_a_head_for_classes_is_told_by_the_folder(tiny_encoder, tmp_path):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from pipelines.student_choices import EncoderPredictor

    model = AutoModelForSequenceClassification.from_pretrained(tiny_encoder, num_labels=5)
    model.save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder)
    tokenizer.save_pretrained(tmp_path)
    rows = [{"id": str(n), "question": q, "choices": PLACES} for n, q in enumerate(QUESTIONS)]
    found = EncoderPredictor(tmp_path)(pa.Table.from_pylist(rows)).to_pylist()
    for row, answer in zip(rows, found, strict=True):
        with torch.inference_mode():
            logits = model.eval()(**tokenizer(row["question"], return_tensors="pt")).logits[0]
        assert answer["probabilities"] == pytest.approx(logits.softmax(-1).tolist(), abs=1e-5)


@pytest.fixture(scope="module")
def causal(tiny_teacher, tmp_path_factory):
    return make_writer(tiny_teacher, tmp_path_factory.mktemp("causal"))


@pytest.fixture(scope="module")
def seq2seq(tiny_teacher, tmp_path_factory):
    """A T5 of two layers that has learnt for a few steps to repeat, so that it says something."""
    import torch
    from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

    folder = tmp_path_factory.mktemp("seq2seq")
    tokenizer = AutoTokenizer.from_pretrained(tiny_teacher)
    tokenizer.chat_template = None
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=32,
            d_kv=16,
            d_ff=64,
            num_layers=2,
            num_heads=2,
            decoder_start_token_id=tokenizer.bos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    tokens = torch.tensor([tokenizer.encode(CORPUS[1])])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(20):
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    reading("seq2seq").write(folder)
    return folder


def conversations():
    long = " ".join(CORPUS[1:6])
    return [*([text] for text in (*CORPUS[1:4], long, "?", "")), ["Late goal", "And?", "So?"]]


@pytest.mark.parametrize("family", ["causal", "seq2seq"])
def test_a_batch_is_written_as_each_one_alone(family, request):
    """The likeliest tokens: neither padding nor the turns of other rows change them."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    from pipelines.student_texts import WritingPredictor

    folder = request.getfixturevalue(family)
    rows = [{"id": str(n), "system": "", "turns": said} for n, said in enumerate(conversations())]
    predictor = WritingPredictor(folder, StudentReading.of(folder))
    found = predictor(pa.Table.from_pylist(rows)).to_pylist()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    auto = AutoModelForCausalLM if family == "causal" else AutoModelForSeq2SeqLM
    model = auto.from_pretrained(folder).eval()

    def written_after(prompt):
        written = []
        while len(written) < 12 and tokenizer.eos_token_id not in written:
            if family == "causal":
                inputs = {"input_ids": torch.tensor([prompt + written])}
            else:
                begin = [tokenizer.bos_token_id]
                inputs = {
                    "input_ids": torch.tensor([prompt]),
                    "decoder_input_ids": torch.tensor([begin + written]),
                }
            with torch.inference_mode():
                written.append(int(model(**inputs).logits[0, -1].argmax()))
        return written

    for row, answer in zip(rows, found, strict=True):
        asked, replies, tokens = Asked("", row["turns"]), [], [0, 0]
        for _ in row["turns"]:
            # Its own replies are its history.
            prompt = reading(family).prompt_ids(asked.messages(replies), tokenizer)
            assert 1 <= len(prompt) <= 40
            written = written_after(prompt)
            replies.append(tokenizer.decode(written, skip_special_tokens=True))
            tokens = [tokens[0] + len(prompt), tokens[1] + len(written)]
        assert answer.pop("seconds") > 0
        assert answer == {
            "id": row["id"],
            "replies": replies,
            "tokens_in": tokens[0],
            "tokens_out": tokens[1],
        }
    assert any(answer["replies"][0] for answer in found)


def test_a_model_runs_on_as_many_gpus_as_hold_it(tmp_path):
    for number in range(30):  # 150 GB of weights
        with (tmp_path / f"model-{number}.safetensors").open("wb") as stream:
            stream.truncate(5 * 10**9)
    assert gpus_that_hold(tmp_path, Device(kind="h100", gpus=1)) == 3
    assert gpus_that_hold(tmp_path, Device(kind="h200", gpus=1)) == 2
    assert gpus_that_hold(tmp_path, Device(kind="somebodys", gpus=1)) == 1
    assert gpus_that_hold(tmp_path, Device()) == 0


def test_a_causal_student_is_asked_in_its_template_and_keeps_the_end(causal):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(causal)
    messages = [{"role": "system", "content": "Short."}, {"role": "user", "content": "Late goal"}]
    ids = StudentReading.of(causal).prompt_ids(messages, tokenizer)
    assert tokenizer.decode(ids) == "system: Short.\nuser: predict: Late goal\nassistant:"
    ids = reading("causal", max_length=4).prompt_ids(messages, tokenizer)
    assert "predict: Late goal\nassistant:".endswith(tokenizer.decode(ids))
    tokenizer.chat_template = None
    ids = StudentReading.of(causal).prompt_ids(messages, tokenizer)
    assert tokenizer.decode(ids, skip_special_tokens=True) == "Short.\npredict: Late goal"


def test_a_seq2seq_student_keeps_the_begin(seq2seq):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(seq2seq)
    messages = [{"role": "user", "content": "Late goal " * 60}]
    ids = StudentReading.of(seq2seq).prompt_ids(messages, tokenizer)
    assert len(ids) == 40
    assert tokenizer.decode(ids, skip_special_tokens=True).startswith("predict: Late goal Late")


@pytest.mark.parametrize("family", ["causal", "seq2seq"])
def test_a_choice_is_scored_as_it_would_be_alone(family, request):
    """The sum of its tokens' log-probabilities, what ends it included: whoever stands beside it."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    from pipelines.student_scores import ScoringPredictor

    folder = request.getfixturevalue(family)
    rows = [
        {"id": str(n), "system": "", "turns": [question], "choices": PLACES[: 2 + n]}
        for n, question in enumerate(QUESTIONS)
    ]
    found = ScoringPredictor(folder, reading(family))(pa.Table.from_pylist(rows)).to_pylist()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    auto = AutoModelForCausalLM if family == "causal" else AutoModelForSeq2SeqLM
    model = auto.from_pretrained(folder).eval()
    end = tokenizer.eos_token if family == "causal" else ""
    for row, scored in zip(rows, found, strict=True):
        prompt = reading(family).prompt_ids(Asked("", row["turns"]).messages(), tokenizer)
        alone, tokens = [], len(prompt)
        for choice in row["choices"]:
            answer = tokenizer(choice + end, add_special_tokens=family != "causal")["input_ids"]
            tokens += len(answer)
            with torch.inference_mode():
                if family == "causal":
                    logits = model(input_ids=torch.tensor([prompt + answer])).logits[0]
                    logits = logits[len(prompt) - 1 : -1]
                else:
                    begin = [tokenizer.bos_token_id, *answer[:-1]]
                    logits = model(
                        input_ids=torch.tensor([prompt]), decoder_input_ids=torch.tensor([begin])
                    ).logits[0]
            alone.append(sum(logits.log_softmax(-1)[range(len(answer)), answer]).item())
        assert scored["id"] == row["id"]
        assert scored["logprobs"] == pytest.approx(alone, abs=1e-4)
        assert scored["tokens"] == tokens


def test_the_likeliest_choice_is_the_first_of_equals():
    from pipelines.student_scores import ChoiceScores

    assert ChoiceScores([-3.0, -1.0, -1.0], 9, 0.1).likeliest == 1


def test_an_answer_ends_with_the_turn_that_its_template_ends(causal, seq2seq):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(causal)
    end = tokenizer.eos_token
    assert (
        tokenizer.decode(reading("causal").answer_ids(["sports"], tokenizer)[0]) == f"sports{end}"
    )
    tokenizer.chat_template = "{% for said in messages %}{{ said.content }}<s>!\n{% endfor %}"
    assert tokenizer.decode(reading("causal").answer_ids(["sports"], tokenizer)[0]) == "sports<s>"
    tokenizer = AutoTokenizer.from_pretrained(seq2seq)
    (ids,) = reading("seq2seq").answer_ids(["sports"], tokenizer)
    assert ids == tokenizer("sports")["input_ids"]


def drawn(folder, family, **how):
    """What is drawn of the questions, in a batch."""
    from pipelines.student_samples import Drawing, DrawingPredictor

    drawing = Drawing(**{"samples": 3, "temperature": 1.0, "max_tokens": 8, "seed": 0, **how})
    rows = [
        {"id": f"{n:032x}", "system": "", "turns": [question]}
        for n, question in enumerate(QUESTIONS)
    ]
    found = DrawingPredictor(folder, reading(family), drawing)(pa.Table.from_pylist(rows))
    return found.to_pylist()


@pytest.mark.parametrize("family", ["causal", "seq2seq"])
def test_samples_are_drawn_behind_what_was_read_once(family, request):
    """At hardly any temperature each sample is what the student would write by itself."""
    from pipelines.student_texts import WritingPredictor

    folder = request.getfixturevalue(family)
    rows = [{"id": str(n), "system": "", "turns": [q]} for n, q in enumerate(QUESTIONS)]
    written = WritingPredictor(folder, reading(family, max_answer_length=8))(
        pa.Table.from_pylist(rows)
    ).to_pylist()
    cold = drawn(folder, family, temperature=1e-4)
    assert [row["texts"] for row in cold] == [row["replies"] * 3 for row in written]
    assert [row["tokens_in"] for row in cold] == [row["tokens_in"] for row in written]
    assert [row["tokens_out"] for row in cold] == [3 * row["tokens_out"] for row in written]
    warm, again, other = (drawn(folder, family, seed=seed, samples=8) for seed in (0, 0, 1))
    texts = [row["texts"] for row in warm]
    assert all(len(set(eight)) > 1 for eight in texts), "they are drawn"
    assert texts == [row["texts"] for row in again]
    assert texts != [row["texts"] for row in other]
