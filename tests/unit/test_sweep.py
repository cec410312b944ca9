"""A sweep before it runs and after: what is refused, which trials there are, what is kept."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest

from core.errors import UseError
from core.ledger import Entry, Ledger
from core.prices import PriceBook
from core.recipe_file import load_recipe
from core.recipe_sweep import Sweep
from core.run import Folder, Manifest, Run
from stillhouse.methods import recipe_model
from stillhouse.report.sweep import short_keys
from stillhouse.run_reader import RunReader
from stillhouse.sweep_book import promoted, read_book, score_of
from stillhouse.sweep_plan import plan_sweep
from stillhouse.workflow import plan_run, refuse_other_recipe, write_state
from tests.unit.test_recipe_file import RECIPE

RATE = "students.encoder.train.learning_rate"
TRAIN = "train-encoder"
SPACE = f"{RATE}: {{loguniform: [1.0e-5, 1.0e-3]}}"


def swept(space: str, more: str = "trials: 6") -> str:
    return RECIPE + f"sweep:\n  {more}\n  space:\n    {space}\n"


@pytest.fixture
def sweep_of(tmp_path):
    """Lays out a sweep by its text."""
    for name in ("examples.jsonl", "evaluation.jsonl"):
        (tmp_path / name).write_text('{"question": "Who won?", "answer": "sports"}\n')

    def lay_out(text, *settings, update=False):
        (tmp_path / "recipe.yaml").write_text(text)

        def load(values):
            return load_recipe(tmp_path / "recipe.yaml", recipe_model, None, settings, values)

        base = promoted(plan_run(load({}), Run(Folder(str(tmp_path / "run")))), load)
        lay_out.load = load
        return plan_sweep(base, load, update=update)

    return lay_out


def epochs(*losses: float) -> list[dict]:
    return [
        {"epoch": n, "step": 10 * n, "validation_loss": loss, "validation_accuracy": n / 10}
        for n, loss in enumerate(losses, start=1)
    ]


def train(plan, number: int, *losses: float) -> None:
    """Finish a trial's training as the stage would."""
    made = plan.plans[number].fingerprints[TRAIN]
    facts = {"history": epochs(*losses)}
    manifest = Manifest(TRAIN, made.whole, made.made_from, [], 10, {}, facts)
    plan.plans[number].folder(TRAIN).commit(manifest)


# The values


def values_of(**section) -> list[dict]:
    return Sweep.model_validate({"trials": 20, **section}).draw()


def test_values_are_drawn_from_their_ranges_and_the_same_every_time():
    section = {
        "space": {
            "a": {"uniform": [0.5, 2]},
            "b": {"loguniform": [1e-5, 1e-1]},
            "c": {"int": [3, 5]},
            "d": {"choice": [None, "x", {"y": 1}]},
        }
    }
    found = values_of(**section)
    assert found == values_of(**section)
    assert values_of(**section, seed=1) != found
    assert values_of(**{**section, "trials": 7}) == found[:7], "more trials change the first ones"
    assert all(0.5 <= values["a"] <= 2 for values in found)
    assert all(1e-5 <= values["b"] <= 1e-1 for values in found)
    assert {values["c"] for values in found} == {3, 4, 5}
    assert {str(values["d"]) for values in found} == {"None", "x", "{'y': 1}"}
    # Each power of ten is as likely as the others; of a uniform range nearly all are the last.
    assert sum(values["b"] < 1e-3 for values in found) in range(4, 17)
    assert all(len(f"{values['a']:.10g}".replace(".", "").lstrip("0")) <= 4 for values in found)


def test_another_key_does_not_change_the_values_of_the_first():
    alone = values_of(space={"a": {"uniform": [0, 1]}})
    both = values_of(space={"a": {"uniform": [0, 1]}, "b": {"uniform": [0, 1]}})
    assert [values["a"] for values in both] == [values["a"] for values in alone]


def test_equal_values_are_one_trial():
    found = values_of(space={"a": {"choice": [1, 2]}, "b": {"int": [0, 1]}})
    assert sorted((values["a"], values["b"]) for values in found) == [
        (1, 0),
        (1, 1),
        (2, 0),
        (2, 1),
    ]


# What is refused


