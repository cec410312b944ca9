"""`stillhouse cluster`: a recipe on Kubernetes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stillhouse.options import Profile, RecipeFile, Settings, load

if TYPE_CHECKING:
    from cluster.workloads import Kind, Workload
    from core.recipe import LoadedRecipe
    from stillhouse.cluster_job import ClusterJob

app = typer.Typer(
    help="The same recipe on Kubernetes, by the KubeRay operator.", no_args_is_help=True
)

KindOption = Annotated[
    str,
    typer.Option(
        "--kind",
        metavar="KIND",
        help="job: a run. sweep: its sweep. refresh: runs at set times. service: the served "
        "student. cluster: one that several jobs share.",
    ),
]
StudentFolder = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Of a service: the student's folder, where the run cannot be read from here.",
        show_default=False,
    ),
]
Until = Annotated[
    str | None, typer.Option(metavar="STAGE", help="Of a job: stop after this stage.")
]
Update = Annotated[bool, typer.Option("--update", help="Of a job: go on after the recipe changed.")]
Shared = Annotated[
    bool,
    typer.Option("--shared", help="Of a job or a sweep: on the cluster that --kind cluster made."),
]

Context = Annotated[
    str | None,
    typer.Option(help="Context of the kubeconfig. [default: its current one]", show_default=False),
]
RunPlace = Annotated[
    str | None,
    typer.Option(
        "--run",
        metavar="PLACE",
        help="Where the run can be read from here, if not at cluster.storage.",
        show_default=False,
    ),
]


@app.command()
def render(
    recipe: RecipeFile,
    *,
    profile: Profile = None,
    settings: Settings = None,
    kind: KindOption = "job",
    to: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Write a Kustomize tree of all kinds that the recipe has, instead of printing "
            "one of them.",
            show_default=False,
        ),
    ] = None,
    until: Until = None,
    update: Update = False,
    shared: Shared = False,
    student_folder: StudentFolder = None,
) -> None:
    """Print the manifests of a recipe, or write them as a Kustomize tree."""
    from cluster.rendering import foundation, kustomization, plain_yaml

    loaded = load(recipe, profile, settings)
    if to is None:
        work = _workload(loaded, _known(kind), until, student_folder, update=update, shared=shared)
        typer.echo(plain_yaml([*foundation(loaded).objects, *work.objects]), nl=False)
        _tell_uploads(work)
        return
    works = _all_workloads(loaded, until, student_folder, update=update)
    for name, text in kustomization(loaded, works).items():
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        (to / name).write_text(text, encoding="utf-8")
    for name, work in works.items():
        typer.echo(f"kubectl apply --server-side -k {to / name}")
        _tell_uploads(work)


@app.command()
def submit(
    recipe: RecipeFile,
    *,
    profile: Profile = None,
    settings: Settings = None,
    kind: KindOption = "job",
    context: Context = None,
    until: Until = None,
    update: Update = False,
    shared: Shared = False,
    student_folder: StudentFolder = None,
) -> None:
    """Bring a recipe to the cluster. A job that has ended goes on where it was."""
    job = _job(recipe, profile, settings, kind, context)
    work = _workload(job.loaded, job.kind, until, student_folder, update=update, shared=shared)
    for url in job.submit(work):
        typer.echo(f"{url} is there.")
    typer.echo(f"{work.object.kind} {work.object.metadata.name} is submitted.")


@app.command()
def status(
    recipe: RecipeFile,
    *,
    profile: Profile = None,
    settings: Settings = None,
    kind: KindOption = "job",
    context: Context = None,
    folder: RunPlace = None,
) -> None:
    """Show how a workload is on the cluster, and how far its run is."""
    from stillhouse.cluster_view import show_state

    show_state(_job(recipe, profile, settings, kind, context), folder)


@app.command()
def logs(
    recipe: RecipeFile,
    *,
    profile: Profile = None,
    settings: Settings = None,
    kind: KindOption = "job",
    context: Context = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until the job ends.")] = False,
) -> None:
    """Print what a job's driver writes."""
    for line in _job(recipe, profile, settings, kind, context).log(follow=follow):
        typer.echo(line)


@app.command()
def cost(
    recipe: RecipeFile,
    *,
    profile: Profile = None,
    settings: Settings = None,
    folder: RunPlace = None,
) -> None:
    """Show what a recipe's run has cost so far, by its ledger: device-hours by use, and money."""
    from stillhouse.cluster_view import show_cost

    show_cost(load(recipe, profile, settings), folder)


@app.command()
def delete(
    recipe: RecipeFile,
    *,
    profile: Profile = None,
    settings: Settings = None,
    kind: KindOption = "job",
    context: Context = None,
) -> None:
    """End a workload and its pods. What its run has made stays."""
    job = _job(recipe, profile, settings, kind, context)
    there = job.delete()
    typer.echo(f"The {kind} of {job.loaded.recipe.name} {'is gone' if there else 'was not there'}.")


def _job(
    recipe: Path,
    profile: str | None,
    settings: list[str] | None,
    kind: str,
    context: str | None,
) -> ClusterJob:
    from cluster.client import KubernetesClient
    from cluster.sizes import cluster_of
    from stillhouse.cluster_job import ClusterJob

    known = _known(kind)
    loaded = load(recipe, profile, settings)
    cluster_of(loaded)  # told before anything is asked of a cluster
    return ClusterJob(loaded, known, KubernetesClient(context))


def _known(kind: str) -> Kind:
    from cluster.workloads import OBJECTS

    if kind not in OBJECTS:
        raise typer.BadParameter(f"The kinds are: {', '.join(OBJECTS)}.")
    return kind


def _workload(
    loaded: LoadedRecipe,
    kind: Kind,
    until: str | None,
    student_folder: str | None,
    *,
    update: bool,
    shared: bool = False,
) -> Workload:
    from cluster.workloads import workload

    if kind == "service" and student_folder is None:
        student_folder = _student_folder(loaded)
    return workload(
        loaded, kind, until=until, update=update, shared=shared, student_folder=student_folder
    )


def _student_folder(loaded: LoadedRecipe) -> str:
    """Where the run of a recipe has put the student that is served."""
    from cluster.workloads import run_location, served_student
    from stillhouse.workflow import open_run, trained_student

    name = served_student(loaded)
    _, trained = trained_student(open_run(run_location(loaded)), name)
    return trained.folder.child("student").location


def _all_workloads(
    loaded: LoadedRecipe, until: str | None, student_folder: str | None, *, update: bool
) -> dict[Kind, Workload]:
    """All that a recipe can be on Kubernetes."""
    from cluster.sizes import cluster_of
    from core.recipe import TrainingRecipe

    recipe = loaded.recipe
    kinds: list[Kind] = ["job", "cluster"]
    if isinstance(recipe, TrainingRecipe) and recipe.sweep is not None:
        kinds.append("sweep")
    if cluster_of(loaded).refresh is not None:
        kinds.append("refresh")
    if student_folder is not None:
        kinds.append("service")
    return {kind: _workload(loaded, kind, until, student_folder, update=update) for kind in kinds}


def _tell_uploads(work: Workload) -> None:
    for upload in work.packed.uploads if work.packed else []:
        typer.secho(
            f"{upload.file} must be at {upload.url} first; `stillhouse cluster submit` brings it "
            "there.",
            fg="yellow",
            err=True,
        )
