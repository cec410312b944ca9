"""`stillhouse serve`: a run's student over HTTP until interrupted."""

from __future__ import annotations

import signal
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from core.errors import UseError
from core.recipe import LoadedRecipe, StudentRecipe, TrainingRecipe
from core.recipe_serving import Serve
from core.run import Run, StageFolder
from stillhouse.both_sides import both_sides, teacher_answers
from stillhouse.gather_cascade import cascade_of
from stillhouse.gather_serving import servings
from stillhouse.ray_session import ray_session, runs_here
from stillhouse.report.wording import money, percent
from stillhouse.run_reader import RunReader
from stillhouse.workflow import logs_of, open_run, recipe_of, trained_student


@dataclass(frozen=True)
class Beside:
    """A run whose student gets a share of the requests."""

    run: str
    """Its folder or object-store URL."""
    share: float


@dataclass(frozen=True)
class Wanted:
    """What an endpoint is asked to be."""

    student: str | None = None
    """Name in the recipe, with `-SET` where each data set has its own; the first if absent."""
    port: int | None = None
    """Instead of the recipe's."""
    name: str | None = None
    """Of the application; the student's if absent."""
    canary: Beside | None = None
    """Answers its share of the requests instead."""
    shadow: Beside | None = None
    """Hears its share of the requests too."""
    cascade: bool = False
    """Whether the teacher answers where the student is not sure."""
    page: bool = False
    """Whether there is a page to try it, beside the teacher where that can be served."""
    stay: bool = True
    """Whether to wait for Ctrl-C and take the application down then; otherwise it stays on the
    cluster."""


def serve_run(run: Run, wanted: Wanted) -> None:
    """Serve a student of a run until Ctrl-C.

    Where an application of the same name runs on the cluster already, it is replaced replica by
    replica, and answers until the new one can.

    Raises:
        UseError: There is no such student, it is not trained yet, or it cannot be served so.
    """
    loaded = recipe_of(run)
    recipe = loaded.recipe
    if not isinstance(recipe, TrainingRecipe):
        raise UseError(
            run.folder.location,
            f"a run of method {recipe.method} has nothing to serve.",
            "A recipe of another method makes a student that is served.",
        )
    if not wanted.stay and runs_here():
        raise UseError(
            "--detach",
            "without a cluster the endpoint ends with this command.",
            "Set RAY_ADDRESS to a cluster that stays, or leave --detach out.",
        )
    name, trained = trained_student(run, wanted.student)
    if not wanted.stay and (wanted.cascade or (wanted.page and teacher_answers(loaded, name))):
        raise UseError(
            "--detach",
            "the teacher's engine ends with this command, and --cascade and --page ask it.",
            "Leave --detach out, or the other.",
        )
    settings = settings_of(loaded, wanted.port)
    logs = logs_of(run)
    with ExitStack() as session:
        session.enter_context(ray_session(recipe, logs, Console(stderr=True, markup=False).print))
        standing = _Standing(run, name, wanted, settings, logs, session)
        if student_family(trained) == "encoder":
            endpoint, told = standing.chooser(trained)
        else:
            endpoint, told = standing.writer(trained)
        Console().print(told, highlight=False, soft_wrap=True, markup=False)
        if wanted.stay:
            try:
                _wait()
            finally:
                endpoint.close()


def settings_of(loaded: LoadedRecipe, port: int | None) -> Serve:
    """A recipe's section `serve`, with paths that hold wherever the replica runs."""
    settings = loaded.training_recipe.serve
    if port is not None:
        settings = settings.model_copy(update={"port": port})
    keys = settings.api_keys
    if keys is not None and keys.file is not None:
        keys = keys.model_copy(update={"file": str(loaded.path(keys.file))})
        settings = settings.model_copy(update={"api_keys": keys})
    return settings


