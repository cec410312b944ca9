"""Engines, shards and stages on a real Ray and a real vLLM with a tiny model."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from core.errors import UseError, WorkError
from core.identity import content_id
from core.ledger import Ledger
from core.recipe import LoadedRecipe, Task
from core.recipe_section import Device
from core.recipe_teachers import Teacher
from core.rows import GENERATED, SCORED, TASK
from core.run import Folder, Manifest, Run
from core.stage import StageContext
from core.teacher import Sampling
from pipelines.engine_pool import EnginePool, start_engines
from pipelines.evaluation import predict_teacher
from pipelines.fewshot_prompts import FewshotPrompts
from pipelines.item_ways import read_json_item
from pipelines.label_prompts import LabelPrompt, LabelPrompts
from pipelines.row_work import Rejection
from pipelines.scoring import content_free_offsets, score, score_question
from pipelines.shards import Lane, run_shards
from pipelines.teacher_scorer import fewshot_choice_scorer
from pipelines.writing import write_items
from stillhouse.methods.fewshot_mcqa import FewshotMcqaRecipe
from tests.fuzzed_rows import LARGE, SMALL
from tests.tiny_models import CORPUS

CHOICES = ["business", "health", "politics", "sports", "technology"]
EXAMPLES = [line.split(": ")[1].split("\n")[0] for line in CORPUS[1:6]]


@pytest.fixture(scope="module")
def engine(tiny_teacher, tmp_path_factory):
    ray.init(address="local", num_cpus=8, include_dashboard=False, log_to_driver=False)
    teacher = Teacher(
        model=str(tiny_teacher),
        engine={
            "dtype": "float32",
            "max_model_len": 512,
            "max_num_seqs": 16,
            "block_size": 32,
            "enforce_eager": True,
        },
        device=Device(kind="cpu-core", cpus=2),
    )
    pool = start_engines("tiny", teacher, tiny_teacher, 0, tmp_path_factory.mktemp("logs"))
    yield pool
    pool.close()
    ray.shutdown()


@pytest.fixture
def context_of(engine, tiny_teacher, tmp_path):
    recipe = FewshotMcqaRecipe.model_validate(
        {
            "name": "test",
            "method": "fewshot_mcqa",
            "shard_rows": 8,
            "task": {
                "instruction": "Each headline goes to one news desk.",
                "question_name": "Headline",
                "answer_name": "News desk",
                "choices": CHOICES,
                "examples": "x",
                "evaluation": "y",
            },
            "teachers": {"tiny": {"model": str(tiny_teacher), "device": {"cpus": 2}}},
            "generate": {"teacher": "tiny", "decomposed": {"rows": 1}},
            "score": {"teacher": "tiny"},
            "students": {"encoder": {"model": "x"}},
        }
    )
    run = Run(Folder(str(tmp_path / "run")))
    # What other tests asked of the engine is not this one's.
    engine.accounted = engine.statistics()

    def context(stage, settings=(), inputs=(), shard_rows=8, fingerprint=""):
        return StageContext(
            stage=run.stage(stage, "w" * 12),
            recipe=LoadedRecipe(recipe.model_copy(update={"shard_rows": shard_rows}), tmp_path),
            settings=dict(settings),
            inputs=dict(inputs),
            engine=lambda _: engine,
            model=lambda name: name,
            fingerprint=content_id(fingerprint, settings, shard_rows),
            attempt="attempt",
            write_entry=Ledger(run.ledger).write,
            show=lambda _: None,
            over_budget=lambda _: None,
            logs=tmp_path,
        )

    context.run = run
    return context


def stage_of(context_of, name, schema, rows):
    """A finished stage with given rows."""
    stage = context_of(name).stage
    stage.commit_shard("rows", pa.Table.from_pylist(rows, schema=schema), pa.table({}))
    stage.commit(Manifest(name, "f", {}, ["rows"], len(rows), {}))
    return stage


def task_rows(questions):
    return [
        {
            "id": f"task-{number}",
            "question": question,
            "choices": CHOICES,
            "answer": number % len(CHOICES),
            "difficulty": None,
            "subject": None,
        }
        for number, question in enumerate(questions)
    ]


@pytest.fixture
def examples(context_of):
    return stage_of(context_of, "examples", TASK, task_rows(EXAMPLES))


def prompts_for(recipe_task, examples):
    return FewshotPrompts(recipe_task, examples.read().to_pylist())


def test_label_scores_are_the_models_own_log_probabilities(engine, tiny_teacher):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_teacher)
    model = AutoModelForCausalLM.from_pretrained(tiny_teacher)
    prompt = "Headline: Senate passes budget bill\nNews desk:"
    labels = [f" {choice}" for choice in CHOICES]
    found = asyncio.run(engine.score_labels(prompt, labels))
    ids = [tokenizer.encode(label)[0] for label in labels]
    with torch.inference_mode():
        logits = model(**tokenizer(prompt, return_tensors="pt")).logits[0, -1]
    expected = torch.log_softmax(logits, -1)[ids].tolist()
    assert found.logprobs == pytest.approx(expected, abs=1e-4)
    assert found.usage.requests == 1
    assert found.usage.tokens_in == len(tokenizer.encode(prompt))


def test_a_label_of_several_tokens_is_refused_with_the_choice(engine):
    with pytest.raises(UseError) as caught:
        asyncio.run(engine.score_labels("News desk:", [" business", " unbelievable"]))
    assert "unbelievable" in caught.value.place


def test_a_prompt_over_the_models_length_is_told_and_not_thrown(engine):
    completion = asyncio.run(engine.complete("desk " * 600, Sampling(max_tokens=4)))
    assert completion.finish == "error"
    assert "512" in completion.error
    assert "tokens" in asyncio.run(engine.score_labels("desk " * 600, [" sports"])).error


def test_structured_decoding_gives_json(engine, context_of, examples):
    schema = prompts_for(context_of("x").recipe.recipe.task, examples).json_schema()
    schema["properties"]["question"]["maxLength"] = 5
    sampling = Sampling(max_tokens=300, json_schema=schema)
    text = asyncio.run(engine.complete("An item:", sampling)).text
    answer, question = read_json_item(text, CHOICES)
    assert answer in range(len(CHOICES))
    assert question


def test_a_stage_is_written_resumed_and_grown_without_paying_twice(context_of, examples):
    def write(rows, shard_rows=8):
        context = context_of(
            "write",
            {"teacher": "tiny", "mode": "decomposed", "rows": rows, "sampling": {"max_tokens": 12}},
            {"examples": examples},
            shard_rows,
        )
        result = write_items(context)
        requests = sum(e.requests for e in Ledger(context_of.run.ledger).entries())
        return context.stage, result, requests

    stage, result, asked = write(40)
    assert asked == 40
    assert len(result.shards) == 5
    assert result.rows + sum(result.rejected.values()) == 40
    # The same again asks nothing; the ledger's entry stays what it was.
    assert write(40)[1] == result
    # A lost shard is the only one that is made again.
    (stage.rows.local / f"{result.shards[2]}.parquet").unlink()
    _, again, asked = write(40)
    assert again.shards == result.shards
    assert asked == 8
    assert again.rows + sum(again.rejected.values()) == 40
    # Another cut of the same rows finds the rows that were kept; only rejected ones are redone.
    _, recut, asked = write(40, shard_rows=10)
    assert recut.rows >= again.rows
    assert asked <= sum(again.rejected.values())
    # More rows: the full shards stay.
    _, grown, asked = write(48)
    assert grown.shards[:5] == result.shards
    assert asked == 8
    ids = [row for key in grown.shards for row in stage.rows.read_table(f"{key}.parquet")["id"]]
    assert len(ids) == len(set(ids)) == grown.rows


def test_scores_are_calibrated_by_what_the_prompt_says_of_nothing(context_of, examples, engine):
    rows = stage_of(context_of, "evaluation", TASK, task_rows([*EXAMPLES, "x " * 500]))
    context = context_of(
        "score", {"teacher": "tiny", "orders": 2}, {"examples": examples, "rows": rows}
    )
    result = score(context)
    assert result.rows == len(EXAMPLES)
    assert result.rejected == {"too-long": 1}
    context.stage.commit(
        Manifest("score", "f", {}, result.shards, result.rows, result.rejected, result.facts)
    )
    table = context.stage.read()
    assert table.schema.equals(SCORED)
    for row in table.to_pylist():
        differences = [a - b for a, b in zip(row["logprobs"], row["calibrated"], strict=True)]
        assert differences == pytest.approx(result.facts["offsets"], abs=1e-4)
        assert row["usage"]["requests"] == 2
    prompts = LabelPrompts(prompts_for(context.recipe.recipe.task, examples), 2)
    assert result.facts["offsets"] == pytest.approx(
        content_free_offsets(prompts, engine, CHOICES), abs=1e-4
    )
    assert sum(math.exp(offset) for offset in result.facts["offsets"]) < 1

    predicted = context_of("predict", inputs={"scored": context.stage, "rows": rows})
    found = predict_teacher(predicted)
    assert found.rows == 2 * len(EXAMPLES)
    assert set(found.facts["accuracy"]) == {"tiny raw", "tiny calibrated"}


def test_letters_in_all_rotations_do_not_depend_on_the_order_of_the_choices(
    context_of, examples, engine
):
    """The scores and offsets of a choice are its own, wherever it stands in the task's list."""
    task = context_of("x").recipe.recipe.task

    def ask(choices, permutations):
        rows = [
            {**row, "choices": choices, "answer": choices.index(CHOICES[row["answer"]])}
            for row in examples.read().to_pylist()
        ]
        prompts = LabelPrompts(FewshotPrompts(task, rows), 1, permutations)
        scores = asyncio.run(
            score_question(prompts, engine, "Cup final goes to extra time", choices)
        )
        offsets = content_free_offsets(prompts, engine, choices)
        assert scores.usage.requests == permutations
        return (
            dict(sorted(zip(choices, scores.logprobs, strict=True))),
            dict(sorted(zip(choices, offsets, strict=True))),
        )

    given, offsets = ask(CHOICES, 5)
    for by in (1, 3):
        other, other_offsets = ask(CHOICES[by:] + CHOICES[:by], 5)
        assert other == pytest.approx(given, abs=1e-4)
        assert other_offsets == pytest.approx(offsets, abs=1e-4)
    # One permutation scores the letters' places too, so it does depend on the order.
    alone, other = ask(CHOICES, 1)[0], ask(CHOICES[1:] + CHOICES[:1], 1)[0]
    assert max(abs(alone[choice] - other[choice]) for choice in CHOICES) > 0.01


