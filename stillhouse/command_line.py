"""The command line. Heavy libraries load in the commands that need them, so `--help` is quick."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from core.errors import StillhouseError
from stillhouse import cluster_commands, prompt_commands, rating_commands
from stillhouse.options import Profile, RecipeFile, RunFolder, RunOption, Settings, load

if TYPE_CHECKING:
    from core.recipe import LoadedRecipe
    from stillhouse.sweep_book import Load
    from stillhouse.workflow import Plan


class _StoppedError(StillhouseError):
    """Ctrl-C."""

    exit_status = 130

    def __init__(self) -> None:
        super().__init__(
            "Stopped.", "What was committed is safe.", "The same command goes on from here."
        )


class _Commands(TyperGroup):
    """The commands; typer would end the process at Ctrl-C without a word."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise _StoppedError from None


app = typer.Typer(
    cls=_Commands,
    help="LLM distillation on Ray: a task and a teacher in, a served student and the proof of its "
    "saving out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(cluster_commands.app, name="cluster")
app.add_typer(prompt_commands.app, name="prompts")
app.add_typer(rating_commands.app, name="ratings")


@app.callback()
def _options(
    debug: Annotated[  # `main` reads it, wherever it stands
        bool, typer.Option("--debug", help="Show the traceback of an error.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    recipe: RecipeFile,
    *,
    profile: Profile = None,
    settings: Settings = None,
    folder: RunOption = None,
    update: Annotated[
        bool, typer.Option(help="Go on after the recipe changed: redo what depends on it.")
    ] = False,
    until: Annotated[
        str | None,
        typer.Option(metavar="STAGE", help="Stop after this stage, with only what it needs."),
    ] = None,
) -> None:
    """Run a recipe: do what is not done yet, and write the report."""
    from stillhouse.display import show_run
    from stillhouse.workflow import refuse_other_recipe

    plan, _ = _plan(recipe, profile, settings, folder)
    if not update:
        refuse_other_recipe(plan)
    show_run(plan, until)


@app.command()
def sweep(
    recipe: RecipeFile,
    *,
    profile: Profile = None,
    settings: Settings = None,
    folder: RunOption = None,
    update: Annotated[
        bool, typer.Option(help="Go on after the recipe changed: try again what depends on it.")
    ] = False,
) -> None:
    """Try the values that the recipe's section `sweep` names, and keep the best student."""
    from stillhouse.sweep import show_sweep
    from stillhouse.sweep_plan import plan_sweep
    from stillhouse.workflow import refuse_other_recipe

    base, load = _plan(recipe, profile, settings, folder)
    if not update:
        refuse_other_recipe(base)
    show_sweep(plan_sweep(base, load, update=update), load)


@app.command()
def ablate(
    recipe: RecipeFile,
    *,
    profile: Profile = None,
    settings: Settings = None,
    folder: RunOption = None,
    update: Annotated[
        bool, typer.Option(help="Go on after the recipe changed: redo what depends on it.")
    ] = False,
    cells: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            help="Stop after N more cells; the same command goes on. [default: all that are left]",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Compare the variants that the recipe's section `ablate` names, each with several seeds."""
    from stillhouse.ablation import show_ablation
    from stillhouse.ablation_plan import plan_ablation
    from stillhouse.workflow import refuse_other_recipe

    base, load = _plan(recipe, profile, settings, folder)
    if not update:
        refuse_other_recipe(base)
    show_ablation(plan_ablation(base, load), cells)


@app.command()
def validate(
    recipe: Annotated[
        Path | None, typer.Argument(help="The recipe, a YAML file.", show_default=False)
    ] = None,
    profile: Profile = None,
    settings: Settings = None,
    schema: Annotated[
        str | None,
        typer.Option(metavar="METHOD", help="Print a method's JSON Schema, for editors."),
    ] = None,
) -> None:
    """Check a recipe without running it."""
    import json

    from core.recipe_file import file_schema
    from stillhouse.methods import method_names, recipe_model

    if schema is not None:
        if schema not in method_names():
            raise typer.BadParameter(f"The methods are: {', '.join(method_names())}.")
        typer.echo(json.dumps(file_schema(recipe_model(schema)), indent=2))
    elif recipe is None:
        raise typer.BadParameter("Name a recipe, or a method with --schema.")
    else:
        loaded = load(recipe, profile, settings)
        typer.echo(f"{recipe} is a sound recipe of method {loaded.recipe.method}.")


@app.command()
def plan(
    recipe: RecipeFile,
    profile: Profile = None,
    settings: Settings = None,
    folder: RunOption = None,
    *,
    sample: Annotated[
        int | None,
        typer.Option(
            metavar="ROWS",
            min=2,
            help="Ask each teacher about so many rows, and estimate what all of them will cost. "
            "The run uses these rows.",
            show_default=False,
        ),
    ] = None,
    update: Annotated[
        bool, typer.Option(help="With --sample: go on after the recipe changed, as `run` does.")
    ] = False,
) -> None:
    """Show what a run would do: which stages are done, what is left, and what it will cost."""
    from stillhouse.display import show_plan, show_sample
    from stillhouse.workflow import refuse_other_recipe

    found, _ = _plan(recipe, profile, settings, folder)
    if sample is None:
        show_plan(found)
        return
    if not update:
        refuse_other_recipe(found)
    show_sample(found, sample)


@app.command()
def status(folder: RunFolder) -> None:
    """Show how far a run is, and what it has cost."""
    from stillhouse.display import show_status
    from stillhouse.workflow import open_run

    show_status(open_run(folder))


@app.command()
def rows(
    folder: RunFolder,
    stage: Annotated[str, typer.Option(help="Which stage, such as score.")],
    *,
    rejected: Annotated[
        bool, typer.Option("--rejected", help="The rejected rows, with their reasons.")
    ] = False,
    match: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Only rows in which this stands.")
    ] = None,
    number: Annotated[int, typer.Option("-n", "--number", min=1, help="How many.")] = 10,
) -> None:
    """Look at rows of a stage, also while it runs."""
    from stillhouse.row_view import show_rows
    from stillhouse.workflow import open_run

    show_rows(open_run(folder), stage, number, rejected=rejected, match=match)


@app.command()
def report(folder: RunFolder) -> None:
    """Write the report of a run again."""
    from stillhouse.reporting import write_report
    from stillhouse.workflow import open_run

    path, _ = write_report(open_run(folder))
    typer.echo(path)


@app.command()
def evaluate(
    folder: RunFolder,
    *,
    harness: Annotated[
        str,
        typer.Option(
            metavar="TASKS",
            help="Tasks of EleutherAI's lm-eval, with commas, such as mmlu,gsm8k.",
            show_default=False,
        ),
    ],
    student: Annotated[
        str | None, typer.Option(help="Which student. [default: the first that writes]")
    ] = None,
    tasks: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Further task files, for instance of tasks whose data is in files.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Rows of each task at most.", show_default=False)
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows of one forward pass.")] = 8,
    base: Annotated[
        bool, typer.Option("--base", help="Judge the model that it started from, too.")
    ] = False,
) -> None:
    """Have lm-eval judge a student by published benchmarks."""
    from rich.console import Console

    from stillhouse.harness import evaluate_run
    from stillhouse.harness_table import harness_table
    from stillhouse.workflow import open_run

    names = [name.strip() for name in harness.split(",") if name.strip()]
    found = evaluate_run(
        open_run(folder),
        student,
        names,
        files=tasks,
        limit=limit,
        batch_size=batch_size,
        base=base,
    )
    Console().print(harness_table(found), highlight=False)


@app.command()
def export(
    folder: RunFolder,
    *,
    student: Annotated[
        str | None, typer.Option(help="Which student. [default: the recipe's first]")
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="PLACE",
            help="Folder or object-store URL to write it to. [default: ./RECIPE-STUDENT, or none "
            "with --push]",
        ),
    ] = None,
    push: Annotated[
        str | None,
        typer.Option(
            metavar="PLACE",
            help="Where to publish it: hf://OWNER/NAME, or an object-store URL.",
            show_default=False,
        ),
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="With hf://: for everybody to see, not for you alone.")
    ] = False,
    accept_terms: Annotated[
        bool,
        typer.Option(
            "--accept-terms",
            help="A person has read the licences of the teachers and of the base, and says that "
            "the student may be published.",
        ),
    ] = False,
) -> None:
    """Take a finished student out of a run, with a model card written from the run."""
    from stillhouse.exporting import export_student
    from stillhouse.workflow import open_run

    run = open_run(folder)
    done = export_student(run, student, to, push, public=public, accept_terms=accept_terms)
    for warning in done.warnings:
        typer.secho(warning, fg="yellow", err=True)
    for place in done.places:
        typer.echo(place)


@app.command()
def serve(
    folder: RunFolder,
    *,
    student: Annotated[
        str | None,
        typer.Option(
            help="Which student: its name, with -SET at its end where each data set has its own. "
            "[default: the recipe's first]"
        ),
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port, instead of the recipe's.")] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="Of the application; a running one of this name is replaced without a failed "
            "request. [default: the student's]"
        ),
    ] = None,
    canary: Annotated[
        str | None,
        typer.Option(
            metavar="RUN", help="Another run, whose student answers a share.", show_default=False
        ),
    ] = None,
    canary_share: Annotated[
        float, typer.Option(min=0.0001, max=1, help="Share of the requests for the canary.")
    ] = 0.05,
    shadow: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Another run, whose student hears a share and is compared.",
            show_default=False,
        ),
    ] = None,
    shadow_share: Annotated[
        float, typer.Option(min=0.0001, max=1, help="Share of the requests for the shadow.")
    ] = 1.0,
    cascade: Annotated[
        bool, typer.Option("--cascade", help="Let the teacher answer where it is not sure.")
    ] = False,
    page: Annotated[
        bool, typer.Option("--page", help="A page to try it at /try, beside its teacher.")
    ] = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Leave the endpoint on the cluster at RAY_ADDRESS.")
    ] = False,
) -> None:
    """Serve a run's student over HTTP until interrupted."""
    from stillhouse.endpoint import Beside, Wanted, serve_run
    from stillhouse.workflow import open_run

    wanted = Wanted(
        student,
        port,
        name,
        Beside(canary, canary_share) if canary else None,
        Beside(shadow, shadow_share) if shadow else None,
        cascade=cascade,
        page=page,
        stay=not detach,
    )
    serve_run(open_run(folder), wanted)


