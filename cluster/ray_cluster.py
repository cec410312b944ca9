"""The Ray cluster of a recipe: a head without work, and groups of workers that grow from zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cluster.bundle import Bundle
from cluster.kuberay import (
    AutoscalerOptions,
    FaultTolerance,
    HeadGroup,
    RayClusterSpec,
    RedisPassword,
    WorkerGroup,
)
from cluster.naming import REDIS
from cluster.objects import (
    EnvironmentVariable,
    KeyReference,
    PodTemplate,
    Resources,
    VariableSource,
    VolumeMount,
)
from cluster.pods import IMAGES, SECURITY, head_pod, worker_pod
from cluster.sizes import Group
from core.placement import Use, labels
from core.recipe import Recipe
from core.recipe_cluster import Cluster, Role

RAY_VERSION = "2.60.0"
"""Of the images; a test holds it to the pin."""

SPOT_PRIORITY = 10
"""Of groups of spot machines: the autoscaler tries greater ones first."""

WAIT_VARIABLE = "RAY_AUTOSCALER_RECONCILE_ALLOCATE_STATUS_TIMEOUT_S"
"""Of Ray's autoscaler."""

REDIS_PORT = 6379


def ray_cluster_spec(
    recipe: Recipe,
    cluster: Cluster,
    kind: str,
    groups: Sequence[Group],
    packed: Bundle | None,
    *,
    outlives_head: bool,
    images: Mapping[Use, Role] = IMAGES,
) -> RayClusterSpec:
    """The specification of a Ray cluster.

    Args:
        recipe: The recipe.
        cluster: Its section.
        kind: Of the workload that it is for.
        groups: Of workers.
        packed: What the head mounts for a driver.
        outlives_head: Whether its state is kept in Redis, where the recipe has one. A job has no
            use for it: it ends with its driver, and a new cluster goes on.
        images: The image of each use.
    """
    redis = cluster.redis if outlives_head else None
    return RayClusterSpec(
        ray_version=RAY_VERSION,
        autoscaler_options=AutoscalerOptions(
            idle_timeout_seconds=cluster.idle_seconds,
            resources=Resources(
                requests={"cpu": "500m", "memory": "1Gi"}, limits={"cpu": "500m", "memory": "1Gi"}
            ),
            security_context=SECURITY,
            volume_mounts=[VolumeMount(name="tmp", mount_path="/tmp")],  # noqa: S108
            env=_patience(cluster),
        ),
        gcs_fault_tolerance_options=None
        if redis is None
        else FaultTolerance(
            redis_address=redis.address or f"{REDIS}:{REDIS_PORT}",
            redis_password=RedisPassword(
                value_from=VariableSource(
                    secret_key_ref=KeyReference(name=redis.secret, key="password")
                )
            ),
        ),
        head_group_spec=HeadGroup(
            # Other pods reach the dashboard through it: the operator, and the submitter of a job.
            ray_start_params={"dashboard-host": "0.0.0.0"},  # noqa: S104
            resources={"CPU": "0"},
            labels=labels("head"),
            template=head_pod(recipe, cluster, kind, packed, images["head"]),
        ),
        worker_group_specs=[
            _worker_group(
                cluster, group, worker_pod(recipe, cluster, kind, group, images[group.use])
            )
            for group in groups
        ],
    )


def _patience(cluster: Cluster) -> list[EnvironmentVariable] | None:
    """How long the autoscaler waits for a pod, before groups of other machines come first.

    By itself it waits for an hour: so long nothing would run where there is no spot machine.
    """
    if cluster.spot is None:
        return None
    seconds = str(60 * cluster.spot.wait_minutes)
    return [EnvironmentVariable(name=WAIT_VARIABLE, value=seconds)]


def _worker_group(cluster: Cluster, group: Group, template: PodTemplate) -> WorkerGroup:
    resources = {"CPU": str(group.size.cpus)}
    if group.size.gpus:
        resources["GPU"] = str(group.size.gpus)
    return WorkerGroup(
        group_name=group.name,
        max_replicas=group.max_replicas,
        num_of_hosts=group.hosts,
        idle_timeout_seconds=cluster.idle_seconds,
        priority=SPOT_PRIORITY if group.spot else None,
        resources=resources,
        labels=labels(group.use, group.device),
        template=template,
    )
