"""A Ray cluster of two nodes on this machine, in a process of its own.

    python -m tests.ray_nodes

The head has no cores, as on Kubernetes; the second node has them all. Each node that is added is
told as a line of JSON, `{"address": ..., "raylet": process id}`. A line of input adds a node where
one was killed; the end of the input ends the cluster.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile

NODE_CPUS = 4

SETTINGS = {
    # A node that is gone is noticed within seconds.
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 5_000,
    "health_check_failure_threshold": 3,
}


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        # Set before Ray is imported: no other command on this machine finds this cluster by itself.
        os.environ["RAY_TMPDIR"] = folder
        from ray.cluster_utils import Cluster

        cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 0,
                "include_dashboard": False,
                "_system_config": SETTINGS,
            },
        )
        try:
            _add(cluster)
            for _ in sys.stdin:
                _add(cluster)
        finally:
            cluster.shutdown()


def _add(cluster) -> None:
    from ray._private.ray_constants import PROCESS_TYPE_RAYLET

    node = cluster.add_node(num_cpus=NODE_CPUS)
    raylet = node.all_processes[PROCESS_TYPE_RAYLET][0].process.pid
    sys.stdout.write(json.dumps({"address": cluster.address, "raylet": raylet}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
