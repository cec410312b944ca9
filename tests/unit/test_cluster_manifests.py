"""Every manifest is what Kubernetes, KubeRay and Kustomize take, and holds no secret."""

import json
import re
import shutil
import subprocess
from base64 import b64decode
from copy import deepcopy
from importlib import import_module
from ipaddress import ip_address, ip_network
from pathlib import Path

import pydantic
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from ray.serve.schema import ServeDeploySchema

from cluster.bundle import RECIPE_FILE, Bundle
from cluster.kuberay import WorkerGroup
from cluster.naming import LONGEST, object_name
from cluster.objects import PodSpec
from cluster.ray_cluster import RAY_VERSION
from cluster.rendering import kustomization
from cluster.workloads import Kind, workload
from core.errors import UseError
from core.recipe import TrainingRecipe
from core.recipe_file import load_recipe
from serving.arguments import read_arguments
from stillhouse.methods import recipe_model
from tests.cluster_recipes import IMAGES, manifests, students, teacher_data
from tests.manifests import CRDS, crd_folder, crd_validator, mistakes, refusals

ROOT = Path(__file__).parents[2]
PACKAGES = Path(pydantic.__file__).parents[1]

needs_crds = pytest.mark.skipif(
    crd_folder() is None, reason="KubeRay's definitions are not here (STILLHOUSE_SHARED)"
)

STUDENT = "s3://bucket/runs/demo/stages/train-minilm/0123456789ab/student"


def shipped() -> list[tuple[str, str]]:
    """Our recipes that go to a cluster, by file and profile."""
    found = []
    for file in sorted((ROOT / "recipes").glob("*.yaml")):
        profiles = yaml.safe_load(file.read_text()).get("profiles", {})
        found += [(file.name, name) for name, one in profiles.items() if "cluster" in one]
    return found


def kinds(recipe) -> list[Kind]:
    """What a recipe can be on Kubernetes."""
    found: list[Kind] = ["job", "cluster"]
    if isinstance(recipe, TrainingRecipe) and recipe.sweep is not None:
        found.append("sweep")
    if recipe.cluster.refresh is not None:
        found.append("refresh")
    if isinstance(recipe, TrainingRecipe):
        found.append("service")
    return found


def hold(recipe, kind: str) -> list[dict]:
    """Assert that all objects of a workload are taken as they are."""
    found = manifests(recipe, kind, student_folder=STUDENT)
    for manifest in found:
        assert mistakes(manifest) == []
        if manifest["kind"] in CRDS:
            assert list(refusals(manifest)) == []
    return found


def mounted(packed: Bundle, folder: Path) -> Path:
    """Put a recipe where its head has it mounted; gives its file."""
    config = packed.config_map
    for item in packed.items:
        (folder / item.path).parent.mkdir(parents=True, exist_ok=True)
        text = config.data.get(item.key)
        content = b64decode(config.binary_data[item.key]) if text is None else text.encode()
        (folder / item.path).write_bytes(content)
    return folder / RECIPE_FILE


@pytest.mark.parametrize(("file", "profile"), shipped())
def test_our_recipes_are_taken_by_kubernetes(file, profile, tmp_path):
    recipe = load_recipe(ROOT / "recipes" / file, recipe_model, profile)
    for kind in kinds(recipe.recipe):
        hold(recipe, kind)
    packed = workload(recipe, "job").packed
    assert not packed.uploads
    # The driver finds what is here.
    assert load_recipe(mounted(packed, tmp_path), recipe_model).recipe == recipe.recipe


def test_some_recipes_are_shipped():
    assert {file for file, _ in shipped()} >= {"demo.yaml", "llama_8b.yaml", "llama_70b.yaml"}


@needs_crds
@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "rayClusterSpec", "workerGroupSpecs", 0, "maxReplica"), 1),
        (("spec", "submissionMod"), "K8sJobMode"),
        (("spec", "rayClusterSpec", "autoscalerOptions", "upscalingMode"), "Fast"),
        (("spec", "backoffLimit"), "3"),
        (
            ("spec", "rayClusterSpec", "headGroupSpec", "template", "spec", "containers", 0, "en"),
            [],
        ),
    ],
)
def test_the_definitions_find_mistakes(tmp_path, path, value):
    job = next(m for m in manifests(gpu_recipe(tmp_path), "job") if m["kind"] == "RayJob")
    assert mistakes(job) == []
    wrong = here = deepcopy(job)
    for step in path[:-1]:
        here = here[step]
    here[path[-1]] = value
    assert mistakes(wrong)


