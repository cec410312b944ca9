"""What `stillhouse compare` tells, and what `stillhouse key` writes."""

import io
import math
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from core.recipe_file import load_recipe
from stillhouse.both_sides import teacher_answers
from stillhouse.comparison import comparison
from stillhouse.gather_serving import economics, servings
from stillhouse.methods import recipe_model
from stillhouse.run_reader import RunReader
from tests.finished_run import make_run
from tests.unit.test_command_line import stillhouse

DEMO = Path(__file__).parents[2] / "recipes" / "demo.yaml"


def told(both, costs):
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(comparison(both, costs))
    return console.export_text()


def test_speed_cost_and_break_even_are_told(tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    reader = RunReader(make_run(tmp_path, base))
    both = servings(reader, "encoder")
    costs = economics(reader, "encoder", reader.ancestors("train-encoder"))
    text = told(both, costs)
    assert "a second, 95% under 1,000 ms" in text
    assert "device-seconds a thousand" in text
    assert "Making the student cost €4.00. It has paid for itself after 5,000 requests" in text
    assert "100,000 requests a day" in text
    never = replace(costs, break_even_requests=math.inf, break_even_days=math.inf)
    assert "it never pays for itself" in told(both, never)
    unknown = replace(costs, break_even_requests=None, break_even_days=None)
    assert "unknown: a price is missing" in told(both, unknown)
    none = [replace(one, sustained_per_second=None) for one in both]
    assert "at no rate" in told(none, costs)


def test_a_teacher_that_chooses_can_stand_behind_the_student():
    loaded = load_recipe(DEMO, recipe_model, None, [])
    assert teacher_answers(loaded, "minilm")
    assert not teacher_answers(loaded, "nobody")


def test_a_run_without_a_comparison_is_refused(tmp_path):
    done = stillhouse("compare", str(tmp_path))
    assert done.returncode == 2
    assert "there is no run here" in done.stderr


def test_a_key_is_printed_once_and_revoked(tmp_path):
    file = str(tmp_path / "keys.yaml")
    made = stillhouse("key", "desk", "--file", file, "--requests-per-minute", "60")
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith("sh_")
    assert made.stdout.strip() not in (tmp_path / "keys.yaml").read_text()
    again = stillhouse("key", "desk", "--file", file)
    assert again.returncode == 2
    assert "there is a key of this name" in again.stderr
    revoked = stillhouse("key", "desk", "--file", file, "--revoke")
    assert "is revoked" in revoked.stdout
    assert "revoked: true" in (tmp_path / "keys.yaml").read_text()
