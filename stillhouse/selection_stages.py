"""The choice of how teachers are asked: its stages.

selection ─┬ try-sampling-NAME ─ tried-sampling-NAME ─┬ choose-sampling ─┐
           └ ...                                      ┘                  │
           ┌ try-prompt-NAME ─── tried-prompt-NAME ───┬ choose-prompt    │
           └ ...                                      ┘ └────────────────┘
"""

from __future__ import annotations

from typing import Any

from core.recipe_prompts import as_prompt
from core.recipe_selection import AS_ASKED, SamplingChange
from stillhouse.asking import Ask, Decided, ask_stage, asked_texts, read_file
from stillhouse.judging import RATE_ANSWERS, judge_stage
from stillhouse.part_layout import PREDICT_TEACHERS, DistillingLayout
from stillhouse.stages import Stage


def _changed(ask: Ask, change: SamplingChange) -> Ask:
    """The same with other sampling settings."""
    changed = {k: v for k, v in change.model_dump().items() if v is not None}
    return ask.model_copy(update={"sampling": ask.sampling.model_copy(update=changed)})


class Selection(DistillingLayout):
    """Lays out the choice for a data set."""

    def stages(self, rows: str) -> list[Stage]:
        """The choice of the sampling, and then of the prompt."""
        select, part = self.recipe.select, self.part
        if select is None:
            return []
        layout, source = [], part.stage(rows)
        if part.selection is not None:
            source = part.stage("selection-file")
            layout.append(read_file(source, part.selection, None))
        layout.append(
            Stage(
                name=part.stage("selection"),
                run="pipelines.choosing:selection_rows",
                ray=False,
                settings={"task": self.read_by(), "rows": select.rows},
                inputs={"inputs": source, "evaluation": part.stage("evaluation")},
            )
        )
        asks = self.asks("elaborate")
        samplings = {AS_ASKED: asks} | {
            name: {t: _changed(ask, change) for t, ask in asks.items()}
            for name, change in select.sampling.items()
        }
        layout += self._try("sampling", samplings, None)
        if select.prompts:
            prompts = {
                name: {t: ask.model_copy(update={"prompt": prompt}) for t, ask in asks.items()}
                for name, prompt in part.variants.items()
            }
            layout += self._try("prompt", prompts, Decided(part.stage("choose-sampling"), False))
        return layout

    def _try(
        self, what: str, candidates: dict[str, dict[str, Ask]], decided: Decided | None
    ) -> list[Stage]:
        """Ask by each candidate, score what is written, and choose.

        Args:
            what: `sampling` or `prompt`.
            candidates: By name and teacher: how it is asked.
            decided: What is chosen already.
        """
        recipe, part, task = self.recipe, self.part, self.part.task
        layout: list[Stage] = []
        arms: dict[str, dict[str, str]] = {}
        written: dict[str, str] = {}
        for name, asks in candidates.items():
            asked, tried = (part.stage(f"{verb}-{what}-{name}") for verb in ("try", "tried"))
            layout.append(
                ask_stage(
                    asked, recipe, asks, part.stage("selection"), turns=task.turns, decided=decided
                )
            )
            arms[name] = {teacher: f"{teacher}, {name}" for teacher in asks}
            answers = {teacher: self.answer(ask.prompt) for teacher, ask in asks.items()}
            layout.append(
                Stage(
                    name=tried,
                    run=PREDICT_TEACHERS,
                    ray=False,
                    settings={"task": self.read_by(), "answers": answers, "arms": arms[name]},
                    inputs={"rows": part.stage("selection"), "answers": asked},
                )
            )
            written[name] = tried
        scored = self._score_tried(what, list(written.values()))
        elaborate = self.asks("elaborate")
        choices = candidates if what == "sampling" else {AS_ASKED: elaborate, **candidates}
        choose = Stage(
            name=part.stage(f"choose-{what}"),
            run="pipelines.choosing:choose",
            ray=False,
            settings={
                "teachers": list(recipe.ask),
                "arms": arms,
                "candidates": {
                    name: {teacher: self._choice(what, ask) for teacher, ask in asks.items()}
                    for name, asks in choices.items()
                },
            },
            inputs={
                "rows": part.stage("selection"),
                **({"before": decided.stage} if decided else {}),
                **({"scored": scored[0].name} if scored else written),
            },
        )
        return [*layout, *scored, choose]

    def _score_tried(self, what: str, tried: list[str]) -> list[Stage]:
        """The stage that scores what candidates wrote, where it is not compared with an answer."""
        recipe, part = self.recipe, self.part
        if part.task.measure == "accuracy":
            return []
        written = {name: name for name in tried}
        if part.task.measure == "entity_density":
            rows = {"rows": part.stage("selection"), **written}
            return [self.density_of(f"density-{what}", rows)]
        judge = recipe.judges[recipe.rating_judge(part) or ""]
        name = part.stage(f"weigh-{what}")
        scale = list(judge.scale)
        return [judge_stage(name, RATE_ANSWERS, judge, recipe.seed, written, scale=scale)]

    def _choice(self, what: str, ask: Ask) -> dict[str, Any]:
        """What is chosen with a candidate."""
        if what == "sampling":
            return {"sampling": ask.sampling.model_dump()}
        return {
            "prompt": asked_texts(ask.prompt),
            "answer": self.answer(ask.prompt),
            "json_schema": as_prompt(ask.prompt).json_schema,
        }