def gpu_recipe(folder: Path, **cluster):
    teacher = {
        "model": "m/70b",
        "engine": {"tensor_parallel_size": 4},
        "device": {"kind": "h100", "gpus": 4.0, "cpus": 8.0},
        "replicas": {"min": 1, "max": 3},
    }
    return teacher_data(folder, {"big": teacher}, cluster={"images": IMAGES, **cluster})


def test_models_refuse_unknown_fields():
    with pytest.raises(ValidationError, match="maxReplica"):
        WorkerGroup.model_validate({"groupName": "a", "maxReplica": 1})
    with pytest.raises(ValidationError, match="hostNetwork"):
        PodSpec.model_validate({"hostNetwork": True})


names = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True)
places = st.fixed_dictionaries(
    {},
    optional={
        "node_selector": st.dictionaries(
            st.sampled_from(["pool", "topology.kubernetes.io/zone"]),
            st.sampled_from(["a", "b-1"]),
            max_size=2,
        ),
        "tolerations": st.lists(
            st.fixed_dictionaries(
                {"key": st.sampled_from(["gpu", "spot"])},
                optional={
                    "value": st.sampled_from(["yes", "no"]),
                    "effect": st.sampled_from(["NoSchedule", "NoExecute"]),
                },
            ),
            max_size=2,
        ),
    },
)
volumes = st.fixed_dictionaries(
    {},
    optional={
        "claim": st.just("mine"),
        "size_gib": st.integers(1, 9999),
        "storage_class": st.just("shared"),
    },
)
kinds_of_device = st.sampled_from(["h100", "a100-80gb", "l4", "t4", "mi300"])
machines = st.builds(
    lambda place, more: {**place, **more},
    places,
    st.fixed_dictionaries({}, optional={"resources": st.just({"rdma/hca": "1"})}),
)
clusters = st.fixed_dictionaries(
    {"images": st.just(IMAGES)},
    optional={
        "namespace": st.sampled_from(["team-a", "x"]),
        "storage": st.sampled_from(["s3://bucket/runs", "gs://bucket/deep/folder/"]),
        "cache": volumes,
        "runs": volumes,
        "secret_variables": st.lists(st.sampled_from(["AWS_SECRET_ACCESS_KEY", "X_TOKEN"])),
        "hub_token": st.booleans(),
        "environment": st.dictionaries(st.sampled_from(["AWS_REGION", "A_B"]), st.text(max_size=9)),
        "service_account_annotations": st.just({"eks.amazonaws.com/role-arn": "arn:aws:iam::1"}),
        "head": places,
        "cpu_pods": st.fixed_dictionaries({}, optional={"cpus": st.integers(1, 64)}),
        "machines": st.dictionaries(kinds_of_device, machines, max_size=2),
        "spot": places,
        "idle_seconds": st.integers(1, 3600),
        "retries": st.integers(0, 9),
        "deadline_hours": st.floats(0.1, 1000),
        "keep_minutes": st.integers(0, 20_000),
        "queue": st.just("gpus"),
        "redis": st.fixed_dictionaries({}, optional={"address": st.just("redis.infra:6379")}),
        "refresh": st.fixed_dictionaries(
            {"schedule": st.sampled_from(["0 3 * * 1", "*/5 * * * *"])},
            optional={"time_zone": st.just("Europe/Oslo")},
        ),
        "service": st.fixed_dictionaries({}, optional={"gateway_class": st.just("istio")}),
        "network": st.fixed_dictionaries(
            {},
            optional={
                "client_namespaces": st.lists(st.sampled_from(["web", "apps"]), max_size=2),
                "egress_ports": st.lists(st.integers(1, 65535), max_size=3),
                "metadata_server": st.booleans(),
            },
        ),
        "monitoring": st.none(),
    },
)