def test_the_stage_scores_letters_and_calibrates_them(context_of, examples, engine):
    rows = stage_of(context_of, "evaluation", TASK, task_rows(EXAMPLES))
    words = {"teacher": "tiny", "orders": 1}
    ids = []
    for name, settings in (("words", words), ("letters", {**words, "permutations": 5})):
        context = context_of(name, settings, {"examples": examples, "rows": rows})
        result = score(context)
        table = [context.stage.rows.read_table(f"{key}.parquet") for key in result.shards]
        found = pa.concat_tables(table).to_pylist()
        ids.append({row["id"] for row in found})
    assert not ids[0] & ids[1]
    assert len(ids[1]) == len(EXAMPLES)
    for row in found:
        assert row["usage"]["requests"] == 5
        differences = [a - b for a, b in zip(row["logprobs"], row["calibrated"], strict=True)]
        assert differences == pytest.approx(result.facts["offsets"], abs=1e-4)

    # Over HTTP the teacher is asked as it scored: by as many prompts, with the same outcome.
    predicted = context_of("predicted").stage
    accuracy = {"tiny raw": 0.1, "tiny calibrated": 0.2}
    predicted.commit(Manifest("predicted", "f", {}, [], 0, {}, {"accuracy": accuracy}))
    settings = {"teacher": "tiny", "orders": 1, "permutations": 5}
    scorer = fewshot_choice_scorer(
        context_of("compare", settings, {"examples": examples, "predicted": predicted})
    )

    async def ask():
        scores = await scorer.score(engine, found[0]["question"], CHOICES)
        await engine.disconnect()
        return scores

    asked = asyncio.run(ask())
    assert asked.usage.requests == 5
    assert asked.logprobs == pytest.approx(found[0]["logprobs"], abs=1e-4)
    assert scorer.offsets == pytest.approx(result.facts["offsets"], abs=1e-4)


