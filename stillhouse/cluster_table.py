"""The pods and machines that a recipe takes on Kubernetes, as `plan` tells them."""

from __future__ import annotations

from rich.table import Table

from cluster.sizes import Group, cluster_of, groups_of_job, machines_of
from core.recipe import LoadedRecipe


def promised_pods(loaded: LoadedRecipe) -> dict[str, int]:
    """Pods of each group of a recipe's job at most, by its name."""
    return {group.name: group.max_pods for group in groups_of_job(loaded)}


def cluster_table(loaded: LoadedRecipe) -> Table | None:
    """The groups of a recipe's job; None where it does not go to a cluster."""
    if loaded.recipe.cluster is None:
        return None
    cluster = cluster_of(loaded)
    table = Table(box=None, pad_edge=False)
    table.add_column("pods, beside the head")
    table.add_column("at most", justify="right")
    table.add_column("each has")
    table.add_column("machines")
    for group in groups_of_job(loaded):
        machines = machines_of(group, cluster)
        table.add_row(
            group.name,
            str(group.max_pods),
            _size(group),
            f"{machines} of {group.device}{', spot' if group.spot else ''}"
            if machines is not None
            else "any",
        )
    return table


def _size(group: Group) -> str:
    size = group.size
    parts = [f"{size.gpus} GPUs" if size.gpus > 1 else "1 GPU"] if size.gpus else []
    parts += [f"{size.cpus} CPUs" if size.cpus > 1 else "1 CPU", f"{size.memory_gib:g} GiB"]
    if group.hosts > 1:
        parts.append(f"{group.hosts} to an engine")
    return ", ".join(parts)
