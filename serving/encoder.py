"""An encoder student as a Ray Serve deployment: requests share one forward pass."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ray import serve

from core.errors import UseError
from core.recipe import Serve
from core.recipe_section import Device
from serving.answers import Answer


@dataclass(frozen=True)
class EncoderStudent:
    """A student of the encoder family, ready to be served."""

    folder: Path
    """Hugging Face folder of an `AutoModelForSequenceClassification`, with safetensors."""
    choices: tuple[str, ...]
    """What it chooses from, in the order of its logits."""

    def bind(self, name: str, settings: Serve) -> serve.Application:
        """Lay out the deployment that answers for this student."""
        deployment = serve.deployment(
            name=name,
            num_replicas=settings.replicas,
            # Serve's default of 5 would keep every batch below 6 requests.
            max_ongoing_requests=4 * settings.max_batch_size,
            ray_actor_options={
                "num_cpus": settings.device.cpus,
                "num_gpus": settings.device.gpus,
            },
        )
        return deployment(Encoder).bind(
            str(self.folder),
            settings.device,
            max_batch_size=settings.max_batch_size,
            batch_wait_seconds=settings.batch_wait_ms / 1000,
        )


def encoder_student(folder: Path, choices: Sequence[str]) -> EncoderStudent:
    """Describe the student in a folder; reads its configuration and no weights.

    Args:
        folder: Hugging Face folder of the student.
        choices: The task's choices, in any order.

    Raises:
        UseError: The folder holds no classifier, or one with other choices.
    """
    try:
        configuration = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        labels: dict[str, str] = configuration["id2label"]
    except (OSError, ValueError, KeyError):
        raise UseError(
            str(folder),
            "there is no encoder student here: config.json with id2label is missing.",
            "Name the model folder of a finished run's student.",
        ) from None
    own = tuple(labels[str(number)] for number in range(len(labels)))
    if sorted(own) != sorted(choices):
        raise UseError(
            str(folder),
            f"this student chooses from {', '.join(own)}, the task from {', '.join(choices)}.",
            "Train the student on this task.",
        )
    return EncoderStudent(folder, own)


class Encoder:
    """The replica. Tokenising and the forward pass run in a thread of their own."""

    def __init__(
        self, folder: str, device: Device, *, max_batch_size: int, batch_wait_seconds: float
    ) -> None:
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        self._torch = torch
        self._device = "cuda" if device.gpus else "cpu"
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True
        )
        self._model = model.to(self._device).eval()
        # torch.set_num_threads counts for the thread that calls it.
        threads = max(1, int(device.cpus))
        self._thread = ThreadPoolExecutor(1, "forward", torch.set_num_threads, (threads,))
        self._idle = asyncio.Event()
        self._idle.set()
        self._forwards = 0
        self._rows = 0
        self._join_batch = serve.batch(
            max_batch_size=max_batch_size, batch_wait_timeout_s=batch_wait_seconds
        )(self._answer_batch)

    async def classify(self, texts: list[str]) -> list[Answer]:
        """Answer texts, each of which may share its forward pass with other requests' texts."""
        # Serve closes a batch while the one before it still runs, and most would hold one request.
        # Held back until the forward pass is done, the waiting requests make the next batch.
        await self._idle.wait()
        return list(await asyncio.gather(*(self._join_batch(text) for text in texts)))

    def statistics(self) -> dict[str, int]:
        """Forward passes so far, and the rows in them."""
        return {"forwards": self._forwards, "rows": self._rows}

    async def _answer_batch(self, texts: list[str]) -> list[Answer]:
        loop = asyncio.get_running_loop()
        self._idle.clear()
        try:
            probabilities = await loop.run_in_executor(self._thread, self._forward, texts)
        finally:
            self._idle.set()
        self._forwards += 1
        self._rows += len(texts)
        return [Answer(row) for row in probabilities]

    def _forward(self, texts: list[str]) -> list[list[float]]:
        # The tokenizer's own length limit cuts as training did.
        tokens = self._tokenizer(texts, truncation=True, padding=True, return_tensors="pt")
        with self._torch.inference_mode():
            logits = self._model(**tokens.to(self._device)).logits
            rows: list[list[float]] = logits.softmax(dim=-1).tolist()
        return rows
