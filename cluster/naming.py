"""What our objects are called on Kubernetes, and the labels by which they find each other."""

from __future__ import annotations

import re

from core.identity import content_id

CACHE = "stillhouse-cache"
RUNS = "stillhouse-runs"
HEAD_ACCOUNT = "stillhouse-head"
WORKER_ACCOUNT = "stillhouse-worker"
REDIS = "stillhouse-redis"

PART_OF = {"app.kubernetes.io/part-of": "stillhouse"}
"""Label of all that is ours."""

RECIPE = "stillhouse.io/recipe"
"""Label: the recipe that an object was made from."""

COMPONENT = "app.kubernetes.io/component"
"""Label: what a pod is."""

WORKLOAD = "stillhouse.io/workload"
"""Label of a pod: the kind of workload that it is of."""

LONGEST = 36
"""Characters of a name at most: what KubeRay takes of a RayCronJob, the shortest of its limits."""


def object_name(recipe: str, suffix: str = "") -> str:
    """The name of a recipe's object: a DNS label that begins with a letter.

    Args:
        recipe: The recipe's name.
        suffix: What tells it from the recipe's other objects.
    """
    plain = re.sub(r"[^a-z0-9]+", "-", recipe).strip("-")
    if not plain[:1].isalpha():
        plain = f"r-{plain}".strip("-")
    room = LONGEST - len(suffix)
    if len(plain) > room or plain != recipe:  # two names must not become one
        plain = f"{plain[: room - 7].rstrip('-')}-{content_id(recipe)[:6]}"
    return plain + suffix


def recipe_labels(recipe: str) -> dict[str, str]:
    """The labels of all objects of a recipe."""
    return {**PART_OF, RECIPE: object_name(recipe)}
