"""Kubernetes' own objects, as far as we make them: unknown fields are refused.

Names and meanings are those of the Kubernetes API, where they are documented; a field of Python
`node_selector` is `nodeSelector` there.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class Part(BaseModel):
    """Base of all objects and of their parts."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        alias_generator=to_camel,
        validate_by_name=True,
        serialize_by_alias=True,
    )

    def manifest(self) -> dict[str, Any]:
        """The object as YAML has it: without what is not said."""
        return self.model_dump(mode="json", exclude_none=True)


class Metadata(Part):
    """Who an object is."""

    name: str | None = None
    namespace: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class Object(Part):
    """Base of what stands alone in a manifest."""

    api_version: str
    kind: str
    metadata: Metadata


class Namespace(Object):
    api_version: Literal["v1"] = "v1"
    kind: Literal["Namespace"] = "Namespace"


class ServiceAccount(Object):
    api_version: Literal["v1"] = "v1"
    kind: Literal["ServiceAccount"] = "ServiceAccount"
    automount_service_account_token: bool
    image_pull_secrets: list[LocalReference] | None = None


class LocalReference(Part):
    name: str


class PolicyRule(Part):
    api_groups: list[str]
    resources: list[str]
    verbs: list[str]
    resource_names: list[str] | None = None


class Role(Object):
    api_version: Literal["rbac.authorization.k8s.io/v1"] = "rbac.authorization.k8s.io/v1"
    kind: Literal["Role"] = "Role"
    rules: list[PolicyRule]


class Subject(Part):
    kind: Literal["ServiceAccount"] = "ServiceAccount"
    name: str
    namespace: str


class RoleRef(Part):
    api_group: Literal["rbac.authorization.k8s.io"] = "rbac.authorization.k8s.io"
    kind: Literal["Role"] = "Role"
    name: str


class RoleBinding(Object):
    api_version: Literal["rbac.authorization.k8s.io/v1"] = "rbac.authorization.k8s.io/v1"
    kind: Literal["RoleBinding"] = "RoleBinding"
    subjects: list[Subject]
    role_ref: RoleRef


class ConfigMap(Object):
    api_version: Literal["v1"] = "v1"
    kind: Literal["ConfigMap"] = "ConfigMap"
    data: dict[str, str] | None = None
    binary_data: dict[str, str] | None = None


class Resources(Part):
    """Quantities by name, such as cpu, memory and nvidia.com/gpu."""

    requests: dict[str, str]
    limits: dict[str, str] | None = None


class StorageRequest(Part):
    requests: dict[str, str]


class ClaimSpec(Part):
    access_modes: list[Literal["ReadWriteOnce", "ReadWriteMany"]]
    resources: StorageRequest
    storage_class_name: str | None = None


class PersistentVolumeClaim(Object):
    api_version: Literal["v1"] = "v1"
    kind: Literal["PersistentVolumeClaim"] = "PersistentVolumeClaim"
    spec: ClaimSpec


class ClaimTemplate(Part):
    metadata: Metadata
    spec: ClaimSpec


class KeyReference(Part):
    """A key of a Secret."""

    name: str
    key: str
    optional: bool | None = None


class VariableSource(Part):
    secret_key_ref: KeyReference


class EnvironmentVariable(Part):
    name: str
    value: str | None = None
    value_from: VariableSource | None = None


class Capabilities(Part):
    drop: list[str]


class SeccompProfile(Part):
    type: Literal["RuntimeDefault"] = "RuntimeDefault"


class ContainerSecurity(Part):
    allow_privilege_escalation: bool
    capabilities: Capabilities
    read_only_root_filesystem: bool
    run_as_non_root: bool
    seccomp_profile: SeccompProfile


class PodSecurity(Part):
    run_as_non_root: bool
    run_as_user: int
    run_as_group: int
    fs_group: int
    fs_group_change_policy: Literal["OnRootMismatch"] | None = None
    seccomp_profile: SeccompProfile


class VolumeMount(Part):
    name: str
    mount_path: str
    read_only: bool | None = None
    sub_path: str | None = None


class EmptyDirectory(Part):
    medium: Literal["Memory"] | None = None
    size_limit: str


class KeyToPath(Part):
    key: str
    path: str


class ConfigMapSource(Part):
    name: str
    items: list[KeyToPath] | None = None


class ClaimSource(Part):
    claim_name: str


class Volume(Part):
    name: str
    empty_dir: EmptyDirectory | None = None
    config_map: ConfigMapSource | None = None
    persistent_volume_claim: ClaimSource | None = None


class ContainerPort(Part):
    name: str
    container_port: int


class ExecAction(Part):
    command: list[str]


class Handler(Part):
    exec: ExecAction


class Lifecycle(Part):
    pre_stop: Handler


class Probe(Part):
    exec: ExecAction
    period_seconds: int
    timeout_seconds: int
    initial_delay_seconds: int | None = None


