"""The finished student: a Hugging Face folder that transformers and vLLM load as it is."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from pyarrow import fs
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedTokenizerFast,
)

from core.errors import WorkError
from core.run import Folder
from training.checkpoints import Best
from training.job import Job

LOGIT_TOLERANCE = 1e-4

CARD = """\
---
library_name: transformers
pipeline_tag: text-classification
---
# {job.recipe}: student '{job.student}'

Distilled by Stillhouse.

- Base: `{job.model}`
- Rows: {schedule.training_rows} trained on, {schedule.validation_rows} held out to pick the epoch
- Epoch: {epoch} of {schedule.epochs}
- Objective: cross-entropy; of a row with both labels the hard one weighs \
{objective.hard_weight:g}; temperature {objective.temperature:g}
- Choices: {choices}
"""


def write_student(
    folder: Path,
    config: PretrainedConfig,
    tokenizer: PreTrainedTokenizerFast,
    best: Best,
    job: Job,
) -> None:
    """Write weights, configuration, tokenizer and card."""
    model = AutoModelForSequenceClassification.from_config(config)
    model.load_state_dict(best.weights)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    card = CARD.format(
        job=job,
        schedule=job.schedule,
        objective=job.train.objective,
        epoch=best.epoch,
        choices=", ".join(job.choices),
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


@torch.no_grad()
def verify_student(
    folder: Path, questions: list[str], expected: list[list[float]], device: torch.device
) -> None:
    """Load a student as any user would, and compare its answers with those it had in training.

    Args:
        folder: The student's.
        questions: A few inputs.
        expected: [questions, K] logits of the model under training, at the best epoch's end.
        device: Where those were computed.
    """
    model = AutoModelForSequenceClassification.from_pretrained(folder).to(device).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(questions, truncation=True, padding=True, return_tensors="pt").to(device)
    difference = (model(**inputs).logits.cpu() - torch.tensor(expected)).abs().max().item()
    if not difference <= LOGIT_TOLERANCE:
        raise WorkError(
            f"student in {folder}",
            f"its logits differ by {difference:.2g} from those of the trained model.",
            "The export is at fault: please report it with the recipe.",
        )


@contextmanager
def student_folder(target: Folder) -> Iterator[Path]:
    """A folder to write a student into; it appears at its place, whole, when the block ends.

    On object storage, which has no renaming, the caller's record says that it is whole.
    """
    if target.local is None:
        with tempfile.TemporaryDirectory(prefix="stillhouse-student-") as folder:
            yield Path(folder)
            system, path = fs.FileSystem.from_uri(target.location)
            fs.copy_files(folder, path, destination_filesystem=system)
        return
    part = target.local.with_name(f"{target.local.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    yield part
    shutil.rmtree(target.local, ignore_errors=True)  # of an attempt that was killed right here
    part.rename(target.local)