@dataclass(frozen=True)
class _Standing:
    """One run's student on its way to an endpoint."""

    run: Run
    name: str
    wanted: Wanted
    settings: Serve
    logs: Path
    session: ExitStack
    """What ends when the endpoint does, such as a teacher's engine."""

    def chooser(self, trained: StageFolder) -> tuple[Any, str]:
        """Serve a student that chooses; with what to tell the user."""
        from serving.application import Offered, deploy
        from serving.encoder import encoder_student

        wanted, note = self.wanted, ""
        student: Any = encoder_student(_folder(trained), card=self._card())
        teacher, teacher_name = None, ""
        if wanted.cascade or (wanted.page and teacher_answers(recipe_of(self.run), self.name)):
            sides = self.session.enter_context(both_sides(self.run, self.name, self.logs))
            teacher, teacher_name = sides["teacher"].served, sides["teacher"].name
        if wanted.cascade:
            student, note = self._cascade(student, teacher, teacher_name)
        offered = {
            self.name: Offered(student, self._beside(wanted.canary), self._beside(wanted.shadow))
        }
        page = None
        if wanted.page:
            if teacher is not None:
                offered[teacher_name] = Offered(teacher)
            page = self._page(student, teacher_name)
        endpoint = deploy(
            offered,
            self.settings,
            name=wanted.name or self.name,
            prefix="/",
            logs=self._serve_logs(),
            page=page,
        )
        asked = _how_to_ask(self.name, endpoint.url, self.settings, student.description.choices)
        if page is not None:
            asked = f"{endpoint.url}/try is a page to try it\n\n{asked}"
        return endpoint, note + asked

    def writer(self, trained: StageFolder) -> tuple[Any, str]:
        """Serve a student that writes."""
        from serving.writers import deploy_writers, writing_student

        for option in ("canary", "shadow", "cascade", "page"):
            if getattr(self.wanted, option):
                raise UseError(
                    f"--{option}",
                    f"{self.name} writes, and this is for students that choose.",
                    "Leave it out.",
                )
        endpoint = deploy_writers(
            {self.name: writing_student(_folder(trained), card=self._card())},
            self.settings,
            name=self.wanted.name or self.name,
            prefix="/",
            logs=self._serve_logs(),
        )
        return endpoint, _how_to_chat(self.name, endpoint.url, self.settings)

    def _cascade(self, student: Any, teacher: Any, teacher_name: str) -> tuple[Any, str]:
        from serving.cascade import CascadeStudent

        found = cascade_of(RunReader(self.run), self.name)
        if found is None:
            raise UseError(
                self.run.folder.location,
                "both must have answered evaluation rows before a threshold can be chosen.",
                "Finish the run first.",
            )
        made, _ = found
        threshold = made.chosen.threshold
        note = (
            f"{self.name} answers where it is surer than {threshold:.3f}, and {teacher_name} "
            f"elsewhere: of {made.judged.rows} evaluation rows that this was not chosen on it "
            f"deferred {percent(made.judged.deferred)} and had {percent(made.judged.accuracy)} "
            f"right; alone it had {percent(made.student)}, and {teacher_name} "
            f"{percent(made.teacher)}.\n\n"
        )
        return CascadeStudent(student, teacher, threshold, self.name, teacher_name), note

    def _beside(self, other: Beside | None) -> Any:
        if other is None:
            return None
        from serving.application import Beside as BesideModel
        from serving.encoder import encoder_student

        _, theirs = trained_student(open_run(other.run), self.wanted.student)
        return BesideModel(encoder_student(_folder(theirs)), other.share)

    def _page(self, student: Any, teacher_name: str) -> Any:
        from serving.page import Page, Side

        reader = RunReader(self.run)
        both = servings(reader, self.name)
        costs: dict[str, float | None] = {one.role: one.money_per_thousand for one in both}

        def cost(role: str) -> str:
            known = costs.get(role)
            each = None if known is None else known / 1000
            return money(each, reader.prices.currency)

        sides = [Side(self.name, "student", cost("student"))]
        if teacher_name:
            sides.append(Side(teacher_name, "teacher", cost("teacher")))
        recipe, choices = reader.loaded.recipe, student.description.choices
        return Page(
            title=recipe.name,
            asks=recipe.task.question_name if isinstance(recipe, StudentRecipe) else "Input",
            choices=None if choices is None else list(choices),
            characters=self.settings.limits.characters,
            needs_key=self.settings.api_keys is not None,
            sides=sides,
            note="A request's cost is that of the run's comparison, at its price book's prices."
            if costs
            else "What a request costs is known when the run has compared the two.",
        )

    def _card(self) -> str:
        """The student's model card, where the run's method has one."""
        from stillhouse.exporting import card_of

        return card_of(self.run, self.name)

    def _serve_logs(self) -> Path | None:
        return self.logs / "serve" if runs_here() else None


def student_family(trained: StageFolder) -> str:
    """Of a trained student, as its folder says."""
    from serving.application import family_of

    return family_of(_folder(trained))


def _folder(trained: StageFolder) -> str:
    return trained.folder.child("student").location


def _how_to_ask(name: str, url: str, settings: Serve, choices: tuple[str, ...] | None) -> str:
    route, body = "classify", f'{{"model": "{name}", "input": "Late goal wins the cup"}}'
    if choices is None:
        question = '{"question": "Where do fish live?", "choices": ["water", "trees"]}'
        route, body = "multiple-choice", f'{{"model": "{name}", "input": {question}}}'
    return _told(name, url, settings, f"/v1/{route}", body)


def _how_to_chat(name: str, url: str, settings: Serve) -> str:
    message = '{"role": "user", "content": "Hello"}'
    body = f'{{"model": "{name}", "messages": [{message}]}}'
    return _told(name, url, settings, "/v1/chat/completions", body)


def _told(name: str, url: str, settings: Serve, route: str, body: str) -> str:
    key = "" if settings.api_keys is None else " -H 'Authorization: Bearer KEY'"
    return (
        f"{name} answers at {url}{route}, and {url}/docs tells how\n\n"
        f"  curl {url}{route}{key} -H 'Content-Type: application/json' \\\n"
        f"    -d '{body}'\n\n"
        "Ctrl-C stops it."
    )


def _wait() -> None:
    """Until Ctrl-C, or until a supervisor asks for the end; both let requests finish."""

    def end(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    threading.Event().wait()
