"""What each choice of the demonstration bought: the variants of its recipe, three seeds each.

    python benchmarks/ablations.py            six variants, three seeds: about an hour
    python benchmarks/ablations.py --cells 6  the next six cells; the same command goes on

`stillhouse ablate` runs them in runs/ablations and prints the table; once all cells are done, this
writes it to benchmarks/results. There is no bar: this tells what a choice is worth.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from core.run import Folder, Run
from stillhouse.ablation_book import BOOK, read_ablation

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "ablations.json"


def main() -> int:
    """Run the cells that are left, and write the table of all of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--cells", type=int)
    parser.add_argument("--run", type=Path, default=ROOT / "runs" / "ablations")
    options = parser.parse_args()
    command = [sys.executable, "-m", "stillhouse.command_line", "ablate", "recipes/demo.yaml"]
    command += ["--run", str(options.run)]
    if options.cells is not None:
        command += ["--cells", str(options.cells)]
    subprocess.run(command, cwd=ROOT, check=True)
    run = Run(Folder(str(options.run)))
    book = read_ablation(run)
    if book is not None and book.found.done == book.found.cells:
        RESULTS.write_text(json.dumps(run.folder.read_json(BOOK)["found"], indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
