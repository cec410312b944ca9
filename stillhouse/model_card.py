"""The model card of an exported student: front matter for the hub, and prose for people."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import PurePosixPath
from typing import Any

import jinja2

from core.embedded import EMBEDDED_MODELS
from core.errors import WorkError
from core.licences import licences, own_licence, shown
from core.models import EMBEDDED, is_hub_id
from core.recipe_students import SequenceObjective
from stillhouse.card_data import CardData, objective_in_words
from stillhouse.report import wording
from stillhouse.report.verdict import accuracy_difference

RECIPE = "stillhouse-recipe.yaml"
"""The run's recipe, beside the student."""


@dataclass(frozen=True)
class Form:
    """What a kind of model is to transformers and to the hub."""

    pipeline: str
    """The hub's word for the task."""
    loader: str
    """The class of transformers that loads it."""
    snippet: str
    """Which example of use the card shows."""


FORMS = {
    "ForSequenceClassification": Form(
        "text-classification", "AutoModelForSequenceClassification", "classes"
    ),
    "ForMultipleChoice": Form("multiple-choice", "AutoModelForMultipleChoice", "choices"),
    "ForConditionalGeneration": Form("text-generation", "AutoModelForSeq2SeqLM", "seq2seq"),
    "ForCausalLM": Form("text-generation", "AutoModelForCausalLM", "causal"),
}
"""By the end of the architecture's name in config.json."""


def form_of(config: dict[str, Any]) -> Form:
    """What kind of model a student is.

    Args:
        config: The content of its config.json.

    Raises:
        WorkError: It is none that a card can tell how to load.
    """
    architecture = (config.get("architectures") or ["none"])[0]
    end = next((end for end in FORMS if architecture.endswith(end)), None)
    if end == "ForConditionalGeneration" and not config.get("is_encoder_decoder"):
        end = "ForCausalLM"  # such as Gemma 3, which is called so for its images
    if end is not None:
        form = FORMS[end]
        # With one logit per sequence, each choice is read behind its question.
        one_logit = form.snippet == "classes" and len(config.get("id2label", {})) == 1
        return Form("multiple-choice", form.loader, "pairs") if one_logit else form
    raise WorkError(
        "the student's config.json",
        f"its architecture is {architecture}, which the model card cannot tell how to load.",
        f"It knows those that end in: {', '.join(FORMS)}.",
    )


def model_card(data: CardData, config: dict[str, Any], name: str, *, chat: bool) -> str:
    """Write a student's card.

    Args:
        data: What its run says.
        config: The content of its config.json.
        name: What it is called where it goes: a hub id, or the name of a folder.
        chat: Whether it has a chat template.
    """
    form = form_of(config)
    environment = jinja2.Environment(  # noqa: S701  # Markdown is no HTML
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        percent=wording.percent, count=wording.count, money=wording.money, cell=_cell
    )
    template = resources.files("stillhouse").joinpath("model_card.md.j2").read_text("utf-8")
    body = environment.from_string(template).render(
        data=data,
        report=data.report,
        economics=data.report.economics,
        gap=accuracy_difference(data.report),
        title=PurePosixPath(name).name,
        name=name,
        form=form,
        chat=chat,
        objective=objective_in_words(data.student),
        example=json.dumps(_prefix(data) + "An input of the task", ensure_ascii=False),
        settings=_settings(data),
        files={key: PurePosixPath(file).name for key, file in data.files.items()},
        licences=licences(),
        own=own_licence(data.sources),
        shown=shown(data.sources),
        transformers_version=config.get("transformers_version"),
        recipe=RECIPE,
        words=wording,
    )
    return f"---\n{_front_matter(data, form, name)}\n---\n\n{body}"


def _prefix(data: CardData) -> str:
    objective = data.student.objective
    return objective.answer_prefix if isinstance(objective, SequenceObjective) else ""


def _settings(data: CardData) -> dict[str, str]:
    left_out = {"objective", "device", "track", "checkpoint_every"}
    if data.student.family == "encoder":
        left_out |= {"max_answer_length"}
    settings = data.student.train.model_dump(exclude=left_out, exclude_none=True)
    return {key: str(value) for key, value in settings.items()}


def _front_matter(data: CardData, form: Form, name: str) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    licence = own_licence(data.sources)
    quality = data.quality
    results = []
    if quality is not None and quality.score.share is not None:
        results.append(
            EvalResult(
                task_type=form.pipeline,
                dataset_type=data.report.name,
                dataset_name=f"{data.report.name}, evaluation rows",
                metric_type="accuracy",
                metric_name="Accuracy",
                metric_value=round(quality.score.share, 4),
            )
        )
    more: dict[str, Any] = {"model_name": PurePosixPath(name).name} if results else {}
    card = ModelCardData(
        library_name="transformers",
        pipeline_tag=form.pipeline,
        base_model=_hub_name(data.student.model),
        license=licence.word,
        license_name=licence.name,
        license_link=licence.url,
        tags=["stillhouse", "distillation"],
        metrics=["accuracy"] if results else None,
        eval_results=results or None,
        **more,
    )
    return card.to_yaml().strip()


def _hub_name(model: str) -> str | None:
    """The hub id of a model; None of one that lies in a folder, which the hub would refuse."""
    if model.startswith(EMBEDDED):
        return EMBEDDED_MODELS[model.removeprefix(EMBEDDED)].hub
    return model if is_hub_id(model) else None


def _cell(text: object) -> str:
    """Text for a cell of a table."""
    return re.sub(r"\s+", " ", str(text)).replace("|", "\\|")
