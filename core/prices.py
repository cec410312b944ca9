"""The price book: what a device-hour and a token cost. What it does not hold stays unknown."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import Field, ValidationError

from core.errors import UseError
from core.recipe import LoadedRecipe
from core.recipe_section import Section

BUILT_IN = Path(__file__).parent / "prices.yaml"
"""The price book that comes with Stillhouse; every figure names its source and its date."""


class DevicePrice(Section):
    """What an hour of one device costs."""

    per_hour: float = Field(ge=0)
    """Money for one hour of one device."""
    source: str
    """Where the figure comes from, with its date."""


class TokenPrice(Section):
    """What an endpoint charges."""

    input_per_million: float = Field(ge=0)
    """Money for a million prompt tokens."""
    output_per_million: float = Field(ge=0)
    """Money for a million generated tokens."""
    source: str
    """Where the figure comes from, with its date."""


class PriceBook(Section):
    """Prices by the names that recipes use."""

    currency: str = Field(pattern=r"^[A-Z]{3}$")
    """ISO 4217 code."""
    devices: dict[str, DevicePrice] = {}
    """By the `kind` of a recipe's device."""
    tokens: dict[str, TokenPrice] = {}
    """By the model name that an endpoint is asked for."""

    def device_money(self, kind: str, device_seconds: float) -> float | None:
        """Money for device-seconds of a kind; None where the book has no price for it."""
        price = self.devices.get(kind)
        return None if price is None else price.per_hour * device_seconds / 3600

    def token_money(self, model: str, tokens_in: int, tokens_out: int) -> float | None:
        """Money for an endpoint's tokens; None where there are some and no price for them."""
        if not tokens_in and not tokens_out:
            return 0.0
        price = self.tokens.get(model)
        if price is None:
            return None
        paid = price.input_per_million * tokens_in + price.output_per_million * tokens_out
        return paid / 1e6

    def thousand_samples(self, model: str, tokens_in: float, tokens_out: float) -> float | None:
        """Money for a thousand samples of so many tokens; None where a token has no price.

        The table of 2410.18588 that tells the cost of a thousand samples is reckoned so.

        Args:
            model: As the book names it.
            tokens_in: Of one sample's prompt.
            tokens_out: Of one sample's answer.
        """
        price = self.tokens.get(model)
        if price is None:
            return None
        return (price.input_per_million * tokens_in + price.output_per_million * tokens_out) / 1e3


def read_prices(text: str) -> PriceBook:
    """A price book from its YAML."""
    return PriceBook.model_validate(yaml.safe_load(text))


def load_prices(file: Path) -> PriceBook:
    """Read a price book.

    Raises:
        UseError: The file is not a price book; the message names the key.
    """
    try:
        return read_prices(file.read_text(encoding="utf-8"))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(step) for step in first["loc"])
        raise UseError(
            f"{file}, {key}", f"{first['msg']}.", f"See {BUILT_IN} for the form."
        ) from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or a day that is none
        raise UseError(str(file), f"this is not YAML: {error}.", "Mend the syntax.") from None


def recipe_prices(loaded: LoadedRecipe) -> PriceBook:
    """The recipe's price book, or the one that comes with Stillhouse."""
    name = loaded.recipe.prices
    return load_prices(BUILT_IN if name is None else loaded.path(name))
