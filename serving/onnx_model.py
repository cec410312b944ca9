"""An encoder in ONNX Runtime: exported once, and kept in the cache of models."""

from __future__ import annotations

import contextlib
import io
import logging
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import UseError
from core.identity import content_id, folder_digest
from core.models import cache_folder, make_cache
from core.recipe_section import Device
from serving.batches import Batch

EXAMPLE = (2, 16)
"""Sequences and tokens of the input that the export looks at; neither number is kept."""


class OnnxForward:
    """The exported model."""

    def __init__(
        self, student: Any, folder: Path, device: Device, names: list[str], *, int8: bool
    ) -> None:
        """Export the student where that was not done yet, and load what came of it.

        Args:
            student: As `serving.backends.load_student`, in float32.
            folder: Its folder: the export is kept by what is in it.
            device: Its cores are the threads.
            names: Of the model's inputs.
            int8: Whether the weights of linear layers are quantised; activations are as they come.

        Raises:
            UseError: ONNX Runtime is not installed.
        """
        try:
            import onnxruntime
        except ImportError:
            raise UseError(
                "serve.backend",
                "ONNX Runtime is not installed.",
                "Install the extra: pip install -e '.[onnx]', or set serve.backend to torch.",
            ) from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = max(1, int(device.cpus))
        options.inter_op_num_threads = 1
        # A thread that spins while it waits takes the core of whoever could work.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        file = exported(student, folder, names, int8=int8)
        self._session = onnxruntime.InferenceSession(
            file, options, providers=["CPUExecutionProvider"]
        )

    def logits(self, batch: Batch) -> np.ndarray:
        """[B, K] float32."""
        found: np.ndarray = self._session.run(None, batch)[0]
        return found


def exported(student: Any, folder: Path, names: list[str], *, int8: bool) -> Path:
    """The file of a student in ONNX, made where it is not there yet.

    Args:
        student: As `serving.backends.load_student`, in float32.
        folder: Its folder.
        names: Of the model's inputs.
        int8: Whether the weights of linear layers are quantised.
    """
    kind = "int8" if int8 else "float32"
    home = cache_folder() / "onnx"
    target = home / f"{content_id(folder_digest(folder), names)}-{kind}.onnx"
    if target.is_file():
        return target
    make_cache(home)
    part = home / f".{uuid.uuid4().hex}.onnx"
    try:
        if int8:
            _quantise(exported(student, folder, names, int8=False), part)
        else:
            _export(student, names, part)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target


def _export(student: Any, names: list[str], file: Path) -> None:
    import torch

    example = {name: torch.ones(EXAMPLE, dtype=torch.int64) for name in names}
    # Any number, within what the model itself takes; an error where it takes one alone.
    sizes = dict.fromkeys((0, 1), torch.export.Dim.DYNAMIC)
    # It tells of its steps on the terminal.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        torch.onnx.export(
            student,
            kwargs=example,
            f=str(file),
            dynamo=True,
            input_names=names,
            dynamic_shapes=dict.fromkeys(names, sizes),
            external_data=False,
            verbose=False,
        )


def _quantise(whole: Path, file: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    before = logging.root.level
    logging.root.setLevel(logging.ERROR)  # it warns of a step that matters for convolutions
    try:
        quantize_dynamic(whole, file, weight_type=QuantType.QInt8)
    finally:
        logging.root.setLevel(before)
        for left in file.parent.glob(f"{file.stem}-inferred*"):
            left.unlink()