@app.command()
def compare(
    folder: RunFolder,
    *,
    student: Annotated[
        str | None, typer.Option(help="Which student. [default: the recipe's first]")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Measure once more what is measured already.")
    ] = False,
) -> None:
    """Serve a run's student and its teacher, load both, and tell when the student has paid."""
    from stillhouse.comparison import compare_run
    from stillhouse.workflow import open_run

    compare_run(open_run(folder), student, again=again)


@app.command()
def key(
    name: Annotated[str, typer.Argument(help="Who will use the key.", show_default=False)],
    file: Annotated[
        Path, typer.Option(help="The file of hashes that serve.api_keys names.")
    ] = Path("api-keys.yaml"),
    requests_per_minute: Annotated[
        int | None, typer.Option(min=1, help="How often it may ask.", show_default=False)
    ] = None,
    revoke: Annotated[
        bool, typer.Option("--revoke", help="Accept the key of this name no longer.")
    ] = False,
) -> None:
    """Make an API key: it is printed once, and the file keeps its hash."""
    from stillhouse.key_file import add_key, revoke_key

    if revoke:
        revoke_key(file, name)
        typer.echo(f"{file}: the key of {name} is revoked.")
    else:
        typer.echo(add_key(file, name, requests_per_minute))


@app.command()
def doctor() -> None:
    """Check this machine: versions, compiler, memory, disk, embedded models."""
    from stillhouse.doctor import examine

    if not examine():
        raise typer.Exit(1)


