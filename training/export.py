"""The finished student: a Hugging Face folder that transformers and vLLM load as it is.

config.json, *.safetensors, tokenizer, chat template   as transformers writes them
stillhouse.json                                        what a reader of prompts must know
README.md                                              what it is
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import torch
from pyarrow import fs
from torch import Tensor

from core.errors import WorkError
from core.recipe_students import ChoiceObjective
from core.run import Folder
from training.checkpoints import Best, readable
from training.ddp import ddp_weights
from training.families import family_of
from training.family import Family, logits_of
from training.job import Job
from training.start import model_of
from training.strategy import precision_of

LOGIT_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
"""Absolute in float32; of bfloat16, which has 8 bits, as a share of the largest logit."""

CARD = """\
---
library_name: transformers
pipeline_tag: {tag}
---
# {job.recipe}: student '{job.name}'

Distilled by Stillhouse.

- Base: `{job.student.model}`
- Rows: {schedule.training_rows} trained on, {schedule.validation_rows} held out to pick the epoch
- Epoch: {epoch} of {schedule.epochs} at most
- Objective: {objective}
"""


def export_student(
    job: Job, family: Family, best: Best, table: pa.Table, device: torch.device
) -> None:
    """Write the best checkpoint as a student, proven equal to the model that was trained.

    Args:
        job: The training.
        family: Of the student.
        best: What becomes the student.
        table: Training rows, the first of which gave the checkpoint's sample.
        device: Where that was computed.

    Raises:
        WorkError: The student answers otherwise than the trained model.
    """
    dtype = torch.float32 if job.train.zero_stage is None else precision_of(job.train)
    with student_folder(job.target) as folder:
        model = model_of(job, family, dtype)
        with readable(best.folder):
            weights = _weights(job, best.folder)
        # In the training's precision and in place: a large model stands in memory once.
        cast = {name: value.to(dtype) for name, value in weights.items()}
        model.load_state_dict(cast, strict=False, assign=True)
        model.tie_weights()
        if job.train.lora is not None:
            model = model.merge_and_unload()
        model.config.use_cache = True
        model.save_pretrained(folder)
        family.tokenizer.save_pretrained(folder)
        family.reading.write(folder)
        (folder / "README.md").write_text(_card(job, family, best), encoding="utf-8")
        _verify(job, folder, table, best.sample, dtype, device)


def _weights(job: Job, checkpoint: Path) -> dict[str, Tensor]:
    if job.train.zero_stage is None:
        return ddp_weights(checkpoint)
    from training.zero import zero_weights

    return zero_weights(checkpoint, job.train.zero_stage)


def _card(job: Job, family: Family, best: Best) -> str:
    objective = job.student.objective
    told: str = objective.kind
    if isinstance(objective, ChoiceObjective):
        told = (
            "cross-entropy; of a row with both labels the hard one weighs "
            f"{objective.hard_weight:g}; temperature {objective.temperature:g}"
        )
    text = CARD.format(
        job=job, schedule=job.schedule, tag=family.pipeline_tag, objective=told, epoch=best.epoch
    )
    return text + (f"- Choices: {', '.join(job.choices)}\n" if job.choices else "")


@torch.no_grad()
def _verify(  # noqa: PLR0917
    job: Job,
    folder: Path,
    table: pa.Table,
    expected: Tensor,
    dtype: torch.dtype,
    device: torch.device,
) -> None:
    """Load a student as any user would, and compare its answers with those it had in training."""
    family = family_of(job.student, folder, job.choices, job.seed)
    model = family.auto_class.from_pretrained(folder, dtype=dtype).to(device).eval()
    found = logits_of(model, family.sample(table), device)
    difference = (found - expected).abs().max().item()
    allowed = LOGIT_TOLERANCE[dtype]
    if dtype != torch.float32:
        allowed *= expected.abs().max().item()
    if not difference <= allowed:
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
