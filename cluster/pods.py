"""The pods of a Ray cluster: the head's, the workers' and the one that submits a job.

All of them are what Pod Security calls restricted: no root, no privileges, a root file system that
cannot be written to. What is written goes to volumes: caches and runs to those that all pods share,
the rest to folders that go with the pod.
"""

from __future__ import annotations

import math
import shlex

from cluster.bundle import Bundle
from cluster.naming import (
    CACHE,
    COMPONENT,
    HEAD_ACCOUNT,
    RUNS,
    WORKER_ACCOUNT,
    WORKLOAD,
    recipe_labels,
)
from cluster.objects import (
    Affinity,
    Capabilities,
    ClaimSource,
    ConfigMapSource,
    Container,
    ContainerPort,
    ContainerSecurity,
    EmptyDirectory,
    EnvironmentVariable,
    ExecAction,
    Handler,
    KeyReference,
    LabelSelector,
    Lifecycle,
    LocalReference,
    Metadata,
    NodeAffinity,
    NodeSelector,
    NodeTerm,
    PodSecurity,
    PodSpec,
    PodTemplate,
    Requirement,
    Resources,
    SeccompProfile,
    Toleration,
    TopologySpread,
    VariableSource,
    Volume,
    VolumeMount,
)
from cluster.sizes import Group, PodSize
from core.placement import LABELLED, Use
from core.recipe import Recipe, TrainingRecipe
from core.recipe_cluster import Cluster, Machine, Place
from core.recipe_cluster import Role as ImageRole
from core.recipe_teachers import REFERENCE, EndpointTeacher, Teacher

USER = 10001
"""Of the processes in our images."""

HOME = "/home/stillhouse"
CACHE_FOLDER = "/stillhouse/cache"
RUNS_FOLDER = "/stillhouse/runs"
RECIPE_FOLDER = "/stillhouse/recipe"

GCS_PORT = 6379
DASHBOARD_PORT = 8265
METRICS_PORT = 8080
METRICS_PORTS = {"metrics": METRICS_PORT, "as-metrics": 44217, "dash-metrics": 44227}
"""Where Prometheus finds Ray's metrics: of each pod, of the autoscaler and of the dashboard."""
SERVE_PORT = 8000

SCRATCH_GIB = 20
"""Of a pod's own folder for temporary files: logs, spilled objects, plans of stages."""

GPU_PRODUCTS = {
    "a10": ["NVIDIA-A10", "NVIDIA-A10G"],
    "a100-40gb": ["NVIDIA-A100-SXM4-40GB", "NVIDIA-A100-PCIE-40GB"],
    "a100-80gb": ["NVIDIA-A100-SXM4-80GB", "NVIDIA-A100-80GB-PCIe"],
    "h100": ["NVIDIA-H100-80GB-HBM3", "NVIDIA-H100-PCIe", "NVIDIA-H100-NVL"],
    "h200": ["NVIDIA-H200"],
    "l4": ["NVIDIA-L4"],
    "l40s": ["NVIDIA-L40S"],
    "t4": ["Tesla-T4"],
}
"""What NVIDIA's feature discovery calls a kind, in the label nvidia.com/gpu.product of machines."""

IMAGES: dict[Use, ImageRole] = {
    "teacher": "teacher",
    "trainer": "trainer",
    "server": "server",
    # Evaluation and comparison run there, too; it has all but the engines.
    "cpu": "trainer",
    "head": "trainer",
}
"""The image of each use, as a rule."""

STAYS = {
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    "karpenter.sh/do-not-disrupt": "true",
}
"""Annotations by which whoever tidies up machines leaves a pod where it is."""

SECURITY = ContainerSecurity(
    allow_privilege_escalation=False,
    capabilities=Capabilities(drop=["ALL"]),
    read_only_root_filesystem=True,
    run_as_non_root=True,
    seccomp_profile=SeccompProfile(),
)

POD_SECURITY = PodSecurity(
    run_as_non_root=True,
    run_as_user=USER,
    run_as_group=USER,
    fs_group=USER,
    # A volume of many models would be gone through at every start.
    fs_group_change_policy="OnRootMismatch",
    seccomp_profile=SeccompProfile(),
)


