"""A training stage outside any workflow, on rows that a tiny student can learn."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest
import ray
import torch
from transformers import AutoTokenizer

from core.ledger import Entry
from core.models import model_folder
from core.recipe import LoadedRecipe, StudentRecipe, Task
from core.recipe_section import Device
from core.recipe_students import Student, Train
from core.recipe_teachers import Teacher
from core.rows import TEXT_TRAINING, TRAINING
from core.run import Folder, Manifest, StageFolder
from core.stage import Progress, StageContext
from training.checkpoint_list import LIST, PREFIX, STATE
from training.families import family_of
from training.stage import train

# Words that the tiny tokenizers know.
TOPICS = {
    "business": ["central", "bank", "holds", "interest", "rates", "as", "inflation", "cools"],
    "health": ["new", "vaccine", "cuts", "hospital", "stays", "among", "older", "patients"],
    "sports": ["late", "goal", "sends", "underdogs", "into", "the", "cup", "final"],
}
CHOICES = list(TOPICS)


def draw_headlines(count: int) -> list[tuple[str, str]]:
    """Headlines of a few words from one topic, and the topic."""
    draw = random.Random(0)
    found = []
    for _ in range(count):
        topic = draw.choice(CHOICES)
        found.append((topic, " ".join(draw.choices(TOPICS[topic], k=draw.randint(3, 12)))))
    return found


def make_rows(count: int) -> list[dict]:
    """Headlines to choose a topic for, with a teacher that is fairly sure of it."""
    draw = random.Random(1)
    return [
        {
            "id": f"row-{number}",
            "question": headline,
            "choices": CHOICES,
            "answer": CHOICES.index(topic),
            "logits": [draw.gauss(3.0 if choice == topic else 0.0, 0.5) for choice in CHOICES],
            "weight": draw.choice([0.5, 1.0]),
            "source": "decomposed",
        }
        for number, (topic, headline) in enumerate(draw_headlines(count))
    ]


def make_choice_rows(count: int) -> list[dict]:
    """Headlines with two or three topics in any order, of which the one that `CHOICES` has first is
    right: whether a topic fits a headline so small a model learns on some days only."""
    draw = random.Random(2)
    rows = []
    for row in make_rows(count):
        choices = draw.sample(CHOICES, draw.randint(2, 3))
        answer = choices.index(min(choices, key=CHOICES.index))
        rows.append({**row, "choices": choices, "answer": answer, "logits": None})
    return rows


def make_texts(count: int) -> list[dict]:
    """Headlines to name the topic of; to every other one a teacher gives its reason."""
    draw = random.Random(1)
    return [
        {
            "id": f"row-{number}",
            "messages": [{"role": "user", "content": headline}],
            "answer": topic,
            "rationales": [{"teacher": "palm", "text": headline.split()[0]}] * (number % 2),
            "token_ids": None,
            "top_ids": None,
            "top_logprobs": None,
            "weight": draw.choice([0.5, 1.0]),
            "source": "palm",
        }
        for number, (topic, headline) in enumerate(draw_headlines(count))
    ]


@dataclass
class Case:
    """A training stage outside any workflow, and what it told."""

    folder: Path
    base: Path
    rows: list[dict]
    train: Train
    family: str = "encoder"
    head: str = "classes"
    progress: list[Progress] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)

    @property
    def section(self) -> Student:
        return Student(family=self.family, head=self.head, model=str(self.base), train=self.train)

    def context(self) -> StageContext:
        rows = StageFolder("select", Folder(str(self.folder / "select")))
        half = len(self.rows) // 2
        schema = TRAINING if self.family == "encoder" else TEXT_TRAINING
        for key, part in (("a", self.rows[:half]), ("b", self.rows[half:])):
            rows.commit_shard(key, pa.Table.from_pylist(part, schema=schema), pa.table({}))
        rows.commit(Manifest("select", "of-the-rows", {}, ["a", "b"], len(self.rows), {}))
        recipe = StudentRecipe(
            name="tiny",
            method="fewshot_mcqa",
            task=Task(instruction="Choose.", choices=CHOICES, examples="e", evaluation="e"),
            teachers={"teacher": Teacher(model="none")},
            students={"student": self.section},
        )
        return StageContext(
            stage=StageFolder("train-student", Folder(str(self.folder / "train"))),
            recipe=LoadedRecipe(recipe, self.folder),
            settings={"student": "student", "section": self.section.model_dump(), "seed": 1},
            inputs={"rows": rows},
            engine=lambda name: pytest.fail(f"asked for the teacher {name}"),
            model=model_folder,
            fingerprint="f",
            over_budget=lambda _: None,
            attempt=f"attempt{len(self.entries)}",
            write_entry=self.entries.append,
            show=self.progress.append,
            logs=self.folder,
        )

    def run(self) -> dict:
        return train(self.context()).facts

    @property
    def student(self) -> Path:
        return self.folder / "train" / "student"

    @property
    def metrics(self) -> list[dict]:
        """What was logged."""
        lines = (self.folder / "train" / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    @property
    def losses(self) -> list[float]:
        """Of each step."""
        return [entry["loss"] for entry in self.metrics if "loss" in entry]

    @property
    def snapshot(self) -> Path | None:
        """Ray Train's list of checkpoints, once it has one."""
        return next(self.folder.glob(f"train/checkpoints/*/{LIST}"), None)

    @property
    def reports(self) -> int:
        """Checkpoints that Ray Train has taken in."""
        try:
            return json.loads(self.snapshot.read_text())["current_report_index"]
        except (AttributeError, json.JSONDecodeError):
            return 0

    @property
    def state(self) -> dict[str, Any]:
        """Of the latest checkpoint; empty before the first."""
        files = sorted(self.folder.glob(f"train/checkpoints/*/{PREFIX}*/{STATE}"))
        try:
            return json.loads(files[-1].read_text())
        except (IndexError, FileNotFoundError):  # a later one has just taken its place
            return {}

    @property
    def checkpoints(self) -> list[Path]:
        """Their folders, from the first step to the last."""
        found = self.folder.glob(f"train/checkpoints/*/{PREFIX}*")
        return sorted(path for path in found if path.is_dir())

    def model(self) -> torch.nn.Module:
        """The student, as transformers loads it."""
        auto_class = family_of(self.section, self.student, CHOICES, 1).auto_class
        return auto_class.from_pretrained(self.student).eval()

    def weights(self) -> dict[str, torch.Tensor]:
        return self.model().state_dict()

    def answers(self, questions: list[str]) -> list[int]:
        """As transformers gives them, with nothing of ours; of a head for classes."""
        tokenizer = AutoTokenizer.from_pretrained(self.student)
        inputs = tokenizer(questions, padding=True, truncation=True, return_tensors="pt")
        with torch.no_grad():
            return self.model()(**inputs).logits.argmax(-1).tolist()


