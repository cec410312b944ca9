"""Told to a node that its machine goes: what runs there hears of it, and new work goes elsewhere.

    python -m cluster.draining --seconds 25

Kubernetes runs it in a pod that it is about to end (`preStop`). A training makes a checkpoint and
does not count the loss as a failure of its own; the autoscaler puts another pod in the place. A
pod that the autoscaler itself takes away has nothing left to tell.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

REASON = "Kubernetes takes the pod's machine away"

POLL_SECONDS = 0.5

TIMEOUT_SECONDS = 5


def main() -> None:
    """Tell Ray's control plane, and stay until the node is gone or the time is over."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, required=True)
    seconds = parser.parse_args().seconds
    pod = os.environ["RAY_CLOUD_INSTANCE_ID"]
    drained = drain(os.environ["RAY_ADDRESS"], pod, seconds)
    sys.stdout.write(f"{pod} was {'drained' if drained else 'gone already'}\n")


def drain(address: str, pod: str, seconds: int) -> bool:
    """Drain the node of a pod, and wait until it is gone or the time is over.

    Args:
        address: Of Ray's control plane, HOST:PORT.
        pod: The pod's name.
        seconds: Until it is ended.

    Returns:
        Whether there was a node to drain, and Ray took it from its work.
    """
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.core.generated.autoscaler_pb2 import DrainNodeReason

    client = GcsClient(address=address)
    node = _node_of(client, pod)
    if node is None:
        return False
    deadline = time.time() + seconds
    reason = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    accepted, _ = client.drain_node(node, reason, REASON, int(deadline * 1000))
    while time.time() < deadline and _node_of(client, pod) is not None:
        time.sleep(POLL_SECONDS)
    return bool(accepted)


def _node_of(client: object, pod: str) -> str | None:
    """The id of a pod's node, in hexadecimal; None where it is gone."""
    from ray.core.generated.gcs_pb2 import GcsNodeInfo

    nodes = client.get_all_node_info(timeout=TIMEOUT_SECONDS)  # type: ignore[attr-defined]
    for node in nodes.values():
        if node.instance_id == pod and node.state == GcsNodeInfo.GcsNodeState.ALIVE:
            found: str = node.node_id.hex()
            return found
    return None


if __name__ == "__main__":
    main()
