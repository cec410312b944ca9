"""An ablation before it runs and after: what is refused, which cells there are, what they say."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest
import scipy.stats
from rich.console import Console

from core.errors import UseError
from core.ledger import Entry, Ledger
from core.recipe_file import load_recipe
from core.rows import PREDICTION, REJECTED
from core.run import Folder, Manifest, Run
from stillhouse.ablation_book import (
    DIFFERENT_ROWS,
    Measured,
    contrast,
    gap_of,
    read_ablation,
    verdict_of,
    verdict_of_share,
)
from stillhouse.ablation_plan import plan_ablation
from stillhouse.ablation_table import claims_table, variant_table
from stillhouse.gather_ablation import CHANGED, ablations_of
from stillhouse.methods import recipe_model
from stillhouse.report import bootstrap
from stillhouse.report.bootstrap import mean_interval
from stillhouse.report.data import Gap, JudgedClaim
from stillhouse.run_reader import RunReader
from stillhouse.sweep_book import promoted
from stillhouse.workflow import plan_run, write_state
from tests.unit.test_recipe_file import RECIPE
from tests.unit.test_sweep import RATE, SPACE, TRAIN, epochs, swept

HARD = "students.encoder.train.objective.temperature"
ABLATE = f"""\
ablate:
  seeds: [0, 1]
  variants:
    hard labels: {{{HARD}: 0}}
    fewer items: {{generate.decomposed.rows: 4}}
  claims:
    - {{says: soft labels are better, better: as it is, than: hard labels}}
    - {{says: by far, better: as it is, than: hard labels, by: 40}}
    - {{says: more items are better, better: as it is, than: fewer items}}
