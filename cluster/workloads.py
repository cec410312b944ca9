"""What is run on a Ray cluster of its own: a job, a job at set times, a served student."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from cluster.bundle import Bundle, bundle
from cluster.kuberay import (
    DeletionStrategy,
    RayCluster,
    RayCronJob,
    RayCronJobSpec,
    RayJob,
    RayJobSpec,
    RayService,
    RayServiceSpec,
    SubmitterConfig,
    UpgradeOptions,
    UpgradeStrategy,
)
from cluster.naming import object_name, recipe_labels
from cluster.objects import Metadata, Object
from cluster.pods import IMAGES, RECIPE_FOLDER, RUNS_FOLDER, SERVE_PORT, entrypoint, submitter_pod
from cluster.ray_cluster import ray_cluster_spec
from cluster.sizes import cluster_of, groups_of_job, groups_of_service
from core.errors import UseError
from core.placement import Use
from core.recipe import LoadedRecipe, Recipe, TrainingRecipe
from core.recipe_cluster import Cluster, Role
from core.recipe_students import Student

Kind = Literal["job", "sweep", "refresh", "service", "cluster"]
"""What is made of a recipe: a run, a sweep, runs at set times, a served student, or a cluster that
several jobs share."""

OBJECTS: dict[Kind, tuple[str, str]] = {
    "job": ("RayJob", ""),
    "sweep": ("RayJob", "-sweep"),
    "refresh": ("RayCronJob", "-refresh"),
    "service": ("RayService", "-serve"),
    "cluster": ("RayCluster", "-shared"),
}
"""KubeRay's kind of each of ours, and what its name ends with."""

SUBMIT_TRIES = 2
"""Times that a job's submitter is started again: a head that has just come up may refuse it."""

DAY_SECONDS = 24 * 3600

KEEP_RECORD_DAYS = 7
"""For which the record of a job that has ended stays."""

CLUSTER = "ray.io/cluster"
"""By which a job names the cluster that it runs on."""

QUEUE = "kueue.x-k8s.io/queue-name"
ELASTIC = "kueue.x-k8s.io/elastic-job"


@dataclass(frozen=True)
class Workload:
    """One of KubeRay's objects, with what it needs."""

    object: RayJob | RayCronJob | RayService | RayCluster
    packed: Bundle | None
    """The recipe that it mounts."""
    on: str | None = None
    """The RayCluster that a job runs on and that has mounted the recipe, where it has none of its
    own."""

    @property
    def objects(self) -> list[Object]:
        """The objects themselves, those that others need first."""
        return [*([self.packed.config_map] if self.packed and not self.on else []), self.object]


def run_location(loaded: LoadedRecipe) -> str:
    """Where the run of a recipe is kept, as its pods see it."""
    storage = cluster_of(loaded).storage or RUNS_FOLDER
    return f"{storage.rstrip('/')}/{loaded.recipe.name}"


def workload(
    loaded: LoadedRecipe,
    kind: Kind,
    *,
    until: str | None = None,
    update: bool = False,
    shared: bool = False,
    student_folder: str | None = None,
) -> Workload:
    """What a recipe is on Kubernetes.

    Args:
        loaded: The recipe, with a section `cluster`.
        kind: What is to be made of it.
        until: Of a job: the stage to stop after.
        update: Of a job or a sweep: to go on after the recipe changed.
        shared: Of a job or a sweep: to run on the recipe's shared cluster.
        student_folder: Of a service: where the student is that a run has made.

    Raises:
        UseError: The recipe has no such thing, or it does not fit on its machines.
    """
    if kind in ("job", "sweep", "refresh"):
        return _job(loaded, kind, until, update=update, shared=shared)
    if kind == "service":
        assert student_folder is not None, "a service has a student"
        return _service(loaded, student_folder)
    return _shared_cluster(loaded)


