"""The loop of one training worker, under Ray Train and DeepSpeed.

The rows of a step follow from (seed, step) alone, and so does the dropout: a training that was
killed and goes on from its checkpoint ends with the weights that it would have had anyway.
"""

from __future__ import annotations

import math
import time
from typing import Any

import pyarrow as pa
import ray.train
import torch
import torch.distributed as dist
from torch import Tensor

from core.errors import WorkError
from training import checkpoints
from training.batches import epoch_batches, padding_share, share_of, split, stream
from training.encoder import Batch, build_encoder, collate, encode, load_tokenizer
from training.engine import start_engine
from training.export import student_folder, verify_student, write_student
from training.job import Job
from training.notes import Reporter
from training.objectives import choice_loss
from training.rows import COLUMNS

SAMPLE_ROWS = 8
"""Rows on which the exported student is compared with the trained one."""


def run(job: Job) -> dict[str, Any] | None:
    """Train, and on worker 0 export.

    Returns:
        The facts of the training; None on the other workers, and if the driver asked to stop.
    """
    torch.set_num_threads(max(1, int(job.train.device.cpus)))
    worker = _Worker(job, job.rows.read(COLUMNS))
    finished = worker.train()
    facts = worker.export() if finished and worker.rank == 0 else None
    worker.end()
    return facts


