"""HAProxy in front of Serve's replicas, in the place of Serve's own proxy.

A request then goes from HAProxy straight to the replica that answers it, which speaks HTTP itself.
Serve's own proxy takes about five times the processor time of all that (docs/performance.md). Ray
brings HAProxy along and reads how to run it from the environment that it is started in; on
Kubernetes the pods' environment says RAY_SERVE_ENABLE_HA_PROXY=1, and the rest is Ray's default.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import socket
import tempfile
from pathlib import Path


@functools.cache
def proxy_environment() -> dict[str, str]:
    """The environment in which a Ray of this machine's own must start.

    Sockets and ports are those of this process alone, as several Rays may run on one machine. Asked
    for again, it is the same.
    """
    folder = _folder()
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        # A request changes threads less often; nothing of ours blocks the loop that it shares.
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        # Its own logs hold every line already.
        "RAY_SERVE_LOG_TO_STDERR": "0",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(_free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(_free_port()),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(_free_port()),
        "RAY_SERVE_HAPROXY_NBTHREAD": str(min(4, os.cpu_count() or 1)),
        # A process of Ray's would count each request again, after the gate, and take twice the
        # processor time of HAProxy itself. Ray's own dashboards want it: on Kubernetes it stays on.
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        # No balancer of others has to hear that a replica goes.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
    }


def _folder() -> Path:
    """A folder with a short name, since a socket's path may have 107 characters."""
    folder = Path(tempfile.mkdtemp(prefix="stillhouse-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
