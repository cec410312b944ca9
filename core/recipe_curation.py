"""What a recipe says of the rows that are worth a teacher's time."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from core.recipe_section import Section


class NearDuplicates(Section):
    """Which items say nearly the same as an earlier one."""

    threshold: float = Field(default=0.8, ge=0.5, le=1)
    """Jaccard similarity of their character 4-grams, as MinHash estimates it, from which they do;
    one changed word of ten leaves 0.77 on average."""


class Languages(Section):
    """Which languages items may be in."""

    wanted: list[Annotated[str, Field(pattern=r"^[a-z]{2,3}$")]] = Field(min_length=1)
    """ISO 639 codes, such as `en`."""
    min_probability: float = Field(default=0.02, gt=0, le=1)
    """Probability of the wanted languages together, at least. It is low because a short text
    leaves something to each of 139 languages: of the demonstration's English headlines a quarter
    are English with less than 0.5 and 0.2% with less than 0.02, while headlines in other
    languages stay below 0.005. Texts under 30 bytes are not judged."""


class CurateTexts(Section):
    """Which rows are worth asking a teacher about, by their texts."""

    near_duplicates: NearDuplicates | None = None
    """Rows that say nearly the same as an earlier one are dropped; `{}` takes the default
    threshold. Equal ones always are."""
    languages: Languages | None = None
    """Rows that are hardly in one of these languages are dropped."""


class Curate(CurateTexts):
    """Which generated items are worth scoring."""

    min_words: int = Field(default=3, ge=1)
    """Words of a question at least."""
    max_words: int = Field(default=40, ge=1)
    """Words of a question at most."""
    contamination_ngram: int | None = Field(default=8, ge=1)
    """Items that share this many words in a row with an evaluation row are dropped, or all of its
    words where it has fewer; null does not look."""
    max_class_ratio: float | None = Field(default=None, ge=1)
    """Items of a choice, for every item of the rarest choice, at most; the seed decides which ones
    of the rest are dropped."""
