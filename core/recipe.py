"""What a recipe may say: strict models of every section that more than one method shares.

Each method adds its own sections in a subclass of `Recipe` (see `stillhouse/methods/`). A key that
no model knows, a wrong type or an impossible value is an error; `core.recipe_file` turns it into
one message with the line. The text under a field is its documentation: it goes into the JSON
Schema that editors read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
"""Lower-case letters, digits, dots, dashes and underscores: it becomes a folder and a URL."""


class Section(BaseModel):
    """Base of every section: unknown keys and silent conversions are refused."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True
    )


class Task(Section):
    """What the student must learn, in the words that the teacher reads."""

    instruction: str = Field(min_length=1)
    """One or two sentences that tell a person, or a model, what to do with an input."""
    question_name: str = "Question"
    """What an input is called in prompts, such as `Headline`."""
    answer_name: str = "Answer"
    """What an answer is called in prompts, such as `News desk`."""
    choices: list[Annotated[str, Field(min_length=1)]] = Field(min_length=2)
    """The answers to choose from, the same for every row."""
    examples: str
    """JSONL file of the few labelled rows that the method starts from, beside the recipe:
    {"question": ..., "answer": ...}."""
    evaluation: str
    """JSONL file of labelled rows that nothing is learnt from: before the evaluation they are only
    read to drop items that copy from them."""

    @model_validator(mode="after")
    def _choices_differ(self) -> Self:
        folded = [choice.strip().casefold() for choice in self.choices]
        if len(set(folded)) < len(folded):
            raise ValueError("two choices are the same but for case or blanks")
        return self


class Device(Section):
    """The hardware of one engine, one training worker or one serving replica."""

    kind: str = "cpu-core"
    """Its name in the price book, such as `cpu-core` or `h100`."""
    cpus: float = Field(default=1, gt=0)
    """Cores per engine, worker or replica, as Ray counts them."""
    gpus: float = Field(default=0, ge=0)
    """GPUs per engine, worker or replica, as Ray counts them."""

    @property
    def count(self) -> float:
        """How many devices are paid for: the GPUs where there are any, otherwise the cores."""
        return self.gpus or self.cpus


class Teacher(Section):
    """A model whose answers the student learns from, on vLLM."""

    backend: Literal["vllm"] = "vllm"
    """Where its answers come from."""
    model: str
    """`embedded://NAME`, a local folder, an object-store path or a hub id."""
    engine: dict[str, Any] = {}
    """Engine arguments, handed to vLLM as they are (`max_model_len`, `dtype`, ...)."""
    environment: dict[str, str] = {}
    """Environment variables of the engine's process."""
    replicas: int = Field(default=1, ge=1)
    """Engines that run side by side."""
    device: Device = Device()
    """What one engine runs on."""


class Objective(Section):
    """The loss of a student that chooses: lambda*CE(y) + (1-lambda)*CE(p_tau) (2412.09807)."""

    hard_weight: float = Field(default=0.0, ge=0.0, le=1.0)
    """lambda, the weight of the hard label; the rest goes to the teacher's soft label."""
    temperature: float = Field(default=1.0, ge=0.0)
    """tau of the teacher's softmax; 0 puts all weight on its first choice."""


class Train(Section):
    """How a student is trained."""

    epochs: int = Field(default=5, ge=1)
    """Passes over the training rows."""
    min_steps: int = Field(default=1, ge=1)
    """Optimizer steps at least: epochs are repeated until then, so that few rows train as long as
    many."""
    batch_size: int = Field(default=16, ge=1)
    """Rows per optimizer step, over all workers together."""
    learning_rate: float = Field(default=5e-5, gt=0)
    """Peak rate of AdamW."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Decoupled weight decay of AdamW."""
    warmup_share: float = Field(default=0.1, ge=0, le=1)
    """Share of the steps over which the rate rises from zero; it then falls linearly to zero."""
    max_length: int = Field(default=256, ge=8)
    """Tokens of an input at most; longer ones are cut and counted."""
    objective: Objective = Objective()
    """The loss."""
    validation_share: float = Field(default=0.1, ge=0, lt=1)
    """Share of the training rows held out to pick the best epoch; the evaluation rows never do."""
    zero_stage: Literal[0, 1, 2, 3] = 0
    """DeepSpeed ZeRO stage."""
    workers: int = Field(default=1, ge=1)
    """Ray Train workers."""
    device: Device = Device()
    """What one worker runs on."""
    checkpoint_every: int = Field(default=50, ge=1)
    """Optimizer steps between checkpoints."""


