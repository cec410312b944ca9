"""`stillhouse cluster` against a stand-in of the Kubernetes API, by the official client."""

import json
import sys

import pytest
import yaml

from core.ledger import Entry, Ledger
from core.run import Folder
from stillhouse.command_line import main
from stillhouse.workflow import write_state
from tests.cluster_recipes import IMAGES
from tests.kubernetes_api import KubernetesApi

RECIPE = {
    "name": "ask",
    "method": "teacher_data",
    "inputs": {"file": "rows.jsonl"},
    "teachers": {"far": {"backend": "openai", "model": "m", "base_url": "https://h/v1"}},
    "ask": {"far": {"prompt": "{{ question }}"}},
    "profiles": {"kubernetes": {"cluster": {"images": IMAGES, "monitoring": None}}},
}
JOB = ("ray.io/v1", "rayjobs", "stillhouse", "ask")


@pytest.fixture
def api(tmp_path, monkeypatch):
    with KubernetesApi(tmp_path, token="secret") as api:
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "kubeconfig")))
        yield api


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"question": "Why?"}\n')
    return write(tmp_path, RECIPE)


def write(folder, content):
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


@pytest.fixture
def call(monkeypatch, capsys):
    def call(*arguments, status: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["stillhouse", "cluster", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert (ended.value.code or 0) == status
        said = capsys.readouterr()
        return said.out + said.err

    return call


def put_pod(api, name: str, component: str, phase: str = "Running", kind: str = "job") -> None:
    labels = {
        "stillhouse.io/workload": kind,
        "app.kubernetes.io/part-of": "stillhouse",
        "stillhouse.io/recipe": "ask",
        "app.kubernetes.io/component": component,
    }
    metadata = {"name": name, "namespace": "stillhouse", "labels": labels}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": {"phase": phase}}
    api.store.put("v1", "pods", pod)


def set_state(api, deployment: str, job: str = "", message: str = "") -> None:
    content = api.store.get(*JOB)
    content["status"] = {"jobDeploymentStatus": deployment, "jobStatus": job, "message": message}
    api.store.put(*JOB[:2], content)


def test_a_job_is_submitted_with_all_that_it_needs(api, recipe, call):
    said = call("submit", recipe, "--profile", "kubernetes")
    assert "RayJob ask is submitted." in said
    job = api.store.get(*JOB)
    assert job["spec"]["entrypoint"].endswith("--run /stillhouse/runs/ask")
    config = api.store.get("v1", "configmaps", "stillhouse", "ask-recipe")
    assert yaml.safe_load(config["data"]["recipe.yaml"])["name"] == "ask"
    assert api.store.get("v1", "namespaces", "", "stillhouse")
    assert len(api.store.of_kind("networking.k8s.io/v1", "networkpolicies")) == 8


def test_a_job_that_runs_is_not_submitted_again_and_one_that_ended_is(api, recipe, call):
    call("submit", recipe, "--profile", "kubernetes")
    first = api.store.get(*JOB)["metadata"]["uid"]
    set_state(api, "Running", "RUNNING")
    said = call("submit", recipe, "--profile", "kubernetes", status=2)
    assert "it is there already, in state Running" in said
    set_state(api, "Failed", "FAILED")
    call("submit", recipe, "--profile", "kubernetes")
    assert api.store.get(*JOB)["metadata"]["uid"] != first


def test_a_job_does_not_begin_beside_a_sweep_of_its_run(api, recipe, call):
    call("submit", recipe, "--profile", "kubernetes")
    sweep = api.store.get(*JOB)
    api.store.delete(*JOB)
    sweep["metadata"]["name"] = "ask-sweep"
    sweep["status"] = {"jobDeploymentStatus": "Running"}
    api.store.put(*JOB[:2], sweep)
    said = call("submit", recipe, "--profile", "kubernetes", status=2)
    assert "works on the same run" in said
    sweep["status"] = {"jobDeploymentStatus": "Complete"}
    api.store.put(*JOB[:2], sweep)
    call("submit", recipe, "--profile", "kubernetes")


def test_a_job_runs_on_a_shared_cluster_that_has_its_recipe(api, recipe, call, tmp_path):
    said = call("submit", recipe, "--profile", "kubernetes", "--shared", status=2)
    assert "RayCluster ask-shared\n  it is not there" in said
    call("submit", recipe, "--profile", "kubernetes", "--kind", "cluster")
    call("submit", recipe, "--profile", "kubernetes", "--shared", "--until", "ask")
    spec = api.store.get(*JOB)["spec"]
    assert spec["clusterSelector"] == {"ray.io/cluster": "ask-shared"}
    assert "rayClusterSpec" not in spec
    set_state(api, "Complete", "SUCCEEDED")
    write(tmp_path, {**RECIPE, "ask": {"far": {"prompt": "Well? {{ question }}"}}})
    said = call("submit", recipe, "--profile", "kubernetes", "--shared", status=2)
    assert "as it was when the cluster was made" in said


def test_missing_secrets_are_told_before_pods_wait_for_them(api, recipe, call, tmp_path):
    content = json.loads(json.dumps(RECIPE))
    content["teachers"]["far"]["api_key_env"] = "FAR_KEY"
    recipe = write(tmp_path, content)
    said = call("submit", recipe, "--profile", "kubernetes", status=2)
    assert "it does not hold FAR_KEY in namespace stillhouse" in said
    assert '--from-literal=FAR_KEY="$FAR_KEY"' in said
    assert not api.store.of_kind(*JOB[:2])
    metadata = {"name": "stillhouse", "namespace": "stillhouse"}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata}
    api.store.put("v1", "secrets", {**secret, "data": {"FAR_KEY": "eA=="}})
    call("submit", recipe, "--profile", "kubernetes")


def test_large_files_are_brought_to_the_store_once(api, recipe, call, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"question": "Why?"}\n' * 50_000)
    content = json.loads(json.dumps(RECIPE))
    store = (tmp_path / "store").as_uri()
    content["profiles"]["kubernetes"]["cluster"]["storage"] = store
    recipe = write(tmp_path, content)
    said = call("submit", recipe, "--profile", "kubernetes")
    assert f"{store}/files/" in said.replace("\n", "")
    (brought,) = (tmp_path / "store/files").glob("*/rows.jsonl")
    assert brought.read_bytes() == (tmp_path / "rows.jsonl").read_bytes()
    config = api.store.get("v1", "configmaps", "stillhouse", "ask-recipe")
    assert yaml.safe_load(config["data"]["recipe.yaml"])["inputs"]["file"].startswith("file://")
    set_state(api, "Complete", "SUCCEEDED")
    assert "is there" not in call("submit", recipe, "--profile", "kubernetes")


def test_status_tells_of_pods_and_of_the_run(api, recipe, call, tmp_path):
    call("submit", recipe, "--profile", "kubernetes")
    set_state(api, "Running", "RUNNING")
    put_pod(api, "one", "head")
    put_pod(api, "two", "teacher-far", "Pending")
    put_pod(api, "three", "teacher-far", "Pending")
    put_pod(api, "four", "teacher-far", "Pending", kind="refresh")
    said = call("status", recipe, "--profile", "kubernetes")
    assert "ask: Running, RUNNING" in said
    assert "teacher-far  Pending  2" in said
    assert "on a volume of the cluster" in said
    run_of(recipe, tmp_path / "run")
    said = call("status", recipe, "--profile", "kubernetes", "--run", tmp_path / "run")
    assert "Cost so far: $7.20" in said


def test_status_of_what_is_not_there(api, recipe, call):
    assert "ask: not there" in call("status", recipe, "--profile", "kubernetes")


def test_logs_are_those_of_the_newest_submitter(api, recipe, call):
    assert "no pod of it follows" in call("logs", recipe, "--profile", "kubernetes", status=2)
    put_pod(api, "ask-1", "submitter")
    put_pod(api, "ask-refresh-1", "submitter", kind="refresh")
    api.store.logs = lambda name: f"{name} says\nask is done"
    assert call("logs", recipe, "--profile", "kubernetes") == "ask-1 says\nask is done\n"


def run_of(recipe, folder) -> None:
    """A run that has used an H100 for two hours and 24 minutes."""
    from core.run import Run
    from stillhouse.options import load
    from stillhouse.workflow import plan_run

    run = Run(Folder(str(folder)))
    write_state(plan_run(load(recipe, "kubernetes", []), run))
    used = {"startup_seconds": 640.0, "useful_seconds": 7000.0, "idle_seconds": 1000.0}
    Ledger(run.ledger).write(Entry("ask", "a", "h100", rows=100, **used))


def test_cost_is_read_from_the_ledger(api, recipe, call, tmp_path):
    run_of(recipe, tmp_path / "run")
    said = call("cost", recipe, "--profile", "kubernetes", "--run", tmp_path / "run")
    assert "Cost so far: $7.20" in said
    assert "A thousand rows of the stages cost $72.00." in said
    (line,) = (line for line in said.splitlines() if line.startswith("h100"))
    assert line.split()[1:] == ["2.40", "0.18", "1.94", "0.28", "100", "$7.20"]


def test_cost_of_a_run_on_a_volume_says_where_it_is(recipe, call):
    said = call("cost", recipe, "--profile", "kubernetes", status=2)
    assert "--run" in said


def test_delete_ends_a_job_and_leaves_its_run(api, recipe, call):
    call("submit", recipe, "--profile", "kubernetes")
    assert "is gone" in call("delete", recipe, "--profile", "kubernetes")
    assert not api.store.of_kind(*JOB[:2])
    assert api.store.of_kind("v1", "persistentvolumeclaims")
    assert "was not there" in call("delete", recipe, "--profile", "kubernetes")


def test_a_cluster_without_kuberay_is_told(api, recipe, call):
    api.store.unknown.add("ray.io/v1")
    said = call("submit", recipe, "--profile", "kubernetes", status=2)
    assert "Install the KubeRay operator" in said


def test_who_may_not_is_told(api, recipe, call):
    api.token = "another"
    said = call("submit", recipe, "--profile", "kubernetes", status=2)
    assert "is not allowed to you: Unauthorized" in said


def test_a_cluster_that_does_not_answer_is_told(recipe, call, tmp_path, monkeypatch):
    api = KubernetesApi(tmp_path, token="secret")
    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "kubeconfig")))
    api._server.server_close()
    said = call("submit", recipe, "--profile", "kubernetes", status=1)
    assert "does not answer" in said


def test_a_recipe_without_a_cluster_asks_nobody(recipe, call, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    assert "which cluster" in call("submit", recipe, status=2)


def test_no_kubeconfig_is_told(recipe, call, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    said = call("submit", recipe, "--profile", "kubernetes", status=2)
    assert "Set KUBECONFIG" in said


def test_render_prints_and_writes(recipe, call, tmp_path):
    printed = list(yaml.safe_load_all(call("render", recipe, "--profile", "kubernetes")))
    assert printed[-1]["kind"] == "RayJob"
    said = call("render", recipe, "--profile", "kubernetes", "--to", tmp_path / "tree")
    assert "kubectl apply --server-side -k" in said
    assert (tmp_path / "tree/base/kustomization.yaml").exists()
    assert (tmp_path / "tree/job/job.yaml").exists()


def test_an_unknown_kind_is_told(recipe, call):
    said = call("render", recipe, "--profile", "kubernetes", "--kind", "deployment", status=2)
    assert "The kinds are: job, sweep, refresh, service, cluster." in said
