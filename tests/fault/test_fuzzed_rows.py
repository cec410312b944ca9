"""Ten thousand rows as bad as they come, put to a real engine by the command that users run."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow.compute as pc
import pytest

from core.run import Folder, Run
from tests.fuzzed_rows import fuzzed_lines
from tests.leftovers import leftovers, marked

ROOT = Path(__file__).parents[2]
ROWS = 10_000

RECIPE = """\
name: fuzzed
method: teacher_data
shard_rows: 200
inputs: {{file: rows.jsonl}}
teachers:
  tiny:
    model: {teacher}
    engine:
      {{dtype: float32, max_model_len: 256, max_num_seqs: 128, block_size: 32, enforce_eager: true}}
    device: {{kind: cpu-core, cpus: 1}}
ask:
  tiny:
    prompt: "{{{{ question }}}}"
    sampling: {{max_tokens: 2}}
"""


@pytest.mark.slow
def test_no_fuzzed_row_stops_a_real_engine_and_each_is_answered_or_rejected(tmp_path, tiny_teacher):
    lines = fuzzed_lines(ROWS, seed=0)
    assert max(map(len, lines)) > 1_000_000
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(lines))
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(teacher=tiny_teacher))
    mark, environment = marked()
    command = [sys.executable, "-m", "stillhouse.command_line", "run"]
    done = subprocess.run(
        [*command, str(tmp_path / "recipe.yaml"), "--run", str(tmp_path / "run")],
        cwd=ROOT,
        env={**environment, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stdout + done.stderr

    stages = Run(Folder(str(tmp_path / "run"))).finished_stages()
    inputs, asked = stages["inputs"], stages["ask"]
    read = inputs.read()["id"].to_pylist()
    unread = inputs.read_rejected()
    # One line after another is a row or rejected; blank lines are no rows.
    written = sum(bool(line.strip()) for line in lines)
    assert len(read) + unread.num_rows == written
    assert set(unread["reason"].to_pylist()) == {
        "not-json",
        "not-utf8",
        "not-an-object",
        "too-long",
    }
    answers, rejected = asked.read(), asked.read_rejected()
    ids = answers["id"].to_pylist() + rejected["id"].to_pylist()
    # Equal rows are one question.
    assert len(ids) == len(set(ids)) == len(set(read))
    assert set(answers["item"].to_pylist()) <= set(read)
    assert set(rejected["reason"].to_pylist()) == {"no-field", "empty", "too-long", "not-text"}
    assert pc.all(pc.greater(pc.utf8_length(rejected["detail"]), 0)).as_py()

    reasons = Counter(unread["reason"].to_pylist() + rejected["reason"].to_pylist())
    told = re.search(r"Rejected: ([^.]*)\.", done.stdout.replace("\n", " "))[1]
    assert dict(part.split(" ")[::-1] for part in told.split(", ")) == {
        reason: f"{number:,}" for reason, number in reasons.items()
    }
    assert re.search(rf"^tiny +{answers.num_rows:,} ", done.stdout, re.M), done.stdout
    assert not leftovers(mark, seconds=60)