@st.composite
def teachers(draw):
    nodes = draw(st.integers(1, 2))
    gpus = draw(st.sampled_from([0.5, 1, 1, 1])) if nodes == 1 else 2.0
    return {
        "model": "m/m",
        "device": {"kind": draw(kinds_of_device), "gpus": float(gpus), "cpus": 1.5},
        "engine": {"tensor_parallel_size": nodes} if gpus > 1 else {},
        "nodes": nodes,
        "replicas": draw(st.integers(1, 64)),
        "environment": draw(st.sampled_from([{}, {"HF_HUB_KEY": "${MY_KEY}"}])),
    }


@st.composite
def trained(draw):
    return {
        "family": "causal",
        "model": "m/m",
        "train": {
            "workers": draw(st.sampled_from([1, 3, 16, {"min": 1, "max": 5}])),
            "device": {"kind": draw(kinds_of_device), "gpus": 1.0, "cpus": 2.0},
        },
    }


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_manifests_of_any_recipe_are_taken(tmp_path, data):
    cluster = data.draw(clusters)
    name = data.draw(names)
    if data.draw(st.booleans()):
        asked = data.draw(st.dictionaries(names, teachers(), min_size=1, max_size=3))
        recipe = teacher_data(tmp_path, asked, cluster=cluster, name=name)
    else:
        learning = data.draw(st.dictionaries(names, trained(), min_size=1, max_size=2))
        first = next(iter(learning))
        sweep = {
            "space": {f"students.{first}.train.learning_rate": {"uniform": [0.1, 0.2]}},
            "trials": 4,
        }
        recipe = students(tmp_path, learning, cluster=cluster, name=name, sweep=sweep)
    hold(recipe, data.draw(st.sampled_from(kinds(recipe.recipe))))


@given(name=names)
def test_names_are_those_of_dns(name):
    for suffix in ("", "-refresh", "-kubernetes"):
        found = object_name(name, suffix)
        assert len(found) <= LONGEST
        assert found[0].isalpha()
        assert set(found) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
        assert not found.startswith("-")
        assert not found.endswith("-")


def test_names_of_two_recipes_differ():
    one, other = (object_name(f"{'long-' * 12}{end}") for end in "ab")
    assert one != other
    assert len({object_name(name) for name in ("a.b", "a_b", "a-b")}) == 3


@pytest.mark.parametrize("opened", [False, True])
def test_what_hands_out_credentials_is_closed_unless_it_is_asked_for(tmp_path, opened):
    recipe = gpu_recipe(tmp_path, network={"metadata_server": opened})
    policies = [m["spec"] for m in manifests(recipe, "job") if m["kind"] == "NetworkPolicy"]
    ways = [
        (ip_network(peer["ipBlock"]["cidr"]), peer["ipBlock"].get("except", []), port["port"])
        for policy in policies
        for rule in policy.get("egress", [])
        for peer in rule.get("to", [])
        if "ipBlock" in peer
        for port in rule["ports"]
    ]
    server = ip_address("169.254.169.254")
    reached = {
        port
        for network, closed, port in ways
        if server in network and not any(server in ip_network(one) for one in closed)
    }
    assert ({80, 988} <= reached) if opened else not reached


def test_a_kind_of_device_is_a_label(tmp_path):
    device = {"kind": "RTX 4090", "gpus": 1.0}
    with pytest.raises(ValidationError, match="kind"):
        students(tmp_path, {"s": {"family": "encoder", "model": "m"}}, serve={"device": device})


