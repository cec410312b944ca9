"""The finished student: a Hugging Face folder that transformers and vLLM load as it is."""

from __future__ import annotations

import shutil
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
- Objective: {objective.hard_weight:g} hard label, the rest soft labels of temperature \
{objective.temperature:g}
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


def publish(folder: Path, target: Folder) -> None:
    """Bring a student to its place, where it appears whole.

    On object storage, which has no renaming, the caller's record and the manifest say that it is.
    """
    if target.local is None:
        _copy(folder, target.location)
        return
    part = target.local.with_name(f"{target.local.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    _copy(folder, str(part))
    shutil.rmtree(target.local, ignore_errors=True)  # of an attempt that was killed right here
    part.rename(target.local)


def _copy(folder: Path, location: str) -> None:
    system, path = fs.FileSystem.from_uri(location)
    system.create_dir(path)
    fs.copy_files(str(folder), path, destination_filesystem=system)