@pytest.mark.parametrize(
    ("space", "more", "says"),
    [
        pytest.param(f"{RATE}: {{uniform: [2, 1]}}", "trials: 2", "low end", id="empty range"),
        pytest.param(f"{RATE}: {{loguniform: [0, 1]}}", "trials: 2", "above 0", id="log of 0"),
        pytest.param(f"{RATE}: {{choice: [1]}}", "trials: 2", "at least 2", id="no choice"),
        pytest.param(
            f"{RATE}: {{choice: [1, 2], int: [1, 2]}}", "trials: 2", "give one", id="two ranges"
        ),
        pytest.param(SPACE, "trials: 0", "greater than or equal to 1", id="no trials"),
        pytest.param(SPACE, "{trials: 2, student: x}", "students has: encoder", id="no student"),
        pytest.param(
            "students.encoder.train.rate: {int: [1, 2]}",
            "trials: 2",
            "not a key that a recipe has",
            id="unknown key",
        ),
        pytest.param(
            f"{RATE}: {{uniform: [-2, -1]}}", "trials: 2", "greater than 0", id="impossible values"
        ),
        pytest.param(
            "serve.max_batch_size: {int: [1, 20]}",
            "trials: 2",
            "train-encoder does not depend on it",
            id="key without effect",
        ),
        pytest.param(
            "students.encoder.train.validation_share: {choice: [0.0, 0.1]}",
            "trials: 2",
            "no rows are held out",
            id="nothing to compare by",
        ),
        pytest.param(
            "students.encoder.train.objective.temperature: {uniform: [1, 4]}",
            "trials: 2",
            "cannot be compared",
            id="the loss itself",
        ),
    ],
)
def test_a_sweep_that_cannot_be_is_refused(sweep_of, space, more, says):
    text = swept(space, "trials: 2")
    if more.startswith("{"):
        text = RECIPE + f"sweep: {{trials: 2, student: x, space: {{{space}}}}}\n"
    elif more != "trials: 2":
        text = swept(space, more)
    with pytest.raises(UseError, match=says) as caught:
        sweep_of(text)
    assert "sweep" in caught.value.place or "line" in caught.value.place or "train" in str(caught)


def test_a_recipe_without_a_sweep_is_told_what_to_add(sweep_of):
    with pytest.raises(UseError, match="no section 'sweep'"):
        sweep_of(RECIPE)


def test_a_swept_key_that_is_set_by_hand_is_refused(sweep_of):
    with pytest.raises(UseError, match="--set"):
        sweep_of(swept(SPACE), f"{RATE}=0.5")


def test_trials_that_read_different_numbers_of_a_stage_s_rows_have_folders_of_their_own(sweep_of):
    plan = sweep_of(swept("generate.decomposed.rows: {choice: [10, 20]}", "trials: 2"))
    one, two = plan.plans.values()
    assert one.folder("write").folder == two.folder("write").folder
    assert one.folder("select").folder != two.folder("select").folder


# What is done once, and what by each trial


def test_what_trials_have_in_common_has_one_folder_and_their_trainings_have_their_own(sweep_of):
    plan = sweep_of(swept(SPACE))
    assert len(plan.plans) == 6
    for stage in plan.before_training(1):
        assert len({plan.plans[number].folder(stage.name).folder for number in plan.plans}) == 1
    assert len({plan.plans[number].folder(TRAIN) for number in plan.plans}) == 6
    assert [stage.name for stage in plan.before_training(1)][-1] == "select"
    assert not plan.book.notes


def test_another_choice_of_rows_is_told_to_whoever_compares(sweep_of):
    plan = sweep_of(swept("select.min_confidence: {choice: [0.0, 0.5]}", "trials: 2"))
    assert "different held-out rows" in plan.book.notes[0]


def test_a_trial_is_prepared_when_its_training_rows_are_there(sweep_of):
    plan = sweep_of(swept("select.min_confidence: {choice: [0.0, 0.5]}", "trials: 2"))
    assert not plan.prepared(1)
    made = plan.plans[1].fingerprints["select"]
    plan.plans[1].folder("select").commit(Manifest("select", made.whole, {}, [], 1, {}))
    assert plan.prepared(1)
    assert not plan.prepared(2)


# What is kept


def test_a_score_is_that_of_the_epoch_whose_weights_are_kept():
    history = epochs(0.5, 0.3, 0.4)
    assert score_of(history, "validation_loss") == 0.3
    assert score_of(history, "validation_accuracy") == 0.2
    assert score_of([], "validation_loss") is None


