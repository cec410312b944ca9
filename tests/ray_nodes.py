"""A Ray cluster of two nodes on this machine, in a process of its own.

    python -m tests.ray_nodes

The head has no cores, as on Kubernetes; the second node has them all. The cluster's address is
told as a line of output. At a line of input the second node is killed with SIGKILL, another is put
in its place, and that is told as a line. The end of the input ends the cluster.
"""

from __future__ import annotations

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
            node = cluster.add_node(num_cpus=NODE_CPUS)
            _tell(cluster.address)
            for _ in sys.stdin:
                _kill(node)
                node = cluster.add_node(num_cpus=NODE_CPUS)
                _tell("replaced")
        finally:
            cluster.shutdown()


def _kill(node) -> None:
    from ray._private.ray_constants import PROCESS_TYPE_RAYLET

    raylet = node.all_processes[PROCESS_TYPE_RAYLET][0].process
    raylet.kill()
    # To the node's workers, one that has ended and that nobody has asked is still alive.
    raylet.wait()


def _tell(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
