"""One vLLM engine in a Ray actor: completions, and label scores in a single prefill.

`ray.data.llm` keeps only the first completion of a prompt and has no scores per label, and it
loads an engine anew for every dataset. This actor outlives the stages that use it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

import numpy as np

from core.errors import UseError
from core.identity import content_id
from core.teacher import (
    Completion,
    LabelScores,
    Sampling,
    SequenceScore,
    TopTokens,
    Usage,
    conversation,
)

NOT_TEXT = "the prompt holds half a surrogate pair, which is no character"

LABEL_LIMIT = 128
"""Labels that vLLM scores in one request at most."""


class VLLMEngine:
    """The body of the engine actor. Start it through `pipelines.engine_pool`."""

    def __init__(
        self,
        model: str,
        arguments: dict[str, Any],
        seed: int,
        log: Path | None,
        *,
        adapter: Path | None = None,
        secrets: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Load the model; returns when the engine can answer.

        Args:
            model: A Hugging Face folder.
            arguments: vLLM engine arguments, as the recipe gives them.
            seed: Of the run.
            log: File for what vLLM prints, or None to leave it to Ray's worker log.
            adapter: Folder of a LoRA adapter that answers in the model's place.
            secrets: Variables for the environment of this process and of those that it starts.
        """
        began = time.monotonic()
        os.environ.update(secrets)
        if log is not None:
            _redirect_output(log)
        # Imported here, after the redirection, because vLLM configures its logging on import.
        from vllm import AsyncEngineArgs
        from vllm.lora.request import LoRARequest
        from vllm.v1.engine.async_llm import AsyncLLM

        defaults = {
            "disable_log_stats": True,
            # Engines that draw the same numbers would write the same rows: each process has its
            # own. Committed rows are what makes a run repeatable.
            "seed": int(content_id(seed, os.getpid())[:8], 16),
            "max_logprobs": LABEL_LIMIT,
            # A small model lost between two JSON tokens would write blanks to the end.
            "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
        }
        self._engine = AsyncLLM.from_engine_args(
            AsyncEngineArgs(model=model, **{**defaults, **_for_adapter(adapter), **arguments})
        )
        self._adapter = None if adapter is None else LoRARequest("adapter", 1, str(adapter))
        self._tokenizer = self._engine.get_tokenizer()
        self._max_length: int = self._engine.model_config.max_model_len
        self._label_ids: dict[tuple[str, str], int] = {}
        self._requests = 0
        self._usage = Usage()
        self._in_flight = 0
        self._useful = 0.0
        self._ready = self._busy_since = time.monotonic()
        self._startup = self._ready - began

    async def complete(self, prompt: str, sampling: Sampling) -> Completion:
        """Write on from a prompt; a prompt that does not fit comes back as an error."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        if not _is_text(prompt):
            return Completion("", Usage(), "error", NOT_TEXT, "not-text")
        if sampling.chat:
            tokens = self._in_chat(prompt, sampling)
        else:
            tokens = self._tokenizer.encode("\n\n".join(filter(None, [sampling.system, prompt])))
        if len(tokens) + sampling.max_tokens > self._max_length:
            error = (
                f"the prompt has {len(tokens)} tokens; with {sampling.max_tokens} to write, the "
                f"model's length of {self._max_length} does not hold them"
            )
            return Completion("", Usage(), "error", error)
        parameters = SamplingParams(
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            min_p=sampling.min_p,
            seed=sampling.seed,
            logprobs=sampling.top_logprobs or None,
            flat_logprobs=True,
            stop=list(sampling.stop),
            structured_outputs=(
                StructuredOutputsParams(json=sampling.json_schema) if sampling.json_schema else None
            ),
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        output = await self._generate(tokens, parameters)
        answer = output.outputs[0]
        return Completion(
            answer.text,
            self._count(output),
            answer.finish_reason or "stop",
            top=_top_tokens(answer, sampling.top_logprobs) if sampling.top_logprobs else None,
        )

    async def score_labels(self, prompt: str, labels: list[str]) -> LabelScores:
        """Score single-token labels as the next token after a prompt, in one prefill."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        if not _is_text(prompt):
            return LabelScores([], error=NOT_TEXT, reason="not-text")
        tokens = self._tokenizer.encode(prompt)
        if len(tokens) + 1 > self._max_length:
            error = (
                f"the prompt has {len(tokens)} tokens, the model takes {self._max_length - 1} "
                "and one to score"
            )
            return LabelScores([], error=error)
        ids = [self._label_id(prompt, tokens, label) for label in labels]
        # Raw log-probabilities over the whole vocabulary; asking for these ids alone costs no more
        # than sampling one token, and the prefix cache stays usable.
        parameters = SamplingParams(
            max_tokens=1,
            temperature=0,
            logprob_token_ids=ids,
            output_kind=RequestOutputKind.FINAL_ONLY,
            detokenize=False,
        )
        output = await self._generate(tokens, parameters)
        scores = output.outputs[0].logprobs[0]
        return LabelScores([scores[token].logprob for token in ids], self._count(output))

    async def score_text(self, prompt: str, text: str) -> SequenceScore:
        """Score a text after a prompt, in one prefill.

        The prefix cache is not read for it: vLLM has no log-probabilities of cached tokens.
        """
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        if not _is_text(prompt + text):
            return SequenceScore([], error=NOT_TEXT, reason="not-text")
        before = self._tokenizer.encode(prompt)
        tokens = self._tokenizer.encode(prompt + text)
        if tokens[: len(before)] != before or len(tokens) == len(before):
            error = "the prompt's last token and the text's first one melt into one"
            return SequenceScore([], error=error, reason="melts")
        if len(tokens) + 1 > self._max_length:
            error = f"prompt and text have {len(tokens)} tokens, the model takes {self._max_length}"
            return SequenceScore([], error=error)
        parameters = SamplingParams(
            max_tokens=1,
            temperature=0,
            prompt_logprobs=0,
            output_kind=RequestOutputKind.FINAL_ONLY,
            detokenize=False,
        )
        output = await self._generate(tokens, parameters)
        text_tokens = tokens[len(before) :]
        scored = zip(output.prompt_logprobs[len(before) :], text_tokens, strict=True)
        logprobs = [place[token].logprob for place, token in scored]
        return SequenceScore(logprobs, self._count(output))

    def statistics(self) -> dict[str, float]:
        """Seconds of start-up, of useful and of idle time, and tokens so far."""
        now = time.monotonic()
        useful = self._useful + (now - self._busy_since if self._in_flight else 0.0)
        return {
            "process": os.getpid(),
            "startup": self._startup,
            "useful": useful,
            "idle": now - self._ready - useful,
            **asdict(self._usage),
        }

    async def rests(self) -> bool:
        """Whether no request is in flight."""
        return self._in_flight == 0

    async def forget_prompts(self) -> None:
        """Empty the prefix cache; no request may be in flight."""
        await self._engine.reset_prefix_cache()

    def process(self) -> int:
        """The id of this process; vLLM's own processes are its children."""
        return os.getpid()

    async def _generate(self, tokens: list[int], parameters: Any) -> Any:
        from vllm.v1.engine.exceptions import EngineDeadError

        self._requests += 1
        if self._in_flight == 0:
            self._busy_since = time.monotonic()
        self._in_flight += 1
        try:
            outputs = self._engine.generate(
                {"prompt_token_ids": tokens},
                parameters,
                str(self._requests),
                lora_request=self._adapter,
            )
            return [output async for output in outputs][-1]
        except EngineDeadError:
            # The engine's process is gone and cannot come back in this one. Ray starts the actor
            # anew and repeats the calls that it owed.
            os._exit(1)
        finally:
            self._in_flight -= 1
            if self._in_flight == 0:
                self._useful += time.monotonic() - self._busy_since

    def _in_chat(self, prompt: str, sampling: Sampling) -> list[int]:
        """Tokens of a conversation in which a user says the prompt, up to the answer's begin."""
        if self._tokenizer.chat_template is None:
            raise UseError(
                "chat: true",
                "this teacher's tokenizer has no chat template.",
                "Take its instruction-tuned sister, or leave chat out.",
            )
        said = conversation(prompt, sampling)
        text = self._tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
        # The template writes the special tokens itself.
        found: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return found

    def _count(self, output: Any) -> Usage:
        usage = Usage(
            requests=1,
            tokens_in=len(output.prompt_token_ids),
            tokens_cached=output.num_cached_tokens or 0,
            tokens_out=len(output.outputs[0].token_ids),
        )
        self._usage += usage
        return usage

    def _label_id(self, prompt: str, tokens: list[int], label: str) -> int:
        # A label's token depends on the text just before it. The last line of a stage's prompts is
        # the same for all rows; the one before it would bring a key, and an encoding, for each.
        key = (prompt[prompt.rfind("\n") + 1 :][-16:], label)
        if key not in self._label_ids:
            together = self._tokenizer.encode(prompt + label)
            if together[:-1] != tokens:
                raise UseError(
                    f"label '{label.strip()}'",
                    f"it is {len(together) - len(tokens)} tokens of this teacher, not one.",
                    "Choose a shorter word, or set score.labels to letters.",
                )
            self._label_ids[key] = together[-1]
        return self._label_ids[key]


