"""The loop of one training worker, under Ray Train.

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

from core.errors import StillhouseError, WorkError
from training import checkpoints
from training.batches import alike, epoch_batches, split, stream
from training.export import export_student
from training.families import family_of
from training.family import logits_of
from training.job import Job
from training.metrics import Metrics
from training.notes import Reporter
from training.start import start
from training.units import deal, padding_share, passes_of


def run(job: Job) -> dict[str, Any] | None:
    """Train, and on worker 0 export.

    Returns:
        The facts of the training; None on the other workers, and if the driver asked to stop.
    """
    torch.set_num_threads(max(1, int(job.train.device.cpus)))
    job.box.raise_fault()
    try:
        worker = _Worker(job)
        finished = worker.train()
        facts = worker.export() if finished and worker.rank == 0 else None
        worker.end()
    except torch.OutOfMemoryError as error:
        fault = _out_of_memory(job, error)
        job.box.fail(fault)
        raise fault from error
    except StillhouseError as error:
        job.box.fail(error)
        raise
    return facts


def _out_of_memory(job: Job, error: torch.OutOfMemoryError) -> WorkError:
    return WorkError(
        f"training of '{job.name}'",
        f"the device's memory is full: {str(error).splitlines()[0]}",
        "Set train.micro_batch_size, activation_checkpointing, a higher zero_stage or offload; "
        "`stillhouse plan` shows what each takes.",
    )


class _Worker:
    def __init__(self, job: Job) -> None:
        context = ray.train.get_context()
        self.rank: int = context.get_world_rank()
        self._workers: int = context.get_world_size()
        self._job = job
        self._reporter = Reporter(job.box, self._workers) if self.rank == 0 else None
        self._family = family_of(job.student, job.base, job.choices, job.seed)
        table = job.rows.read(self._family.columns)
        self._units = self._family.units(table)
        self._shapes = self._units.row_shapes
        self._training, self._validation = split(job.schedule, job.seed)
        self._shares = self._shares_of(self._training)
        self._sample_table: pa.Table = table.slice(0, 64)
        self._strategy, self._state = start(job, self._family)
        self._parameters = sum(
            getattr(p, "ds_numel", p.numel()) for p in self._strategy.bare.parameters()
        )
        self._metrics = Metrics(job, self._state) if self.rank == 0 else None

    def train(self) -> bool:
        """Take the steps that are left; false if the driver asked to stop before the last."""
        schedule, state = self._job.schedule, self._state
        before, began, saved = state.seconds, time.monotonic(), state.step
        if self._reporter:
            self._reporter.begin(state.step, state.history)
        self._strategy.model.train()  # transformers loads models for inference, without dropout
        warned = False
        for epoch in range(state.step // schedule.steps_per_epoch, schedule.epochs):
            if self._has_converged():
                break
            for batch in self._batches(epoch)[state.step % schedule.steps_per_epoch :]:
                stop, looks = self._step(batch)
                ends_epoch = state.step % schedule.steps_per_epoch == 0
                improved = ends_epoch and self._end_epoch()
                state.seconds = before + time.monotonic() - began
                # A machine that will be taken away says so some time before: one checkpoint then.
                notice = looks and not warned and ray.train.get_preemption_info() is not None
                warned = warned or notice
                due = state.step - saved >= self._job.train.checkpoint_every
                last = state.step == schedule.steps or (ends_epoch and self._has_converged())
                if improved or due or stop or notice or last:
                    self._save(ends_epoch)
                    saved = state.step
                if stop:
                    return False
        return True

    def export(self) -> dict[str, Any]:
        """Write the best epoch's student to its place, proven equal, and tell of the training."""
        job, state = self._job, self._state
        with checkpoints.best() as best:
            export_student(job, self._family, best, self._sample_table, self._strategy.device)
        if self._metrics:
            self._metrics.close()
        epochs = range(len(state.history))
        batches = [batch for epoch in epochs for batch in self._batches(epoch)]
        return {
            "steps": state.step,
            "resumed": state.resumed,
            "workers": self._workers,
            "epochs": len(state.history),
            "best_epoch": best.epoch,
            "history": state.history,
            "training_rows": job.schedule.training_rows,
            "validation_rows": job.schedule.validation_rows,
            "cut_rows": self._units.cut,
            "padding_share": padding_share(
                batches, self._units, self._workers, job.train.micro_batch_size
            ),
            "parameters": self._parameters,
            "seconds": state.seconds,
            "samples_per_second": sum(map(len, batches)) / state.seconds,
        }

    def end(self) -> None:
        """Say that this worker's work is over."""
        if self._reporter:
            self._reporter.end(self._state.step)

    def _batches(self, epoch: int) -> list[list[int]]:
        size, seed = self._job.train.batch_size, self._job.seed
        return epoch_batches(self._training, self._shapes, size, seed, epoch)

    def _shares_of(self, rows: list[int]) -> Tensor:
        """What each unit adds to the mean loss over a set of rows; [all units], 0 for others."""
        shares = torch.zeros(len(self._units.sides))
        numbers = self._units.of(rows)
        if numbers:
            shares[numbers] = self._units.coefficients(numbers)
        return shares

    def _passes(self, units: list[int]) -> list[tuple[list[int], bool]]:
        """What this worker's model reads of a batch, pass by pass, and whether that counts.

        A worker whose share of a pass is empty takes part in the others' collectives all the same.
        """
        at_once = self._job.train.micro_batch_size
        found = []
        for one in passes_of(units, self._units, self._workers, at_once):
            mine = deal(one, self._units, self.rank, self._workers)
            found.append((mine or one[:1], bool(mine)))
        return found

    def _step(self, rows: list[int]) -> tuple[bool, bool]:
        """Take one optimizer step on a global batch.

        Returns:
            Whether the driver asks to stop after it, and whether it is time to look around.
        """
        state, units = self._state, self._units.of(rows)
        torch.manual_seed(stream(self._job.seed, "dropout", state.step, self.rank))
        coefficients = dict(zip(units, self._units.coefficients(units).tolist(), strict=True))
        passes = self._passes(units)
        loss_here = share_here = 0.0
        for number, (chosen, counts) in enumerate(passes):
            with self._strategy.part(last=number == len(passes) - 1):
                weights = torch.tensor([coefficients[unit] for unit in chosen]) * counts
                with self._strategy.arithmetic():
                    losses = self._units.losses(
                        self._strategy.model, chosen, self._strategy.device
                    ).losses
                loss = (weights.to(losses.device) * losses).sum()
                self._strategy.backward(loss)
            found = losses.detach().cpu()
            loss_here += loss.item()
            share_here += (self._shares[chosen] * counts * found).sum().item()
        looks = stop = False
        if self._reporter:
            looks = self._reporter.due()
            stop = looks and self._reporter.tick(state.step)
        total, share, stops, look = self._sum_over_workers(
            loss_here, share_here, float(stop), float(looks)
        )
        if not math.isfinite(total):
            raise self._diverged(f"the loss became {total}")
        rate = self._strategy.learning_rate
        norm = self._strategy.step()
        if norm is not None and not math.isfinite(norm):
            raise self._diverged(f"the gradients' norm became {norm}")
        state.step += 1
        state.epoch_loss += share
        if self._metrics:
            self._metrics.step(total, rate, norm, len(rows))
        return stops > 0, look > 0

    def _end_epoch(self) -> bool:
        """Write the epoch into the history; true if it is the best so far on held-out rows."""
        history = self._state.history
        loss, accuracy = self._validate() if self._validation else (None, None)
        if loss is not None and not math.isfinite(loss):
            raise self._diverged(f"the loss on held-out rows became {loss}")
        improved = loss is not None and all(loss < entry["validation_loss"] for entry in history)
        entry = {
            "epoch": len(history) + 1,
            "step": self._state.step,
            "train_loss": self._state.epoch_loss,
            "validation_loss": loss,
            "validation_accuracy": accuracy,
        }
        history.append(entry)
        self._state.epoch_loss = 0.0
        if self._metrics:
            self._metrics.epoch(entry)
        if self._reporter:
            self._reporter.epoch(entry)
        return improved

    def _has_converged(self) -> bool:
        """Whether the loss on held-out rows has not fallen for as long as the recipe waits."""
        patience, history = self._job.train.patience, self._state.history
        if patience is None or len(history) <= patience:
            return False
        losses = [entry["validation_loss"] for entry in history]
        return bool(min(losses[:-patience]) <= min(losses[-patience:]))

    def _save(self, ends_epoch: bool) -> None:
        """Write a checkpoint that can become the student if it ends an epoch.

        Without held-out rows the last one does.
        """
        sample = self._sample() if ends_epoch else None
        if sample is not None and not sample.isfinite().all():
            raise self._diverged("the student answers in numbers that are none")
        if not self._validation:
            score = float(self._state.step) if ends_epoch else checkpoints.NEVER_BEST
        elif ends_epoch:
            score = -self._state.history[-1]["validation_loss"]
        else:
            score = checkpoints.NEVER_BEST
        if self._metrics:
            self._metrics.write()
        checkpoints.save(self._strategy, self._job.storage, self._state, score, sample)

    @torch.no_grad()
    def _validate(self) -> tuple[float, float]:
        """Mean loss on the held-out rows, and the share of units whose first choice is right."""
        size = self._job.train.batch_size
        shares = self._shares_of(self._validation)
        loss = hits = 0.0
        self._strategy.model.eval()
        for rows in alike(self._validation, self._shapes, size):
            for chosen, counts in self._passes(self._units.of(rows)):
                with self._strategy.arithmetic():
                    found = self._units.losses(self._strategy.model, chosen, self._strategy.device)
                assert found.correct is not None, "no gradients are wanted"
                losses = found.losses.cpu()
                loss += (shares[chosen] * counts * losses).sum().item()
                hits += found.correct.sum().item() * counts
        self._strategy.model.train()
        loss, hits = self._sum_over_workers(loss, hits)
        return loss, hits / len(self._units.of(self._validation))

    @torch.no_grad()
    def _sample(self) -> Tensor:
        """The model's logits for the first rows, in the precision of its weights."""
        self._strategy.model.eval()
        inputs = self._family.sample(self._sample_table)
        logits = logits_of(self._strategy.bare, inputs, self._strategy.device)
        self._strategy.model.train()
        return logits

    def _diverged(self, sign: str) -> WorkError:
        return WorkError(
            f"training, after {self._state.step} of {self._job.schedule.steps} steps",
            f"{sign}.",
            f"Lower the learning rate, which is {self._job.train.learning_rate:g}.",
        )

    def _sum_over_workers(self, *values: float) -> list[float]:
        sums = torch.tensor(values, dtype=torch.float64, device=self._strategy.device)
        dist.all_reduce(sums)
        return sums.tolist()