def test_items_with_choices_of_their_own_are_written_and_scored(context_of, engine):
    """By a real engine whose model can write none: what it writes is counted all the same."""
    own = {"choices": None}

    def context(name, *settings):
        made = context_of(name, *settings)
        recipe = made.recipe.recipe
        task = recipe.task.model_copy(update=own)
        loaded = LoadedRecipe(recipe.model_copy(update={"task": task}), made.recipe.folder)
        return replace(made, recipe=loaded)

    rows = [
        {**row, "choices": ["a lake", "the dam", "sea"], "answer": number % 3, "subject": subject}
        for number, (row, subject) in enumerate(zip(task_rows(EXAMPLES), "ababa", strict=True))
    ]
    examples = stage_of(context_of, "own-examples", TASK, rows)

    def write(name, **settings):
        asked = {"teacher": "tiny", "rows": 8, "negatives": 2, **settings}
        made = context(name, asked, {"examples": examples})
        result = write_items(made)
        made.stage.commit(Manifest(name, "f", {}, result.shards, result.rows, result.rejected))
        assert result.rows + sum(result.rejected.values()) == 8
        return made.stage

    some = {"max_tokens": 40}
    free = write("free", mode="json", structured=False, sampling=some)
    assert free.manifest().rejected["unparseable"] > 0
    held = write("held", mode="json", structured=True, sampling={"max_tokens": 300})
    steps = write("steps", mode="decomposed", sampling={"max_tokens": 8})
    for item in [*held.read().to_pylist(), *steps.read().to_pylist()]:
        assert 0 <= item["intended"] < len(item["choices"])
        assert item["subject"] in ("a", "b")

    whole = {"teacher": "tiny", "orders": 1, "whole": True, "shots": 1}
    made = context("own-score", whole, {"examples": examples, "rows": examples})
    result = score(made)
    assert (result.rows, result.rejected) == (5, {})
    made.stage.commit(Manifest("own-score", "f", {}, result.shards, result.rows, {}))
    for row in made.stage.read().to_pylist():
        assert len(row["calibrated"]) == len(row["logprobs"]) == 3
        assert row["usage"]["requests"] == 6
    # Over HTTP it is asked in the same way, with the first subject's examples.
    predicted = context_of("own-predicted").stage
    accuracy = {"tiny raw": 0.1, "tiny calibrated": 0.2}
    predicted.commit(Manifest("own-predicted", "f", {}, [], 0, {}, {"accuracy": accuracy}))
    scorer = fewshot_choice_scorer(
        context("own-compare", whole, {"examples": examples, "predicted": predicted})
    )
    row = made.stage.read().to_pylist()[0]

    async def ask():
        scores = await scorer.score(engine, row["question"], row["choices"])
        await engine.disconnect()
        return scores

    assert row["subject"] == "a"
    assert asyncio.run(ask()).logprobs == pytest.approx(row["calibrated"], abs=1e-3)


