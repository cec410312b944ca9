"""What looking up a recorded answer costs, and what the index of its records takes.

    python benchmarks/recorded.py                       200,000 rows, each of a record of its own
    python benchmarks/recorded.py --records 10000000    among ten million records
    python benchmarks/recorded.py --shard-rows 64       in the shards of a default recipe

A stage of method `teacher_data` is planned, answered by a recorded teacher and committed, as
`stillhouse run` does it, without Ray. Prints one line.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bare_stage import ROOT, bare_stage

from core.recipe_teachers import RecordColumns, RecordedTeacher
from core.teacher import Sampling
from pipelines.asking import AskTeacher
from pipelines.recorded import RecordedAnswers
from pipelines.shards import Lane, run_shards

QUESTION = "Question {}: which of these does a person who is late for work need most?"
ANSWER = "The answer must be something that saves time. Of the above choices, only {} does. "


def write_records(file: Path, records: int) -> None:
    """Records of some 450 bytes, each of a prompt of its own."""
    with file.open("w") as stream:
        for number in range(records):
            row = {"question": QUESTION.format(number), "rationale": ANSWER.format(number) * 4}
            stream.write(json.dumps(row) + "\n")


def plan(rows: int, records: int) -> Iterator[dict[str, Any]]:
    """Planned rows as `pipelines.asking` lays them out, of records in no order."""
    shuffled = random.Random(0).sample(range(records), rows)  # noqa: S311, no secret
    for row, number in enumerate(shuffled):
        fields = json.dumps({"question": QUESTION.format(number)})
        row_id = row.to_bytes(16, "big").hex()
        yield {"id": row_id, "item": row_id, "sample": 0, "fields": fields}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--records", type=int)
    parser.add_argument("--shard-rows", type=int, default=5_000)
    options = parser.parse_args()
    records = options.records or options.rows
    (ROOT / "runs").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / "runs") as folder:
        file = Path(folder) / "records.jsonl"
        write_records(file, records)
        teacher = RecordedTeacher(
            backend="recorded",
            model="recorded",
            files=[file.name],
            columns=RecordColumns(prompt="question", text="rationale"),
        )
        before, began = _peak_mib(), time.monotonic()
        engine = RecordedAnswers("recorded", teacher, [file])
        index_seconds, index_mib = time.monotonic() - began, _peak_mib() - before
        context = bare_stage(Path(folder), engine, options.shard_rows)
        work = AskTeacher(engine, "{{ question }}", "", Sampling(max_tokens=1), seeded=False)
        began, busy = time.monotonic(), time.process_time()
        result = run_shards(context, [Lane(engine, plan(options.rows, records), work)])
        seconds, busy = time.monotonic() - began, time.process_time() - busy
        engine.close()
    assert result.rows == options.rows, result
    print(
        f"{options.rows:,} rows of {records:,} records, {options.shard_rows} a shard: "
        f"{options.rows / seconds:,.0f} rows/s, a row {busy / options.rows * 1e6:.0f} us of "
        f"processor time; the index took {index_seconds:.1f} s "
        f"({records / index_seconds:,.0f} records/s) and {index_mib:,.0f} MiB of memory at its peak"
    )
    return 0


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
