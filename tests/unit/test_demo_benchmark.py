"""The benchmark's published figures are those of its default seeds, and of nothing else."""

import importlib.util
import json
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "demo.py"


@pytest.fixture(scope="module")
def demo():
    spec = importlib.util.spec_from_file_location("demo", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_default_run_is_published(demo, tmp_path, capsys):
    demo.publish({"rows": 650}, demo.SEEDS, [], tmp_path / "demo.json")
    assert json.loads((tmp_path / "demo.json").read_text()) == {"rows": 650}
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("seeds", "settings"), [([0], []), ([0, 1, 2], ["score.orders=2"])])
def test_another_run_leaves_the_published_figures_alone(demo, tmp_path, capsys, seeds, settings):
    (tmp_path / "demo.json").write_text("published")
    demo.publish({"rows": 650}, seeds, settings, tmp_path / "demo.json")
    assert (tmp_path / "demo.json").read_text() == "published"
    assert f"Nothing is written to {tmp_path}" in capsys.readouterr().out
