"""Which rows of a file are worth asking teachers about: judged by the text of one field."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from core.errors import UseError
from core.rows import INPUT
from core.run import StageFolder
from core.stage import StageContext, StageResult
from pipelines.contamination import EvaluationNgrams
from pipelines.curation import TextChecks, curate_rows, text_checks
from pipelines.row_work import Rejection, Row
from pipelines.tasks import storable


@dataclass(frozen=True)
class InputRows:
    """Rows of a file, judged by the text of a field."""

    checks: TextChecks
    field: str

    schema = INPUT
    noun = "row"
    columns = ["id", "fields"]

    def text(self, row: Row) -> str:
        """The text of the field."""
        return _text(row, self.field) or ""

    def fault(self, row: Row) -> Rejection | None:
        """Why a row is of no use by itself; None where it may be used."""
        text = _text(row, self.field)
        if text is None:
            return Rejection("no-field", f"there is no text under '{self.field}'", row)
        fault = self.checks.fault_of_length(text) or self.checks.fault_of_content(text)
        return Rejection(*fault, row) if fault else None


def curate_inputs(context: StageContext) -> StageResult:
    """Stage: keep the input rows that are worth asking about.

    Settings: `field`; `min_words`, `max_words`, `near_duplicates` and `languages` as in
    `core.recipe_curation.Curate`; `evaluation`, with `field` and `ngram`, or None.
    Inputs: `inputs`, input rows; `evaluation`, input rows, where the setting says so.

    Raises:
        UseError: No evaluation row has a text under its field.
    """
    settings = context.settings
    evaluation = None
    if settings["evaluation"] is not None:
        field, ngram = settings["evaluation"]["field"], settings["evaluation"]["ngram"]
        texts = list(_texts(context.inputs["evaluation"], field))
        if not texts:
            raise UseError(
                "curate.evaluation",
                f"no row of its file has a text under '{field}'.",
                "Name the field that holds it.",
            )
        evaluation = EvaluationNgrams(texts, ngram)
    return curate_rows(context, InputRows(text_checks(settings, evaluation), settings["field"]))


def _texts(rows: StageFolder, field: str) -> Iterator[tuple[str, str]]:
    """Id and text of the rows that have one."""
    for table in rows.iter_shards():
        for row in table.to_pylist():
            text = _text(row, field)
            if text is not None:
                yield row["id"], text


def _text(row: Row, field: str) -> str | None:
    """What an input row has under a field, where it is text."""
    value = json.loads(row["fields"]).get(field)
    return storable(value) if isinstance(value, str) else None
