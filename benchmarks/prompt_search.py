"""The search for a prompt on the demonstration's task, killed half-way: what it found and cost.

    .venv/bin/python benchmarks/prompt_search.py [--rounds 10] [--run FOLDER]

Runs `stillhouse prompts optimize recipes/zero_shot.yaml --profile local`: SmolLM2-135M proposes
instructions, and answers by them. When half of the rounds are over the process is killed (SIGKILL)
and the same command runs again. Exits 1 where an answer that was committed is asked for again, or
is another one afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from core.ledger import Ledger
from core.run import Folder, Run
from stillhouse.gather_prompt_search import search_of
from stillhouse.run_reader import RunReader
from stillhouse.searching import OPTIMIZE

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "prompt_search.json"


def main() -> int:
    """Run the search, kill it, run it again, and look at what became of the answers."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rounds", type=int, default=10)
    arguments.add_argument("--run", type=Path)
    asked = arguments.parse_args()
    folder = asked.run or Path(tempfile.mkdtemp()) / "run"
    command = [sys.executable, "-m", "stillhouse.command_line", "prompts", "optimize"]
    command += [str(ROOT / "recipes" / "zero_shot.yaml"), "--profile", "local"]
    command += ["--set", f"optimize.rounds={asked.rounds}", "--run", str(folder)]
    began = time.monotonic()
    committed = _killed(command, folder, asked.rounds // 2)
    seconds = [time.monotonic() - began]
    before, rejected = _requests(folder), len(_rejected(folder))
    subprocess.run(command, check=True, cwd=ROOT)
    seconds.append(time.monotonic() - began - seconds[0])
    rows = _committed(folder)
    changed = [row_id for row_id, row in committed.items() if rows.get(row_id) != row]
    after = sum((_requests(folder) - before).values())
    rejected_after = len(_rejected(folder)) - rejected
    repeated = after - (len(rows) - len(committed)) - rejected_after
    found = search_of(RunReader(Run(Folder(str(folder)))))
    assert found is not None, "the command has done it"
    result: dict[str, Any] = {
        "rounds": asked.rounds,
        "committed_at_the_kill": len(committed),
        "in_flight_at_the_kill": sum(before.values()) - len(committed),
        "asked_after_the_kill": after,
        "committed_and_asked_again": repeated,
        "changed": len(changed),
        "queries": found.queries,
        "proposed": found.proposed,
        "valid": found.valid,
        "empty_rounds": found.empty_rounds,
        "faults": found.faults,
        "best_by_round": [one.best for one in found.rounds],
        "winner": asdict(found.instructions[found.winner]),
        "held_out": found.held_out.share,
        "held_out_first": found.held_out_first.share,
        "gain": found.gain,
        "seconds": [round(one) for one in seconds],
        "command": "benchmarks/prompt_search.py",
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(
        f"{found.valid} of {found.proposed} proposals valid, {found.empty_rounds} empty rounds; "
        f"held out {found.held_out.share}, from {found.held_out_first.share}; "
        f"{len(committed)} committed at the kill, {repeated} of them asked again"
    )
    return 1 if repeated > 0 or changed else 0


def _killed(command: list[str], folder: Path, rounds: int) -> dict[str, Any]:
    """Kill the command when so many rounds are over; what was committed by then."""
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    while process.poll() is None:
        time.sleep(0.2)
        if max((row["round"] for row in _committed(folder).values()), default=0) > rounds:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            time.sleep(5)  # what Ray had started for it ends by itself
            return _committed(folder)
    sys.exit("it ended before it could be killed")


def _rejected(folder: Path) -> set[str]:
    """Ids of questions that had no answer, and were committed as such."""
    files = (folder / "stages" / OPTIMIZE).glob("*/rejected/*.parquet")
    return {row_id for file in files for row_id in pq.read_table(file)["id"].to_pylist()}


def _committed(folder: Path) -> dict[str, Any]:
    """All answers that are on disk, by id."""
    found: dict[str, Any] = {}
    for file in sorted((folder / "stages" / OPTIMIZE).glob("*/rows/*.parquet")):
        found |= {row["id"]: row for row in pq.read_table(file).to_pylist()}
    return found


def _requests(folder: Path) -> Counter[str]:
    """What the engines have answered, by attempt, as the ledger has it."""
    found: Counter[str] = Counter()
    for entry in Ledger(Folder(str(folder / "ledger"))).entries():
        if entry.stage == OPTIMIZE:
            found[entry.attempt] += entry.requests
    return found


if __name__ == "__main__":
    sys.exit(main())