def head_pod(
    recipe: Recipe, cluster: Cluster, kind: str, packed: Bundle | None, image: ImageRole
) -> PodTemplate:
    """The head: Ray's control plane, and the driver of a job.

    Args:
        recipe: The recipe.
        cluster: Its section.
        kind: Of the workload.
        packed: What is mounted for the driver; nothing for a service.
        image: Which one it runs.
    """
    head = cluster.head
    # Of a service there is no driver, and replicas that need no device may run here.
    own = driver_secrets(recipe, cluster) if packed else server_secrets(recipe)
    size = PodSize(head.cpus, 0, head.memory_gib)
    recipe_mount = [VolumeMount(name="recipe", mount_path=RECIPE_FOLDER, read_only=True)]
    container = Container(
        name="ray-head",
        image=cluster.images.of(image),
        env=[*_variables(cluster), *(_secret(name, cluster) for name in own)],
        ports=[
            ContainerPort(name="gcs-server", container_port=GCS_PORT),
            ContainerPort(name="dashboard", container_port=DASHBOARD_PORT),
            *(
                ContainerPort(name=name, container_port=port)
                for name, port in METRICS_PORTS.items()
            ),
        ],
        resources=quantities(size),
        volume_mounts=_mounts(cluster) + (recipe_mount if packed else []),
        security_context=SECURITY,
    )
    volumes = _volumes(cluster, size)
    if packed is not None:
        assert packed.config_map.metadata.name is not None
        source = ConfigMapSource(name=packed.config_map.metadata.name, items=packed.items)
        volumes.append(Volume(name="recipe", config_map=source))
    return _template(
        recipe,
        cluster,
        kind,
        container,
        volumes,
        component="head",
        place=head,
        account=HEAD_ACCOUNT,
        annotations=STAYS,
    )


def worker_pod(
    recipe: Recipe, cluster: Cluster, kind: str, group: Group, image: ImageRole
) -> PodTemplate:
    """A pod of a group of workers.

    Args:
        recipe: The recipe.
        cluster: Its section.
        kind: Of the workload.
        group: The group.
        image: Which one it runs.
    """
    machine = cluster.machines.get(group.device or "", Machine())
    notice = _notice(recipe, cluster, group)
    ports = [ContainerPort(name="metrics", container_port=METRICS_PORT)]
    if group.use == "server":
        ports.append(ContainerPort(name="serve", container_port=SERVE_PORT))
    own = server_secrets(recipe) if group.use == "server" else []
    drain = ["python", "-m", "cluster.draining", "--seconds", str(notice)]
    container = Container(
        name="ray-worker",
        image=cluster.images.of(image),
        env=[*_variables(cluster), *(_secret(name, cluster) for name in own)],
        ports=ports,
        resources=quantities(group.size, machine),
        volume_mounts=_mounts(cluster),
        # Training workers hear that their machine goes, and make a checkpoint; students answer.
        lifecycle=Lifecycle(pre_stop=Handler(exec=ExecAction(command=drain))),
        security_context=SECURITY,
    )
    return _template(
        recipe,
        cluster,
        kind,
        container,
        _volumes(cluster, group.size),
        component=group.name,
        place=machine,
        account=WORKER_ACCOUNT,
        group=group,
        grace=notice + 5,
    )


def _notice(recipe: Recipe, cluster: Cluster, group: Group) -> int:
    """Seconds from the word that a pod goes to its end; a student's requests may take longer."""
    if group.use != "server" or group.spot or not isinstance(recipe, TrainingRecipe):
        return cluster.notice_seconds
    return max(cluster.notice_seconds, math.ceil(recipe.serve.drain_seconds))