TRAIN = Train(
    epochs=8,
    batch_size=8,
    learning_rate=5e-3,
    max_length=10,
    device=Device(kind="cpu-core", cpus=1),
)


def without_dropout(encoder: Path, folder: Path) -> Path:
    """An encoder without dropout, which would differ between one worker and two."""
    shutil.copytree(encoder, folder)
    config = json.loads((folder / "config.json").read_text())
    none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps({**config, **none}))
    return folder


def start_ray(cores: int = 8) -> None:
    ray.init(
        address="local",
        num_cpus=cores,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
    )


class Driver:
    """A case's training in a process of its own, on a Ray of its own."""

    def __init__(self, case: Case, cores: int = 8) -> None:
        self._case = case
        case.folder.mkdir(exist_ok=True, parents=True)
        told = {
            "train": case.train.model_dump(),
            "folder": str(case.folder),
            "base": str(case.base),
        }
        told |= {"rows": case.rows, "family": case.family, "head": case.head}
        file = case.folder / "case.json"
        file.write_text(json.dumps(told))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.training_case", str(file), str(cores)],
            cwd=Path(__file__).parents[1],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(self) -> dict[str, Any]:
        """Wait for the student, and return the facts."""
        output = self.process.communicate(timeout=300)[0]
        assert self.process.returncode == 0, output[-2000:]
        return json.loads((self._case.folder / "train" / "student.json").read_text())["facts"]

    def wait_for(self, condition: Callable[[], object]) -> None:
        """Wait until something is so."""
        while not condition():
            assert self.process.poll() is None, f"ended before: {self.process.communicate()[0]}"
            time.sleep(0.01)

    def kill_worker(self) -> None:
        """Kill one training worker."""
        workers = [one for one in self._below() if "RayTrainWorker" in " ".join(one.cmdline())]
        workers[-1].kill()

    def kill(self) -> str:
        """Kill the driver, see all that it has started end, and return what it has written."""
        below = self._below()
        self.process.send_signal(signal.SIGKILL)
        output = self.process.communicate()[0]
        deadline = time.monotonic() + 60
        while left := [one for one in below if _runs(one)]:
            assert time.monotonic() < deadline, f"without its driver goes on: {left}"
            time.sleep(0.1)
        return output

    def _below(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _main() -> None:
    told = json.loads(Path(sys.argv[1]).read_text())
    told |= {"folder": Path(told["folder"]), "base": Path(told["base"])}
    start_ray(int(sys.argv[2]))
    Case(**{**told, "train": Train.model_validate(told["train"])}).run()


if __name__ == "__main__":
    _main()