def test_examples_that_do_not_fit_the_teacher_are_told(context_of, engine):
    task = context_of("x").recipe.recipe.task
    long = LabelPrompts(FewshotPrompts(task, task_rows(["word " * 200] * 5)), 1)
    with pytest.raises(WorkError, match="cannot score with these examples"):
        content_free_offsets(long, engine, CHOICES)


class FailingWork:
    """Work with every kind of trouble that a row can bring."""

    schema = pa.schema([("id", pa.string())])

    async def __call__(self, row):
        if row["name"].startswith("rejected"):
            return Rejection("odd", "it is odd", {"bytes": b"\xff"})
        if row["name"] == "fatal":
            raise UseError("a place", "a cause.", "A mend.")
        if row["name"] == "bug":
            raise ZeroDivisionError("division by zero")
        return {"id": row["id"]}


def planned(*names):
    return [{"id": content_id(name), "name": name} for name in names]


def test_a_fatal_error_keeps_its_three_parts_and_what_was_committed(context_of, engine):
    def run(*names):
        context = context_of("fails", shard_rows=1, fingerprint=names)
        return context, run_shards(context, [Lane(engine, planned(*names), FailingWork())])

    good = [str(number) for number in range(6)]
    with pytest.raises(UseError) as caught:
        run(*good, "fatal")
    assert (caught.value.place, caught.value.mend) == ("a place", "A mend.")
    with pytest.raises(WorkError) as caught:
        run(*good, "bug")
    assert "ZeroDivisionError" in caught.value.cause
    before = context_of("fails").stage.committed_shards()
    context, result = run(*good, "rejected")
    assert before <= set(result.shards)
    assert (result.rows, result.rejected) == (6, {"odd": 1})
    rejected = next((context.stage.folder.local / "rejected").iterdir())
    assert pq.read_table(rejected).to_pylist()[0]["detail"] == "it is odd"
    assert not context.stage.plan.names(), "the plan goes when the stage is done"


