"""Which generated rows are worth scoring: each check by hand, and the stage over shards."""

import uuid
from functools import partial
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import UseError
from core.recipe_curation import Curate
from core.rows import GENERATED, TASK
from core.run import Folder, Manifest, Run
from core.stage import StageContext
from pipelines import curation
from pipelines.balance import balance_key, surplus
from pipelines.choice_sets import choice_fault
from pipelines.contamination import EvaluationNgrams
from pipelines.curation import curate
from pipelines.duplicates import equal_runs, first_of_equal, normal_form, text_key
from pipelines.language import SHORTEST_BYTES, LanguageFilter

CHOICES = ["business", "sports"]
NOTHING_ON = {"min_words": 1, "contamination_ngram": None}


def test_normal_form_keeps_letters_of_every_script():
    assert normal_form("Ελλάδα — 東京, مصر!") == "ελλάδα 東京 مصر"


def test_text_keys_are_equal_where_normal_forms_are():
    assert text_key("Rates  RISE!") == text_key("rates rise") != text_key("rate rise")


@given(st.lists(st.integers(0, 9)))
def test_the_first_of_equal_keys_is_the_earliest(keys):
    first = first_of_equal(np.array(keys, dtype=np.uint64))
    assert first.tolist() == [keys.index(key) for key in keys]


@given(st.lists(st.integers(0, 9)))
def test_runs_hold_exactly_the_rows_that_are_not_alone(keys):
    rows, begins = equal_runs(np.array(keys, dtype=np.uint64))
    assert sorted(rows.tolist()) == [n for n, key in enumerate(keys) if keys.count(key) > 1]
    assert all(keys[row] == keys[rows[begin]] for row, begin in zip(rows, begins, strict=True))


def test_long_inputs_are_looked_up_in_parts(monkeypatch):
    monkeypatch.setattr("pipelines.duplicates.AT_ONCE", 2)
    keys = np.array([5, 2**64 - 1, 5, 7, 2**64 - 1], dtype=np.uint64)
    assert first_of_equal(keys).tolist() == [0, 1, 0, 3, 1]


def test_a_row_that_shares_n_words_with_an_evaluation_row_is_contaminated():
    evaluation = [("a", "The team wins the cup at last"), ("b", "At last the team wins")]
    ngrams = EvaluationNgrams(evaluation, 3)
    assert ngrams.shared("Surely the TEAM wins, they say") == {
        "a": "the team wins",
        "b": "the team wins",
    }
    assert ngrams.shared("wins the cup") == {"a": "wins the cup"}
    assert ngrams.shared("the team, it wins the big cup") == {}
    assert ngrams.shared("") == {}


def test_a_short_evaluation_row_matches_as_a_whole_only():
    ngrams = EvaluationNgrams([("short", "Rates rise"), ("empty", "?!")], 3)
    assert ngrams.shared("rates rise!") == {"short": "rates rise"}
    assert ngrams.shared("Rates rise again today") == {}
    assert ngrams.shared("!?") == {}


@given(st.lists(st.text("ab ", max_size=12), max_size=5), st.text("ab ", max_size=12))
def test_contamination_is_what_comparing_all_words_finds(evaluation, text):
    def windows(one):
        words = one.split()
        if len(words) < 2:
            return {tuple(words)} - {()}
        return {tuple(words[place : place + 2]) for place in range(len(words) - 1)}

    found = EvaluationNgrams(((str(n), one) for n, one in enumerate(evaluation)), 2).shared(text)
    assert set(found) == {
        str(n) for n, one in enumerate(evaluation) if windows(one) & windows(text)
    }


@pytest.fixture(scope="module")
def english():
    return LanguageFilter(["en"], 0.02)


def test_other_languages_are_not_wanted(english):
    assert english.unwanted("The government announces a new law on work") is None
    language, probability = english.unwanted("Il governo annuncia una nuova legge sul lavoro")
    assert language == "it"
    assert probability < 0.02
    assert english.unwanted("Правительство объявило новый закон")[0] == "ru"


def test_several_languages_may_be_wanted():
    both = LanguageFilter(["en", "it"], 0.5)
    assert both.unwanted("Il governo annuncia una nuova legge sul lavoro") is None
    assert both.unwanted("Die Regierung kündigt ein neues Gesetz an")[0] == "de"


