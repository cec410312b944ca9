"""Errors that are written for people: where it went wrong, why, and what mends it."""

from __future__ import annotations


class StillhouseError(Exception):
    """An error that the command line shows as three short lines and no traceback.

    `exit_status` follows the shell's habit: 2 where the use was wrong (a recipe, an option, an
    input file), 1 where the use was right and the work failed.
    """

    exit_status = 1

    def __init__(self, place: str, cause: str, mend: str) -> None:
        super().__init__(f"{place}: {cause} {mend}")
        self.place = place
        self.cause = cause
        self.mend = mend

    def __reduce__(self) -> tuple[type[StillhouseError], tuple[str, str, str]]:
        # Ray pickles the errors of remote work; the default would pass one joined string.
        return type(self), (self.place, self.cause, self.mend)


class UseError(StillhouseError):
    """The recipe, an option or an input file cannot be used as it is."""

    exit_status = 2


class WorkError(StillhouseError):
    """The recipe is sound, but the work failed: disk, memory, network, a model that diverged."""
