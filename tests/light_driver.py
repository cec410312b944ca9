"""`stillhouse` with the instant engine in the place of vLLM's.

python -m tests.light_driver run RECIPE
"""

from __future__ import annotations

from functools import partial

import pipelines.engine_pool
from stillhouse.command_line import main
from tests.light_engine import LightEngine

if __name__ == "__main__":
    pipelines.engine_pool.start_engines = partial(
        pipelines.engine_pool.start_engines, engine=LightEngine
    )
    main()
