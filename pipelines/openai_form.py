"""The form of an OpenAI-compatible API: what its requests say, and how its answers are read.

The readers raise one of `MALFORMED` where an answer has not the API's form.
"""

from __future__ import annotations

import email.utils
import json
import time
from dataclasses import dataclass
from typing import Any, Literal

from core.recipe_teachers import EndpointTeacher
from core.teacher import Completion, LabelScores, Sampling, Usage, conversation

Api = Literal["chat", "completions"]

PATHS: dict[Api, str] = {"chat": "/chat/completions", "completions": "/completions"}

MALFORMED = (AttributeError, IndexError, KeyError, TypeError, ValueError)
"""What reading raises where an answer has not the API's form."""

FINISHES = {"stop": "stop", "length": "length", "content_filter": "error"}
"""Our word for the API's; any other is no end that an answer should have."""

FILTERED = "the endpoint's content filter stopped the answer"

MESSAGE_LENGTH = 200
"""Characters of a server's message that are shown."""


class NoLogprobsError(Exception):
    """The endpoint answers without log-probabilities."""


@dataclass(frozen=True)
class ServerError:
    """What a server says of its error."""

    message: str
    code: str


def completion_request(
    endpoint: EndpointTeacher, prompt: str, sampling: Sampling
) -> dict[str, Any]:
    """Ask for a completion."""
    request = {
        "model": endpoint.model,
        **_prompt(endpoint.api, prompt, sampling),
        endpoint.length_key: sampling.max_tokens,
        # Always said: a server may have defaults of its own.
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
    }
    if sampling.seed is not None:
        request["seed"] = sampling.seed
    if sampling.min_p:  # an extension of vLLM that others refuse
        request["min_p"] = sampling.min_p
    if sampling.stop:
        request["stop"] = list(sampling.stop)
    if sampling.json_schema:
        schema = {"name": "answer", "schema": sampling.json_schema, "strict": True}
        request["response_format"] = {"type": "json_schema", "json_schema": schema}
    return request


def scores_request(endpoint: EndpointTeacher, prompt: str) -> dict[str, Any]:
    """Ask for the likeliest next tokens and their log-probabilities."""
    request = {
        "model": endpoint.model,
        **_prompt(endpoint.api, prompt, Sampling(max_tokens=1)),
        endpoint.length_key: 1,
        "temperature": 0,
    }
    if endpoint.api == "chat":
        return {**request, "logprobs": True, "top_logprobs": endpoint.top_logprobs}
    return {**request, "logprobs": endpoint.top_logprobs}


def read_completion(answer: Any) -> Completion:
    """A completion from an answer's body, with the tokens that the endpoint counted."""
    choice = answer["choices"][0]
    usage = _usage(answer)
    finish = FINISHES[choice["finish_reason"]]
    if "message" not in choice:
        text, refusal = choice["text"], None
    else:
        # A chat's content is null where the model refuses, or thinks until it may write no more.
        text, refusal = choice["message"]["content"] or "", choice["message"].get("refusal")
    if not isinstance(text, str):
        raise TypeError("its content is not text")
    if refusal:
        return Completion(text, usage, "error", f"the teacher refuses: {refusal}")
    return Completion(text, usage, finish, FILTERED if finish == "error" else "")


def read_scores(answer: Any, labels: list[str]) -> LabelScores:
    """Log-probabilities of labels as the next token, from the likeliest tokens in an answer.

    A label that is not among them gets the smallest log-probability among them. That is an upper
    bound of its own, and the closer the more tokens the endpoint tells. Where not one label is
    among them there is nothing to compare, which is an error of this prompt.

    Raises:
        NoLogprobsError: The answer has none.
    """
    choice = answer["choices"][0]
    usage = _usage(answer)
    if choice["finish_reason"] == "content_filter":
        return LabelScores([], usage, FILTERED)
    tokens = _next_tokens(choice)
    scores = [_logprob(label, tokens) for label in labels]
    if all(score is None for score in scores):
        error = f"no label is among the {len(tokens)} likeliest next tokens that the endpoint tells"
        return LabelScores([], usage, error)
    floor = min(tokens.values())
    return LabelScores([floor if score is None else score for score in scores], usage)


def read_error(body: bytes, secret: str) -> ServerError:
    """A server's message in one line, cut, and without the secret that it may repeat."""
    text, code = body.decode(errors="replace"), ""
    try:
        found = json.loads(body)
        error = found.get("error", found)
        text = error if isinstance(error, str) else str(error.get("message") or error)
        code = "" if isinstance(error, str) else str(error.get("code") or "")
    except (AttributeError, ValueError):
        pass  # a proxy's page: its text is all there is
    if secret:
        text = text.replace(secret, "***")
    return ServerError(" ".join(text.split()).rstrip(".")[:MESSAGE_LENGTH], code)


def retry_after_seconds(header: str | None) -> float | None:
    """Seconds from now that a `Retry-After` asks for, as a number or as a date.

    None where it asks for nothing: it is not there, not readable or not in the future.
    """
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except ValueError:
            return None
    return seconds if seconds > 0 else None


def _prompt(api: Api, prompt: str, sampling: Sampling) -> dict[str, Any]:
    if api == "completions":
        return {"prompt": "\n\n".join(filter(None, [sampling.system, prompt]))}
    return {"messages": conversation(prompt, sampling)}


def _usage(answer: Any) -> Usage:
    usage = answer["usage"]
    details = usage.get("prompt_tokens_details") or {}
    return Usage(
        requests=1,
        tokens_in=int(usage["prompt_tokens"]),
        tokens_cached=int(details.get("cached_tokens") or 0),
        # A server may leave it out of an answer without a token.
        tokens_out=int(usage.get("completion_tokens") or 0),
    )


def _next_tokens(choice: Any) -> dict[str, float]:
    """Log-probabilities by token, which the APIs tell in two forms; none after an empty answer."""
    logprobs = choice.get("logprobs")
    if not logprobs:
        raise NoLogprobsError
    if "content" in logprobs:
        written = [token["top_logprobs"] for token in logprobs["content"]]
        tops = [{top["token"]: float(top["logprob"]) for top in tops} for tops in written]
    else:
        tops = logprobs["top_logprobs"] or [{} for _ in logprobs["tokens"]]
    if not tops:
        return {}
    if not tops[0]:
        raise NoLogprobsError
    return dict(tops[0])


def _logprob(label: str, tokens: dict[str, float]) -> float | None:
    """The label's own token, or else the likeliest that differs by blanks around it alone.

    A chat's answer begins without the blank that stands before a label in a text.
    """
    if label in tokens:
        return tokens[label]
    same = [logprob for token, logprob in tokens.items() if token.strip() == label.strip()]
    return max(same, default=None)
