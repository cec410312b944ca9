"""What the sections of a recipe are made of: strict models, and parts that several have.

A key that no model knows, a wrong type or an impossible value is an error; `core.recipe_file` turns
it into one message with the line. The text under a field is its documentation: it goes into the
JSON Schema that editors read.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

GPU_MEMORY_GIB = {
    "a10": 23028 / 1024,
    "a100-40gb": 40960 / 1024,
    "a100-80gb": 81920 / 1024,
    "h100": 81559 / 1024,
    "h200": 143771 / 1024,
    "l4": 23034 / 1024,
    "l40s": 46068 / 1024,
    "t4": 15360 / 1024,
}
"""Memory of GPUs by the name of their kind, as nvidia-smi tells it."""

GPUS_OF_A_MACHINE = {
    "a10": 1,
    "a100-40gb": 8,
    "a100-80gb": 8,
    "h100": 8,
    "h200": 8,
    "l4": 1,
    "l40s": 1,
    "t4": 1,
}
"""GPUs of the machines that clouds offer with a kind: where there are several, the usual number;
otherwise one, which all of them have."""

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
"""Lower-case letters, digits, dots, dashes and underscores: it becomes a folder and a URL."""


class Section(BaseModel):
    """Base of every section: unknown keys and silent conversions are refused."""

    # Defaults are validated too: a 0 that is read back as 0.0 would be another fingerprint.
    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        use_attribute_docstrings=True,
        validate_default=True,
    )


class Device(Section):
    """The hardware of one engine, one training worker or one serving replica."""

    kind: str = Field(
        default="cpu-core", pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"
    )
    """Its name in the price book, such as `cpu-core` or `h100`; on Kubernetes it is a label."""
    cpus: float = Field(default=1, gt=0)
    """Cores per engine, worker or replica, as Ray counts them."""
    gpus: float = Field(default=0, ge=0)
    """GPUs per engine, worker or replica, as Ray counts them."""
    memory_gib: float | None = Field(default=None, gt=0)
    """Memory in GiB of one GPU, or without GPUs of one worker; of GPUs of a kind that is known
    (a10, a100-40gb, a100-80gb, h100, h200, l4, l40s, t4) it need not be said."""

    @property
    def memory(self) -> float | None:
        """Bytes of a GPU, or of a worker without GPUs; None where nobody has said it."""
        known = GPU_MEMORY_GIB.get(self.kind) if self.gpus else None
        found = self.memory_gib or known
        return None if found is None else found * 2**30

    @property
    def count(self) -> float:
        """How many devices are paid for: the GPUs where there are any, otherwise the cores."""
        return self.gpus or self.cpus
