"""A teacher behind an OpenAI-compatible endpoint: calls over HTTP, paced and tried again.

Three things can come of a call. An answer. A fault of this one prompt, which rejects its row. Or an
error after which the endpoint is down: all later calls raise it at once, so that a dead endpoint
costs no time and the other teachers go on. Where an error may be either, a harmless prompt is sent:
an endpoint that answers it is not down.
"""

from __future__ import annotations

import asyncio
import copy
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import aiohttp

from core.errors import StillhouseError, UseError, WorkError
from core.recipe_section import Device
from core.recipe_teachers import EndpointTeacher
from core.teacher import (
    Completion,
    LabelScores,
    Sampling,
    SequenceScore,
    Usage,
    conversation,
)
from pipelines.openai_form import (
    MALFORMED,
    PATHS,
    NoLogprobsError,
    ServerError,
    completion_request,
    read_completion,
    read_error,
    read_scores,
    retry_after_seconds,
    scores_request,
)
from pipelines.rate_limit import Allowance, Line

CHARACTERS_PER_TOKEN = 4
"""For the estimate of a prompt's tokens, until the endpoint has counted them."""

BACKOFF_SECONDS = 1.0
"""Longest wait before the second try; it doubles with each try."""

BACKOFF_LIMIT_SECONDS = 60.0
"""Longest wait before any try."""

PATIENCE_SECONDS = 600.0
"""Longest time that an endpoint may order us to wait, or may answer nothing but such orders."""

ROW_STATUSES = {400, 413, 422}
"""The endpoint refuses this request and would take another."""

RETRY_STATUSES = {408, 409, 425, 429}
"""The endpoint may take the same request later; so it may after every 5xx."""

PAUSE_STATUSES = {429, 503}
"""`Retry-After` speaks of the endpoint as a whole."""

PROBE = "Hello"
"""A prompt that no endpoint has reason to refuse."""

Answer = TypeVar("Answer", Completion, LabelScores)


@dataclass(frozen=True)
class _Trouble:
    """A try that failed and may succeed when it is sent again."""

    cause: str
    status: int = 0
    """0 where no answer came."""
    retry_after: float | None = None
    """Seconds that the endpoint orders everybody to wait."""


class _RefusedError(Exception):
    """The endpoint does not answer one prompt; the text says why."""

    def __init__(self, text: str, reason: str = "refused") -> None:
        super().__init__(text)
        self.reason = reason
        """The word under which the row is rejected."""


@dataclass(frozen=True)
class _Connection:
    """What belongs to one event loop."""

    loop: asyncio.AbstractEventLoop
    session: aiohttp.ClientSession
    slots: asyncio.Semaphore
    line: Line
    key: str = field(repr=False)
    probing: asyncio.Lock = field(default_factory=asyncio.Lock)


