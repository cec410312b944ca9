"""What a run keeps of its ablation: the cells, and what they came to.

Everything in the book follows from the answers that the cells have committed. It is written after
each of them, so that the report can be made where the recipe's own file is gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
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
    claims = [JudgedClaim(**{**one, "gap": _gap(one["gap"])}) for one in found["claims"]]
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
        claims = [_judged(c, by_seed(c.better), by_seed(c.than)) for c in ablation.claims]
        answered = {frozenset(right) for right in rights.values() if right is not None}
        found = Ablations(
            student=self._plan.student,
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
            answered = right_answers(cell.answers.read().to_pylist())
            self._right[cell.fingerprint] = answered[self._plan.student]
        return self._right.get(cell.fingerprint)


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
    both = [pair for pair in zip(first, second, strict=True) if None not in pair]
    pairs = [(a, b) for a, b in both if a is not None and b is not None]
    rows = sorted(set.intersection(*(set(a) & set(b) for a, b in pairs))) if pairs else []
    if not rows:
        return None
    values = np.array([[float(a[row]) - float(b[row]) for row in rows] for a, b in pairs])
    low, high = mean_interval(values)
    return Gap(float(values.mean()), low, high, _spread(values.mean(axis=1).tolist()))


def _judged(
    claim: Claim, better: Sequence[Right | None], than: Sequence[Right | None]
) -> JudgedClaim:
    gap = gap_of(better, than)
    left = any(right is None for right in (*better, *than))
    verdict = None if gap is None or left else verdict_of(gap, claim.by / 100)
    return JudgedClaim(claim.says, claim.better, claim.than, claim.by, gap, verdict)


def verdict_of(gap: Gap, by: float) -> Verdict:
    """Whether a variant is seen to be better than another by more than `by`, a share of 1."""
    if gap.low > by:
        return "seen"
    return "not seen" if gap.high <= by else "cannot tell at this size"
