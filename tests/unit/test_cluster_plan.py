"""Ray's own autoscaler code reads our RayCluster, and starts what `plan` promised."""

import inspect

import pytest
import ray.autoscaler.v2.instance_manager.config
from ray.autoscaler._private.kuberay.autoscaling_config import (
    _derive_autoscaling_config_from_ray_cr,
)
from ray.autoscaler.v2.instance_manager.config import KubeRayConfigReader
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.core.generated.autoscaler_pb2 import BundleSelector, GangResourceRequest
from ray.core.generated.common_pb2 import LabelSelectorOperator

from cluster.workloads import workload
from core.placement import LABELLED, label_selector
from pipelines.engine_start import bundles_of
from pipelines.shards import WORKER_CPUS
from stillhouse.cluster_table import promised_pods
from tests.cluster_recipes import IMAGES, ray_cluster, students, teacher_data

ONE_MACHINE = {
    "model": "m/405b",
    "engine": {"tensor_parallel_size": 8},
    "device": {"kind": "h100", "gpus": 8.0, "cpus": 16.0},
}
TWO_MACHINES = {
    "model": "m/405b",
    "engine": {"tensor_parallel_size": 8, "pipeline_parallel_size": 2},
    "device": {"kind": "a100-80gb", "gpus": 16.0, "cpus": 32.0},
    "nodes": 2,
}
SMALL = {"model": "m/8b", "device": {"kind": "l4", "gpus": 1.0, "cpus": 4.0}}


@pytest.fixture(autouse=True)
def labelled(monkeypatch):
    monkeypatch.setenv(LABELLED, "1")


def request(resources: dict, use: str, device: str | None = None):
    """What Ray's control plane tells the autoscaler of an actor that waits."""
    is_in = LabelSelectorOperator.LABEL_OPERATOR_IN
    selector = [(key, is_in, [value]) for key, value in label_selector(use, device).items()]
    return ResourceRequestUtil.make(resources, label_selectors=[selector])


def demand(teacher, engines: int) -> dict:
    """What a generation job asks for: its engines, and the workers that look after its rows."""
    device = teacher.device
    asked = [request({"CPU": WORKER_CPUS}, "cpu")]
    if teacher.nodes == 1:
        one = {"CPU": device.cpus, "GPU": device.gpus}
        asked += [request(one, "teacher", device.kind)] * engines
        return {"resource_requests": ResourceRequestUtil.group_by_count(asked)}
    bundles = [request(bundle, "teacher", device.kind) for bundle in bundles_of(teacher)]
    gang = GangResourceRequest(bundle_selectors=[BundleSelector(resource_requests=bundles)])
    return {
        "resource_requests": ResourceRequestUtil.group_by_count(asked),
        "gang_resource_requests": [gang] * engines,
    }


def scheduled(cluster: dict, wanted: dict):
    """What Ray's scheduler decides about an empty cluster: launches by group, and the rest."""
    reader = KubeRayConfigReader(lambda: _derive_autoscaling_config_from_ray_cr(cluster))
    config = reader.get_cached_autoscaling_config()
    reply = ResourceDemandScheduler().schedule(
        SchedulingRequest(
            node_type_configs=config.get_node_type_configs(),
            max_num_nodes=config.get_max_num_nodes(),
            disable_launch_config_check=True,
            **wanted,
        )
    )
    launched = {one.instance_type: one.count for one in reply.to_launch}
    return launched, reply


@pytest.mark.parametrize("replicas", [1, 4, 64])
@pytest.mark.parametrize(
    "teacher", [ONE_MACHINE, TWO_MACHINES, SMALL], ids=["8 H100", "16 A100 in 2", "L4"]
)
def test_a_generation_job_gets_what_plan_promised(tmp_path, teacher, replicas):
    recipe = teacher_data(tmp_path, {"t": {**teacher, "replicas": {"min": 1, "max": replicas}}})
    cluster = ray_cluster(workload(recipe, "job"))
    launched, reply = scheduled(cluster, demand(recipe.recipe.teachers["t"], replicas))
    promised = promised_pods(recipe)
    assert launched["teacher-t"] == promised["teacher-t"] == replicas * teacher.get("nodes", 1)
    assert launched["cpu"] == 1 <= promised["cpu"]
    assert not reply.infeasible_resource_requests
    assert not reply.infeasible_gang_resource_requests


def test_no_more_is_started_than_was_promised(tmp_path):
    recipe = teacher_data(tmp_path, {"t": {**SMALL, "replicas": 4}})
    cluster = ray_cluster(workload(recipe, "job"))
    launched, reply = scheduled(cluster, demand(recipe.recipe.teachers["t"], 6))
    assert launched["teacher-t"] == promised_pods(recipe)["teacher-t"] == 4
    assert len(reply.infeasible_resource_requests) == 2


def test_spot_machines_are_tried_first_and_others_where_there_are_none(tmp_path):
    cluster = {"images": IMAGES, "spot": {"node_selector": {"spot": "true"}}}
    recipe = teacher_data(tmp_path, {"t": {**SMALL, "replicas": 4}}, cluster=cluster)
    object_ = ray_cluster(workload(recipe, "job"))
    wanted = demand(recipe.recipe.teachers["t"], 4)
    launched, _ = scheduled(object_, wanted)
    assert launched == {"teacher-t-spot": 4, "cpu": 1}
    # As the autoscaler says when pods of a group have waited too long.
    none = {"recoverable_resource_availabilities": {"teacher-t-spot": 0.0}}
    launched, _ = scheduled(object_, wanted | none)
    assert launched == {"teacher-t": 4, "cpu": 1}
    (wait,) = object_["spec"]["autoscalerOptions"]["env"]
    assert wait["value"] == "900"
    config = inspect.getsource(ray.autoscaler.v2.instance_manager.config)
    assert f'"{wait["name"]}"' in config


def test_work_without_a_device_goes_to_no_machine_with_a_gpu(tmp_path):
    recipe = teacher_data(tmp_path, {"t": {**SMALL, "replicas": 4}})
    wanted = ResourceRequestUtil.group_by_count([request({"CPU": 1}, "cpu")] * 6)
    launched, _ = scheduled(ray_cluster(workload(recipe, "job")), {"resource_requests": wanted})
    assert launched == {"cpu": 2}


def test_training_workers_of_70b_come_in_two_machines(tmp_path):
    train = {"workers": 16, "device": {"kind": "h100", "gpus": 1.0, "cpus": 8.0}}
    recipe = students(tmp_path, {"s": {"family": "causal", "model": "m/70b", "train": train}})
    bundles = [request({"CPU": 8.0, "GPU": 1.0}, "trainer", "h100")] * 16
    gang = GangResourceRequest(bundle_selectors=[BundleSelector(resource_requests=bundles)])
    cluster = ray_cluster(workload(recipe, "job"))
    launched, _ = scheduled(cluster, {"gang_resource_requests": [gang]})
    assert launched == {"train-s": 2} == {"train-s": promised_pods(recipe)["train-s"]}


def test_the_head_takes_no_work(tmp_path):
    cluster = ray_cluster(workload(teacher_data(tmp_path, {"t": SMALL}), "job"))
    config = _derive_autoscaling_config_from_ray_cr(cluster)
    head = config["available_node_types"]["headgroup"]
    assert head["resources"]["CPU"] == 0
    assert head["max_workers"] == 0
    assert all(node["min_workers"] == 0 for node in config["available_node_types"].values())