class Container(Part):
    name: str
    image: str
    image_pull_policy: Literal["IfNotPresent"] = "IfNotPresent"
    command: list[str] | None = None
    args: list[str] | None = None
    env: list[EnvironmentVariable] | None = None
    ports: list[ContainerPort] | None = None
    resources: Resources
    volume_mounts: list[VolumeMount] | None = None
    lifecycle: Lifecycle | None = None
    liveness_probe: Probe | None = None
    readiness_probe: Probe | None = None
    security_context: ContainerSecurity


class Toleration(Part):
    key: str
    operator: Literal["Exists", "Equal"]
    value: str | None = None
    effect: str | None = None


class Requirement(Part):
    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: list[str] | None = None


class NodeTerm(Part):
    match_expressions: list[Requirement]


class NodeSelector(Part):
    node_selector_terms: list[NodeTerm]


class NodeAffinity(Part):
    required_during_scheduling_ignored_during_execution: NodeSelector


class Affinity(Part):
    node_affinity: NodeAffinity


class LabelSelector(Part):
    match_labels: dict[str, str] | None = None
    match_expressions: list[Requirement] | None = None


class TopologySpread(Part):
    max_skew: int
    topology_key: str
    when_unsatisfiable: Literal["ScheduleAnyway", "DoNotSchedule"]
    label_selector: LabelSelector


class PodSpec(Part):
    service_account_name: str | None = None
    automount_service_account_token: bool
    enable_service_links: bool = False
    restart_policy: Literal["Never", "Always"] | None = None
    termination_grace_period_seconds: int | None = None
    node_selector: dict[str, str] | None = None
    affinity: Affinity | None = None
    tolerations: list[Toleration] | None = None
    topology_spread_constraints: list[TopologySpread] | None = None
    security_context: PodSecurity
    image_pull_secrets: list[LocalReference] | None = None
    containers: list[Container] = Field(min_length=1)
    volumes: list[Volume] | None = None


class PodTemplate(Part):
    metadata: Metadata
    spec: PodSpec


class Peer(Part):
    """Whom a network policy lets in or out."""

    pod_selector: LabelSelector | None = None
    namespace_selector: LabelSelector | None = None
    ip_block: IpBlock | None = None


class IpBlock(Part):
    cidr: str
    # Named as in the API; `except` is a word of Python's.
    but: list[str] | None = Field(default=None, alias="except")


class PolicyPort(Part):
    port: int
    protocol: Literal["TCP", "UDP"] = "TCP"


class Ingress(Part):
    peers: list[Peer] = Field(alias="from")
    ports: list[PolicyPort] | None = None


class Egress(Part):
    to: list[Peer]
    ports: list[PolicyPort] | None = None


class NetworkPolicySpec(Part):
    pod_selector: LabelSelector
    policy_types: list[Literal["Ingress", "Egress"]]
    ingress: list[Ingress] | None = None
    egress: list[Egress] | None = None


class NetworkPolicy(Object):
    api_version: Literal["networking.k8s.io/v1"] = "networking.k8s.io/v1"
    kind: Literal["NetworkPolicy"] = "NetworkPolicy"
    spec: NetworkPolicySpec


class ServicePort(Part):
    name: str
    port: int
    target_port: int


class ServiceSpec(Part):
    selector: dict[str, str]
    ports: list[ServicePort]


class Service(Object):
    api_version: Literal["v1"] = "v1"
    kind: Literal["Service"] = "Service"
    spec: ServiceSpec


class StatefulSetSpec(Part):
    replicas: int
    service_name: str
    selector: LabelSelector
    template: PodTemplate
    volume_claim_templates: list[ClaimTemplate]


class StatefulSet(Object):
    api_version: Literal["apps/v1"] = "apps/v1"
    kind: Literal["StatefulSet"] = "StatefulSet"
    spec: StatefulSetSpec


class MetricsEndpoint(Part):
    port: str
    interval: str = "15s"


class NamespaceChoice(Part):
    match_names: list[str]


class PodMonitorSpec(Part):
    selector: LabelSelector
    namespace_selector: NamespaceChoice
    pod_metrics_endpoints: list[MetricsEndpoint]


class PodMonitor(Object):
    """Of the Prometheus operator."""

    api_version: Literal["monitoring.coreos.com/v1"] = "monitoring.coreos.com/v1"
    kind: Literal["PodMonitor"] = "PodMonitor"
    spec: PodMonitorSpec


class AlertRule(Part):
    alert: str
    expr: str
    lasting: str = Field(alias="for")
    labels: dict[str, str]
    annotations: dict[str, str]


class RuleGroup(Part):
    name: str
    rules: list[AlertRule]


class RuleSpec(Part):
    groups: list[RuleGroup]


class PrometheusRule(Object):
    """Of the Prometheus operator."""

    api_version: Literal["monitoring.coreos.com/v1"] = "monitoring.coreos.com/v1"
    kind: Literal["PrometheusRule"] = "PrometheusRule"
    spec: RuleSpec