def test_equal_ids_are_one_piece_of_work(context_of, engine):
    context = context_of("twice")
    result = run_shards(context, [Lane(engine, planned("a", "b", "a"), FailingWork())])
    assert result.rows == 2


def test_a_lane_that_fails_leaves_the_others_going(context_of, engine):
    """Two teachers in one pass, of which one cannot work; mended, only its rows are done."""
    other = EnginePool("other", engine.model, engine.roster, engine.rows_at_once, engine.device)
    context = context_of("lanes", shard_rows=4)
    context.recipe.recipe.teachers["other"] = context.recipe.recipe.teachers["tiny"]
    good, bad = planned(*map(str, range(40))), planned(*map(str, range(100, 140)), "fatal")
    with pytest.raises(UseError):
        run_shards(
            context, [Lane(other, bad[::-1], FailingWork()), Lane(engine, good, FailingWork())]
        )
    done = {
        row
        for key in context.stage.committed_shards()
        for row in context.stage.rows.read_table(f"{key}.parquet")["id"].to_pylist()
    }
    assert {row["id"] for row in good} <= done
    again = context_of("lanes", shard_rows=4, fingerprint="mended")
    lanes = [Lane(other, bad[:-1], FailingWork()), Lane(engine, good, FailingWork())]
    assert run_shards(again, lanes).rows == 80


def test_too_many_rejected_rows_stop_a_stage(context_of, engine):
    context = context_of("wrong", shard_rows=4)
    recipe = context.recipe.recipe.model_copy(update={"max_rejected": 0.3, "shard_rows": 4})
    context = replace(context, recipe=replace(context.recipe, recipe=recipe))
    plan = planned(*(("rejected" if n % 2 else "") + str(n) for n in range(2000)))
    with pytest.raises(WorkError, match="max_rejected") as caught:
        run_shards(context, [Lane(engine, plan, FailingWork())])
    assert "share of 0.3" in caught.value.cause
    assert len(context.stage.committed_shards()) < 500


def test_a_budget_stops_a_stage_and_a_higher_one_goes_on(context_of, engine):
    plan = planned(*map(str, range(2000)))
    stop = WorkError("budget.money", "spent", "Raise it.")
    context = context_of("budget", shard_rows=4)
    halfway = lambda _: stop if len(context.stage.committed_shards()) > 3 else None  # noqa: E731
    with pytest.raises(WorkError, match="spent"):
        run_shards(replace(context, over_budget=halfway), [Lane(engine, plan, FailingWork())])
    before = context.stage.committed_shards()
    assert 3 < len(before) < 500
    assert run_shards(context, [Lane(engine, plan, FailingWork())]).rows == 2000


