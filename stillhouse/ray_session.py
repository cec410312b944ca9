"""Ray for one command: a cluster that is there, or one of this machine's own."""

from __future__ import annotations

import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from core.recipe import Recipe
from serving.proxy import proxy_environment

LOGICAL_CPUS = 8
"""Ray's count of this machine's cores where it has fewer.

A stage holds an engine, its workers and a reader at once. With two logical cores they would wait
for each other for ever; the operating system shares the real ones between them well enough.
"""

DRIVER_LOG = "driver.log"
"""File of the logs that holds what libraries say in this process."""


@contextmanager
def ray_session(recipe: Recipe, logs: Path, warn: Callable[[str], None]) -> Iterator[None]:
    """Connect to the cluster at $RAY_ADDRESS, or run one here until the block ends.

    Args:
        recipe: Names the job.
        logs: Where Ray's logs are copied to when the block ends.
        warn: Tells the user that they could not be copied.
    """
    here = runs_here()
    if here:
        # A local cluster listens on every interface of the machine: whoever reaches its ports must
        # not be able to submit work. A shared cluster brings its own setting.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        for name, value in proxy_environment().items():
            os.environ.setdefault(name, value)
    import ray

    address = os.environ.get("RAY_ADDRESS", "local")
    ray.init(
        address=address,
        namespace=f"stillhouse-{recipe.name}",
        log_to_driver=False,
        logging_level=logging.ERROR,
        configure_logging=True,
        runtime_env={"env_vars": {"PYTHONPATH": _packages()}} if here else None,
        **(
            {"num_cpus": max(LOGICAL_CPUS, os.cpu_count() or 1), "include_dashboard": False}
            if here
            else {}
        ),
    )
    _quiet(logs)
    session = Path(ray._private.worker._global_node.get_session_dir_path())
    try:
        yield
    finally:
        ray.shutdown()
        if here:
            _keep_logs(session / "logs", logs / "ray", warn)


def _keep_logs(found: Path, target: Path, warn: Callable[[str], None]) -> None:
    """Copy Ray's logs; where that fails, say so, and leave what the run came to as it is."""
    try:
        shutil.copytree(found, target, dirs_exist_ok=True)
    except OSError as error:
        # copytree goes on after a file that fails, and raises them all: (from, to, why).
        why = error.args[0][0][2] if isinstance(error, shutil.Error) else error
        warn(f"Ray's logs could not be copied to {target}: {why}")


def runs_here() -> bool:
    """Whether Ray is this machine's own, and not a cluster that is there already."""
    return os.environ.get("RAY_ADDRESS", "local") == "local"


def local_resources() -> Counter[str]:
    """What this machine's own Ray has, of cores and GPUs."""
    import ray

    return Counter(ray.cluster_resources())


def _packages() -> str:
    """The folder that holds Stillhouse's packages, for workers started in other folders."""
    here = str(Path(__file__).parent.parent)
    return os.pathsep.join(part for part in (here, os.environ.get("PYTHONPATH", "")) if part)


def _quiet(logs: Path) -> None:
    """Send what Ray's libraries say in this process to a file."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    handler = logging.FileHandler(logs / DRIVER_LOG)
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    for name in ("ray", "ray.data", "ray.train", "ray.serve", "ray.tune"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(logging.INFO)
        logger.propagate = False