def test_secrets_are_referred_to_and_go_only_to_the_driver(tmp_path, monkeypatch):
    monkeypatch.setenv("FAR_KEY", "hunter2")
    far = {
        "backend": "openai",
        "model": "m",
        "base_url": "https://h/v1",
        "api_key_env": "FAR_KEY",
    }
    near = {
        "model": "m/m",
        "device": {"kind": "l4", "gpus": 1.0},
        "environment": {"MODEL_TOKEN": "${MODEL_TOKEN}"},
    }
    cluster = {"images": IMAGES, "hub_token": True, "secret_variables": ["AWS_SECRET_ACCESS_KEY"]}
    recipe = teacher_data(tmp_path, {"far": far, "near": near}, cluster=cluster)
    found = manifests(recipe, "job")
    assert "hunter2" not in json.dumps(found)
    spec = next(m for m in found if m["kind"] == "RayJob")["spec"]["rayClusterSpec"]

    def secrets(template: dict) -> set[str]:
        variables = template["spec"]["containers"][0]["env"]
        return {v["name"] for v in variables if "valueFrom" in v}

    driver = {"FAR_KEY", "MODEL_TOKEN", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY"}
    assert secrets(spec["headGroupSpec"]["template"]) == driver
    for group in spec["workerGroupSpecs"]:
        assert secrets(group["template"]) == {"AWS_SECRET_ACCESS_KEY"}


def test_a_secret_cannot_stand_in_a_recipe(tmp_path):
    cluster = {"images": IMAGES, "environment": {"MY_PASSWORD": "hunter2"}}
    with pytest.raises(ValidationError, match="looks like a secret"):
        teacher_data(tmp_path, {"t": {"model": "m/m"}}, cluster=cluster)


@pytest.mark.parametrize("tag", ["latest"])
def test_images_are_pinned(tmp_path, tag):
    with pytest.raises(ValidationError, match="has no tag of its own"):
        gpu_recipe(tmp_path, images={**IMAGES, "tag": tag})


def test_pods_are_restricted(tmp_path):
    """What Pod Security calls restricted, at all containers and pods that we describe."""
    recipe = gpu_recipe(tmp_path, redis={})
    for manifest in manifests(recipe, "cluster") + manifests(recipe, "job"):
        for spec in pod_specs(manifest):
            assert spec["securityContext"]["runAsNonRoot"]
            assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC"}
            for volume in spec["volumes"]:
                assert "hostPath" not in volume
            for container in spec["containers"]:
                security = container["securityContext"]
                assert security["allowPrivilegeEscalation"] is False
                assert security["capabilities"] == {"drop": ["ALL"]}
                assert security["readOnlyRootFilesystem"]


def pod_specs(part) -> list[dict]:
    """All specifications of pods in a manifest."""
    if isinstance(part, list):
        return [spec for one in part for spec in pod_specs(one)]
    if not isinstance(part, dict):
        return []
    if "containers" in part:
        return [part]
    return [spec for one in part.values() for spec in pod_specs(one)]


def test_variables_are_ones_that_libraries_read(tmp_path):
    job = next(m for m in manifests(gpu_recipe(tmp_path), "job") if m["kind"] == "RayJob")
    (group, *_) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    given = {one["name"] for one in group["template"]["spec"]["containers"][0]["env"]}
    libraries = {"RAY_TRAIN_": "ray/train", "RAY_DATA_": "ray/data", "RAY_SERVE_": "ray/serve"}
    libraries |= {"VLLM_": "vllm", "TRITON_": "torch/_inductor", "TORCH_EXT": "torch/utils"}
    for prefix, folder in libraries.items():
        code = "".join(file.read_text() for file in (PACKAGES / folder).rglob("*.py"))
        ours = {name for name in given if name.startswith(prefix)}
        assert ours
        assert all(re.search(rf"\b{name}\b", code) for name in ours), prefix


def test_only_the_head_may_talk_to_kubernetes(tmp_path):
    found = manifests(gpu_recipe(tmp_path), "job")
    tokens = [
        spec["automountServiceAccountToken"] for manifest in found for spec in pod_specs(manifest)
    ]
    assert tokens.count(True) == 1
    assert not any(
        m["automountServiceAccountToken"] for m in found if m["kind"] == "ServiceAccount"
    )


def test_all_that_is_not_opened_is_closed(tmp_path):
    policies = {
        m["metadata"]["name"]: m["spec"]
        for m in manifests(gpu_recipe(tmp_path, redis={"address": "redis.infra:7000"}), "job")
        if m["kind"] == "NetworkPolicy"
    }
    closed = policies["ask-closed"]
    assert closed["policyTypes"] == ["Ingress", "Egress"]
    assert not closed.keys() & {"ingress", "egress"}
    dns = policies["ask-dns"]["egress"][0]["ports"]
    assert {(port["port"], port["protocol"]) for port in dns} == {(53, "UDP"), (53, "TCP")}
    control = policies["ask-control"]["egress"][0]["ports"]
    assert [port["port"] for port in control] == [443, 6443, 7000]
    dashboard = policies["ask-dashboard"]["ingress"][0]
    assert [port["port"] for port in dashboard["ports"]] == [8265]
    assert all("ipBlock" not in peer for peer in dashboard["from"])


def test_a_head_has_no_work_and_no_gpu(tmp_path):
    job = next(m for m in manifests(gpu_recipe(tmp_path), "job") if m["kind"] == "RayJob")
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]
    assert head["resources"] == {"CPU": "0"}
    limits = head["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert not [name for name in limits if "gpu" in name]


def test_heads_and_those_who_follow_them_are_not_moved_to_tidy_up(tmp_path):
    job = next(m for m in manifests(gpu_recipe(tmp_path), "job") if m["kind"] == "RayJob")["spec"]
    cluster = job["rayClusterSpec"]
    for template in (cluster["headGroupSpec"]["template"], job["submitterPodTemplate"]):
        assert template["metadata"]["annotations"]["karpenter.sh/do-not-disrupt"] == "true"
    for group in cluster["workerGroupSpecs"]:
        assert "annotations" not in group["template"]["metadata"]


@pytest.mark.parametrize(("drain", "seconds"), [(5, 25), (60, 60)])
def test_replicas_of_a_student_have_time_to_answer(drain, seconds):
    settings = [f"serve.drain_seconds={drain}", "serve.timeout_seconds=5"]
    recipe = load_recipe(ROOT / "recipes/demo.yaml", recipe_model, "kubernetes", settings)
    spec = workload(recipe, "service", student_folder=STUDENT).object.manifest()["spec"]
    pod = spec["rayClusterConfig"]["workerGroupSpecs"][0]["template"]["spec"]
    hook = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert hook[-1] == str(seconds)
    assert pod["terminationGracePeriodSeconds"] > seconds


@pytest.mark.parametrize("cluster", [{}, {"queue": "gpus", "deadline_hours": 2}])
def test_a_job_on_a_shared_cluster_leaves_the_cluster_alone(tmp_path, cluster):
    job = workload(gpu_recipe(tmp_path, **cluster), "job", shared=True).object.manifest()
    assert mistakes(job) == []
    assert list(refusals(job)) == []
    assert "kueue.x-k8s.io/queue-name" not in job["metadata"]["labels"]


def test_kueue_gets_its_label_and_takes_the_end_over(tmp_path):
    (job,) = (
        m for m in manifests(gpu_recipe(tmp_path, queue="gpus"), "job") if m["kind"] == "RayJob"
    )
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert job["spec"]["shutdownAfterJobFinishes"]
    assert "deletionStrategy" not in job["spec"]


def test_large_files_go_to_the_object_store(tmp_path):
    (tmp_path / "large.jsonl").write_text('{"question": "Why?"}\n' * 50_000)
    inputs = {"file": "large.jsonl"}
    near = {"near": {"model": "m/m"}}
    cluster = {"images": IMAGES, "storage": "s3://bucket/runs"}
    recipe = teacher_data(tmp_path, near, inputs=inputs, cluster=cluster)
    packed = workload(recipe, "job").packed
    (upload,) = packed.uploads
    assert upload.file == tmp_path / "large.jsonl"
    assert upload.url.startswith("s3://bucket/runs/files/")
    text = yaml.safe_load(packed.config_map.data["recipe.yaml"])
    assert text["inputs"]["file"] == upload.url
    with pytest.raises(UseError, match="is larger than a ConfigMap"):
        workload(teacher_data(tmp_path, near, inputs=inputs), "job")


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not here")
def test_kustomize_builds_the_tree(tmp_path):
    recipe = gpu_recipe(tmp_path, redis={})
    works = {kind: workload(recipe, kind) for kind in ("job", "cluster")}
    for name, text in kustomization(recipe, works).items():
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_text(text)
    for kind in works:
        built = subprocess.run(
            ["kubectl", "kustomize", tmp_path / "tree" / kind],
            check=True,
            capture_output=True,
            text=True,
        ).stdout

        def by_name(found):
            return sorted(found, key=lambda m: (m["kind"], m["metadata"]["name"]))

        assert by_name(yaml.safe_load_all(built)) == by_name(manifests(recipe, kind))


def test_the_version_is_the_one_that_is_pinned():
    lock = (ROOT / "requirements/cpu.lock").read_text().splitlines()
    assert f"ray=={RAY_VERSION}" in lock


@needs_crds
def test_the_definitions_are_of_the_version_that_we_write_for():
    assert "v1.7.0" in (crd_folder() / "SOURCE.md").read_text()
    assert crd_validator("RayJob")


def test_a_recipe_without_students_has_no_service(tmp_path):
    with pytest.raises(UseError, match="nothing to serve"):
        workload(gpu_recipe(tmp_path), "service", student_folder=STUDENT)


def test_a_service_runs_the_student_that_serve_runs():
    recipe = load_recipe(ROOT / "recipes/demo.yaml", recipe_model, "kubernetes")
    (service,) = (
        m for m in manifests(recipe, "service", student_folder=STUDENT) if m["kind"] == "RayService"
    )
    config = yaml.safe_load(service["spec"]["serveConfigV2"])
    (application,) = ServeDeploySchema.model_validate(config).applications
    module, _, function = application.import_path.partition(":")
    assert callable(getattr(import_module(module), function))
    arguments = read_arguments(application.args)
    assert arguments.students["minilm"].folder == STUDENT
    assert arguments.serve.scale.max == 4
    # Another run is another address, and nothing else: replicas change places in one cluster.
    other = workload(recipe, "service", student_folder=STUDENT + "-2").object.manifest()
    assert other["spec"].pop("serveConfigV2") != service["spec"].pop("serveConfigV2")
    assert other == service


@pytest.mark.parametrize("family", ["causal", "seq2seq"])
def test_a_student_that_writes_has_the_image_with_vllm(tmp_path, family):
    writer = {"family": family, "model": "m/1b"}
    recipe = students(tmp_path, {"s": writer}, serve={"device": {"kind": "l4", "gpus": 1.0}})
    spec = workload(recipe, "service", student_folder=STUDENT).object.manifest()["spec"]
    cluster = spec["rayClusterConfig"]
    templates = [cluster["headGroupSpec"]["template"]]
    templates += [group["template"] for group in cluster["workerGroupSpecs"]]
    images = {template["spec"]["containers"][0]["image"] for template in templates}
    assert images == {"registry.example.com/stillhouse/stillhouse-teacher:1.2.3"}


@pytest.mark.parametrize("least", [0, 1])
def test_a_student_without_replicas_is_woken_by_the_head(least):
    settings = [f"serve.replicas={{min: {least}, max: 2}}"]
    recipe = load_recipe(ROOT / "recipes/demo.yaml", recipe_model, "kubernetes", settings)
    found = {m["metadata"]["name"]: m for m in manifests(recipe, "service", student_folder=STUDENT)}
    spec = found["news-desk-serve"]["spec"]
    assert spec["excludeHeadPodFromServeSvc"] == (least > 0)
    (wanted,) = found["news-desk-serve-port"]["spec"]["podSelector"]["matchExpressions"]
    assert ("head" in wanted["values"]) == (least == 0)


def test_keys_of_callers_come_from_the_secret():
    settings = ["serve.api_keys={env: CALLERS}"]
    recipe = load_recipe(ROOT / "recipes/demo.yaml", recipe_model, "kubernetes", settings)
    spec = workload(recipe, "service", student_folder=STUDENT).object.manifest()["spec"]
    cluster = spec["rayClusterConfig"]
    (group,) = cluster["workerGroupSpecs"]
    # A front that needs no device may run on the head, too.
    for pod in (group["template"], cluster["headGroupSpec"]["template"]):
        variables = {v["name"]: v for v in pod["spec"]["containers"][0]["env"]}
        assert variables["CALLERS"]["valueFrom"]["secretKeyRef"]["key"] == "CALLERS"
    settings = ["serve.api_keys={file: keys.yaml}"]
    recipe = load_recipe(ROOT / "recipes/demo.yaml", recipe_model, "kubernetes", settings)
    with pytest.raises(UseError, match="is not there in a pod"):
        workload(recipe, "service", student_folder=STUDENT)


def test_a_recipe_says_when_it_is_refreshed(tmp_path):
    with pytest.raises(UseError, match=r"cluster\.refresh"):
        workload(gpu_recipe(tmp_path), "refresh")