def _for_adapter(adapter: Path | None) -> dict[str, Any]:
    """Engine arguments that a LoRA adapter needs."""
    if adapter is None:
        return {}
    from vllm.config.lora import MaxLoRARanks

    config = json.loads((adapter / "adapter_config.json").read_text())
    rank = max([config["r"], *config.get("rank_pattern", {}).values()])
    # vLLM knows a few sizes; one that is too large costs memory, and too small is an error.
    room = min((size for size in get_args(MaxLoRARanks) if size >= rank), default=rank)
    return {"enable_lora": True, "max_lora_rank": room}


def _is_text(text: str) -> bool:
    """Whether a text is Unicode that tokenizers take: JSON can hold half a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _top_tokens(answer: Any, number: int) -> TopTokens:
    """Take vLLM's flat log-probabilities apart: at each place the token written, then the top."""
    flat = answer.logprobs
    places = len(answer.token_ids)
    ids = np.array(flat.token_ids, np.int32).reshape(places, number + 1)
    logprobs = np.array(flat.logprobs, np.float32).reshape(places, number + 1)
    return TopTokens(ids[:, 0], ids[:, 1:], logprobs[:, 1:].astype(np.float16))


def _redirect_output(log: Path) -> None:
    """Send this process's output, and that of the processes it starts, to a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(target, 1)
    os.dup2(target, 2)
    os.close(target)