def submitter_pod(recipe: Recipe, cluster: Cluster, kind: str) -> PodTemplate:
    """The pod that hands a job to the head, and follows its log; KubeRay sets its command."""
    container = Container(
        name="ray-job-submitter",
        image=cluster.images.of(IMAGES["head"]),
        resources=Resources(
            requests={"cpu": "500m", "memory": "512Mi"}, limits={"cpu": "1", "memory": "1Gi"}
        ),
        volume_mounts=[VolumeMount(name="tmp", mount_path="/tmp")],  # noqa: S108
        security_context=SECURITY,
    )
    volumes = [Volume(name="tmp", empty_dir=EmptyDirectory(size_limit="1Gi"))]
    return _template(
        recipe,
        cluster,
        kind,
        container,
        volumes,
        component="submitter",
        place=cluster.head,
        account=WORKER_ACCOUNT,
        restart="Never",
        annotations=STAYS,
    )


def entrypoint(*arguments: str) -> str:
    """A command of Stillhouse on the recipe that is mounted in the head."""
    return shlex.join(["stillhouse", *arguments])


def quantities(size: PodSize, machine: Machine | None = None) -> Resources:
    """What a container asks for and may take: the same, so that it is the last to be evicted."""
    found = {"cpu": str(size.cpus), "memory": f"{math.ceil(size.memory_gib * 1024)}Mi"}
    if size.gpus and machine is not None:
        found |= {machine.gpu_resource: str(size.gpus), **machine.resources}
    return Resources(requests=found, limits=found)


def _template(
    recipe: Recipe,
    cluster: Cluster,
    kind: str,
    container: Container,
    volumes: list[Volume],
    *,
    component: str,
    place: Place,
    account: str,
    group: Group | None = None,
    grace: int | None = None,
    restart: str | None = None,
    annotations: dict[str, str] | None = None,
) -> PodTemplate:
    labels = {**recipe_labels(recipe.name), WORKLOAD: kind, COMPONENT: component}
    places = [place, *([cluster.spot] if group and group.spot and cluster.spot else [])]
    selector = {key: value for one in places for key, value in one.node_selector.items()}
    pull = cluster.images.pull_secret
    return PodTemplate(
        metadata=Metadata(labels=labels, annotations=annotations),
        spec=PodSpec(
            service_account_name=account,
            # KubeRay's autoscaler, beside the head, talks to Kubernetes; nobody else does.
            automount_service_account_token=account == HEAD_ACCOUNT,
            restart_policy="Never" if restart else None,
            termination_grace_period_seconds=grace,
            node_selector=selector or None,
            affinity=_gpu_affinity(group, place) if group else None,
            tolerations=_tolerations(places, group) or None,
            topology_spread_constraints=_spread(group, labels) if group else None,
            security_context=POD_SECURITY,
            image_pull_secrets=[LocalReference(name=pull)] if pull else None,
            containers=[container],
            volumes=volumes,
        ),
    )


def _gpu_affinity(group: Group, place: Place) -> Affinity | None:
    """Machines with the kind of GPU, where the recipe does not say how to know them."""
    products = GPU_PRODUCTS.get(group.device or "")
    if not group.size.gpus or place.node_selector or products is None:
        return None
    wanted = Requirement(key="nvidia.com/gpu.product", operator="In", values=products)
    terms = NodeSelector(node_selector_terms=[NodeTerm(match_expressions=[wanted])])
    return Affinity(
        node_affinity=NodeAffinity(required_during_scheduling_ignored_during_execution=terms)
    )


def _tolerations(places: list[Place], group: Group | None) -> list[Toleration]:
    found = [
        Toleration(
            key=one.key,
            operator="Exists" if one.value is None else "Equal",
            value=one.value,
            effect=one.effect,
        )
        for place in places
        for one in place.tolerations
    ]
    if group is not None and group.size.gpus:
        # Machines with GPUs are tainted so on most clouds.
        found.append(Toleration(key="nvidia.com/gpu", operator="Exists", effect="NoSchedule"))
    return found


def _spread(group: Group, labels: dict[str, str]) -> list[TopologySpread] | None:
    """Replicas of a student stand in several zones, so that one zone's end is not theirs."""
    if group.use != "server":
        return None
    return [
        TopologySpread(
            max_skew=1,
            topology_key="topology.kubernetes.io/zone",
            when_unsatisfiable="ScheduleAnyway",
            label_selector=LabelSelector(match_labels=labels),
        )
    ]


