"""What a recipe says of the examples that teachers see before they explain an answer."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from core.recipe_section import Section


class InContext(Section):
    """The generator of in-context examples (2402.04616, section 2.2)."""

    examples: int = Field(default=2, ge=0, le=32)
    """Shown beside each row: two in the paper's own code, none if 0."""
    chosen: Literal["random", "nearest"] = "random"
    """`random`: drawn by the row's id, as in the paper. `nearest`: those whose question is most
    like the row's by embedding, the most alike last."""
    file: str | None = None
    """JSONL or Parquet file beside the recipe with rows to choose from, such as some to which a
    person has written why; rows of `inputs` if absent."""
    pool: int = Field(default=500, ge=1)
    """Rows to choose from at most, drawn by their ids."""
    embedding: str = "embedded://all-minilm-l6-v2"
    """Of `nearest`: the encoder, named as a teacher's model is. An embedding is the mean over its
    tokens."""
