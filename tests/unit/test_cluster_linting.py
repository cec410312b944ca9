"""What a linter of Kubernetes manifests says of ours, and what of it we do not do, and why.

Neither kube-linter nor Polaris comes as a package; Checkov does, with some seventy checks of pods,
accounts and rights.
"""

import json
import subprocess
import venv
from pathlib import Path

import pytest
import yaml

from core.recipe_file import load_recipe
from stillhouse.methods import recipe_model
from tests.cluster_recipes import manifests

ROOT = Path(__file__).parents[2]

CHECKOV = "3.3.30"

NOT_MET = {
    "CKV_K8S_8": "KubeRay puts liveness probes into the pods itself",
    "CKV_K8S_9": "KubeRay puts readiness probes into the pods itself",
    "CKV_K8S_15": "a tag that is never moved need not be pulled each time; `latest` is refused",
    "CKV_K8S_35": "Ray, the hub's and the stores' clients read their secrets from the environment",
    "CKV_K8S_38": "the autoscaler beside the head talks to Kubernetes; nobody else has a token",
    "CKV_K8S_43": "a digest may stand in the tag's place; whoever builds the images knows it",
}
"""By check: why not."""


def as_pods(manifest: dict) -> list[dict]:
    """What the operator makes of a manifest: pods, which linters know, of KubeRay's objects."""
    spec = manifest.get("spec", {})
    if manifest["kind"] == "RayCluster":
        templates = {
            "head": spec["headGroupSpec"]["template"],
            **{group["groupName"]: group["template"] for group in spec["workerGroupSpecs"]},
        }
    elif manifest["kind"] == "RayJob":
        templates = {"submitter": spec["submitterPodTemplate"]}
    else:
        return [manifest]
    namespace = manifest["metadata"]["namespace"]
    return [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, **template["metadata"]},
            "spec": template["spec"],
        }
        for name, template in templates.items()
    ]


@pytest.mark.slow
def test_checkov_finds_what_we_know(tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    binaries = tmp_path / "venv/bin"
    install = [binaries / "python", "-m", "pip", "install", "--quiet", f"checkov=={CHECKOV}"]
    subprocess.run(install, check=True, capture_output=True)
    recipe = load_recipe(
        ROOT / "recipes/llama_70b.yaml", recipe_model, "kubernetes", ["cluster.redis={}"]
    )
    found = manifests(recipe, "cluster") + manifests(recipe, "job")
    pods = [pod for manifest in found for pod in as_pods(manifest)]
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests/all.yaml").write_text(yaml.safe_dump_all(pods))
    command = [binaries / "checkov", "-d", tmp_path / "manifests", "--framework", "kubernetes"]
    command += ["--output", "json", "--quiet", "--skip-download"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    assert report["summary"]["passed"] > 500
    failed = {one["check_id"] for one in report["results"]["failed_checks"]}
    assert failed == set(NOT_MET)