def _plan(
    recipe: Path, profile: str | None, settings: list[str] | None, folder: str | None
) -> tuple[Plan, Load]:
    """A recipe in its run, with the best values of its sweep; and how to load it with others."""
    from core.run import Folder, Run
    from stillhouse.sweep_book import promoted
    from stillhouse.workflow import plan_run

    loaded = load(recipe, profile, settings)
    run = Run(Folder(folder or f"runs/{loaded.recipe.name}"))

    def load_with(
        values: Mapping[str, Any], variant: Mapping[str, Any] | None = None
    ) -> LoadedRecipe:
        return load(recipe, profile, settings, values, variant)

    return promoted(plan_run(loaded, run), load_with), load_with


def main() -> None:
    """Run a command; an error is three lines and an exit status, and a traceback on request."""
    debug = "--debug" in sys.argv
    # Wherever it stands: who adds it to a command that failed writes it at the end.
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        app(arguments)
    except StillhouseError as error:
        if debug:
            traceback.print_exc()
        _tell(error.place, error.cause, error.mend)
        sys.exit(error.exit_status)
    except Exception as error:  # a fault of ours, or of a library: tell it, and how to see more
        if debug:
            traceback.print_exc()
        first = (str(error).strip() or "no message").splitlines()[0]
        _tell(
            "stillhouse",
            f"an error that it does not know: {type(error).__name__}: {first}.",
            "What was committed is safe. --debug shows where it arose, the run's logs/ the rest.",
        )
        sys.exit(1)


def _tell(place: str, cause: str, mend: str) -> None:
    print(f"{place}\n  {cause}\n  {mend}", file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    main()
