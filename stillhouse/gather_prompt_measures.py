"""Reads what prompts to one teacher cost and gave into the report."""

from __future__ import annotations

from stillhouse.report.prompt_measures import MeasuredPrompt
from stillhouse.run_reader import Row, RunReader
from stillhouse.stages import Stage

MEASURE = "pipelines.prompt_measures:measure"


def measured_prompts(reader: RunReader) -> list[MeasuredPrompt]:
    """The prompts that were compared; none where none was."""
    return [
        MeasuredPrompt(**row, thousand=_thousand(reader, stage, row))
        for stage in reader.stages(MEASURE)
        for row in reader.rows(stage.name)
    ]


def _thousand(reader: RunReader, stage: Stage, row: Row) -> float | None:
    """Money for a thousand answers, by the price of the teacher's tokens."""
    answers = row["answers"]
    if not answers or row["tokens_in"] is None or row["tokens_out"] is None:
        return None
    asking = stage.inputs[f"answers-{row['prompt']}"]
    (teacher,) = next(one for one in reader.layout if one.name == asking).teachers
    model = reader.loaded.recipe.teachers[teacher].model
    tokens = (row["tokens_in"] / answers, row["tokens_out"] / answers)
    return reader.prices.thousand_samples(model, *tokens)
