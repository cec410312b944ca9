"""Which nodes of a Ray cluster a piece of work goes to, where its nodes are labelled by their use.

On Kubernetes (`cluster/`) each group of pods is there for one use: engines of teachers, training
workers, replicas of a student, or work without a device. A cluster that others started has no
such labels, and neither has this machine's own; there Ray puts work wherever it fits.
"""

from __future__ import annotations

import os
from typing import Any, Literal

LABELLED = "STILLHOUSE_LABELLED_NODES"
"""Environment variable that is set where nodes carry the labels below."""

USE = "stillhouse.io/use"
"""Label: what a node is for."""

DEVICE = "stillhouse.io/device"
"""Label: the kind of device that a node has, as recipes call it."""

Use = Literal["teacher", "trainer", "server", "cpu", "head"]


def labels(use: Use, device: str | None = None) -> dict[str, str]:
    """The labels of a node that is there for a use.

    Args:
        use: What for.
        device: The kind of its device; none for work that needs none.
    """
    return {USE: use} if device is None else {USE: use, DEVICE: device}


def label_selector(use: Use, device: str | None = None) -> dict[str, str]:
    """The labels that a node must have for a piece of work; any node will do where this is empty.

    Args:
        use: As of `labels`.
        device: As of `labels`.
    """
    return labels(use, device) if os.environ.get(LABELLED) else {}


def placed(use: Use, device: str | None = None) -> dict[str, Any]:
    """The same as an option of Ray's actors and tasks; empty where any node will do."""
    selector = label_selector(use, device)
    return {"label_selector": selector} if selector else {}