def test_short_texts_are_not_judged(english):
    text = "Правительство объявило новый закон"
    assert english.unwanted(text[: SHORTEST_BYTES // 2 - 1]) is None
    assert english.unwanted("") is None


def test_an_unknown_language_is_an_error():
    with pytest.raises(UseError, match="xx"):
        LanguageFilter(["en", "xx"], 0.5)


def test_the_largest_label_has_at_most_so_many_times_the_rows_of_the_smallest():
    labels = np.array([0, 0, 0, 0, 1, 2, 2, 2])
    keys = np.array([4, 1, 3, 2, 9, 5, 7, 6], dtype=np.uint64)
    # One row of label 1: two of each other label may stay, those with the smallest keys.
    assert np.flatnonzero(surplus(labels, keys, 2.9)).tolist() == [0, 2, 6]
    assert not surplus(labels, keys, 4).any()
    assert np.flatnonzero(surplus(labels, keys, 1)).tolist() == [0, 2, 3, 6, 7]


def test_nothing_is_dropped_from_nothing_and_a_label_without_rows_does_not_count():
    assert surplus(np.empty(0, np.int16), np.empty(0, np.uint64), 1.0).tolist() == []
    keys = np.array([1, 2], dtype=np.uint64)
    assert not surplus(np.array([0, 2]), keys, 1.0).any()


@given(st.dictionaries(st.text(max_size=5), st.integers(0, 3)), st.randoms(), st.integers(1, 3))
def test_which_rows_balance_drops_does_not_depend_on_their_order(rows, random, ratio):
    def kept(ids):
        labels = np.array([rows[one] for one in ids], dtype=np.int16)
        keys = np.array([balance_key(one, 0) for one in ids], dtype=np.uint64)
        dropped = surplus(labels, keys, ratio)
        return {one for one, gone in zip(ids, dropped, strict=True) if not gone}

    ids = list(rows)
    random.shuffle(ids)
    stay = kept(ids)
    assert stay == kept(list(rows))
    counts = np.bincount([rows[one] for one in stay], minlength=1)
    assert counts.max() <= ratio * counts[counts > 0].min(initial=len(rows))
    # A label is not cut further than it must be: the smallest stays whole.
    smallest = min(np.bincount(list(rows.values()))[sorted(set(rows.values()))], default=0)
    assert min(counts[counts > 0], default=0) == smallest


def test_the_seed_decides_who_goes():
    ids = [str(number) for number in range(50)]
    orders = [sorted(ids, key=lambda one, s=seed: balance_key(one, s)) for seed in (0, 1)]
    assert orders[0] != orders[1]


@pytest.mark.parametrize(
    ("choices", "answer", "fault"),
    [
        (["a", "b"], 1, None),
        (["a", "b"], None, None),
        (["5", "-5"], 0, None),
        (["C", "C++"], 0, None),
        ([], None, "too-few-choices"),
        (["a"], 0, "too-few-choices"),
        (["a", "  "], 0, "missing-choice"),
        (["Paris.", "Rome", " paris"], 1, "duplicate-choices"),
        (["a", "b"], 2, "answer-outside"),
        (["a", "b"], -1, "answer-outside"),
    ],
)
def test_choices_that_cannot_be_chosen_from_have_a_fault(choices, answer, fault):
    found = choice_fault(choices, answer)
    assert (found and found[0]) == fault


def item(row_id, question, intended=0, mode="decomposed", choices=CHOICES):
    return {
        "id": row_id,
        "teacher": "t",
        "mode": mode,
        "question": question,
        "choices": choices,
        "intended": intended,
        "usage": {"requests": 1, "tokens_in": 1, "tokens_cached": 0, "tokens_out": 1},
    }


def task_rows(questions):
    return [
        {"id": f"task{n}", "question": text, "choices": CHOICES, "answer": 0, "difficulty": None}
        for n, text in enumerate(questions)
    ]


def curate_rows(folder, *inputs, examples=(), evaluation=(), seed=0, **settings):
    """Curate inputs of several shards each, and give the result, the rows and the rejections."""
    run = Run(Folder(str(folder)).child(uuid.uuid4().hex))
    logs = folder / "logs"
    logs.mkdir(exist_ok=True)

    def finished(name, schema, shards):
        stage = run.stage(name, "w")
        for key, rows in enumerate(shards):
            stage.commit_shard(str(key), pa.Table.from_pylist(rows, schema=schema), pa.table({}))
        rows = sum(len(shard) for shard in shards)
        stage.commit(Manifest(name, "f", {}, [str(key) for key in range(len(shards))], rows, {}))
        return stage

    written = {f"write{n}": finished(f"write{n}", GENERATED, one) for n, one in enumerate(inputs)}
    stage = run.stage("clean", "w")
    context = StageContext(
        stage=stage,
        recipe=None,
        settings={**Curate.model_validate(settings).model_dump(), "seed": seed},
        inputs={
            "examples": finished("examples", TASK, [task_rows(examples)]),
            "evaluation": finished("evaluation", TASK, [task_rows(evaluation)]),
            **written,
        },
        engine=None,
        model=None,
        fingerprint="f",
        attempt="a",
        over_budget=lambda _: None,
        write_entry=None,
        show=lambda progress: None,
        logs=logs,
    )
    result = curate(context)
    assert not list(logs.iterdir()), "what is spilled is deleted"
    stage.commit(
        Manifest("clean", "f", {}, result.shards, result.rows, result.rejected, result.facts)
    )
    rejected = {row["id"]: row for row in stage.read_rejected().to_pylist()}
    return SimpleNamespace(result=result, rows=stage.read(), rejected=rejected, stage=stage)


@pytest.fixture
def curated(tmp_path):
    return partial(curate_rows, tmp_path)


def reasons(found) -> dict:
    return {row_id: row["reason"] for row_id, row in found.rejected.items()}


def test_curation_keeps_one_of_each_and_counts_the_rest(curated):
    found = curated(
        [
            [item("0", "Team wins the cup"), item("1", "team  WINS the cup!")],
            [item("2", "Rates"), item("3", "?!"), item("4", "a " * 30)],
        ],
        [[item("5", "Rates rise now", mode="json"), item("6", "Old team wins", mode="json")]],
        examples=["Rates rise, now"],
        **{**NOTHING_ON, "min_words": 2, "max_words": 20},
    )
    assert found.rows["id"].to_pylist() == ["0", "6"]
    assert found.rows.schema.equals(GENERATED)
    assert reasons(found) == {
        "1": "duplicate",
        "2": "too-short",
        "3": "empty",
        "4": "too-long",
        "5": "duplicate",
    }
    assert found.rejected["1"]["detail"] == "the same as item 0"
    assert found.rejected["5"]["detail"] == "the same as an example"
    assert '"question": "Rates rise now"' in found.rejected["5"]["original"]
    assert found.result.rows == 2
    assert found.result.rejected == {"duplicate": 2, "too-short": 1, "empty": 1, "too-long": 1}
    assert found.result.facts == {
        "rejected_by_mode": {
            "decomposed": {"duplicate": 1, "too-short": 1, "empty": 1, "too-long": 1},
            "json": {"duplicate": 1},
        },
        "kept_by_mode": {"decomposed": 1, "json": 1},
        "contamination": {},
    }


def test_without_rows_there_is_an_empty_shard(curated):
    for inputs in ([], [[[]]], [[]]):
        found = curated(*inputs, **NOTHING_ON, near_duplicates={}, max_class_ratio=2.0)
        assert found.rows.num_rows == found.result.rows == 0
        assert found.rows.schema.equals(GENERATED)


def test_a_row_that_is_dropped_by_itself_takes_no_other_with_it(curated):
    # "a-b" is one word and "a b" two, but they have one normal form.
    found = curated([[item("0", "a-b"), item("1", "a b")]], **{**NOTHING_ON, "min_words": 2})
    assert found.rows["id"].to_pylist() == ["1"]


def test_near_duplicates_name_the_row_that_stands_for_them(curated):
    text = "The city council voted to close the old swimming pool by the river this winter"
    found = curated(
        [[item("0", text)], [item("1", text.replace("winter", "winters")), item("2", text)]],
        [[item("3", "A quite different matter was reported today by the evening newspapers")]],
        examples=["The evening newspapers reported today a quite different matter"],
        **NOTHING_ON,
        near_duplicates={},
    )
    assert found.rows["id"].to_pylist() == ["0", "3"]
    assert reasons(found) == {"1": "near-duplicate", "2": "duplicate"}
    assert found.rejected["1"]["detail"] == "nearly the same as item 0"
    off = curated([[item("0", text)], [item("1", text.replace("winter", "winters"))]], **NOTHING_ON)
    assert off.result.rows == 2


def test_near_copies_of_examples_are_dropped(curated):
    text = "The city council voted to close the old swimming pool by the river this winter"
    found = curated(
        [[item("0", text + "s")]], examples=[text], **NOTHING_ON, near_duplicates={"threshold": 0.9}
    )
    assert found.rejected["0"]["detail"] == "nearly the same as an example"


def test_contamination_is_counted_by_evaluation_row(curated):
    found = curated(
        [[item("0", "now the team wins"), item("1", "the team wins big"), item("2", "it rains")]],
        evaluation=["they say the team wins", "the team wins", "nobody wins"],
        min_words=1,
        contamination_ngram=3,
    )
    assert found.rows["id"].to_pylist() == ["2"]
    assert reasons(found) == {"0": "contaminated", "1": "contaminated"}
    assert found.rejected["0"]["detail"] == "evaluation row task0 has the words 'the team wins' too"
    assert found.result.facts["contamination"] == {"task0": 2, "task1": 2}


def test_languages_and_choices_are_checked(curated):
    found = curated(
        [
            [
                item("0", "Il governo annuncia una nuova legge sul lavoro"),
                item("1", "The government announces a new law on work"),
                item("2", "Which of these is it?", choices=["one", "One"]),
            ]
        ],
        **NOTHING_ON,
        languages={"wanted": ["en"]},
    )
    assert found.rows["id"].to_pylist() == ["1"]
    assert reasons(found) == {"0": "language", "2": "duplicate-choices"}
    assert found.rejected["0"]["detail"].startswith("likeliest it;")


def test_balance_counts_only_rows_that_are_otherwise_kept(curated):
    rows = [item(f"s{n}", f"match {n}", intended=1) for n in range(6)]
    rows += [item("b0", "rates rise"), item("b1", "rates fall"), item("b2", "Rates fall!")]
    found = curated([rows[:4], rows[4:]], **NOTHING_ON, max_class_ratio=1.5)
    kept = found.rows["id"].to_pylist()
    # Two of business once its duplicate is gone, so three of sports.
    assert [row_id for row_id in kept if row_id[0] == "b"] == ["b0", "b1"]
    assert len(kept) == 5
    assert found.result.rejected == {"unbalanced": 3, "duplicate": 1}
    unbalanced = next(row for row in found.rejected.values() if row["reason"] == "unbalanced")
    assert unbalanced["detail"] == "sports has more than 1.5 times the rows of the rarest choice"
    again = curated([rows[:1], rows[1:]], **NOTHING_ON, max_class_ratio=1.5)
    assert again.rows["id"].to_pylist() == kept


def test_output_shards_have_bounded_sizes_and_keep_the_order(curated, monkeypatch):
    monkeypatch.setattr(curation, "SHARD_ROWS", 4)
    shards = [[item(f"{s}-{n}", f"row {s} {n}") for n in range(3)] for s in range(4)]
    shards[1][0]["question"] = "row 0 0"
    found = curated(shards, **NOTHING_ON)
    assert [table.num_rows for table in found.stage.iter_shards()] == [5, 6]
    assert found.rows["id"].to_pylist() == [
        row["id"] for shard in shards for row in shard if row["id"] != "1-0"
    ]
    assert reasons(found) == {"1-0": "duplicate"}


@settings(max_examples=25, deadline=None)  # each writes a dozen files
@given(st.lists(st.text("ab -!", max_size=4), max_size=12), st.integers(1, 5))
def test_what_is_kept_does_not_depend_on_how_rows_are_cut_into_shards(
    tmp_path_factory, questions, size
):
    rows = [item(str(n), text) for n, text in enumerate(questions)]
    forms = [normal_form(text) for text in questions]
    expected = [str(n) for n, form in enumerate(forms) if form and forms.index(form) == n]
    shards = [rows[start : start + size] for start in range(0, len(rows), size)]
    found = curate_rows(tmp_path_factory.mktemp("curated"), shards, **NOTHING_ON)
    assert found.rows["id"].to_pylist() == expected
