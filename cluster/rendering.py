"""The manifests of a recipe: plain YAML for one of its workloads, or Kustomize for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import yaml

from cluster.access import accounts, namespace, network_policies
from cluster.objects import Object
from cluster.sizes import cluster_of
from cluster.stores import claims, redis
from cluster.watching import ray_dashboards, watching
from cluster.workloads import Kind, Workload
from core.recipe import LoadedRecipe


@dataclass(frozen=True)
class Foundation:
    """What all workloads of a recipe stand on, by the name of a file for each part of it."""

    parts: Mapping[str, Sequence[Object]]

    @property
    def objects(self) -> list[Object]:
        """All of them, those that others need first."""
        return [one for part in self.parts.values() for one in part]


def foundation(loaded: LoadedRecipe) -> Foundation:
    """What all workloads of a recipe stand on.

    Args:
        loaded: The recipe, with a section `cluster`.
    """
    cluster = cluster_of(loaded)
    parts: dict[str, Sequence[Object]] = {
        "namespace": [namespace(cluster)],
        "accounts": accounts(cluster),
        "network": network_policies(loaded.recipe, cluster),
        "volumes": claims(cluster),
    }
    if cluster.redis is not None and cluster.redis.address is None:
        parts["redis"] = redis(cluster, cluster.redis)
    if cluster.monitoring is not None:
        parts["monitoring"] = watching(cluster, cluster.monitoring)
    return Foundation({name: part for name, part in parts.items() if part})


class _Dumper(yaml.CSafeDumper):
    """Texts of several lines stand as they are, for people to read."""


def _text(dumper: yaml.CSafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def plain_yaml(objects: Sequence[Object]) -> str:
    """Objects as one text of YAML."""
    return "---\n".join(
        yaml.dump(one.manifest(), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
        for one in objects
    )


def kustomization(loaded: LoadedRecipe, workloads: Mapping[Kind, Workload]) -> dict[str, str]:
    """Files of a Kustomize tree: `base`, and a folder for each workload that stands on it.

    Ray's own dashboards are in `dashboards`, where the recipe's section wants monitoring.

    Args:
        loaded: The recipe.
        workloads: By kind.

    Returns:
        Text by path.
    """
    base, cluster = foundation(loaded), cluster_of(loaded)
    files = {f"base/{name}.yaml": plain_yaml(part) for name, part in base.parts.items()}
    files["base/kustomization.yaml"] = _kustomization([f"{name}.yaml" for name in base.parts])
    for kind, work in workloads.items():
        files[f"{kind}/{kind}.yaml"] = plain_yaml(work.objects)
        files[f"{kind}/kustomization.yaml"] = _kustomization(["../base", f"{kind}.yaml"])
    if cluster.monitoring is not None:
        for one in ray_dashboards(cluster, cluster.monitoring):
            files[f"dashboards/{one.metadata.name}.yaml"] = plain_yaml([one])
        names = [name.partition("/")[2] for name in files if name.startswith("dashboards/")]
        files["dashboards/kustomization.yaml"] = _kustomization(names)
    return files


def _kustomization(resources: Sequence[str]) -> str:
    content = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": list(resources),
    }
    return yaml.safe_dump(content, sort_keys=False)
