"""A seq2seq student such as T5 in a replica of ours, in the form of `ray.serve.llm`'s server."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ray import serve

from core.models import model_folder
from core.recipe_serving import Serve
from core.student_reading import Message, text_of
from serving.writers import WritingStudent


@dataclass(frozen=True)
class Wanted:
    """One request, as the model takes it."""

    ids: tuple[int, ...]
    """Tokens of the input."""
    max_tokens: int
    temperature: float
    top_p: float
    seed: int | None
    stop: tuple[str, ...]

    @property
    def drawn(self) -> tuple[float, float]:
        """What requests must have in common to be written together."""
        return (self.temperature, self.top_p)


@dataclass(frozen=True)
class Written:
    """What the model wrote."""

    text: str
    tokens: int
    finish: str
    """`stop` or `length`."""


class Seq2SeqServer:
    """The replica. Requests that come together are written together."""

    def __init__(self, name: str, student: WritingStudent, settings: Serve) -> None:
        import torch
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

        folder, device = model_folder(student.folder), settings.device
        self._name = name
        self._reading = student.reading
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._device = "cuda" if device.gpus else "cpu"
        model = AutoModelForSeq2SeqLM.from_pretrained(
            folder, dtype="auto" if device.gpus else torch.float32, use_safetensors=True
        )
        self._model: Any = model.to(self._device).eval()
        # torch.set_num_threads counts for the thread that calls it.
        threads = max(1, int(device.cpus))
        self._thread = ThreadPoolExecutor(1, "write", torch.set_num_threads, (threads,))
        self._join_batch = serve.batch(
            max_batch_size=settings.max_batch_size,
            batch_wait_timeout_s=settings.batch_wait_ms / 1000,
        )(self._write_batch)

    async def chat(self, request: Any, _: Any = None) -> AsyncGenerator[Any, None]:
        """Answer a conversation; a stream is a list of lines for each part."""
        messages = [
            {"role": one["role"], "content": text_of(one.get("content"))}
            for one in request.messages
        ]
        ids = self._reading.prompt_ids(messages, self._tokenizer)
        most = request.max_completion_tokens or request.max_tokens
        async for part in self._answer(request, ids, most, chat=True):
            yield part

    async def completions(self, request: Any, _: Any = None) -> AsyncGenerator[Any, None]:
        """Write what follows a text as it stands."""
        if not isinstance(request.prompt, str):
            yield _refused("prompt is a text with this model, and no list")
            return
        messages: list[Message] = [{"role": "user", "content": request.prompt}]
        ids = self._reading.read([messages], self._tokenizer)[0][0]
        async for part in self._answer(request, ids, request.max_tokens, chat=False):
            yield part

    async def check_health(self) -> None:
        """Serve asks; a replica whose model is loaded is well."""

    async def _answer(
        self, request: Any, ids: Sequence[int], most: int | None, *, chat: bool
    ) -> AsyncGenerator[Any, None]:
        if (request.n or 1) != 1:
            yield _refused("n must be 1 with this model")
            return
        given = request.model_fields_set
        # Refused here: in the model it would fail the requests that are written beside it.
        if request.temperature is not None and request.temperature < 0:
            yield _refused("temperature must not be below 0")
            return
        if request.top_p is not None and not 0 < request.top_p <= 1:
            yield _refused("top_p must be above 0, and 1 at most")
            return
        longest = self._reading.max_answer_length
        stop = request.stop if isinstance(request.stop, list) else [request.stop or ""]
        wanted = Wanted(
            tuple(ids),
            min(most or longest, longest),
            # As it was when the student was judged, where the caller says nothing.
            request.temperature if "temperature" in given and request.temperature else 0.0,
            request.top_p if "top_p" in given and request.top_p else 1.0,
            request.seed,
            tuple(one for one in stop if one),
        )
        form = _Form(self._name, chat=chat, prompt_tokens=len(ids))
        if not request.stream:
            yield form.whole(await self._join_batch(wanted))
            return
        if chat:
            yield form.begin()
        told = request.stream_options
        async for part in self._stream(wanted):
            if isinstance(part, str):
                yield form.part(part)
            else:
                yield form.end(part, usage=bool(told and told.include_usage))

    async def _write_batch(self, batch: list[Wanted]) -> list[Written]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._write, batch)

    def _write(self, batch: list[Wanted]) -> list[Written]:
        """Write for all requests; those that are drawn alike go through the model together.

        One with a seed goes alone: what is drawn for it must not depend on its neighbours.
        """
        together: dict[Any, list[int]] = {}
        for number, one in enumerate(batch):
            alone = one.seed is not None and one.temperature > 0
            together.setdefault(("alone", number) if alone else one.drawn, []).append(number)
        found: dict[int, Written] = {}
        for numbers in together.values():
            alike = [batch[number] for number in numbers]
            found |= dict(zip(numbers, self._generate(alike), strict=True))
        return [found[number] for number in range(len(batch))]

    def _generate(self, batch: Sequence[Wanted]) -> list[Written]:
        import torch

        tokens, mask = self._padded(batch)
        with torch.inference_mode():
            written = self._model.generate(
                input_ids=tokens,
                attention_mask=mask,
                **self._drawing(batch[0], max(one.max_tokens for one in batch)),
            )
        return [self._read(one, ids) for one, ids in zip(batch, written.tolist(), strict=True)]

    def _read(self, wanted: Wanted, ids: list[int]) -> Written:
        """One request's own part of a batch: its tokens begin behind the decoder's first."""
        own = ids[1:]
        ends = self._ends()
        end = next((number for number, token in enumerate(own) if token in ends), None)
        length = len(own) if end is None else end
        kept = own[: min(length, wanted.max_tokens)]
        stopped = end is not None and end <= wanted.max_tokens
        text = self._tokenizer.decode(kept, skip_special_tokens=True)
        cut = _before(text, wanted.stop)
        return Written(cut, len(kept), "stop" if stopped or cut != text else "length")

    async def _stream(self, wanted: Wanted) -> AsyncGenerator[str | Written, None]:
        """The text in parts, and all of it at the end.

        It is alone in the model: a batch would wait for its longest.
        """
        from transformers import TextIteratorStreamer

        loop = asyncio.get_running_loop()
        parts: asyncio.Queue[str | None] = asyncio.Queue()
        tokenizer = self._tokenizer

        class Streamer(TextIteratorStreamer):  # type: ignore[misc]  # transformers has no types
            def on_finalized_text(self, text: str, stream_end: bool = False) -> None:  # noqa: ARG002
                if text:
                    loop.call_soon_threadsafe(parts.put_nowait, text)

        streamer = Streamer(tokenizer, skip_prompt=False, skip_special_tokens=True)
        left = threading.Event()
        writing = loop.run_in_executor(self._thread, self._generate_to, wanted, streamer, left)
        writing.add_done_callback(lambda _: parts.put_nowait(None))  # also where it failed
        whole = said = ""
        try:
            while (part := await parts.get()) is not None:
                whole += part
                kept = _before(whole, wanted.stop)
                if len(kept) > len(said):
                    yield kept[len(said) :]
                said = kept
            yield await writing
        finally:  # the caller may have gone: nobody waits for the rest
            left.set()
            writing.cancel()

    def _generate_to(self, wanted: Wanted, streamer: Any, left: threading.Event) -> Written:
        import torch
        from transformers import StoppingCriteriaList

        def ends(ids: Any, _: Any, **__: Any) -> Any:
            return torch.full((len(ids),), left.is_set(), device=ids.device)

        tokens, mask = self._padded([wanted])
        with torch.inference_mode():
            written = self._model.generate(
                input_ids=tokens,
                attention_mask=mask,
                streamer=streamer,
                stopping_criteria=StoppingCriteriaList([ends]),
                **self._drawing(wanted, wanted.max_tokens),
            )
        return self._read(wanted, written[0].tolist())

    def _drawing(self, wanted: Wanted, most: int) -> dict[str, Any]:
        """How tokens are drawn."""
        common = {
            "max_new_tokens": most,
            "num_beams": 1,
            "eos_token_id": self._ends(),
            "pad_token_id": self._pad,
            "top_k": None,
        }
        if wanted.temperature <= 0:
            return {**common, "do_sample": False, "temperature": None, "top_p": None}
        if wanted.seed is not None:
            import torch

            torch.manual_seed(wanted.seed)
        drawn = {"temperature": wanted.temperature, "top_p": wanted.top_p}
        return {**common, "do_sample": True, **drawn}

    def _padded(self, batch: Sequence[Wanted]) -> tuple[Any, Any]:
        """Tokens and mask, [B, L]."""
        import torch

        longest = max(len(one.ids) for one in batch)
        tokens = torch.full((len(batch), longest), self._pad)
        mask = torch.zeros_like(tokens)
        for row, one in enumerate(batch):
            tokens[row, : len(one.ids)] = torch.tensor(one.ids)
            mask[row, : len(one.ids)] = 1
        return tokens.to(self._device), mask.to(self._device)

    @property
    def _pad(self) -> int:
        return self._tokenizer.pad_token_id or 0

    def _ends(self) -> list[int]:
        """Tokens that end an answer: the tokenizer's, and those of the base's generation."""
        known = self._model.generation_config.eos_token_id
        ends = known if isinstance(known, list) else [known]
        return [end for end in {*ends, self._tokenizer.eos_token_id} if end is not None]


@dataclass
class _Form:
    """Answers in the words of the OpenAI API."""

    model: str
    chat: bool
    prompt_tokens: int

    def __post_init__(self) -> None:
        self._id = f"{'chatcmpl' if self.chat else 'cmpl'}-{uuid.uuid4().hex}"
        self._created = int(time.time())

    def whole(self, written: Written) -> Any:
        """A whole answer."""
        from ray.serve.llm.openai_api_models import ChatCompletionResponse, CompletionResponse

        choice: dict[str, Any] = {"index": 0, "finish_reason": written.finish}
        if self.chat:
            choice["message"] = {"role": "assistant", "content": written.text}
        else:
            choice["text"] = written.text
        kind = ChatCompletionResponse if self.chat else CompletionResponse
        return kind(
            id=self._id,
            created=self._created,
            model=self.model,
            choices=[choice],
            usage=self._usage(written.tokens),
        )

    def begin(self) -> list[str]:
        """What the stream of a conversation begins with."""
        return [self._line({"role": "assistant", "content": ""})]

    def part(self, text: str) -> list[str]:
        """A part of the text."""
        return [self._line({"content": text} if self.chat else text)]

    def end(self, written: Written, *, usage: bool) -> list[str]:
        """What a stream ends with."""
        lines = [self._line({} if self.chat else "", written.finish)]
        if usage:
            lines.append(self._data({"choices": [], "usage": self._usage(written.tokens)}))
        return [*lines, "data: [DONE]\n\n"]

    def _line(self, said: Any, finish: str | None = None) -> str:
        choice = {"index": 0, "finish_reason": finish, "delta" if self.chat else "text": said}
        return self._data({"choices": [choice]})

    def _data(self, more: dict[str, Any]) -> str:
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        told = {"id": self._id, "object": kind, "created": self._created, "model": self.model}
        return f"data: {json.dumps({**told, **more})}\n\n"

    def _usage(self, tokens: int) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": tokens,
            "total_tokens": self.prompt_tokens + tokens,
        }


def _before(text: str, stops: Sequence[str]) -> str:
    """A text up to the first of some texts in it."""
    return min((text.partition(stop)[0] for stop in stops), key=len, default=text)


def _refused(message: str) -> Any:
    from ray.serve.llm.openai_api_models import ErrorResponse

    return ErrorResponse(error={"message": message, "type": "BadRequestError", "code": 400})
