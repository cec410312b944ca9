"""How many pods of which size a recipe needs: the groups of workers of its Ray cluster.

Every group is there for one use and grows from zero. A replica of a group is what is started and
ended together: the pods that one engine is spread over, or one pod of training workers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from core.errors import UseError
from core.placement import Use
from core.recipe import LoadedRecipe, Recipe, TrainingRecipe
from core.recipe_cluster import Cluster, Machine
from core.recipe_section import GPU_MEMORY_GIB, GPUS_OF_A_MACHINE, Device
from core.recipe_serving import Serve
from core.recipe_students import Train
from core.recipe_teachers import Teacher

MEMORY_GIB_PER_CPU = 4.0
"""Of a pod without GPUs: what general-purpose machines have."""

UNKNOWN_GPU_MEMORY_GIB = 48.0
"""Taken for a GPU whose memory nobody has said."""

MEMORY_SHARE = 0.5
"""Memory of a pod over that of its GPUs."""

OFFLOADED_SHARE = 1.5
"""Memory of a pod over that of its GPUs, where a training keeps its optimizer there."""

CPU_GROUP = "cpu"
"""Name of the group for work without a device of its own."""

SPOT_SUFFIX = "-spot"

GROUP_NAME_LENGTH = 32
"""Characters of a group's name at most, so that pods' names stay below Kubernetes' 63."""


@dataclass(frozen=True)
class PodSize:
    """What one pod has."""

    cpus: int
    gpus: int
    memory_gib: float


@dataclass(frozen=True)
class Group:
    """A group of equal pods that the autoscaler adds and takes away."""

    name: str
    use: Use
    device: str | None
    """The kind of device; None for work that needs none."""
    size: PodSize
    hosts: int
    """Pods of one replica."""
    max_replicas: int
    spot: bool = False
    """Whether its pods go to machines that can be taken away."""

    @property
    def max_pods(self) -> int:
        """Pods of the group at most."""
        return self.max_replicas * self.hosts


def groups_of_job(loaded: LoadedRecipe, *, trials: int = 1) -> list[Group]:
    """The groups that a run of a recipe needs.

    Args:
        loaded: The recipe, with a section `cluster`.
        trials: Of a sweep, that are trained at a time.

    Raises:
        UseError: An engine or a worker does not fit on a machine of its kind.
    """
    recipe, cluster = loaded.recipe, cluster_of(loaded)
    found = [cpu_group(cluster), *_teachers(recipe, cluster)]
    if isinstance(recipe, TrainingRecipe):
        found += _trainers(recipe, cluster, trials)
        found.append(server_group(recipe.serve, cluster))
    return _with_spot(found, cluster)


def groups_of_service(recipe: TrainingRecipe, cluster: Cluster) -> list[Group]:
    """The group that serves a student.

    It has room for one replica more than there are: an update starts a new one before it stops an
    old one, and would wait for ever where all pods are taken.

    Raises:
        UseError: As of `groups_of_job`.
    """
    return _with_spot([server_group(recipe.serve, cluster, spare=1)], cluster)


