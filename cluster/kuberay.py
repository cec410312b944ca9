"""KubeRay's objects (1.7), as far as we make them: unknown fields are refused.

What its operator refuses beside what a schema can say is in `tests/manifests.py`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cluster.objects import (
    ContainerSecurity,
    EnvironmentVariable,
    Object,
    Part,
    PodTemplate,
    Resources,
    VariableSource,
    VolumeMount,
)


class AutoscalerOptions(Part):
    version: Literal["v2"] = "v2"
    idle_timeout_seconds: int
    upscaling_mode: Literal["Default", "Aggressive", "Conservative"] = "Default"
    resources: Resources
    security_context: ContainerSecurity
    env: list[EnvironmentVariable] | None = None
    volume_mounts: list[VolumeMount] | None = None


class AuthOptions(Part):
    mode: Literal["token"] = "token"


class RedisPassword(Part):
    value_from: VariableSource


class FaultTolerance(Part):
    redis_address: str
    redis_password: RedisPassword


class HeadGroup(Part):
    ray_start_params: dict[str, str]
    resources: dict[str, str]
    labels: dict[str, str]
    template: PodTemplate


class ScaleStrategy(Part):
    workers_to_delete: list[str] = []


class WorkerGroup(Part):
    group_name: str
    replicas: int = 0
    min_replicas: int = 0
    max_replicas: int
    num_of_hosts: int = 1
    idle_timeout_seconds: int
    priority: int | None = None
    ray_start_params: dict[str, str] = {}
    resources: dict[str, str]
    labels: dict[str, str]
    # Ray's autoscaler replaces it by a JSON patch, which needs it to be there.
    scale_strategy: ScaleStrategy = ScaleStrategy()
    template: PodTemplate


class RayClusterSpec(Part):
    ray_version: str
    enable_in_tree_autoscaling: Literal[True] = True
    autoscaler_options: AutoscalerOptions
    auth_options: AuthOptions = AuthOptions()
    gcs_fault_tolerance_options: FaultTolerance | None = None
    head_group_spec: HeadGroup
    worker_group_specs: list[WorkerGroup]


class RayCluster(Object):
    api_version: Literal["ray.io/v1"] = "ray.io/v1"
    kind: Literal["RayCluster"] = "RayCluster"
    spec: RayClusterSpec


class DeletionCondition(Part):
    job_status: Literal["SUCCEEDED", "FAILED"] | None = None
    job_deployment_status: Literal["Failed"] | None = None
    ttl_seconds: int


class DeletionRule(Part):
    policy: Literal["DeleteCluster", "DeleteSelf"]
    condition: DeletionCondition


class DeletionStrategy(Part):
    deletion_rules: list[DeletionRule] = Field(min_length=1)


class SubmitterConfig(Part):
    backoff_limit: int


class RayJobSpec(Part):
    entrypoint: str
    submission_mode: Literal["K8sJobMode"] = "K8sJobMode"
    submitter_pod_template: PodTemplate
    submitter_config: SubmitterConfig
    backoff_limit: int | None = None
    active_deadline_seconds: int | None = None
    deletion_strategy: DeletionStrategy | None = None
    shutdown_after_job_finishes: bool | None = None
    ttl_seconds_after_finished: int | None = None
    suspend: bool | None = None
    ray_cluster_spec: RayClusterSpec | None = None
    cluster_selector: dict[str, str] | None = None


class RayJob(Object):
    api_version: Literal["ray.io/v1"] = "ray.io/v1"
    kind: Literal["RayJob"] = "RayJob"
    spec: RayJobSpec


class RayCronJobSpec(Part):
    schedule: str
    time_zone: str | None = None
    job_template: RayJobSpec


class RayCronJob(Object):
    api_version: Literal["ray.io/v1"] = "ray.io/v1"
    kind: Literal["RayCronJob"] = "RayCronJob"
    spec: RayCronJobSpec


class UpgradeOptions(Part):
    gateway_class_name: str
    step_size_percent: int = 25
    interval_seconds: int = 30
    max_surge_percent: int = 100


class UpgradeStrategy(Part):
    type: Literal["NewCluster", "NewClusterWithIncrementalUpgrade"]
    cluster_upgrade_options: UpgradeOptions | None = None


class RayServiceSpec(Part):
    serve_config_v2: str = Field(alias="serveConfigV2")
    upgrade_strategy: UpgradeStrategy
    exclude_head_pod_from_serve_svc: bool
    ray_cluster_deletion_delay_seconds: int
    ray_cluster_config: RayClusterSpec


class RayService(Object):
    api_version: Literal["ray.io/v1"] = "ray.io/v1"
    kind: Literal["RayService"] = "RayService"
    spec: RayServiceSpec
