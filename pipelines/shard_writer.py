"""The rows of a stage that makes them from other rows, a shard at a time."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa

from core.run import StageFolder, count_by_reason
from core.stage import Progress, StageContext, StageResult
from pipelines.row_work import Row


class ShardWriter:
    """Commits shards one after the other, counts, and shows how far it is."""

    def __init__(
        self,
        context: StageContext,
        schema: pa.Schema,
        *,
        named: str = "rows-",
        of: StageFolder | None = None,
    ) -> None:
        """Begin with the first shard.

        Args:
            context: Of the stage.
            schema: Of its rows.
            named: What the names of shards begin with; their number follows.
            of: The finished stage whose rows are worked off; if absent, nobody knows what is left.
        """
        manifest = of and of.manifest()
        assert of is None or manifest is not None, "the workflow runs the stages in their order"
        self.rows = 0
        self._context = context
        self._schema = schema
        self._named = named
        self._total = manifest.rows if manifest else None
        self._read = 0
        self._keys: list[str] = []
        self._rejected: Counter[str] = Counter()

    def write(self, rows: list[Row], rejected: pa.Table, *, read: int = 0) -> None:
        """Commit a shard.

        Args:
            rows: Of the stage's schema.
            rejected: Of `core.rows.REJECTED`.
            read: Rows of the other stage that both came of.
        """
        self._keys.append(f"{self._named}{len(self._keys):06d}")
        table = pa.Table.from_pylist(rows, schema=self._schema)
        self._context.stage.commit_shard(self._keys[-1], table, rejected)
        self._rejected.update(count_by_reason(rejected))
        self.rows += len(rows)
        self._read += read
        if self._total is None:
            self._context.show(Progress(self.rows, self.rows))
        else:
            self._context.show(Progress(self._read, self._total))

    @property
    def reasons(self) -> str:
        """Why rows were rejected, the most frequent reason first, for an error."""
        counted = self._rejected.most_common()
        return ", ".join(f"{number} {reason}" for reason, number in counted) or "none"

    def result(self, facts: dict[str, Any] | None = None) -> StageResult:
        """What the stage came to."""
        return StageResult(self._keys, self.rows, dict(self._rejected.most_common()), facts or {})