def _job(
    loaded: LoadedRecipe, kind: Kind, until: str | None, *, update: bool, shared: bool
) -> Workload:
    recipe, cluster = loaded.recipe, cluster_of(loaded)
    packed = bundle(loaded)
    arguments = [
        "sweep" if kind == "sweep" else "run",
        f"{RECIPE_FOLDER}/recipe.yaml",
        "--run",
        run_location(loaded),
    ]
    if until is not None:
        arguments += ["--until", until]
    if update or kind == "refresh":
        arguments.append("--update")
    common: dict[str, Any] = {
        "entrypoint": entrypoint(*arguments),
        "submitter_pod_template": submitter_pod(recipe, cluster, kind),
        "submitter_config": SubmitterConfig(backoff_limit=SUBMIT_TRIES),
        "active_deadline_seconds": _seconds(cluster.deadline_hours),
    }
    if shared and kind != "refresh":
        return _on_shared_cluster(loaded, kind, common, packed)
    groups = groups_of_job(loaded, trials=_trials(loaded) if kind == "sweep" else 1)
    spec = RayJobSpec(
        **common,
        backoff_limit=cluster.retries,
        **_ending(cluster),
        ray_cluster_spec=ray_cluster_spec(
            recipe, cluster, kind, groups, packed, outlives_head=False, images=_images(recipe)
        ),
    )
    metadata = _metadata(loaded, kind)
    if kind != "refresh":
        return Workload(RayJob(metadata=metadata, spec=spec), packed)
    refresh = cluster.refresh
    if refresh is None:
        raise UseError(
            f"recipe '{recipe.name}'",
            "it does not say when it is to be run again.",
            'Set cluster.refresh.schedule, such as "0 3 * * 1" for Mondays at three.',
        )
    timed = RayCronJobSpec(
        schedule=refresh.schedule, time_zone=refresh.time_zone, job_template=spec
    )
    return Workload(RayCronJob(metadata=metadata, spec=timed), packed)


def _on_shared_cluster(
    loaded: LoadedRecipe, kind: Kind, common: dict[str, Any], packed: Bundle
) -> Workload:
    """A job on a cluster that stays: pods without work go by themselves.

    KubeRay tries it no second time and deletes nothing of it, not even its record, and Kueue counts
    the cluster and not its jobs.
    """
    cluster = object_name(loaded.recipe.name, OBJECTS["cluster"][1])
    spec = RayJobSpec(**common, cluster_selector={CLUSTER: cluster})
    return Workload(
        RayJob(metadata=_metadata(loaded, kind, queued=False), spec=spec), packed, on=cluster
    )


ENDED = (
    {"job_status": "SUCCEEDED"},
    {"job_status": "FAILED"},
    # One that never got as far as to have a driver.
    {"job_deployment_status": "Failed"},
)
"""Conditions of a job that has ended, well or not."""


def _ending(cluster: Cluster) -> dict[str, Any]:
    """What becomes of a job that has ended, well or not: its pods go, its record stays a while."""
    keep = cluster.keep_minutes * 60
    if cluster.queue is not None:  # Kueue wants to know in this way that its quota comes back
        return {"shutdown_after_job_finishes": True, "ttl_seconds_after_finished": keep}
    whole = max(keep, KEEP_RECORD_DAYS * DAY_SECONDS)
    rules = []
    for ended in ENDED:
        at = {"condition": {**ended, "ttl_seconds": keep}}
        later = {"condition": {**ended, "ttl_seconds": whole}}
        rules += [{"policy": "DeleteCluster", **at}, {"policy": "DeleteSelf", **later}]
    return {"deletion_strategy": DeletionStrategy.model_validate({"deletion_rules": rules})}


def _service(loaded: LoadedRecipe, student_folder: str) -> Workload:
    recipe, cluster = served_recipe(loaded), cluster_of(loaded)
    if recipe.serve.api_keys is not None and recipe.serve.api_keys.file is not None:
        raise UseError(
            "serve.api_keys.file",
            "a file of this machine is not there in a pod.",
            f"Put its content into the Secret {cluster.secret} under a name in capitals, and write "
            "serve.api_keys: {env: NAME}.",
        )
    groups = groups_of_service(recipe, cluster)
    gateway = cluster.service.gateway_class
    strategy = (
        UpgradeStrategy(type="NewCluster")
        if gateway is None
        else UpgradeStrategy(
            type="NewClusterWithIncrementalUpgrade",
            cluster_upgrade_options=UpgradeOptions(gateway_class_name=gateway),
        )
    )
    spec = RayServiceSpec(
        serve_config_v2=yaml.safe_dump(
            _serve_config(loaded, student_folder), sort_keys=False, width=100
        ),
        upgrade_strategy=strategy,
        # Where all replicas may go, the head hears the request that brings one back.
        exclude_head_pod_from_serve_svc=recipe.serve.scale.min > 0,
        ray_cluster_deletion_delay_seconds=60,
        ray_cluster_config=ray_cluster_spec(
            recipe,
            cluster,
            "service",
            groups,
            None,
            outlives_head=True,
            # Serve lays out the application on any node, so all of them have what it imports.
            images=dict.fromkeys(IMAGES, _serving_image([recipe.students[served_student(loaded)]])),
        ),
    )
    return Workload(RayService(metadata=_metadata(loaded, "service"), spec=spec), None)


