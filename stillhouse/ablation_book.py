"""What a run keeps of its ablation: the cells, and what they came to.

Everything in the book follows from the answers that the cells have committed. It is written after
each of them, so that the report can be made where the recipe's own file is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from core.recipe_ablation import AS_IT_IS, Claim
from core.run import Run
from stillhouse.ablation_plan import AblationPlan, Cell
from stillhouse.report.bootstrap import mean_interval
from stillhouse.report.data import Ablations, Gap, JudgedClaim, Variant, Verdict
from stillhouse.right_answers import Right, right_answers

BOOK = "ablations.json"
"""File of a run."""

DIFFERENT_ROWS = (
    "Not all cells have answered the same evaluation rows; each difference is over those that both "
    "have answered."
)


@dataclass(frozen=True)
class CellRecord:
    """A cell as the book has it."""

    variant: str
    seed: int
    fingerprint: str
    """Of its answers, with all that they are made from."""
    works: dict[str, str]
    """By stage: what names the folder, and the entries in the ledger."""


@dataclass(frozen=True)
class AblationBook:
    """A run's ablation."""

    found: Ablations
    cells: list[CellRecord]

    def write(self, run: Run) -> None:
        """Put the book into a run."""
        run.folder.write_json(BOOK, asdict(self))


def read_ablation(run: Run) -> AblationBook | None:
    """The book of a run's ablation, or None where it has none."""
    if not run.folder.has(BOOK):
        return None
    content = run.folder.read_json(BOOK)
    found = content["found"]
    variants = [Variant(**{**one, "gap": _gap(one["gap"])}) for one in found["variants"]]
    claims = [
        JudgedClaim(**{**one, "gap": _gap(one["gap"]), "gain": _gap(one["gain"])})
        for one in found["claims"]
    ]
    return AblationBook(
        Ablations(**{**found, "variants": variants, "claims": claims}),
        [CellRecord(**cell) for cell in content["cells"]],
    )


def _gap(content: dict[str, Any] | None) -> Gap | None:
    return None if content is None else Gap(**content)


class Measured:
    """The cells of an ablation by what they have answered; each is read once."""

    def __init__(self, plan: AblationPlan) -> None:
        self._plan = plan
        self._right: dict[str, Right] = {}
        self._other: dict[str, float | None] = {}
        """Shares by the measure that decides nothing."""

    def book(self) -> AblationBook:
        """What the cells that are done have come to."""
        ablation = self._plan.ablation
        rights = {(cell.variant, cell.seed): self._of(cell) for cell in self._plan.cells}

        def by_seed(variant: str) -> list[Right | None]:
            return [rights[variant, seed] for seed in ablation.seeds]

        whole = by_seed(AS_IT_IS)
        variants = [_variant(AS_IT_IS, {}, whole, None)]
        variants += [
            _variant(name, changes, by_seed(name), whole)
            for name, changes in ablation.variants.items()
        ]
        variants = [replace(one, other=self._other_mean(one.name)) for one in variants]
        claims = [_judged(claim, by_seed) for claim in ablation.claims]
        answered = {frozenset(right) for right in rights.values() if right is not None}
        found = Ablations(
            student=self._plan.student,
            judged_by=ablation.judged_by,
            seeds=ablation.seeds,
            rows=len(next(iter(answered))) if len(answered) == 1 else None,
            variants=variants,
            claims=claims,
            notes=[DIFFERENT_ROWS] if len(answered) > 1 else [],
        )
        return AblationBook(found, [_record(cell) for cell in self._plan.cells])

    def share(self, cell: Cell) -> float:
        """Right answers of a cell that is done, 0 to 1."""
        right = self._of(cell)
        assert right is not None, "it is done"
        return _share(right)

    def _of(self, cell: Cell) -> Right | None:
        if cell.fingerprint not in self._right and cell.done:
            rows = cell.answers.read().to_pylist()
            student, by_choice = self._plan.student, self._plan.ablation.judged_by == "choice"
            self._right[cell.fingerprint] = right_answers(rows, by_choice=by_choice)[student]
            scored = any(row.get("right_choice") is not None for row in rows)
            other = right_answers(rows, by_choice=not by_choice)[student] if scored else None
            self._other[cell.fingerprint] = None if other is None else _share(other)
        return self._right.get(cell.fingerprint)

    def _other_mean(self, variant: str) -> float | None:
        """A variant's mean over the seeds that are done, by the measure that decides nothing."""
        made = [cell.fingerprint for cell in self._plan.cells if cell.variant == variant]
        shares = [self._other[one] for one in made if one in self._other]
        known = [share for share in shares if share is not None]
        return float(np.mean(known)) if known and len(known) == len(shares) else None


