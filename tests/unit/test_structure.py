"""Imports go one way, and the light part of the house stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = {"pipelines", "training", "serving", "cluster"}
MAY_IMPORT = {"core": set(), "stillhouse": {"core", *ROOMS}} | {room: {"core"} for room in ROOMS}


def imported(file: Path) -> set[str]:
    """Our own packages that a file imports anywhere."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
    return names & set(MAY_IMPORT)


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_imports_go_one_way(package):
    for file in (ROOT / package).rglob("*.py"):
        wrong = imported(file) - MAY_IMPORT[package] - {package}
        assert not wrong, f"{file.relative_to(ROOT)} imports {wrong}"


HEAVY = {"ray", "torch", "vllm", "transformers", "deepspeed", "matplotlib"}


@pytest.mark.parametrize(
    "modules",
    [
        [
            f"core.{file.stem}"
            for file in sorted((ROOT / "core").glob("*.py"))
            if file.stem != "__init__"
        ],
        ["stillhouse.command_line", "stillhouse.workflow", "stillhouse.methods.fewshot_mcqa"],
        ["stillhouse.display", "pipelines.inputs", "pipelines.asking", "pipelines.endpoint"],
    ],
    ids=["core", "front door", "endpoints"],
)
def test_light_modules_load_no_heavy_library(modules):
    script = f"import sys, {', '.join(modules)}; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert not HEAVY & set(done.stdout.split())
