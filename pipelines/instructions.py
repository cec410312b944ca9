"""Instructions as an optimizer proposes them: which are some, and how one is put into a prompt."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from core.recipe_optimize import INSTRUCTION

BRACES = re.compile(r"\{(\w*)\}|[{}]")
"""A name in braces, or a brace by itself."""


@dataclass(frozen=True)
class Fault:
    """Why a proposal is no instruction to try."""

    reason: str
    """`no-instruction`, `too-long`, `placeholders` or `duplicate`."""
    detail: str
    """One sentence for a person."""


def key_of(instruction: str) -> str:
    """Equal for instructions that differ in case and blanks alone."""
    return " ".join(instruction.split()).casefold()


@dataclass(frozen=True)
class Checks:
    """What an instruction must be like."""

    placeholders: Mapping[str, str]
    """The names that it must hold, and the Jinja text that stands for each."""
    max_characters: int

    def fault(self, proposal: str | None, known: set[str]) -> Fault | None:
        """Why a proposal cannot be tried; None where it can.

        Args:
            proposal: What stands in the place of an instruction; None where nothing does.
            known: Of all instructions so far, as of `key_of`.
        """
        if proposal is None or not proposal.strip():
            return Fault("no-instruction", "there is no instruction in what was written")
        if len(proposal) > self.max_characters:
            told = f"it has {len(proposal)} characters, and at most {self.max_characters} may be"
            return Fault("too-long", told)
        found = [match[1] for match in BRACES.finditer(proposal)]
        if sorted(map(str, found)) != sorted(self.placeholders):
            wanted = ", ".join(f"{{{name}}}" for name in self.placeholders) or "no braces"
            return Fault("placeholders", f"it must hold {wanted}, and nothing else in braces")
        if key_of(proposal) in known:
            return Fault("duplicate", "it has been proposed before")
        return None

    def put_into(self, frame: str, instruction: str) -> str:
        """A prompt's Jinja text with an instruction in its place.

        Args:
            frame: The prompt's, with `{{ instruction }}`.
            instruction: One without a fault.
        """
        text = BRACES.sub(lambda match: self.placeholders[match[1]], instruction)
        return INSTRUCTION.sub(lambda _: text, frame)
