"""What a recipe says of its students, and of how they are trained."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from core.recipe_section import Device, Name, Section


class ChoiceObjective(Section):
    """The loss of a student that chooses: lambda*CE(y) + (1-lambda)*CE(p_tau) (2412.09807)."""

    kind: Literal["choices"] = "choices"
    """Which loss."""
    hard_weight: float = Field(default=0.0, ge=0.0, le=1.0)
    """lambda, the weight of the hard label; the rest goes to the teacher's soft label."""
    temperature: float = Field(default=1.0, ge=0.0)
    """tau of the teacher's softmax; 0 puts all weight on its first choice."""


class SequenceObjective(Section):
    """The loss of a student that writes: the cross-entropy of the answer, and of rationales.

    L = w*L_answer + sum over teachers of w_t*L_rationale(t) (2402.04616; with one teacher,
    2403.15886). The student learns each as a task of its own and answers without a rationale.
    """

    kind: Literal["sequence"]
    """Which loss."""
    answer_weight: float = Field(default=1.0, ge=0)
    """w, of the answer."""
    rationale_weights: dict[Name, float] = {}
    """w_t by teacher, of the rationales that it wrote. A row without one adds nothing."""
    answer_prefix: str = ""
    """What an input begins with where the answer is wanted, such as `predict: `."""
    rationale_prefix: str | dict[Name, str] = "explain ({teacher}): "
    """What it begins with where a teacher's rationale is wanted: a text for all, in which
    `{teacher}` is its name, or one by teacher."""

    def prefix_of(self, teacher: str) -> str:
        """What an input begins with where a teacher's rationale is wanted."""
        if isinstance(self.rationale_prefix, str):
            return self.rationale_prefix.replace("{teacher}", teacher)
        return self.rationale_prefix[teacher]

    @model_validator(mode="after")
    def _something_is_learnt(self) -> Self:
        if any(weight < 0 for weight in self.rationale_weights.values()):
            raise ValueError("rationale_weights has a weight below 0")
        if not self.answer_weight and not any(self.rationale_weights.values()):
            raise ValueError("answer_weight and rationale_weights are all 0: there is no loss")
        return self

    @model_validator(mode="after")
    def _tasks_are_told_apart(self) -> Self:
        found = {"the answer": self.answer_prefix} if self.answer_weight else {}
        for teacher in (name for name, weight in self.rationale_weights.items() if weight):
            if not isinstance(self.rationale_prefix, str) and teacher not in self.rationale_prefix:
                raise ValueError(f"rationale_prefix has nothing for '{teacher}'")
            prefix = self.prefix_of(teacher)
            same = next((other for other, known in found.items() if known == prefix), None)
            if same is not None:
                raise ValueError(
                    f"{same} and the rationale of {teacher} have the same prefix, '{prefix}': the "
                    "student could not know which is wanted"
                )
            found[f"the rationale of {teacher}"] = prefix
        return self


class LogitObjective(Section):
    """The loss of a student that has its teacher's vocabulary: the likeliest tokens of each place.

    hard_weight*CE + (1-hard_weight)*D, where D compares the teacher's likeliest tokens, and the
    rest of the vocabulary as one more, with the same of the student. There is no temperature: what
    the rest would have at another one does not follow from what it has in all.
    """

    kind: Literal["logits"]
    """Which loss."""
    divergence: Literal["forward_kl", "reverse_kl", "jsd"] = "forward_kl"
    """D: KL(teacher, student), KL(student, teacher), or the generalised Jensen-Shannon divergence
    (2306.13649)."""
    beta: float = Field(default=0.5, gt=0, lt=1)
    """Of `jsd`: the teacher's share in the mixture."""
    hard_weight: float = Field(default=0.0, ge=0.0, le=1.0)
    """Weight of the cross-entropy of what the teacher wrote."""


def _kind(objective: Any) -> str:
    """Which loss a section is; that of choices where it does not say."""
    if isinstance(objective, dict):
        return str(objective.get("kind", "choices"))
    return str(getattr(objective, "kind", ""))


Objective = Annotated[
    Annotated[ChoiceObjective, Tag("choices")]
    | Annotated[SequenceObjective, Tag("sequence")]
    | Annotated[LogitObjective, Tag("logits")],
    Discriminator(_kind),
]
"""A loss of any kind."""


class Lora(Section):
    """Low-rank adapters in place of all weights (2106.09685); they are merged into the student."""

    rank: int = Field(default=16, ge=1)
    """Of each adapter."""
    alpha: int = Field(default=32, ge=1)
    """Adapters are scaled by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Before each adapter."""
    targets: list[str] | Literal["all-linear"] = "all-linear"
    """Names of the layers that get one; all linear ones but the output by default."""


class Offload(Section):
    """What DeepSpeed keeps in the machine's memory instead of the GPU's."""

    optimizer: bool = True
    """The optimizer's state, and its step."""
    parameters: bool = False
    """The weights, fetched layer by layer; with ZeRO stage 3 alone."""