class Student(Section):
    """A small model that takes over from the teacher."""

    family: Literal["encoder"] = "encoder"
    """The kind of model."""
    model: str
    """The model it starts from, named as a teacher's is."""
    train: Train = Train()
    """How it is trained."""


class Serve(Section):
    """How a student answers over HTTP."""

    port: int = Field(default=8000, ge=0, le=65535)
    """Port on this machine; 0 takes a free one."""
    replicas: int = Field(default=1, ge=1)
    """Student replicas."""
    device: Device = Device()
    """What one replica runs on."""
    max_batch_size: int = Field(default=32, ge=1)
    """Requests that share one forward pass at most."""
    batch_wait_ms: float = Field(default=2.0, ge=0)
    """Milliseconds that a request waits for others to join its batch."""


class Compare(Section):
    """Teacher and student on the same requests, over the same HTTP path."""

    requests: int = Field(default=200, ge=1)
    """Evaluation rows sent to each at most, in an order fixed by the seed."""
    concurrency: int = Field(default=8, ge=1)
    """Requests in flight."""
    requests_per_day: int = Field(default=100_000, ge=1)
    """The traffic at which break-even is told in days."""


class NearDuplicates(Section):
    """Which items say nearly the same as an earlier one."""

    threshold: float = Field(default=0.8, ge=0.5, le=1)
    """Jaccard similarity of their character 4-grams, as MinHash estimates it, from which they do;
    one changed word of ten leaves 0.77 on average."""


class Languages(Section):
    """Which languages items may be in."""

    wanted: list[Annotated[str, Field(pattern=r"^[a-z]{2,3}$")]] = Field(min_length=1)
    """ISO 639 codes, such as `en`."""
    min_probability: float = Field(default=0.02, gt=0, le=1)
    """Probability of the wanted languages together, at least. It is low because a short text
    leaves something to each of 139 languages: of the demonstration's English headlines a quarter
    are English with less than 0.5 and 0.2% with less than 0.02, while headlines in other
    languages stay below 0.005. Texts under 30 bytes are not judged."""


class Curate(Section):
    """Which generated items are worth scoring."""

    min_words: int = Field(default=3, ge=1)
    """Words of a question at least."""
    max_words: int = Field(default=40, ge=1)
    """Words of a question at most."""
    near_duplicates: NearDuplicates | None = None
    """Items that say nearly the same as an earlier one are dropped; `{}` takes the default
    threshold. Equal ones always are."""
    languages: Languages | None = None
    """Items that are hardly in one of these languages are dropped."""
    contamination_ngram: int | None = Field(default=8, ge=1)
    """Items that share this many words in a row with an evaluation row are dropped, or all of its
    words where it has fewer; null does not look."""
    max_class_ratio: float | None = Field(default=None, ge=1)
    """Items of a choice, for every item of the rarest choice, at most; the seed decides which ones
    of the rest are dropped."""


class Recipe(Section):
    """The sections that every method has."""

    name: Name
    """Names the run."""
    method: str
    """Which published method: a module of `stillhouse/methods/`."""
    seed: int = Field(default=0, ge=0)
    """Seed of sampling, shuffling and training."""
    shard_rows: int = Field(default=64, ge=1)
    """Rows that are committed together: what a kill can cost."""
    task: Task
    """What the student must learn."""
    teachers: dict[Name, Teacher] = Field(min_length=1)
    """By name: the models that generate and score."""
    students: dict[Name, Student] = Field(min_length=1)
    """By name: the models that are trained."""
    serve: Serve = Serve()
    """The endpoint."""
    compare: Compare = Compare()
    """The cost comparison."""
    prices: str | None = None
    """YAML price book beside the recipe; the one that comes with Stillhouse if absent."""

    def files(self) -> dict[str, str]:
        """Input files that the recipe names, by the dotted key that names them."""
        named = {"task.examples": self.task.examples, "task.evaluation": self.task.evaluation}
        if self.prices is not None:
            named["prices"] = self.prices
        return named


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe together with the folder that its relative paths start from."""

    recipe: Recipe
    folder: Path

    def path(self, name: str) -> Path:
        """An input file that the recipe names, as a path on this machine."""
        return self.folder / name