class Endpoint:
    """A teacher behind an endpoint; implements `core.teacher.Engine`.

    It opens its connections at the first call. A copy that travels to another process opens its
    own, keeps its own books and reads the key from its own environment; the key does not travel.
    The limits hold for each copy by itself. One event loop at a time may use it.
    """

    def __init__(
        self,
        teacher: str,
        settings: EndpointTeacher,
        backoff_seconds: float = BACKOFF_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        """Describe the endpoint; nothing is sent.

        Args:
            teacher: Its name in the recipe.
            settings: Its section of the recipe.
            backoff_seconds: Longest wait before the second try.
            patience_seconds: Longest time to wait because the endpoint says so.
        """
        self.teacher = teacher
        self.model = settings.model
        self.accounted: dict[str, float] = {}
        self.rows_at_once = settings.max_concurrency
        self.device: Device | None = None
        self.desk = None
        self._settings = settings
        self._backoff_seconds = backoff_seconds
        self._patience_seconds = patience_seconds
        self._url = settings.base_url.rstrip("/") + PATHS[settings.api]
        self._allowance = Allowance(settings.requests_per_minute, settings.tokens_per_minute)
        self._connection: _Connection | None = None
        self._down: StillhouseError | None = None
        self._answered_at = time.monotonic()
        self._usage = Usage()
        self._retries = 0
        self._in_flight = 0
        self._useful = 0.0
        self._busy_since = 0.0

    def __reduce__(self) -> tuple[Any, ...]:
        parts = (self.teacher, self._settings, self._backoff_seconds, self._patience_seconds)
        return type(self), parts

    @property
    def replicas(self) -> int:
        """One: what stands behind the endpoint is not ours to count."""
        return 1

    def check(self) -> None:
        """Look for the key.

        Raises:
            UseError: The environment variable that the recipe names is not set.
        """
        self._key()

    async def complete(self, prompt: str, sampling: Sampling) -> Completion:
        """Write on from a prompt; one that the endpoint refuses comes back as an error.

        Raises:
            UseError: The key, the model or the request's form is wrong.
            WorkError: The endpoint is down.
        """
        if sampling.top_logprobs:
            raise UseError(
                self._place,
                "an endpoint tells its likeliest tokens as text, and not by their numbers.",
                "Take a teacher on vllm for logit distillation.",
            )
        request = completion_request(self._settings, prompt, sampling)
        said = "\n".join(message["content"] for message in conversation(prompt, sampling))
        try:
            return await self._ask(request, said, sampling.max_tokens, read_completion)
        except _RefusedError as error:
            return Completion("", Usage(), "error", str(error), error.reason)

    async def score_labels(self, prompt: str, labels: list[str]) -> LabelScores:
        """Score labels as the next token, among the likeliest tokens that the endpoint tells.

        A label that is not among them gets the smallest log-probability that is told, an upper
        bound of its own.

        Raises:
            UseError: The endpoint tells no log-probabilities; and as for `complete`.
            WorkError: The endpoint is down.
        """
        request = scores_request(self._settings, prompt)
        try:
            return await self._ask(request, prompt, 1, lambda answer: read_scores(answer, labels))
        except NoLogprobsError:
            cause = f"model '{self.model}' answers without log-probabilities, so it cannot score."
            raise UseError(self._place, cause, "Score with another teacher.") from None
        except _RefusedError as error:
            if "logprobs" in str(error):  # what every other row would hear too
                mend = f"Lower teachers.{self.teacher}.top_logprobs, or score with another teacher."
                raise UseError(self._place, f"{error}.", mend) from None
            return LabelScores([], error=str(error), reason=error.reason)

    async def score_text(self, prompt: str, text: str) -> SequenceScore:  # noqa: ARG002
        """Refuse: the APIs have no log-probabilities of a given text."""
        raise UseError(
            self._place, "an endpoint cannot score a given text.", "Score with a teacher on vllm."
        )

    def statistics(self) -> dict[str, float]:
        """Seconds with a request in flight, and tokens so far; nothing is held while idle.

        `retries` are the tries after a request's first, `rate_limited_seconds` those in which calls
        stood in line for the rate limits or for a pause that the endpoint ordered.
        """
        useful = self._useful
        if self._in_flight:
            useful += time.monotonic() - self._busy_since
        return {
            "startup": 0.0,
            "useful": useful,
            "idle": 0.0,
            **asdict(self._usage),
            "retries": self._retries,
            "rate_limited_seconds": self._allowance.held_seconds,
        }

    def processes(self) -> list[int]:
        """None: the model runs on the endpoint's machines."""
        return []

    def demand(self, rows: int, seconds_left: float) -> None:
        """Nothing follows: what stands behind an endpoint is not ours to scale."""

    def forget_prompts(self) -> None:
        """Nothing follows: an endpoint keeps its caches to itself."""

    def close(self) -> None:
        """Nothing is held between two stages."""

    async def disconnect(self) -> None:
        """Close the connections; the next call opens them again."""
        if self._connection is not None:
            await self._connection.session.close()
            self._connection = None

    @property
    def _place(self) -> str:
        return f"teacher '{self.teacher}'"

    def _key(self) -> str:
        """The key; empty where the recipe names none."""
        name = self._settings.api_key_env
        if name is None:
            return ""
        key = os.environ.get(name, "").strip()
        if not key:
            cause = f"its key is to be in the environment variable {name}, which is not set."
            raise UseError(self._place, cause, f"Set it: export {name}=...")
        return key

    async def _connect(self) -> _Connection:
        """The running loop's connection; each `asyncio.run` has a loop of its own."""
        loop, old = asyncio.get_running_loop(), self._connection
        if old is not None and old.loop is loop:
            return old
        key = self._key()
        limit = self._settings.max_concurrency
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=limit),
            timeout=aiohttp.ClientTimeout(total=self._settings.timeout_seconds),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={
                "Content-Type": "application/json",
                **({"Authorization": f"Bearer {key}"} if key else {}),
            },
        )
        # The slots stand before the connector's own limit, where waiting would count as timeout.
        slots = asyncio.Semaphore(limit)
        connection = _Connection(loop, session, slots, Line(self._allowance), key)
        self._connection = connection
        if old is not None:
            await old.session.close()
        return connection

    async def _ask(
        self,
        request: dict[str, Any],
        prompt: str,
        max_tokens: int,
        read: Callable[[Any], Answer],
    ) -> Answer:
        """Send a request until its answer can be read.

        Raises:
            _RefusedError: It is this request that gets no answer.
            StillhouseError: The endpoint is down.
        """
        self._raise_if_down()
        connection = await self._connect()
        body = json.dumps(request).encode()
        tokens = len(prompt) // CHARACTERS_PER_TOKEN + max_tokens
        tries = 0
        # A call that waits to be sent again keeps its slot: an endpoint in trouble gets less to do.
        async with connection.slots:
            began = time.monotonic()
            while True:
                await connection.line.admit(tokens)
                self._raise_if_down()
                outcome = await self._try(connection, body, tokens, read)
                if not isinstance(outcome, _Trouble):
                    return outcome
                if not self._only_paced(outcome, began):
                    tries += 1
                wait = outcome.retry_after
                if tries >= self._settings.max_tries or (wait or 0) > self._patience_seconds:
                    down = self._exhausted(outcome, tries)
                    if outcome.status != 429 and await self._answers_others(connection):
                        raise _RefusedError(f"of this prompt alone: {down.cause}", "failed")
                    raise self._go_down(connection, down)
                self._retries += 1
                if wait is None:
                    await connection.line.rest(self._backoff(tries))
                else:
                    self._allowance.pause(wait)

    async def _try(
        self,
        connection: _Connection,
        body: bytes,
        tokens: int,
        read: Callable[[Any], Answer],
        *,
        probe: bool = False,
    ) -> Answer | _Trouble:
        """Send a request once.

        A try that failed keeps the tokens it was counted with: endpoints count it too.
        """
        try:
            with self._flight():
                async with connection.session.post(
                    self._url, data=body, allow_redirects=False
                ) as response:
                    status, content = response.status, await response.read()
                    retry_after = response.headers.get("Retry-After")
        except TimeoutError:
            return _Trouble(f"it gives no answer within {self._settings.timeout_seconds:g} s")
        except (aiohttp.ClientError, OSError) as error:
            return _Trouble(f"it cannot be reached: {type(error).__name__}: {error}")
        if status == 200:
            try:
                answer = read(json.loads(content))
            except MALFORMED as error:
                cause = f"its answer has not the API's form: {type(error).__name__}: {error}"
                return _Trouble(cause, status)
            used = answer.usage
            self._usage += used
            self._answered_at = time.monotonic()
            connection.line.correct(tokens, used.tokens)
            return answer
        said = read_error(content, connection.key)
        if status in RETRY_STATUSES or status >= 500:
            wait = retry_after_seconds(retry_after) if status in PAUSE_STATUSES else None
            return _Trouble(f"it answers {status}: {said.message}", status, wait)
        # Every row would meet an option that the endpoint does not have.
        if status in ROW_STATUSES and not said.code.startswith("unsupported"):
            connection.line.correct(tokens, 0)
            raise _RefusedError(f"the endpoint refuses the prompt ({status}): {said.message}")
        # Gateways say 403 of a key, and of a prompt that their moderation does not let pass.
        if status == 403 and not probe and await self._answers_others(connection):
            connection.line.correct(tokens, 0)
            raise _RefusedError(f"the endpoint refuses the prompt (403): {said.message}")
        raise self._go_down(connection, self._refusal(status, said))

    async def _answers_others(self, connection: _Connection) -> bool:
        """Whether the endpoint answers a harmless prompt.

        Raises:
            StillhouseError: It is known to be down.
        """
        request = completion_request(self._settings, PROBE, Sampling(max_tokens=1))
        async with connection.probing:  # many calls fail together where it is down
            self._raise_if_down()
            body = json.dumps(request).encode()
            try:
                # Not in the line: behind a low limit all would wait to hear that it is down.
                outcome = await self._try(connection, body, 0, read_completion, probe=True)
            except _RefusedError:
                return True  # it does answer
            # One that asks for a pause works.
            return not isinstance(outcome, _Trouble) or outcome.status == 429

    @contextmanager
    def _flight(self) -> Iterator[None]:
        """Count the time with at least one request in flight."""
        if self._in_flight == 0:
            self._busy_since = time.monotonic()
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1
            if self._in_flight == 0:
                self._useful += time.monotonic() - self._busy_since

    def _only_paced(self, trouble: _Trouble, began: float) -> bool:
        """Whether the endpoint works and merely says when to come again: that uses up no try."""
        answered = max(self._answered_at, began)
        return (
            trouble.status == 429
            and trouble.retry_after is not None
            and time.monotonic() - answered < self._patience_seconds
        )

    def _backoff(self, tries: int) -> float:
        """Seconds before the next try, at random so that calls that failed together part."""
        longest = min(BACKOFF_LIMIT_SECONDS, self._backoff_seconds * 2 ** (tries - 1))
        return random.uniform(0, longest)  # noqa: S311, no secret

    def _raise_if_down(self) -> None:
        if self._down is not None:
            # Each call has its own: a raised error gathers the tracebacks of all that raise it.
            raise copy.copy(self._down)

    def _go_down(self, connection: _Connection, error: StillhouseError) -> StillhouseError:
        """Note the error that every call raises from now on, those that wait too."""
        self._down = self._down or error
        connection.line.close()
        return copy.copy(self._down)

    def _exhausted(self, trouble: _Trouble, tries: int) -> WorkError:
        if (trouble.retry_after or 0) > self._patience_seconds:
            asked = f"and asks to wait {trouble.retry_after:.0f} s"
        else:
            asked = f"after {tries} tries"
        return WorkError(
            self._place,
            f"{trouble.cause} ({asked}).",
            "What was committed is safe: run again when the endpoint answers.",
        )

    def _refusal(self, status: int, error: ServerError) -> StillhouseError:
        """What an answer says that no other call can expect to be better than."""
        recipe = f"teachers.{self.teacher}"
        said = f"it answers {status}: {error.message}."
        if status in (401, 403):
            name = self._settings.api_key_env
            if name is None:
                mend = f"Name the environment variable that holds its key in {recipe}.api_key_env."
            else:
                mend = f"Check the key in the environment variable {name}, and what it may do."
            # The message of a 401 may show a part of the key.
            return UseError(
                self._place, "it refuses the key (401)." if status == 401 else said, mend
            )
        if status == 404:
            mend = f"Check {recipe}.model, now '{self.model}', and {recipe}.base_url."
            return UseError(self._place, said, mend)
        if status in ROW_STATUSES:
            mend = "Change what it names, or the model."
            if "max_tokens" in error.message:
                mend = f"Set {recipe}.length_key to max_completion_tokens, or change the model."
            return UseError(self._place, said, mend)
        return WorkError(self._place, said, f"Check {recipe}.base_url and the account.")
