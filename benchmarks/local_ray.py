"""Ray on this machine, as all benchmarks that need it start it."""

from __future__ import annotations

import os
from pathlib import Path

import ray
import ray.data

ROOT = Path(__file__).parents[1]


def start_ray() -> None:
    """Start Ray with workers that import from here too, and with a quiet terminal."""
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "benchmarks")))
    ray.init(
        address="local",
        num_cpus=8,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": paths}},
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