class Workers(Section):
    """How many workers a training may have."""

    min: int = Field(default=1, ge=1)
    """At least."""
    max: int = Field(ge=1)
    """At most, where the cluster has room."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max < self.min:
            raise ValueError(f"max is {self.max}, below min, {self.min}")
        return self


class Train(Section):
    """How a student is trained."""

    epochs: int = Field(default=5, ge=1)
    """Passes over the training rows."""
    min_steps: int = Field(default=1, ge=1)
    """Optimizer steps at least: epochs are repeated until then, so that few rows train as long as
    many."""
    patience: int | None = Field(default=None, ge=1)
    """Epochs in a row without a lower loss on held-out rows after which training ends; none ends it
    if absent."""
    batch_size: int = Field(default=16, ge=1)
    """Rows per optimizer step, over all workers together."""
    micro_batch_size: int | None = Field(default=None, ge=1)
    """Rows that a worker has in memory at once: the gradients of a batch are summed over as many
    passes as that takes. If absent, one pass, or as many as keep padding to a twentieth of it."""
    learning_rate: float = Field(default=5e-5, gt=0)
    """Peak rate of AdamW."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Decoupled weight decay of AdamW."""
    warmup_share: float = Field(default=0.1, ge=0, le=1)
    """Share of the steps over which the rate rises from zero."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the rate falls to zero afterwards, if it does."""
    max_length: int = Field(default=256, ge=8)
    """Tokens of an input at most; longer ones are cut and counted."""
    max_answer_length: int = Field(default=256, ge=1)
    """Tokens of an answer or a rationale at most, for a student that writes; longer ones are cut
    and counted."""
    objective: Objective | None = None
    """The loss; that of choices for an encoder and of sequences for others if absent."""
    validation_share: float = Field(default=0.1, ge=0, lt=1)
    """Share of the training rows held out to pick the best epoch; the evaluation rows never do."""
    zero_stage: Literal[0, 1, 2, 3] | None = None
    """DeepSpeed's ZeRO stage; torch's DistributedDataParallel without DeepSpeed if absent."""
    offload: Offload | None = None
    """With DeepSpeed: what does not stay on the GPU."""
    precision: Literal["float32", "bfloat16"] | None = None
    """Of the arithmetic; bfloat16 on GPUs and float32 elsewhere if absent. The optimizer's weights
    are float32 always."""
    activation_checkpointing: bool = False
    """Activations are computed again in the backward pass instead of kept: a third more time for
    a fraction of the memory."""
    lora: Lora | None = None
    """Train adapters instead of all weights; for students that write."""
    workers: Annotated[int, Field(ge=1)] | Workers = 1
    """Ray Train workers: a fixed number, or {min, max} that follows what the cluster has."""
    device: Device = Device()
    """What one worker runs on."""
    checkpoint_every: int = Field(default=50, ge=1)
    """Optimizer steps between checkpoints."""
    track: list[Literal["tensorboard", "mlflow", "wandb"]] = []
    """Where the metrics go beside the run's own `metrics.jsonl`."""

    @property
    def worker_bounds(self) -> Workers:
        """The least and the greatest number of workers."""
        if isinstance(self.workers, Workers):
            return self.workers
        return Workers(min=self.workers, max=self.workers)

    @model_validator(mode="after")
    def _offloads_with_deepspeed(self) -> Self:
        if self.offload is not None:
            if self.zero_stage is None or self.zero_stage < 2:
                raise ValueError("offload needs zero_stage 2 or 3")
            if self.offload.parameters and self.zero_stage != 3:
                raise ValueError("offload.parameters needs zero_stage 3")
        return self

    @model_validator(mode="after")
    def _patience_has_rows(self) -> Self:
        if self.patience is not None and self.validation_share == 0:
            raise ValueError("patience needs rows that are held out: set validation_share")
        return self


OBJECTIVES = {"encoder": ("choices",), "seq2seq": ("sequence",), "causal": ("sequence", "logits")}
"""What each family can learn by; the first is its own."""


class Student(Section):
    """A small model that takes over from the teacher."""

    family: Literal["encoder", "seq2seq", "causal"] = "encoder"
    """The kind of model: an encoder chooses, such as DeBERTa or ModernBERT; seq2seq models such as
    T5 and causal ones such as Llama write."""
    head: Literal["classes", "choices"] = "classes"
    """Of an encoder: `classes` has a logit for each choice of the task; `choices` reads each choice
    behind its question and gives it a logit, so that every row may have choices of its own."""
    model: str
    """The model it starts from, named as a teacher's is."""
    train: Train = Train()
    """How it is trained."""

    @property
    def objective(self) -> ChoiceObjective | SequenceObjective | LogitObjective:
        """The loss, the family's own if the recipe does not say."""
        if self.train.objective is not None:
            return self.train.objective
        return ChoiceObjective() if self.family == "encoder" else SequenceObjective(kind="sequence")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        kinds = OBJECTIVES[self.family]
        if self.objective.kind not in kinds:
            raise ValueError(
                f"train.objective is of kind '{self.objective.kind}', but a student of family "
                f"{self.family} learns by: {', '.join(kinds)}"
            )
        if self.family == "encoder" and self.train.lora is not None:
            raise ValueError("train.lora is for students that write; an encoder is small enough")
        if self.family != "encoder" and self.head != "classes":
            raise ValueError(f"head is for encoders, and the family is {self.family}")
        return self