"""


@pytest.fixture
def ablation_of(tmp_path):
    """Lays out an ablation by its text."""
    for name in ("examples.jsonl", "evaluation.jsonl"):
        (tmp_path / name).write_text('{"question": "Who won?", "answer": "sports"}\n')

    def lay_out(text, *settings):
        (tmp_path / "recipe.yaml").write_text(text)

        def load(values, variant=None):
            return load_recipe(
                tmp_path / "recipe.yaml", recipe_model, None, settings, values, variant=variant
            )

        lay_out.base = promoted(plan_run(load({}), Run(Folder(str(tmp_path / "run")))), load)
        return plan_ablation(lay_out.base, load)

    return lay_out


def answer(cell, right: int, rows: int = 100, first: int = 0) -> None:
    """Finish a cell as its stages would: the first of its evaluation rows are answered rightly."""
    answers = [
        {"id": str(first + n), "model": "encoder", "question": "?", "choices": ["a", "b"]}
        | {"answer": 0, "predicted": int(n >= right), "probabilities": [0.5, 0.5]}
        | {"difficulty": None}
        for n in range(rows)
    ]
    table = pa.Table.from_pylist(answers, schema=PREDICTION)
    cell.answers.commit_shard("rows", table, REJECTED.empty_table())
    made = cell.plan.fingerprints[cell.predicts]
    cell.answers.commit(Manifest(cell.predicts, made.whole, {}, ["rows"], rows, {}))


# The cells


def test_every_variant_meets_every_seed_and_what_they_have_in_common_is_done_once(ablation_of):
    plan = ablation_of(RECIPE + ABLATE)
    assert [(cell.variant, cell.seed) for cell in plan.cells] == [
        (variant, seed) for seed in (0, 1) for variant in ("as it is", "hard labels", "fewer items")
    ]
    assert all(cell.plan.loaded.recipe.seed == cell.seed for cell in plan.cells)
    whole, hard, fewer = plan.cells[:3]
    assert [stage.name for stage in whole.stages][-2:] == [TRAIN, "predict-encoder"]
    assert "compare-encoder" not in [stage.name for stage in whole.stages]
    asking = [stage.name for stage in whole.asking]
    assert "score" in asking
    assert not {"select", TRAIN} & set(asking), "trainings wait until all rows are there"
    for name in asking:
        assert hard.plan.folder(name) == whole.plan.folder(name)
    assert hard.plan.folder(TRAIN) != whole.plan.folder(TRAIN)
    assert fewer.plan.folder("write").folder == whole.plan.folder("write").folder
    assert fewer.plan.folder("clean").folder != whole.plan.folder("clean").folder
    other = plan.cells[3]
    assert other.plan.folder("evaluation").folder == whole.plan.folder("evaluation").folder
    assert other.plan.folder("write").folder != whole.plan.folder("write").folder


def test_variants_change_what_set_has_set(ablation_of):
    plan = ablation_of(RECIPE + ABLATE, "generate.decomposed.rows=6")
    rows = [cell.plan.loaded.recipe.generate.decomposed.rows for cell in plan.cells[:3]]
    assert rows == [6, 6, 4]


def test_an_ablation_goes_on_with_the_values_of_the_sweep(ablation_of, tmp_path):
    from stillhouse.sweep_plan import plan_sweep

    text = swept(SPACE, "trials: 2") + ABLATE
    ablation_of(text)

    def load(values, variant=None):
        return load_recipe(tmp_path / "recipe.yaml", recipe_model, values=values, variant=variant)

    found = plan_sweep(ablation_of.base, load)
    made = found.plans[2].fingerprints[TRAIN]
    facts = {"history": epochs(0.1)}
    manifest = Manifest(TRAIN, made.whole, made.made_from, [], 10, {}, facts)
    found.plans[2].folder(TRAIN).commit(manifest)
    found.book.best = 2
    found.book.write(ablation_of.base.run)
    rates = {
        cell.plan.loaded.recipe.students["encoder"].train.learning_rate
        for cell in ablation_of(text).cells
    }
    assert rates == {found.book.trials[1].values[RATE]}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("ablate: {variants: {}}", "at least 1", id="no variants"),
        pytest.param("ablate: {variants: {a: {}}}", "at least 1", id="no change"),
        pytest.param(
            f"ablate: {{variants: {{as it is: {{{HARD}: 0}}}}}}", "the recipe itself", id="the name"
        ),
        pytest.param(
            f"ablate: {{seeds: [1, 1], variants: {{a: {{{HARD}: 0}}}}}}", "one twice", id="seeds"
        ),
        pytest.param("ablate: {variants: {a: {seed: 3}}}", "seed of its own", id="seed"),
        pytest.param(
            f"ablate: {{student: x, variants: {{a: {{{HARD}: 0}}}}}}",
            "students has: encoder",
            id="no such student",
        ),
        pytest.param(
            ABLATE + "    - {says: '?', better: as it is, than: soft labels}\n",
            "the variants are: as it is, hard labels, fewer items",
            id="no such variant",
        ),
        pytest.param(
            ABLATE + "    - {says: '?', better: as it is, than: as it is}\n",
            "with itself",
            id="one variant",
        ),
        pytest.param("", "no section 'ablate'", id="no section"),
    ],
)
def test_an_ablation_that_cannot_be_is_refused(ablation_of, text, says):
    with pytest.raises(UseError, match=says):
        ablation_of(RECIPE + text)


def test_an_impossible_cell_is_named_with_what_is_wrong(ablation_of):
    text = "ablate: {variants: {none at all: {generate.decomposed.rows: 0}}}"
    with pytest.raises(UseError, match="greater than or equal to 1") as caught:
        ablation_of(RECIPE + text)
    assert caught.value.place == "ablate.variants, 'none at all' with seed 0"
    assert "generate.decomposed.rows = 0" in caught.value.cause


def test_a_variant_that_changes_nothing_is_refused(ablation_of):
    text = "ablate: {variants: {small batches: {serve.max_batch_size: 4}}}"
    with pytest.raises(UseError, match="nothing that it changes decides"):
        ablation_of(RECIPE + text)


# What they come to


def test_the_book_tells_what_the_cells_have_come_to(ablation_of):
    plan = ablation_of(RECIPE + ABLATE)
    whole, hard, fewer, whole_1, hard_1, fewer_1 = plan.cells
    for cell, right in ((whole, 90), (hard, 60), (whole_1, 88), (hard_1, 62)):
        answer(cell, right)
    found = Measured(plan).book().found
    assert (found.rows, found.done, found.cells) == (100, 4, 6)
    assert [v.mean for v in found.variants] == [0.89, 0.61, None]
    assert found.variants[0].spread == pytest.approx(np.std([0.9, 0.88], ddof=1))
    assert found.variants[0].gap is None
    gap = found.variants[1].gap
    assert gap.mean == pytest.approx(-0.28)
    assert gap.low < -0.28 < gap.high < 0
    assert [claim.verdict for claim in found.claims] == ["seen", "not seen", None]
    assert found.claims[0].gap.mean == pytest.approx(0.28)
    assert found.variants[2].gap is None

    answer(fewer, 90)
    half = Measured(plan).book().found
    assert half.variants[2].mean == 0.9
    assert half.variants[2].spread is None, "one seed has none"
    assert half.claims[2].verdict is None, "a seed is left"
    answer(fewer_1, 87)
    done = Measured(plan).book()
    assert done.found.claims[2].verdict == "cannot tell at this size"
    assert not done.found.notes
    done.write(plan.base.run)
    assert read_ablation(plan.base.run) == done


def test_cells_that_answered_different_rows_are_compared_on_those_in_common(ablation_of):
    plan = ablation_of(RECIPE + ABLATE)
    for cell in plan.cells:
        answer(cell, 50, first=30 if cell.variant == "hard labels" else 0)
    found = Measured(plan).book().found
    assert found.rows is None
    assert found.notes == [DIFFERENT_ROWS]
    # Of rows 30 to 99 the one has 30 to 49 right, the other 30 to 79.
    assert found.variants[1].gap.mean == pytest.approx(30 / 70)


def test_another_number_of_rows_leaves_the_run_s_own_stages_done(ablation_of):
    plan = ablation_of(RECIPE + ABLATE)
    whole, _, fewer = plan.cells[:3]
    write_state(whole.plan)
    for cell, keys in ((whole, ["one", "two"]), (fewer, ["one"])):
        made = cell.plan.fingerprints["write"]
        cell.plan.folder("write").commit(Manifest("write", made.whole, {}, keys, 10, {}))
    assert whole.plan.done("write").shards == ["one", "two"]
    assert fewer.plan.done("write").shards == ["one"]
    assert plan.base.run.finished_stages()["write"].manifest().shards == ["one", "two"]


def test_the_report_has_what_the_cells_took_beside_the_run_itself(ablation_of):
    plan = ablation_of(RECIPE + ABLATE)
    write_state(plan.base)
    Measured(plan).book().write(plan.base.run)
    ledger = Ledger(plan.base.run.ledger)
    for number, cell in enumerate(plan.cells):
        entry = Entry(TRAIN, f"a{number}", "cpu-core", useful_seconds=10.0**number)
        work = cell.plan.fingerprints[TRAIN].work
        ledger.write(Entry(**{**vars(entry), "work": work}))
    found = ablations_of(RunReader(plan.base.run))
    assert found.device_seconds == 111110, "the first is the run itself"
    assert not found.notes
    changed = ablation_of(RECIPE + ABLATE, "students.encoder.train.epochs=9")
    write_state(changed.base)
    assert ablations_of(RunReader(plan.base.run)).notes == [CHANGED]
    with pytest.raises(UseError):
        ablation_of(RECIPE)
    write_state(ablation_of.base)
    assert ablations_of(RunReader(plan.base.run)) is None


def test_the_terminal_has_every_variant_and_claim(ablation_of):
    plan = ablation_of(RECIPE + ABLATE)
    answer(plan.cells[0], 90)
    answer(plan.cells[1], 60)
    found = Measured(plan).book().found
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(variant_table(found), claims_table(found))
    lines = console.export_text().splitlines()
    (hard,) = (line for line in lines if line.startswith("hard labels"))
    assert "60.0%" in hard
    assert "\N{MINUS SIGN}30.0" in hard
    assert "1 of 2" in hard
    assert sum("cells are left" in line for line in lines) == 3


# The arithmetic


def test_a_difference_is_over_rows_and_seeds_that_both_have():
    first = [{"a": True, "b": True}, {"a": True, "b": False}, None]
    second = [{"a": False, "b": True}, {"a": True, "b": False}, {"a": True, "b": True}]
    gap = gap_of(first, second)
    assert gap.mean == 0.25
    assert gap.spread == pytest.approx(np.std([0.5, 0.0], ddof=1))
    assert gap_of([None], [{"a": True}]) is None
    assert gap_of([{"a": True}], [{"b": True}]) is None


@pytest.mark.parametrize(
    ("low", "high", "by", "verdict"),
    [
        (0.01, 0.03, 0.0, "seen"),
        (0.0, 0.03, 0.0, "cannot tell at this size"),
        (-0.01, 0.03, 0.0, "cannot tell at this size"),
        (-0.03, -0.01, 0.0, "not seen"),
        (0.0, 0.0, 0.0, "not seen"),
        (0.01, 0.03, 0.02, "cannot tell at this size"),
        (0.01, 0.02, 0.02, "not seen"),
        (0.03, 0.05, 0.02, "seen"),
    ],
)
def test_a_verdict_needs_the_whole_interval(low, high, by, verdict):
    assert verdict_of(Gap((low + high) / 2, low, high, None), by) == verdict


def test_a_share_of_a_gain_is_judged_by_what_is_kept_beyond_it():
    """Of 20 rows the whole gain is 10, of which a variant keeps 9 with one seed and 10 with the
    other."""
    rows = [str(n) for n in range(20)]
    none = {row: int(row) < 5 for row in rows}
    whole = {row: int(row) < 15 for row in rows}
    some = [{row: int(row) < 14 for row in rows}, whole]
    kept = contrast([(1.0, some), (-0.9, [whole] * 2), (-0.1, [none] * 2)])
    gain = gap_of([whole] * 2, [none] * 2)
    assert gain.mean == pytest.approx(0.5)
    assert kept.mean == pytest.approx((9.5 / 10 - 0.9) * 0.5)
    assert kept.low < kept.mean < kept.high
    claim = JudgedClaim("9 of 10", "some", "none", 0.0, kept, None, 0.9, "whole", gain)
    assert claim.kept == pytest.approx(0.95)


@pytest.mark.parametrize(
    ("kept", "gain", "verdict"),
    [
        ((0.01, 0.02), (0.1, 0.2), "seen"),
        ((-0.02, 0.0), (0.1, 0.2), "not seen"),
        ((-0.01, 0.01), (0.1, 0.2), "cannot tell at this size"),
        ((0.01, 0.02), (-0.1, 0.2), "cannot tell at this size"),
        ((0.01, 0.02), (-0.2, 0.0), "not seen"),
    ],
)
def test_of_a_gain_that_is_not_seen_nothing_is_told(kept, gain, verdict):
    gaps = [Gap(sum(ends) / 2, *ends, None) for ends in (kept, gain)]
    assert verdict_of_share(*gaps) == verdict


def test_with_one_seed_the_interval_is_that_of_the_rows():
    values = np.random.default_rng(3).choice([-1.0, 0.0, 1.0], size=400, p=[0.1, 0.7, 0.2])
    usual = scipy.stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=10_000, rng=1
    )
    found = mean_interval(values[None])
    assert found == pytest.approx(tuple(usual.confidence_interval), abs=0.004)


def test_seeds_that_differ_widen_the_interval():
    rows = np.random.default_rng(4).choice([-1.0, 0.0, 1.0], size=(3, 400), p=[0.1, 0.8, 0.1])
    alike = np.repeat(rows[:1], 3, axis=0)
    apart = alike + np.array([[-0.1], [0.0], [0.1]])

    def width(values):
        low, high = mean_interval(values)
        return high - low

    assert width(alike) == pytest.approx(width(rows[:1]), rel=0.05), "the same row thrice is one"
    assert width(apart) > 1.5 * width(alike)


def test_the_interval_holds_what_is_so_in_nineteen_of_twenty_cases(monkeypatch):
    monkeypatch.setattr(bootstrap, "RESAMPLES", 1000)
    random = np.random.default_rng(5)
    held = 0
    for _ in range(200):
        row, seed = random.normal(0, 0.05, 300), random.normal(0, 0.01, 3)
        better = 0.15 + (row[None] + seed[:, None]) / 2
        drawn = random.random((3, 300))
        values = np.where(drawn < better, 1.0, np.where(drawn < 0.3, -1.0, 0.0))
        low, high = mean_interval(values)
        held += low <= 0 <= high
    assert held >= 185