def test_a_sweep_goes_on_where_it_was_killed(sweep_of):
    plan = sweep_of(swept(SPACE))
    states = ["finished", "stopped", "failed", "runs", "waits", "runs"]
    for trial, state in zip(plan.book.trials, states, strict=True):
        trial.state = state
        trial.history = [] if state == "waits" else epochs(0.5)
    train(plan, 1, 0.5)
    train(plan, 6, 0.4, 0.3)  # the kill came between its student and the book
    plan.book.write(plan.base.run)

    again = sweep_of(swept(SPACE)).book.trials
    found = ["finished", "stopped", "waits", "waits", "waits", "finished"]
    assert [trial.state for trial in again] == found
    assert again[5].history == epochs(0.4, 0.3)
    more = sweep_of(swept(SPACE, "trials: 8")).book.trials
    assert [trial.state for trial in more] == [*found, "waits", "waits"]
    assert [trial.values for trial in more[:6]] == [trial.values for trial in again]


def test_trials_of_another_recipe_are_not_mixed_with_those_of_this_one(sweep_of):
    plan = sweep_of(swept(SPACE))
    plan.book.trials[0].state = "stopped"
    plan.book.write(plan.base.run)
    with pytest.raises(UseError, match="another recipe or space, with 1 trials begun"):
        sweep_of(swept(SPACE), "students.encoder.train.epochs=9")
    other = sweep_of(swept(SPACE), "students.encoder.train.epochs=9", update=True)
    assert all(trial.state == "waits" for trial in other.book.trials)


@pytest.fixture
def done(sweep_of):
    """A sweep whose third trial is the best that made a student."""
    plan = sweep_of(swept(SPACE))
    for number, losses in {1: (0.5, 0.4), 3: (0.3, 0.35), 5: (0.6, 0.5)}.items():
        train(plan, number, *losses)
    plan = sweep_of(swept(SPACE))
    for trial in plan.book.trials:
        if trial.state == "waits":
            trial.state, trial.history = "stopped", epochs(0.1)
    plan.book.best = plan.book.ranked()[0].number
    plan.book.write(plan.base.run)
    write_state(promoted(plan.base, sweep_of.load))
    return plan


def test_the_best_of_those_that_made_a_student_goes_into_the_run(done, sweep_of):
    assert done.book.best == 3, "a stopped trial has no student, whatever its loss was"
    best = done.book.trials[2]
    run = done.base.run
    assert (
        run.state()["recipe"]["students"]["encoder"]["train"]["learning_rate"]
        == (best.values[RATE])
    )
    assert run.finished_stages()[TRAIN].manifest().fingerprint == best.fingerprint
    # The recipe does not have these values, and is the run's recipe all the same.
    base = sweep_of(swept(SPACE)).base
    assert base.done(TRAIN)
    refuse_other_recipe(base)
    assert all(trial.settled for trial in sweep_of(swept(SPACE)).book.trials)


def test_what_does_not_touch_the_student_keeps_its_values(done, sweep_of):
    base = sweep_of(swept(SPACE), "serve.max_batch_size=4").base
    assert base.done(TRAIN)
    more = sweep_of(swept(SPACE, "trials: 8"))
    assert more.base.done(TRAIN)
    assert more.book.best == 3, "kept until there is a better one"


@pytest.mark.parametrize("setting", ["students.encoder.train.epochs=9", f"{RATE}=0.5"])
def test_a_recipe_of_another_student_is_refused_and_not_given_these_values(done, sweep_of, setting):
    load = sweep_of.load
    folder = done.base.loaded.folder
    loaded = load_recipe(folder / "recipe.yaml", recipe_model, None, [setting])

    def load_so(values):
        return load_recipe(folder / "recipe.yaml", recipe_model, None, [setting], values)

    plan = plan_run(loaded, done.base.run)
    assert promoted(plan, load_so) is plan
    assert promoted(plan_run(load({}), done.base.run), load).done(TRAIN)
    with pytest.raises(UseError, match="another recipe"):
        refuse_other_recipe(plan)


def test_accuracy_is_better_the_higher_it_is(sweep_of):
    plan = sweep_of(swept(SPACE, "trials: 2\n  metric: validation_accuracy"))
    train(plan, 1, 0.5, 0.4)
    train(plan, 2, 0.3, 0.4)  # the best epoch is the first, whose accuracy is the lower
    book = sweep_of(swept(SPACE, "trials: 2\n  metric: validation_accuracy")).book
    assert [trial.score(book.metric) for trial in book.trials] == [0.2, 0.1]
    assert book.ranked()[0].number == 1