@pytest.mark.slow
def test_an_engine_that_is_killed_comes_back_and_its_rows_with_it(context_of, engine):
    """SIGKILL to vLLM's own process: the actor notices, restarts, and Ray repeats its calls."""
    import psutil

    actor = engine.processes()[0]
    cores = [
        child for child in psutil.Process(actor).children(recursive=True) if child.is_running()
    ]
    assert cores, "vLLM runs a process of its own"

    async def ask():
        sampling = Sampling(max_tokens=200, temperature=1.0)
        asked = [asyncio.ensure_future(engine.complete(f"{n}", sampling)) for n in range(24)]
        await asyncio.sleep(0.3)
        for core in cores:
            core.kill()
        return await asyncio.gather(*asked)

    began = time.monotonic()
    answers = asyncio.run(asyncio.wait_for(ask(), timeout=180))
    assert len(answers) == 24
    assert all(answer.finish in ("stop", "length") for answer in answers)
    assert engine.processes()[0] != actor, f"after {time.monotonic() - began:.0f} s"


def test_the_schema_of_generated_rows_holds_what_the_stage_writes(context_of, examples):
    context = context_of(
        "write-json",
        {
            "teacher": "tiny",
            "mode": "json",
            "structured": True,
            "rows": 4,
            "sampling": {"max_tokens": 8},
        },
        {"examples": examples},
    )
    result = write_items(context)
    assert result.rows + sum(result.rejected.values()) == 4
    # Eight tokens are too few for a whole item: cut short, it is no JSON.
    assert result.rejected.get("unparseable", 0) >= 1
    for key in result.shards:
        assert context.stage.rows.read_table(f"{key}.parquet").schema.equals(GENERATED)


def test_json_examples_are_shown_as_they_are():
    task = Task(instruction="Do.", choices=["a", "b"], examples="x", evaluation="y")
    prompts = FewshotPrompts(task, task_rows(["Ärzte's <b> & co"]))
    assert '"question": "Ärzte\'s <b> & co"' in prompts.write_json(0)


def test_an_engine_that_cannot_start_names_the_teacher_and_its_log(engine, tiny_teacher, tmp_path):
    teacher = Teacher(model=str(tiny_teacher), engine={"max_model_lenght": 12})
    with pytest.raises(UseError, match="max_model_lenght") as caught:
        start_engines("wrong", teacher, tiny_teacher, 0, tmp_path)
    assert caught.value.place == "teachers.wrong"
    assert str(tmp_path) in caught.value.mend


def test_a_measurement_can_start_from_an_empty_prefix_cache(engine):
    prompt = "\n\n".join(CORPUS[:6] * 3)

    def cached() -> int:
        answer = asyncio.run(engine.complete(prompt, Sampling(max_tokens=1)))
        return answer.usage.tokens_cached

    cached()
    assert cached() > 0
    engine.forget_prompts()
    assert cached() == 0


def test_tasks_have_words_for_their_prompts():
    task = Task(instruction="Do.", choices=["a", "b"], examples="x", evaluation="y")
    prompts = FewshotPrompts(task, task_rows(["One?", "Two?"])[:2])
    prompt = prompts.score_choice("Three?", 1)
    assert prompt.index("Two?") < prompt.index("One?") < prompt.index("Three?")
    assert prompt.endswith("Answer:")
    assert LabelPrompts(prompts, 2).ask("Three?", task.choices)[1] == LabelPrompt(
        prompt, [" a", " b"], [0, 1]
    )