def _record(cell: Cell) -> CellRecord:
    works = {stage.name: cell.plan.fingerprints[stage.name].work for stage in cell.stages}
    return CellRecord(cell.variant, cell.seed, cell.fingerprint, works)


def _variant(
    name: str,
    changes: dict[str, Any],
    by_seed: Sequence[Right | None],
    whole: Sequence[Right | None] | None,
) -> Variant:
    shares = [None if right is None else _share(right) for right in by_seed]
    done = [share for share in shares if share is not None]
    return Variant(
        name=name,
        changes=changes,
        by_seed=shares,
        mean=float(np.mean(done)) if done else None,
        spread=_spread(done),
        gap=None if whole is None else gap_of(by_seed, whole),
    )


def _share(right: Right) -> float:
    return sum(right.values()) / len(right)


def _spread(shares: Sequence[float]) -> float | None:
    return float(np.std(shares, ddof=1)) if len(shares) > 1 else None


def gap_of(first: Sequence[Right | None], second: Sequence[Right | None]) -> Gap | None:
    """How much better the first is, over the rows that both have answered with every seed.

    Args:
        first: By seed; None of a cell that is not done.
        second: The same of the other.
    """
    return contrast([(1.0, first), (-1.0, second)])


def contrast(terms: Sequence[tuple[float, Sequence[Right | None]]]) -> Gap | None:
    """A weighted sum of shares of right answers, over rows that all have answered with every seed.

    Args:
        terms: A weight, and by seed the answers of a variant; None of a cell that is not done.
    """
    weights = [weight for weight, _ in terms]
    found = [
        [right for right in seed if right is not None]
        for seed in zip(*(rights for _, rights in terms), strict=True)
    ]
    whole = [seed for seed in found if len(seed) == len(terms)]
    rows = sorted(set.intersection(*(set(r) for seed in whole for r in seed))) if whole else []
    if not rows:
        return None
    values = np.array(
        [
            [sum(w * right[row] for w, right in zip(weights, seed, strict=True)) for row in rows]
            for seed in whole
        ]
    )
    low, high = mean_interval(values)
    return Gap(float(values.mean()), low, high, _spread(values.mean(axis=1).tolist()))


def _judged(claim: Claim, by_seed: Callable[[str], list[Right | None]]) -> JudgedClaim:
    better, than = by_seed(claim.better), by_seed(claim.than)
    left = any(right is None for name in claim.variants for right in by_seed(name))
    if claim.keeps is None or claim.of is None:
        gap = gap_of(better, than)
        verdict = None if gap is None or left else verdict_of(gap, claim.by / 100)
        return JudgedClaim(claim.says, claim.better, claim.than, claim.by, gap, verdict)
    whole = by_seed(claim.of)
    kept = contrast([(1.0, better), (-claim.keeps, whole), (claim.keeps - 1.0, than)])
    gain = gap_of(whole, than)
    verdict = None if kept is None or gain is None or left else verdict_of_share(kept, gain)
    return JudgedClaim(
        claim.says, claim.better, claim.than, 0.0, kept, verdict, claim.keeps, claim.of, gain
    )


def verdict_of_share(kept: Gap, gain: Gap) -> Verdict:
    """Whether a variant is seen to keep more than a share of a gain.

    Of a gain that is not seen itself nothing can be told, and of one that is no gain nothing kept.

    Args:
        kept: What the variant has beyond that share of the gain.
        gain: The whole gain.
    """
    if gain.high <= 0:
        return "not seen"
    return verdict_of(kept, 0.0) if gain.low > 0 else "cannot tell at this size"


def verdict_of(gap: Gap, by: float) -> Verdict:
    """Whether a variant is seen to be better than another by more than `by`, a share of 1."""
    if gap.low > by:
        return "seen"
    return "not seen" if gap.high <= by else "cannot tell at this size"
