"""Who the pods are, what they may ask of Kubernetes, and whom they may talk to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from cluster.naming import (
    COMPONENT,
    HEAD_ACCOUNT,
    PART_OF,
    REDIS,
    WORKER_ACCOUNT,
    object_name,
    recipe_labels,
)
from cluster.objects import (
    Egress,
    Ingress,
    IpBlock,
    LabelSelector,
    LocalReference,
    Metadata,
    Namespace,
    NetworkPolicy,
    NetworkPolicySpec,
    Object,
    Peer,
    PolicyPort,
    PolicyRule,
    Requirement,
    Role,
    RoleBinding,
    RoleRef,
    ServiceAccount,
    Subject,
)
from cluster.pods import DASHBOARD_PORT, METRICS_PORTS, SERVE_PORT
from core.recipe import Recipe, TrainingRecipe
from core.recipe_cluster import Cluster

NAMESPACE_NAME = "kubernetes.io/metadata.name"
"""Label that Kubernetes gives every namespace."""

ENFORCE = "pod-security.kubernetes.io/enforce"

METADATA_SERVERS = ["169.254.169.254/32"]
"""Where clouds hand out the credentials of the machine."""

IDENTITY_SERVERS = [*METADATA_SERVERS, "169.254.169.252/32", "169.254.170.23/32"]
"""The same with those that hand out a pod's own: of Google's GKE, and of Amazon's EKS."""

IDENTITY_PORTS = (80, 988)

NODE_LOCAL_DNS = "169.254.20.10/32"

API_SERVER_PORTS = (443, 6443)


def namespace(cluster: Cluster) -> Namespace:
    """The namespace, in which no pod with privileges is let in."""
    labels = {**PART_OF, ENFORCE: "restricted"}
    return Namespace(metadata=Metadata(name=cluster.namespace, labels=labels))


def accounts(cluster: Cluster) -> list[Object]:
    """The head's and the workers' service account, and what the head's autoscaler may do.

    KubeRay binds the head's account to a role of its own for each Ray cluster, by which it may also
    patch pods. Ours is for operators that may not make roles, and holds no more than is needed.
    """
    pull = cluster.images.pull_secret
    made: list[Object] = [
        ServiceAccount(
            metadata=_metadata(cluster, name, cluster.service_account_annotations or None),
            automount_service_account_token=False,
            image_pull_secrets=[LocalReference(name=pull)] if pull else None,
        )
        for name in (HEAD_ACCOUNT, WORKER_ACCOUNT)
    ]
    rules = [
        PolicyRule(api_groups=[""], resources=["pods"], verbs=["get", "list", "watch"]),
        PolicyRule(api_groups=["ray.io"], resources=["rayclusters"], verbs=["get", "patch"]),
    ]
    subject = Subject(name=HEAD_ACCOUNT, namespace=cluster.namespace)
    metadata = _metadata(cluster, HEAD_ACCOUNT)
    made.append(Role(metadata=metadata, rules=rules))
    made.append(
        RoleBinding(metadata=metadata, subjects=[subject], role_ref=RoleRef(name=HEAD_ACCOUNT))
    )
    return made


def network_policies(recipe: Recipe, cluster: Cluster) -> list[NetworkPolicy]:
    """What lets a recipe's pods talk to whom they must, and to nobody else.

    Policies add up: the first one closes, each of the others opens a way.
    """
    name = recipe_labels(recipe.name)
    pods = LabelSelector(match_labels=name)
    head = LabelSelector(match_labels={**name, COMPONENT: "head"})
    submitter = LabelSelector(match_labels={**name, COMPONENT: "submitter"})
    server = LabelSelector(
        match_labels=name,
        match_expressions=[
            Requirement(key=COMPONENT, operator="In", values=_asked_by_clients(recipe))
        ],
    )
    operator = _namespaces(cluster.network.operator_namespace)
    clients = [Peer(pod_selector=LabelSelector())] + [
        _namespaces(name) for name in cluster.network.client_namespaces
    ]
    prometheus = _namespaces(cluster.network.monitoring_namespace)
    world = Peer(
        ip_block=IpBlock(
            cidr="0.0.0.0/0",
            but=None if cluster.network.metadata_server else METADATA_SERVERS,
        )
    )
    policy = _Policies(cluster, recipe.name)
    elsewhere = cluster.redis.address if cluster.redis else None
    redis_port = [int(elsewhere.rpartition(":")[2])] if elsewhere else []
    return [
        policy.make("closed", pods, [], []),
        policy.make("ray", pods, [Ingress(peers=[Peer(pod_selector=pods)])], [_to(pods)]),
        policy.make("dns", pods, None, [_dns()]),
        policy.make("out", pods, None, [_open(world, cluster.network.egress_ports)]),
        policy.make("control", head, None, [_open(world, [*API_SERVER_PORTS, *redis_port])]),
        policy.make(
            "dashboard",
            head,
            [_from([operator, Peer(pod_selector=submitter)], [DASHBOARD_PORT])],
            None,
        ),
        *(
            [policy.make("identity", pods, None, [_identity()])]
            if cluster.network.metadata_server
            else []
        ),
        policy.make("metrics", pods, [_from([prometheus], [*METRICS_PORTS.values()])], None),
        policy.make("serve-port", server, [_from([operator, *clients], [SERVE_PORT])], None),
    ]


