"""API keys: who may ask, and how often.

A file of hashes says it; the keys themselves are shown once, when they are made, and stand nowhere.
They are random and long, so a plain SHA-256 keeps them: nothing can be guessed from it.

    keys:
      - name: search-team
        sha256: 5e88...
        requests_per_minute: 600
      - name: old-client
        sha256: 9f86...
        revoked: true
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, ValidationError

from core.errors import UseError
from core.recipe_section import Name, Section
from core.recipe_serving import ApiKeys

MINUTE = 60.0

CHECK_SECONDS = 1.0
"""How often a file of keys is looked at."""

logger = logging.getLogger("ray.serve")


class Key(Section):
    """One caller."""

    name: Name
    """What logs and metrics call it."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Of the key."""
    requests_per_minute: int | None = Field(default=None, ge=1)
    """In any minute, at each replica; unlimited if absent."""
    revoked: bool = False
    """Whether it is no longer accepted."""


class KeyFile(Section):
    """The file of keys."""

    keys: list[Key]
    """In any order."""


def new_key() -> str:
    """A key that nobody can guess."""
    return f"sh_{secrets.token_urlsafe(32)}"


def hash_of(key: str) -> str:
    """What is kept of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def read_keys(text: str, place: str) -> KeyFile:
    """Read the hashes.

    Raises:
        UseError: They cannot be read; what stands there is not repeated.
    """
    try:
        found = KeyFile.model_validate(yaml.safe_load(text))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(step) for step in first["loc"])
        raise UseError(
            f"{place}, {key}", f"{first['msg']}.", "`stillhouse key` writes such a file."
        ) from None
    except (yaml.YAMLError, ValueError):
        raise UseError(place, "this is not YAML.", "`stillhouse key` writes such a file.") from None
    names = [key.name for key in found.keys]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UseError(place, f"the name {twice[0]} stands twice.", "Give one another name.")
    return found


@dataclass
class Caller:
    """A key in use, with when it was used in the last minute."""

    key: Key
    asked: deque[float] = field(default_factory=deque)

    def wait(self, now: float) -> float:
        """Seconds until it may ask again; 0 where it may now, which counts as asking."""
        limit = self.key.requests_per_minute
        if limit is None:
            return 0.0
        while self.asked and self.asked[0] <= now - MINUTE:
            self.asked.popleft()
        if len(self.asked) >= limit:
            return self.asked[0] + MINUTE - now
        self.asked.append(now)
        return 0.0


class KeyRing:
    """The keys of one replica. They follow their file: a key is revoked within seconds.

    The limits hold for each replica, since replicas do not know of one another. A limit for the
    whole endpoint belongs to the gateway in front of it.
    """

    def __init__(self, place: ApiKeys, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = None if place.file is None else Path(place.file)
        self._clock = clock
        self._changed: float | None = None
        self._checked = clock()
        self._callers: dict[str, Caller] = {}
        if self._file is None:
            assert place.env is not None, "one of the two is given"
            if place.env not in os.environ:
                raise UseError(
                    f"serve.api_keys.env: {place.env}",
                    "there is no such variable in the environment.",
                    "Set it to the content of a file that `stillhouse key` writes.",
                )
            self._take(read_keys(os.environ[place.env], place.env))
        else:
            self._read()

    def caller(self, key: str) -> Caller | None:
        """Whose key it is; None where nobody's is it, or it is revoked."""
        self._follow()
        found = self._callers.get(hash_of(key))
        return None if found is None or found.key.revoked else found

    def wait(self, caller: Caller) -> float:
        """Seconds until a caller may ask again; 0 where it may now."""
        return caller.wait(self._clock())

    def _follow(self) -> None:
        now = self._clock()
        if self._file is None or now - self._checked < CHECK_SECONDS:
            return
        self._checked = now
        try:
            if self._file.stat().st_mtime != self._changed:
                self._read()
        except (OSError, UseError) as error:
            # A file that is half written must lock nobody out, and let nobody in.
            logger.warning("The API keys stay as they were: %s", error)

    def _read(self) -> None:
        assert self._file is not None, "keys of the environment do not change"
        try:
            changed = self._file.stat().st_mtime
            found = read_keys(self._file.read_text(encoding="utf-8"), str(self._file))
        except OSError as error:
            raise UseError(
                f"serve.api_keys.file: {self._file}",
                f"it cannot be read: {error.strerror}.",
                "`stillhouse key NAME --file FILE` makes it.",
            ) from None
        self._changed = changed
        self._take(found)

    def _take(self, found: KeyFile) -> None:
        before = {caller.key.sha256: caller for caller in self._callers.values()}
        self._callers = {
            key.sha256: Caller(key, before[key.sha256].asked if key.sha256 in before else deque())
            for key in found.keys
        }