class _Worker:
    def __init__(self, job: Job, table: pa.Table) -> None:
        context = ray.train.get_context()
        self.rank: int = context.get_world_rank()
        self._workers: int = context.get_world_size()
        self._job = job
        self._reporter = Reporter(job.box) if self.rank == 0 else None
        self._questions: list[str] = table["question"].slice(0, SAMPLE_ROWS).to_pylist()
        self._tokenizer = load_tokenizer(job.base, job.train.max_length)
        self._examples = encode(self._tokenizer, table, job.train.objective)
        self._lengths = self._examples.lengths
        self._training, self._validation = split(job.schedule, job.seed)
        model = build_encoder(job.base, job.choices, job.seed)
        self._config = model.config
        self._parameters = model.num_parameters()
        self._engine = start_engine(model, job.train, job.schedule.steps, self._workers)
        self._state = checkpoints.resume(self._engine)

    def train(self) -> bool:
        """Take the steps that are left; false if the driver asked to stop before the last."""
        schedule, state = self._job.schedule, self._state
        before, began, saved = state.seconds, time.monotonic(), state.step
        if self._reporter:
            self._reporter.begin(state.step)
        self._engine.train()  # transformers loads models for inference, without dropout
        for epoch in range(state.step // schedule.steps_per_epoch, schedule.epochs):
            for batch in self._batches(epoch)[state.step % schedule.steps_per_epoch :]:
                stop = self._step(batch)
                ends_epoch = state.step % schedule.steps_per_epoch == 0
                improved = ends_epoch and self._end_epoch()
                state.seconds = before + time.monotonic() - began
                due = state.step - saved >= self._job.train.checkpoint_every
                if improved or due or stop or state.step == schedule.steps:
                    self._save(ends_epoch)
                    saved = state.step
                if stop:
                    return False
        return True

    def export(self) -> dict[str, Any]:
        """Write the best epoch's student to its place, proven equal, and tell of the training."""
        job, state = self._job, self._state
        best = checkpoints.best(job.train.zero_stage)
        with student_folder(job.target) as folder:
            write_student(folder, self._config, self._tokenizer, best, job)
            verify_student(folder, self._questions, best.sample, self._engine.device)
        batches = [batch for epoch in range(job.schedule.epochs) for batch in self._batches(epoch)]
        return {
            "steps": state.step,
            "resumed": state.resumed,
            "epochs": job.schedule.epochs,
            "best_epoch": best.epoch,
            "history": state.history,
            "training_rows": job.schedule.training_rows,
            "validation_rows": job.schedule.validation_rows,
            "cut_rows": self._examples.cut,
            "padding_share": padding_share(batches, self._lengths, self._workers),
            "parameters": self._parameters,
            "seconds": state.seconds,
            "samples_per_second": job.schedule.samples / state.seconds,
        }

    def end(self) -> None:
        """Say that this worker's work is over."""
        if self._reporter:
            self._reporter.end(self._state.step)

    def _batches(self, epoch: int) -> list[list[int]]:
        size, seed = self._job.train.batch_size, self._job.seed
        return epoch_batches(self._training, self._lengths, size, seed, epoch)

    def _step(self, rows: list[int]) -> bool:
        """Take one optimizer step on a global batch; true if the driver asks to stop after it."""
        state = self._state
        torch.manual_seed(stream(self._job.seed, "dropout", state.step, self.rank))
        total_weight = self._examples.weights[rows].sum()
        batch = self._collate(rows)
        logits = self._engine(**batch.inputs).logits
        loss = choice_loss(logits, batch.targets, batch.weights, total_weight)
        stop = self._reporter is not None and self._reporter.tick(state.step)
        loss_of_all, stops = self._sum_over_workers(loss.item(), float(stop))
        if not math.isfinite(loss_of_all):
            raise self._diverged(f"the loss became {loss_of_all}")
        # DeepSpeed takes the mean of the workers' gradients, but each loss is a part of the sum.
        self._engine.backward(loss * self._workers)
        self._engine.step()
        state.step += 1
        state.epoch_loss += loss_of_all * total_weight.item()
        return stops > 0

    def _end_epoch(self) -> bool:
        """Write the epoch into the history; true if it is the best so far on held-out rows."""
        history = self._state.history
        weight = self._examples.weights[self._training].sum().item()
        loss, accuracy = self._validate() if self._validation else (None, None)
        improved = loss is not None and all(loss < entry["validation_loss"] for entry in history)
        history.append(
            {
                "epoch": len(history) + 1,
                "step": self._state.step,
                "train_loss": self._state.epoch_loss / weight,
                "validation_loss": loss,
                "validation_accuracy": accuracy,
            }
        )
        self._state.epoch_loss = 0.0
        return improved

    def _save(self, ends_epoch: bool) -> None:
        """Write a checkpoint that can become the student if it ends an epoch.

        Without held-out rows the last one does.
        """
        sample = self._sample() if ends_epoch else torch.empty(0)
        if not sample.isfinite().all():
            raise self._diverged("the student answers in numbers that are none")
        if not self._validation:
            score = float(self._state.step)
        elif ends_epoch:
            score = -self._state.history[-1]["validation_loss"]
        else:
            score = checkpoints.NEVER_BEST
        checkpoints.save(self._engine, self._job.storage, self._state, score, sample.tolist())

    @torch.no_grad()
    def _validate(self) -> tuple[float, float]:
        """Loss on the held-out rows, and how often the student's first choice is the target's."""
        size = self._job.train.batch_size
        alike = sorted(self._validation, key=lambda row: self._lengths[row])
        loss = hits = 0.0
        self._engine.eval()
        for begin in range(0, len(alike), size):
            batch = self._collate(alike[begin : begin + size])
            logits = self._engine(**batch.inputs).logits
            loss += choice_loss(logits, batch.targets, batch.weights, torch.tensor(1.0)).item()
            hit = logits.argmax(-1) == batch.targets.argmax(-1)
            hits += (hit & (batch.weights > 0)).sum().item()
        self._engine.train()
        loss, hits = self._sum_over_workers(loss, hits)
        return loss / self._examples.weights[alike].sum().item(), hits / len(alike)

    @torch.no_grad()
    def _sample(self) -> Tensor:
        """The model's logits for the first rows, in float32, without DeepSpeed's autocast."""
        inputs = self._tokenizer(
            self._questions, truncation=True, padding=True, return_tensors="pt"
        ).to(self._engine.device)
        self._engine.eval()
        logits: Tensor = self._engine.module(**inputs).logits
        self._engine.train()
        return logits

    def _diverged(self, sign: str) -> WorkError:
        return WorkError(
            f"training, after {self._state.step} of {self._job.schedule.steps} steps",
            f"{sign}.",
            f"Lower the learning rate, which is {self._job.train.learning_rate:g}.",
        )

    def _collate(self, rows: list[int]) -> Batch:
        """This worker's slice of a global batch."""
        mine = share_of(rows, self.rank, self._workers)
        return collate(self._examples, mine, self._engine.device)

    def _sum_over_workers(self, *values: float) -> list[float]:
        sums = torch.tensor(values, dtype=torch.float64, device=self._engine.device)
        dist.all_reduce(sums)
        return sums.tolist()
