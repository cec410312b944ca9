"""Recipes for Kubernetes, large and small, and how they become manifests."""

from __future__ import annotations

from pathlib import Path

import yaml

from cluster.rendering import foundation, plain_yaml
from cluster.workloads import Workload, workload
from core.recipe import LoadedRecipe
from stillhouse.methods import recipe_model

IMAGES = {"registry": "registry.example.com/stillhouse", "tag": "1.2.3"}


def loaded(recipe: dict, folder: Path) -> LoadedRecipe:
    """A recipe that is checked as one from a file is."""
    return LoadedRecipe(recipe_model(recipe["method"]).model_validate(recipe), folder)


def teacher_data(folder: Path, teachers: dict, **others) -> LoadedRecipe:
    """A recipe that asks teachers alone."""
    (folder / "rows.jsonl").write_text('{"question": "Why?"}\n')
    return loaded(
        {
            "name": "ask",
            "method": "teacher_data",
            "inputs": {"file": "rows.jsonl"},
            "teachers": teachers,
            "ask": {name: {"prompt": "{{ question }}"} for name in teachers},
            "cluster": {"images": IMAGES},
            **others,
        },
        folder,
    )


def students(folder: Path, trained: dict, **others) -> LoadedRecipe:
    """A recipe that trains students on the answers of one teacher."""
    (folder / "rows.jsonl").write_text('{"question": "Why?", "answer": "So."}\n')
    return loaded(
        {
            "name": "learn",
            "method": "frontier",
            "inputs": {"file": "rows.jsonl"},
            "teachers": {"far": {"backend": "openai", "model": "m", "base_url": "https://h/v1"}},
            "ask": {"far": {"prompt": "{{ question }}"}},
            "task": {"kind": "text", "prompt": "{{ question }}"},
            "students": trained,
            "cluster": {"images": IMAGES},
            **others,
        },
        folder,
    )


def manifests(recipe: LoadedRecipe, kind: str, **options) -> list[dict]:
    """All objects of one kind of workload, read back from the YAML that is written."""
    work = workload(recipe, kind, **options)
    text = plain_yaml([*foundation(recipe).objects, *work.objects])
    return list(yaml.load_all(text, Loader=yaml.CSafeLoader))


def ray_cluster(work: Workload, name: str = "job-abcde") -> dict:
    """The RayCluster that the operator makes of a workload."""
    spec = work.object.manifest()["spec"]
    found = spec.get("jobTemplate", spec)
    cluster = found.get("rayClusterSpec") or found.get("rayClusterConfig") or spec
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {"name": name, "namespace": work.object.metadata.namespace, "uid": "1"},
        "spec": cluster,
    }
