"""What computes an encoder's forward pass.

On a CPU ONNX Runtime in int8 is the quickest for the short batches of an endpoint, and torch in
bfloat16 for long ones where the CPU multiplies it in hardware; `benchmarks/serving.py` measures
them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np

from core.recipe_section import Device
from core.recipe_serving import Backend
from serving.batches import Batch


class Forward(Protocol):
    """A loaded model."""

    def logits(self, batch: Batch) -> np.ndarray:
        """[B, K] float32: of a head for classes K are its choices, of one for choices K is 1."""
        ...


def load_backend(
    backend: Backend, folder: Path, device: Device, names: list[str], *, reads_choices: bool
) -> Forward:
    """Load an encoder.

    Args:
        backend: Which.
        folder: The student's, a Hugging Face folder with safetensors.
        device: What it runs on.
        names: Of the model's inputs.
        reads_choices: Whether its head is one for choices.

    Raises:
        UseError: The backend is not installed.
    """
    if backend in ("onnx", "onnx-int8"):
        from serving.onnx_model import OnnxForward

        student = load_student(folder, "float32", reads_choices=reads_choices)
        return OnnxForward(student, folder, device, names, int8=backend == "onnx-int8")
    dtype = "bfloat16" if backend == "torch-bfloat16" else "float32"
    return TorchForward(load_student(folder, dtype, reads_choices=reads_choices), device)


def load_student(folder: Path, dtype: str, *, reads_choices: bool) -> Any:
    """The student as a torch module that takes [B, L] and gives [B, K] logits.

    Args:
        folder: The student's.
        dtype: Torch's name of its weights' type.
        reads_choices: Whether its head is one for choices.
    """
    import torch
    from transformers import AutoModelForMultipleChoice, AutoModelForSequenceClassification

    class Student(torch.nn.Module):
        def __init__(self, model: Any) -> None:
            super().__init__()
            self.model = model

        # By name, and in the order of `EncoderInput.names`: torch exports no `**inputs`.
        def forward(
            self, input_ids: Any, token_type_ids: Any = None, attention_mask: Any = None
        ) -> Any:
            inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
            if token_type_ids is not None:
                inputs["token_type_ids"] = token_type_ids
            if reads_choices:  # to the model each sequence is a question of one choice
                inputs = {name: ids[:, None] for name, ids in inputs.items()}
            return self.model(**inputs).logits

    kind: Any = AutoModelForMultipleChoice if reads_choices else AutoModelForSequenceClassification
    model = kind.from_pretrained(folder, dtype=getattr(torch, dtype), use_safetensors=True)
    return Student(model).eval()


class TorchForward:
    """The model as it was trained."""

    def __init__(self, student: Any, device: Device) -> None:
        import torch

        self._torch = torch
        self._device = "cuda" if device.gpus else "cpu"
        self._student = student.to(self._device)

    def logits(self, batch: Batch) -> np.ndarray:
        """[B, K] float32."""
        tensors = {
            name: self._torch.from_numpy(array).to(self._device) for name, array in batch.items()
        }
        with self._torch.inference_mode():
            found: np.ndarray = self._student(**tensors).float().cpu().numpy()
        return found