def _asked_by_clients(recipe: Recipe) -> list[str]:
    """The components of pods that a student's callers reach."""
    alone = isinstance(recipe, TrainingRecipe) and recipe.serve.scale.min == 0
    return ["serve", "serve-spot", *(["head"] if alone else [])]


def redis_policies(cluster: Cluster) -> list[NetworkPolicy]:
    """What lets heads, and nobody else, talk to the Redis that is made."""
    redis = LabelSelector(match_labels={**PART_OF, COMPONENT: "redis"})
    head = LabelSelector(match_labels={**PART_OF, COMPONENT: "head"})
    port = [PolicyPort(port=6379)]
    ingress = [Ingress(peers=[Peer(pod_selector=head)], ports=port)]
    egress = [Egress(to=[Peer(pod_selector=redis)], ports=port)]
    return [
        _policy(cluster, REDIS, PART_OF, redis, ingress=ingress, egress=[]),
        _policy(cluster, f"{REDIS}-clients", PART_OF, head, ingress=None, egress=egress),
    ]


class _Policies:
    """Makes the policies of one recipe."""

    def __init__(self, cluster: Cluster, recipe: str) -> None:
        self._cluster = cluster
        self._labels = recipe_labels(recipe)
        self._prefix = recipe

    def make(
        self,
        name: str,
        pods: LabelSelector,
        ingress: list[Ingress] | None,
        egress: list[Egress] | None,
    ) -> NetworkPolicy:
        """A policy; what is None it says nothing of, and what is empty it closes."""
        whole = object_name(self._prefix, f"-{name}")
        return _policy(self._cluster, whole, self._labels, pods, ingress=ingress, egress=egress)


def _policy(
    cluster: Cluster,
    name: str,
    labels: dict[str, str],
    pods: LabelSelector,
    *,
    ingress: list[Ingress] | None,
    egress: list[Egress] | None,
) -> NetworkPolicy:
    types: list[Literal["Ingress", "Egress"]] = []
    types += ["Ingress"] if ingress is not None else []
    types += ["Egress"] if egress is not None else []
    return NetworkPolicy(
        metadata=Metadata(name=name, namespace=cluster.namespace, labels=labels),
        spec=NetworkPolicySpec(
            pod_selector=pods, policy_types=types, ingress=ingress or None, egress=egress or None
        ),
    )


def _metadata(cluster: Cluster, name: str, annotations: dict[str, str] | None = None) -> Metadata:
    return Metadata(
        name=name, namespace=cluster.namespace, labels=dict(PART_OF), annotations=annotations
    )


def _namespaces(name: str) -> Peer:
    return Peer(namespace_selector=LabelSelector(match_labels={NAMESPACE_NAME: name}))


def _from(peers: list[Peer], ports: Sequence[int]) -> Ingress:
    return Ingress(peers=peers, ports=[PolicyPort(port=port) for port in ports])


def _to(pods: LabelSelector) -> Egress:
    return Egress(to=[Peer(pod_selector=pods)])


def _open(peer: Peer, ports: Sequence[int]) -> Egress:
    return Egress(to=[peer], ports=[PolicyPort(port=port) for port in ports])


def _identity() -> Egress:
    peers = [Peer(ip_block=IpBlock(cidr=cidr)) for cidr in IDENTITY_SERVERS]
    return Egress(to=peers, ports=[PolicyPort(port=port) for port in IDENTITY_PORTS])


def _dns() -> Egress:
    ports = [PolicyPort(port=53, protocol="UDP"), PolicyPort(port=53, protocol="TCP")]
    local = Peer(ip_block=IpBlock(cidr=NODE_LOCAL_DNS))
    return Egress(to=[_namespaces("kube-system"), local], ports=ports)