def _variables(cluster: Cluster) -> list[EnvironmentVariable]:
    """Of all pods of a Ray cluster."""
    plain = {
        LABELLED: "1",
        "HOME": HOME,
        "STILLHOUSE_CACHE": CACHE_FOLDER,
        "HF_HOME": f"{CACHE_FOLDER}/huggingface",
        # What is compiled for one pod is compiled for all.
        "VLLM_CACHE_ROOT": f"{CACHE_FOLDER}/vllm",
        "TRITON_CACHE_DIR": f"{CACHE_FOLDER}/triton",
        "TORCHINDUCTOR_CACHE_DIR": f"{CACHE_FOLDER}/inductor",
        "TORCH_EXTENSIONS_DIR": f"{CACHE_FOLDER}/torch-extensions",
        "FLASHINFER_WORKSPACE_BASE": f"{CACHE_FOLDER}/flashinfer",
        # Nothing about the work is told to anybody.
        "RAY_USAGE_STATS_ENABLED": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        # Machines may take long to come: Ray's own patience is that of a cluster that is there.
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "3600",
        "RAY_DATA_EXECUTION_NO_PROGRESS_TIMEOUT_S": "-1",
        # A request to a student goes from HAProxy straight to the replica that answers it.
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        **cluster.environment,
    }
    variables = [EnvironmentVariable(name=name, value=value) for name, value in plain.items()]
    return variables + [_secret(name, cluster) for name in cluster.secret_variables]


def driver_secrets(recipe: Recipe, cluster: Cluster) -> list[str]:
    """Variables that the driver alone gets from the Secret.

    It asks endpoints, fetches models, and hands engines theirs.
    """
    wanted = ["HF_TOKEN"] if cluster.hub_token else []
    for teacher in recipe.teachers.values():
        if isinstance(teacher, EndpointTeacher) and teacher.api_key_env:
            wanted.append(teacher.api_key_env)
        if isinstance(teacher, Teacher):
            found = (REFERENCE.fullmatch(value) for value in teacher.environment.values())
            wanted += [reference[1] for reference in found if reference]
    return [name for name in dict.fromkeys(wanted) if name not in cluster.secret_variables]


def server_secrets(recipe: Recipe) -> list[str]:
    """Variables that a served student alone gets: the hashes of the keys of those who may ask."""
    keys = recipe.serve.api_keys if isinstance(recipe, TrainingRecipe) else None
    return [keys.env] if keys is not None and keys.env else []


def _secret(name: str, cluster: Cluster) -> EnvironmentVariable:
    source = VariableSource(secret_key_ref=KeyReference(name=cluster.secret, key=name))
    return EnvironmentVariable(name=name, value_from=source)


def _mounts(cluster: Cluster) -> list[VolumeMount]:
    found = [
        VolumeMount(name="tmp", mount_path="/tmp"),  # noqa: S108
        VolumeMount(name="home", mount_path=HOME),
        VolumeMount(name="shared-memory", mount_path="/dev/shm"),  # noqa: S108
        VolumeMount(name="cache", mount_path=CACHE_FOLDER),
    ]
    if cluster.storage is None:
        found.append(VolumeMount(name="runs", mount_path=RUNS_FOLDER))
    return found


def _volumes(cluster: Cluster, size: PodSize) -> list[Volume]:
    # Memory of the pod: Ray's object store, and what GPUs of one pod tell each other.
    shared = f"{math.ceil(size.memory_gib * 1024 / 4)}Mi"
    found = [
        Volume(name="tmp", empty_dir=EmptyDirectory(size_limit=f"{SCRATCH_GIB}Gi")),
        Volume(name="home", empty_dir=EmptyDirectory(size_limit="1Gi")),
        Volume(name="shared-memory", empty_dir=EmptyDirectory(medium="Memory", size_limit=shared)),
        _claimed("cache", cluster.cache.claim or CACHE),
    ]
    if cluster.storage is None:
        found.append(_claimed("runs", cluster.runs.claim or RUNS))
    return found


def _claimed(name: str, claim: str) -> Volume:
    return Volume(name=name, persistent_volume_claim=ClaimSource(claim_name=claim))