def test_the_likeliest_tokens_of_a_completion_are_the_models_own(engine, tiny_teacher):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    prompt = CORPUS[0] + "\n\nHeadline:"
    sampling = Sampling(max_tokens=6, temperature=0.0, top_logprobs=4)
    top = asyncio.run(engine.complete(prompt, sampling)).top
    assert top.top_ids.shape == top.top_logprobs.shape == (len(top.token_ids), 4)
    # Compact: what is kept of a token.
    assert (top.token_ids.nbytes + top.top_ids.nbytes + top.top_logprobs.nbytes) == len(
        top.token_ids
    ) * (4 + 4 * 6)
    model = AutoModelForCausalLM.from_pretrained(tiny_teacher)
    tokenizer = AutoTokenizer.from_pretrained(tiny_teacher)
    start = tokenizer.encode(prompt)
    with torch.no_grad():
        logits = model(torch.tensor([[*start, *top.token_ids.tolist()]])).logits[0]
    expected = logits.log_softmax(-1)[len(start) - 1 : -1]
    for place in range(len(top.token_ids)):
        found = expected[place][torch.tensor(top.top_ids[place].tolist())]
        assert found.tolist() == pytest.approx(top.top_logprobs[place].tolist(), abs=0.02)
        assert found[0] == expected[place].max()


def test_a_seed_repeats_a_completion(engine):
    def write(seed):
        sampling = Sampling(max_tokens=12, temperature=1.0, seed=seed)
        return asyncio.run(engine.complete("Headline:", sampling)).text

    assert write(1) == write(1)
    assert len({write(seed) for seed in range(2, 8)}) > 1


def test_a_texts_score_is_the_sum_of_what_its_tokens_are_told(engine, tiny_teacher):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    prompt, text = CORPUS[1].rsplit(" ", 1)[0], " business"
    found = asyncio.run(engine.score_text(prompt, text))
    model = AutoModelForCausalLM.from_pretrained(tiny_teacher)
    tokenizer = AutoTokenizer.from_pretrained(tiny_teacher)
    tokens, start = tokenizer.encode(prompt + text), len(tokenizer.encode(prompt))
    with torch.no_grad():
        logprobs = model(torch.tensor([tokens])).logits[0].log_softmax(-1)
    expected = [logprobs[place - 1, tokens[place]].item() for place in range(start, len(tokens))]
    assert found.logprobs == pytest.approx(expected, abs=1e-3)
    assert asyncio.run(engine.score_text(prompt, "")).reason == "melts"
    assert asyncio.run(engine.score_text(prompt * 200, text)).reason == "too-long"


def test_a_chat_is_what_the_template_makes_of_it(engine):
    said = Sampling(max_tokens=8, temperature=0.0, chat=True, system="Be short.")
    plain = Sampling(max_tokens=8, temperature=0.0)
    chat = asyncio.run(engine.complete("Which desk?", said))
    by_hand = "system: Be short.\nuser: Which desk?\nassistant:"
    assert chat.text == asyncio.run(engine.complete(by_hand, plain)).text
    assert chat.usage.tokens_in == asyncio.run(engine.complete(by_hand, plain)).usage.tokens_in


@dataclass(frozen=True)
class Ask:
    """Puts whatever a row holds to the engine."""

    engine: EnginePool
    schema = pa.schema([("id", pa.string()), ("text", pa.string())])

    async def __call__(self, row):
        answer = await self.engine.complete(row["prompt"], Sampling(max_tokens=2))
        if answer.finish == "error":
            return Rejection(answer.reason, answer.error, row)
        return {"id": row["id"], "text": answer.text}


def test_no_text_stops_a_real_engine(context_of, engine):
    texts = [f"{text}{number}" for number, text in enumerate([*SMALL * 14, *LARGE])]
    plan = [{"id": content_id(text), "prompt": text} for text in texts]
    result = run_shards(context_of("fuzz"), [Lane(engine, plan, Ask(engine))])
    assert result.rows + sum(result.rejected.values()) == len(texts)
    assert result.rows > len(texts) / 2
    assert {"too-long", "not-text"} <= set(result.rejected)