def _images(recipe: Recipe) -> dict[Use, Role]:
    """The image of each use in a recipe's job."""
    if not isinstance(recipe, TrainingRecipe):
        return dict(IMAGES)
    serving = _serving_image(recipe.students.values())
    if serving == "server" or recipe.compare is None:
        return {**IMAGES, "server": serving}
    # The driver lays out what is compared, and light replicas go wherever there is room.
    return {**IMAGES, "server": serving, "head": serving, "cpu": serving}


def _serving_image(students: Iterable[Student]) -> Role:
    """The image that serves students: those that write have vLLM's API, as teachers do."""
    return "teacher" if any(one.family != "encoder" for one in students) else "server"


def served_recipe(loaded: LoadedRecipe) -> TrainingRecipe:
    """The recipe, where its students are served.

    Raises:
        UseError: They are not.
    """
    if not isinstance(loaded.recipe, TrainingRecipe):
        raise UseError(
            f"recipe '{loaded.recipe.name}'",
            f"a run of method {loaded.recipe.method} has nothing to serve.",
            "A recipe of another method makes a student that is served.",
        )
    return loaded.recipe


def served_student(loaded: LoadedRecipe) -> str:
    """The name of the student that is served.

    Raises:
        UseError: The recipe has no such student.
    """
    students = served_recipe(loaded).students
    name = cluster_of(loaded).service.student or next(iter(students))
    if name not in students:
        known = ", ".join(students)
        raise UseError(
            "cluster.service.student", f"the recipe has no student '{name}'.", f"It has: {known}."
        )
    return name


def _serve_config(loaded: LoadedRecipe, student_folder: str) -> dict[str, Any]:
    """What Ray Serve runs.

    Another student changes the arguments alone: its replicas take the place of the old ones, one
    after the other, in the same cluster.
    """
    settings = served_recipe(loaded).serve.model_dump(
        mode="json", exclude_unset=True, exclude={"host", "port", "tracing"}
    )
    students = {served_student(loaded): {"folder": student_folder}}
    return {
        "http_options": {"host": "0.0.0.0", "port": SERVE_PORT},  # noqa: S104
        "applications": [
            {
                "name": "stillhouse",
                "route_prefix": "/",
                "import_path": "serving.application:build",
                "args": {"students": students, "serve": settings},
            }
        ],
    }


def _shared_cluster(loaded: LoadedRecipe) -> Workload:
    recipe, cluster = loaded.recipe, cluster_of(loaded)
    packed = bundle(loaded)
    groups = groups_of_job(loaded, trials=_trials(loaded))
    spec = ray_cluster_spec(
        recipe, cluster, "cluster", groups, packed, outlives_head=True, images=_images(recipe)
    )
    return Workload(RayCluster(metadata=_metadata(loaded, "cluster"), spec=spec), packed)


def _trials(loaded: LoadedRecipe) -> int:
    """Trials of the recipe's sweep that are trained at a time."""
    recipe = loaded.recipe
    if not isinstance(recipe, TrainingRecipe) or recipe.sweep is None:
        return 1
    return min(recipe.sweep.max_concurrent or recipe.sweep.trials, recipe.sweep.trials)


def _metadata(loaded: LoadedRecipe, kind: Kind, *, queued: bool = True) -> Metadata:
    cluster = cluster_of(loaded)
    # Of a schedule, the jobs that it makes would have to wait, and it gives them no labels.
    queue = cluster.queue if queued and kind != "refresh" else None
    return Metadata(
        name=object_name(loaded.recipe.name, OBJECTS[kind][1]),
        namespace=cluster.namespace,
        labels={**recipe_labels(loaded.recipe.name), **({QUEUE: queue} if queue else {})},
        # The pods come and go while Kueue watches.
        annotations={ELASTIC: "true"} if queue else None,
    )


def _seconds(hours: float | None) -> int | None:
    return None if hours is None else round(hours * 3600)
