"""Where things are kept: the volumes that pods share, and the Redis of Ray's control plane."""

from __future__ import annotations

from cluster.access import redis_policies
from cluster.naming import CACHE, COMPONENT, PART_OF, REDIS, RUNS, WORKER_ACCOUNT
from cluster.objects import (
    ClaimSpec,
    ClaimTemplate,
    Container,
    ContainerPort,
    EmptyDirectory,
    EnvironmentVariable,
    ExecAction,
    KeyReference,
    LabelSelector,
    Metadata,
    Object,
    PersistentVolumeClaim,
    PodSpec,
    PodTemplate,
    Probe,
    Resources,
    Service,
    ServicePort,
    ServiceSpec,
    StatefulSet,
    StatefulSetSpec,
    StorageRequest,
    VariableSource,
    VolumeMount,
)
from cluster.objects import Volume as PodVolume
from cluster.pods import POD_SECURITY, SECURITY
from cluster.ray_cluster import REDIS_PORT
from core.recipe_cluster import Cluster, Redis, Volume

REDIS_FOLDER = "/data"


def claims(cluster: Cluster) -> list[Object]:
    """The claims of the volumes that are made."""
    wanted = {CACHE: cluster.cache}
    if cluster.storage is None:
        wanted[RUNS] = cluster.runs
    return [_claim(cluster, name, volume) for name, volume in wanted.items() if not volume.claim]


def redis(cluster: Cluster, settings: Redis) -> list[Object]:
    """A small Redis that keeps what Ray's control plane knows, on a disk of its own.

    Args:
        cluster: The recipe's section.
        settings: Its part on Redis.
    """
    labels = {**PART_OF, COMPONENT: "redis"}
    password = VariableSource(secret_key_ref=KeyReference(name=settings.secret, key="password"))
    answers = ExecAction(command=["redis-cli", "ping"])
    container = Container(
        name="redis",
        image=settings.image,
        # The password is in no argument that others could read: Redis gets a file of its own.
        command=["sh", "-c"],
        args=[
            'umask 077; printf "requirepass %s\\nappendonly yes\\ndir /data\\n" "$REDISCLI_AUTH" '
            "> /tmp/redis.conf; exec redis-server /tmp/redis.conf"
        ],
        env=[EnvironmentVariable(name="REDISCLI_AUTH", value_from=password)],
        ports=[ContainerPort(name="redis", container_port=REDIS_PORT)],
        resources=Resources(
            requests={"cpu": "250m", "memory": "512Mi"}, limits={"cpu": "250m", "memory": "512Mi"}
        ),
        volume_mounts=[
            VolumeMount(name="data", mount_path=REDIS_FOLDER),
            VolumeMount(name="tmp", mount_path="/tmp"),  # noqa: S108
        ],
        liveness_probe=Probe(exec=answers, period_seconds=10, timeout_seconds=5),
        readiness_probe=Probe(exec=answers, period_seconds=5, timeout_seconds=5),
        security_context=SECURITY,
    )
    template = PodTemplate(
        metadata=Metadata(labels=labels),
        spec=PodSpec(
            service_account_name=WORKER_ACCOUNT,
            automount_service_account_token=False,
            security_context=POD_SECURITY,
            containers=[container],
            volumes=[PodVolume(name="tmp", empty_dir=EmptyDirectory(size_limit="16Mi"))],
        ),
    )
    disk = ClaimSpec(
        access_modes=["ReadWriteOnce"],
        resources=StorageRequest(requests={"storage": "1Gi"}),
    )
    metadata = Metadata(name=REDIS, namespace=cluster.namespace, labels=labels)
    port = ServicePort(name="redis", port=REDIS_PORT, target_port=REDIS_PORT)
    return [
        Service(metadata=metadata, spec=ServiceSpec(selector=labels, ports=[port])),
        StatefulSet(
            metadata=metadata,
            spec=StatefulSetSpec(
                replicas=1,
                service_name=REDIS,
                selector=LabelSelector(match_labels=labels),
                template=template,
                volume_claim_templates=[ClaimTemplate(metadata=Metadata(name="data"), spec=disk)],
            ),
        ),
        *redis_policies(cluster),
    ]


def _claim(cluster: Cluster, name: str, volume: Volume) -> PersistentVolumeClaim:
    return PersistentVolumeClaim(
        metadata=Metadata(name=name, namespace=cluster.namespace, labels=dict(PART_OF)),
        spec=ClaimSpec(
            access_modes=["ReadWriteMany"],
            resources=StorageRequest(requests={"storage": f"{volume.size_gib}Gi"}),
            storage_class_name=volume.storage_class,
        ),
    )
