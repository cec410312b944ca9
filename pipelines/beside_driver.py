"""Small actors that live as long as the driver does, whatever becomes of other nodes."""

from __future__ import annotations

from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


def actor_beside_driver(body: type, **options: Any) -> Any:
    """An actor class without cores whose actors run on the node of the process that starts them.

    Ray puts an actor that holds nothing on any node. What a whole run hangs on would then die with
    a node that it does not need.

    Args:
        body: Of the actor.
        options: Of Ray, further ones.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(body).options(num_cpus=0, scheduling_strategy=here, **options)