def test_what_all_trials_took_is_part_of_what_making_the_student_took(done):
    ledger = Ledger(done.base.run.ledger)
    for trial in done.book.trials:
        entry = Entry(TRAIN, f"a{trial.number}", "cpu-core", work=trial.works[TRAIN])
        ledger.write(replace(entry, useful_seconds=trial.number))
    ledger.write(Entry(TRAIN, "old", "cpu-core", work="of an older recipe", useful_seconds=50))
    assert sum(e.useful_seconds for e in RunReader(done.base.run).entries) == 1 + 2 + 3 + 4 + 5 + 6
    done.book.account(ledger.entries(), PriceBook(currency="EUR"))
    assert [trial.device_seconds for trial in done.book.trials] == [1, 2, 3, 4, 5, 6]
    assert done.book.trials[0].money is None, "the price book is empty"


def test_the_book_is_read_as_it_was_written(done):
    assert read_book(done.base.run) == done.book


# ASHA after a kill


@pytest.fixture
def asha(sweep_of):
    pytest.importorskip("ray.tune")
    from stillhouse.sweep_trials import scheduler

    def after(**histories):
        plan = sweep_of(
            swept(SPACE, "trials: 6\n  reduction_factor: 2"), "students.encoder.train.epochs=4"
        )
        for number, losses in histories.items():
            trial = plan.book.trials[int(number[1:]) - 1]
            trial.state, trial.history = "stopped", epochs(*losses)
        made = scheduler(plan)
        trial = SimpleNamespace(trial_id="new")
        made.on_trial_add(None, trial)
        return lambda epoch, score: made.on_trial_result(
            None, trial, {"epoch": epoch, "score": score}
        )

    return after


def test_asha_judges_a_trial_beside_those_of_earlier_attempts(asha):
    assert asha()(1, 9.0) == "CONTINUE", "nobody to compare with"
    judge = asha(t1=[0.5], t2=[0.7], t3=[0.6, 0.2])
    assert judge(1, 0.65) == "STOP", "worse than the median of 0.5, 0.6 and 0.7"
    judge = asha(t1=[0.5], t2=[0.7], t3=[0.6, 0.2])
    assert judge(1, 0.55) == "CONTINUE"
    assert judge(2, 0.3) == "STOP", "after two epochs, of 0.2 alone"


def test_asha_leaves_the_last_epoch_to_the_training(asha):
    judge = asha()
    assert [judge(epoch, math.exp(-epoch)) for epoch in (1, 2, 3, 4)] == ["CONTINUE"] * 4


# How many at a time


@pytest.mark.parametrize(
    ("settings", "address", "fits"),
    [
        pytest.param([], None, 4, id="the real cores of this machine"),
        pytest.param([], "auto", 6, id="a cluster has what it says, and there are six trials"),
        pytest.param(["sweep.max_concurrent=3"], None, 3, id="the recipe's bound"),
        pytest.param(["students.encoder.train.workers=2"], None, 2, id="two workers each"),
        pytest.param(
            ["students.encoder.train.workers={min: 1, max: 4}"], None, 1, id="workers that may grow"
        ),
        pytest.param(["students.encoder.train.device={gpus: 0.5}"], None, 4, id="half a GPU"),
        pytest.param(["students.encoder.train.device={gpus: 1}"], "auto", 2, id="a GPU"),
        pytest.param(["students.encoder.train.workers=9"], None, 1, id="one that may not fit"),
    ],
)
def test_no_more_trials_train_at_a_time_than_devices_hold_workers_of(
    sweep_of, monkeypatch, settings, address, fits
):
    from stillhouse import sweep_trials

    monkeypatch.setattr(sweep_trials, "local_resources", lambda: Counter({"CPU": 8.0, "GPU": 2.0}))
    monkeypatch.setattr(sweep_trials.os, "cpu_count", lambda: 4)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address:
        monkeypatch.setenv("RAY_ADDRESS", address)
    plan = sweep_of(swept(SPACE), *settings)
    assert sweep_trials.trials_at_once(plan, list(plan.plans)) == fits


# In words


def test_keys_are_told_by_what_sets_them_apart():
    keys = ["students.a.train.epochs", "students.b.train.epochs", "seed"]
    assert short_keys(keys) == ["a.train.epochs", "b.train.epochs", "seed"]
    assert short_keys(["students.a.train.learning_rate"]) == ["learning_rate"]