def machines_of(group: Group, cluster: Cluster) -> int | None:
    """Machines that the pods of a group take at most; None where they have no GPU."""
    if group.device is None or not group.size.gpus:
        return None
    there = _gpus_of_a_machine(group.device, cluster)
    together = 1 if math.isinf(there) else int(there // group.size.gpus)
    return math.ceil(group.max_pods / together)


def cluster_of(loaded: LoadedRecipe) -> Cluster:
    """The recipe's section `cluster`.

    Raises:
        UseError: It has none.
    """
    if loaded.recipe.cluster is None:
        raise UseError(
            f"recipe '{loaded.recipe.name}'",
            "it does not say which cluster it goes to.",
            "Give it a section `cluster`, in a profile for instance, and name that with --profile; "
            "cluster: {images: {registry: HOST/NAME, tag: VERSION}} is enough.",
        )
    return loaded.recipe.cluster


def cpu_group(cluster: Cluster) -> Group:
    """The pods for work without a device of its own."""
    pods = cluster.cpu_pods
    size = PodSize(pods.cpus, 0, pods.memory_gib)
    return Group(CPU_GROUP, "cpu", None, size, 1, pods.max)


def server_group(serve: Serve, cluster: Cluster, *, spare: int = 0) -> Group:
    """The pods of a served student's replicas, and of some more."""
    return _group("serve", "server", serve.device, cluster, serve.scale.max + spare)


def _teachers(recipe: Recipe, cluster: Cluster) -> Iterable[Group]:
    groups = [
        _group(
            name,
            "teacher",
            teacher.device,
            cluster,
            teacher.replica_bounds.max,
            hosts=teacher.nodes,
        )
        for name, teacher in recipe.teachers.items()
        if isinstance(teacher, Teacher)
    ]
    # All teachers of a stage are asked in one pass, so the pods that they share add up.
    return _merged(groups, sum)


def _trainers(recipe: TrainingRecipe, cluster: Cluster, trials: int) -> Iterable[Group]:
    groups = []
    for name, student in recipe.students.items():
        train, workers = student.train, student.train.worker_bounds.max
        groups.append(
            _group(
                name,
                "trainer",
                train.device,
                cluster,
                workers,
                together=_workers_of_a_pod(train, cluster),
                memory_share=OFFLOADED_SHARE if train.offload else MEMORY_SHARE,
            )
        )
    # One student is trained after the other; the trials of a sweep side by side.
    merged = _merged(groups, max)
    return [replace(group, max_replicas=group.max_replicas * trials) for group in merged]


def _merged(groups: Iterable[Group], add: Callable[[Iterable[int]], int]) -> Iterable[Group]:
    """Groups of equal pods as one, which has the name of the first."""
    same: dict[object, list[Group]] = {}
    for group in groups:
        same.setdefault((group.device, group.size, group.hosts), []).append(group)
    return [
        replace(found[0], max_replicas=add(group.max_replicas for group in found))
        for found in same.values()
    ]


def _with_spot(groups: Iterable[Group], cluster: Cluster) -> list[Group]:
    """The groups under names of their own, each with one of spot machines where there are any."""
    found: dict[str, Group] = {}
    for group in groups:
        name, number = group.name, 1
        while name in found:
            number += 1
            name = f"{group.name}{number}"
        found[name] = replace(group, name=name)
        if cluster.spot is not None and group.use in cluster.spot.roles:
            spot = replace(group, name=f"{name}{SPOT_SUFFIX}", spot=True)
            found[spot.name] = spot
    return list(found.values())


def _workers_of_a_pod(train: Train, cluster: Cluster) -> int:
    """As many as a machine has GPUs for, equally many in each pod: their links are the fastest.

    One, where nobody has said how many GPUs a machine of the kind has.
    """
    gpus, workers = train.device.gpus, train.worker_bounds.max
    there = _gpus_of_a_machine(train.device.kind, cluster)
    if gpus < 1 or math.isinf(there):
        return 1
    room = max(1, int(there // gpus))
    return math.ceil(workers / math.ceil(workers / room))


def _group(
    name: str,
    use: Use,
    device: Device,
    cluster: Cluster,
    number: int,
    *,
    hosts: int = 1,
    together: int = 1,
    memory_share: float = MEMORY_SHARE,
) -> Group:
    """The group of a number of equal engines, workers or replicas.

    Args:
        name: In the recipe.
        use: What they are.
        device: What each of them has.
        cluster: The recipe's section.
        number: How many there are at most.
        hosts: Machines that each is spread over.
        together: How many share a pod; more where each has a part of a GPU alone.
        memory_share: Memory of a pod over that of its GPUs, where the recipe does not say it.
    """
    gpus = device.gpus / hosts
    if 0 < gpus < 1:
        together = min(int(1 / gpus), number)
    size = PodSize(
        cpus=max(1, math.ceil(together * device.cpus / hosts)),
        gpus=math.ceil(together * gpus),
        memory_gib=_memory_gib(device, cluster, together, together * gpus, memory_share),
    )
    room = _gpus_of_a_machine(device.kind, cluster)
    if size.gpus > room:
        raise UseError(
            f"{use} '{name}'",
            f"it wants {size.gpus} GPUs in one machine, and a machine of kind {device.kind} has "
            f"{room}.",
            f"Spread it over more `nodes`, or set cluster.machines.{device.kind}.gpus.",
        )
    replicas = math.ceil(number / together)
    return Group(_group_name(use, name), use, device.kind, size, hosts, replicas)


def _group_name(use: Use, name: str) -> str:
    """`serve`, or the use and the name of the first that needs the group."""
    if use == "server":
        return name
    short = {"teacher": "teacher", "trainer": "train"}[use]
    plain = "".join(c if c.isalnum() else "-" for c in name)
    return f"{short}-{plain}"[: GROUP_NAME_LENGTH - len(SPOT_SUFFIX)].rstrip("-")


def _gpus_of_a_machine(kind: str, cluster: Cluster) -> float:
    """Infinite where nobody has said it."""
    said = cluster.machines.get(kind, Machine()).gpus
    return GPUS_OF_A_MACHINE.get(kind, math.inf) if said is None else said


def _memory_gib(
    device: Device, cluster: Cluster, together: int, gpus: float, share: float
) -> float:
    """Of one pod, rounded up to whole GiB."""
    if not device.gpus:
        each = device.memory_gib or device.cpus * MEMORY_GIB_PER_CPU
        return float(math.ceil(together * each))
    known = device.memory_gib or GPU_MEMORY_GIB.get(device.kind, UNKNOWN_GPU_MEMORY_GIB)
    said = cluster.machines.get(device.kind, Machine()).memory_gib_per_gpu
    return float(math.ceil(math.ceil(gpus) * (said or share * known)))
