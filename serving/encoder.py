"""An encoder student: requests share forward passes within a budget of tokens."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from ray import serve

from core.errors import UseError
from core.models import model_folder, model_revision
from core.recipe_serving import Serve
from core.run import Folder
from serving.answers import Answer, Question
from serving.backends import Forward, load_backend
from serving.batches import Budget, Piece, cut
from serving.encoder_input import EncoderInput
from serving.models import Description

INLINE_CHARACTERS = 4000
"""Texts up to here are read into tokens at once: another thread would take longer to wake up."""


@dataclass(frozen=True)
class EncoderStudent:
    """A student of the encoder family, ready to be served."""

    folder: str
    """Path or URL of the Hugging Face folder, with safetensors."""
    choices: tuple[str, ...] | None
    """What it chooses from, in the order of its logits; None where questions bring their own."""
    card: str = ""
    """Its model card."""

    holds_device = True

    @property
    def description(self) -> Description:
        """What is told of it, before it is loaded."""
        return Description("student", "encoder", self.choices, card=self.card)

    def load(self, settings: Serve) -> Encoder:
        """Load it, in the replica."""
        return Encoder(self, settings)


def encoder_student(
    folder: str, choices: Sequence[str] | None = None, card: str = ""
) -> EncoderStudent:
    """Describe the student in a folder; reads its configuration and no weights.

    Args:
        folder: Path or URL of the student's Hugging Face folder.
        choices: The task's choices, in any order, where all rows have the same.
        card: Its model card; the folder's README.md if empty.

    Raises:
        UseError: The folder holds no encoder student, or one with other choices.
    """
    place = Folder(folder)
    try:
        configuration = json.loads(place.read("config.json"))
        architecture = configuration["architectures"][0]
    except (OSError, ValueError, KeyError):
        raise _no_encoder(folder, "config.json is missing, or none of a model") from None
    if not card and place.has("README.md"):
        card = place.read("README.md").decode()
    if architecture.endswith("ForMultipleChoice"):
        return EncoderStudent(folder, None, card)
    if not architecture.endswith("ForSequenceClassification"):
        raise _no_encoder(folder, f"its architecture is {architecture}")
    labels: dict[str, str] = configuration.get("id2label", {})
    own = tuple(labels[str(number)] for number in range(len(labels)))
    if choices is not None and sorted(own) != sorted(choices):
        raise UseError(
            folder,
            f"this student chooses from {', '.join(own)}, the task from {', '.join(choices)}.",
            "Train the student on this task.",
        )
    return EncoderStudent(folder, own, card)


def _no_encoder(folder: str, cause: str) -> UseError:
    return UseError(
        folder,
        f"there is no encoder student here: {cause}.",
        "Name the model folder of a finished run's student.",
    )


class Encoder:
    """The loaded student. The forward pass runs in a thread of its own."""

    def __init__(self, student: EncoderStudent, settings: Serve) -> None:
        folder = model_folder(student.folder)
        device = settings.device
        self._input = EncoderInput(folder, student.choices)
        # torch.set_num_threads counts for the thread that calls it.
        self._thread = ThreadPoolExecutor(1, "forward", _set_threads, (max(1, int(device.cpus)),))
        self._forward: Forward = self._thread.submit(
            load_backend,
            settings.backend or "torch",
            folder,
            device,
            self._input.names,
            reads_choices=student.choices is None,
        ).result()
        self._budget = Budget(
            settings.max_batch_size,
            # A sequence that fills no batch could never be answered.
            max(settings.max_batch_tokens, self._input.max_tokens),
        )
        self.description = replace(
            student.description,
            max_tokens=self._input.max_tokens,
            runs_on=f"{device.kind}, {settings.backend or 'torch'}",
            revision=model_revision(student.folder),
        )
        self._idle = asyncio.Event()
        self._idle.set()
        self._done = {"forwards": 0.0, "sequences": 0.0, "tokens": 0.0, "padded_tokens": 0.0}
        self._done |= {"forward_seconds": 0.0, "forward_cpu_seconds": 0.0}
        self._done["forward_thread"] = self._thread.submit(threading.get_native_id).result()
        self._join_batch = serve.batch(
            max_batch_size=self._budget.tokens,
            batch_wait_timeout_s=settings.batch_wait_ms / 1000,
            batch_size_fn=self._budget.used,
        )(self._run_pieces)
        self._warm_up()

    async def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """Answer questions, which may share forward passes with those of other requests."""
        faults = [self._input.fault(question) for question in questions]
        if any(faults):
            return [Answer((), [], error=fault) for fault in faults]
        if sum(len(question.text) for question in questions) > INLINE_CHARACTERS:
            read = await asyncio.to_thread(self._input.sequences, questions)
        else:
            read = self._input.sequences(questions)
        sequences = [one for own in read for one in own]
        pieces = cut(sequences, self._budget)
        # Serve closes a batch while the one before it still runs, and most would hold one request.
        # Held back until the forward pass is done, the waiting requests make the next batch.
        await self._idle.wait()
        found = await asyncio.gather(
            *(self._join_batch([sequences[number] for number in piece]) for piece in pieces)
        )
        by_number = {
            number: logits
            for piece, several in zip(pieces, found, strict=True)
            for number, logits in zip(piece, several, strict=True)
        }
        ordered = iter(by_number[number] for number in range(len(sequences)))
        return [
            self._input.answer(question, [number for _ in own for number in next(ordered).tolist()])
            for question, own in zip(questions, read, strict=True)
        ]

    def statistics(self) -> dict[str, float]:
        """Forward passes so far, what was in them and what they took; and their thread's number."""
        return dict(self._done)

    async def _run_pieces(self, pieces: list[Piece]) -> list[np.ndarray]:
        loop = asyncio.get_running_loop()
        self._idle.clear()
        try:
            logits = await loop.run_in_executor(self._thread, self._run, pieces)
        finally:
            self._idle.set()
        ends = np.cumsum([len(piece) for piece in pieces])
        return np.split(logits, ends[:-1])

    def _run(self, pieces: list[Piece]) -> np.ndarray:
        sequences = [one for piece in pieces for one in piece]
        batch = self._input.batch(sequences)
        began, cpu_began = time.perf_counter(), time.thread_time()
        logits = self._forward.logits(batch)
        done = self._done
        done["forward_seconds"] += time.perf_counter() - began
        done["forward_cpu_seconds"] += time.thread_time() - cpu_began
        done["forwards"] += 1
        done["sequences"] += len(sequences)
        done["tokens"] += sum(map(len, sequences))
        done["padded_tokens"] += batch["input_ids"].size
        return logits

    def _warm_up(self) -> None:
        """Run once: the first forward pass takes several times as long as those after it."""
        question = Question("warm-up", ("yes", "no"))
        piece = [one for own in self._input.sequences([question]) for one in own]
        self._thread.submit(self._forward.logits, self._input.batch(piece)).result()


def _set_threads(number: int) -> None:
    import torch

    torch.set_num_threads(number)
