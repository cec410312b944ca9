"""A training stage outside any workflow, on rows that a tiny student can learn."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from pathlib import Path

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
        found = self.folder.glob("train/checkpoints/*/checkpoint_manager_snapshot.json")
        return next(found, None)

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


def start_ray() -> None:
    ray.init(
        address="local",
        num_cpus=8,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
    )
