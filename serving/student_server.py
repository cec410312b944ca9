"""A causal student on `ray.serve.llm`, asked as it was trained."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

from ray.llm._internal.serve.core.configs.llm_config import DiskMultiplexConfig
from ray.llm._internal.serve.engines.vllm.vllm_engine import VLLMEngine
from ray.serve.llm.deployment import LLMServer

from core.models import adapter_folder, model_folder
from core.student_reading import StudentReading, prefixed

JOINED = (
    "{% for message in messages %}{{ message.content }}"
    "{% if not loop.last %}\\n{% endif %}{% endfor %}"
)
"""Chat template of a student that has none: what `StudentReading.read` makes of a conversation."""


class StudentEngine(VLLMEngine):  # type: ignore[misc]  # Ray has no types
    """vLLM's engine as vLLM's own server runs it.

    Ray has a process compute beside the one that plans, also where one CPU worker is all; the
    planning one then waits in a loop that takes a core of its own.
    """

    def _start_async_llm_engine(
        self, vllm_engine_args: Any, vllm_engine_config: Any, placement_group: Any
    ) -> Any:
        parallel = vllm_engine_config.parallel_config
        if parallel.distributed_executor_backend == "mp" and parallel.world_size == 1:
            parallel.distributed_executor_backend = "uni"
        return super()._start_async_llm_engine(
            vllm_engine_args, vllm_engine_config, placement_group
        )


class StudentServer(LLMServer):  # type: ignore[misc]  # Ray has no types
    """The replica: vLLM's engine, with what the student's folder says of how it is asked."""

    _default_engine_cls = StudentEngine

    async def __init__(  # type: ignore[misc]  # Serve waits for it
        self, llm_config: Any, *, reading: dict[str, Any], adapters: dict[str, str]
    ) -> None:
        """Start the engine.

        Args:
            llm_config: Of `ray.serve.llm`.
            reading: A `core.student_reading.StudentReading` as a dictionary.
            adapters: Folders of LoRA adapters by name.
        """
        self._reading = StudentReading(**reading)
        # Fetched here, and not where the application is laid out: that may be another machine.
        folder = await asyncio.to_thread(model_folder, llm_config.model_loading_config.model_source)
        llm_config.model_loading_config.model_source = str(folder)
        if not _has_template(folder):
            llm_config.engine_kwargs.setdefault("chat_template", JOINED)
        llm_config._engine_config = None  # which Ray has made of the source as it was
        await super().__init__(llm_config, model_downloader=partial(Adapters, adapters))

    async def chat(self, request: Any, raw_request_info: Any = None) -> Any:
        """Answer a conversation.

        The last message begins with the prefix that asks for an answer, and what the caller leaves
        open is as it was when the student was judged: the likeliest token each time.
        """
        request.messages = _prefixed(request.messages, self._reading.answer_prefix)
        given = request.model_fields_set
        if "temperature" not in given:
            request.temperature = 0.0
        if not given & {"max_tokens", "max_completion_tokens"}:
            request.max_completion_tokens = self._reading.max_answer_length
        return await super().chat(request, raw_request_info)


def _prefixed(messages: list[Any], prefix: str) -> list[Any]:
    """The same conversation; a message in parts gets one more."""
    last = messages[-1]
    if isinstance(last.get("content"), str):
        return prefixed(messages, prefix)
    parts = [{"type": "text", "text": prefix}, *(last.get("content") or [])]
    return [*messages[:-1], {**last, "content": parts}]


def _has_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").exists():
        return True
    config = folder / "tokenizer_config.json"
    return config.exists() and '"chat_template"' in config.read_text(encoding="utf-8")


class Adapters:
    """LoRA adapters in folders or object stores, in the form of Ray's loader of its own.

    Ray's takes them from three clouds alone, by a path of its own choosing.
    """

    def __init__(self, folders: dict[str, str], **_: Any) -> None:
        self._folders = folders
        self._numbers = {name: number for number, name in enumerate(folders, start=1)}

    async def load_model_from_config(self, lora_model_id: str, llm_config: Any) -> Any:  # noqa: ARG002
        """Where an adapter is on this machine, fetched where it is not there yet.

        Args:
            lora_model_id: `STUDENT:ADAPTER`.
            llm_config: Of the student.
        """
        name = lora_model_id.partition(":")[2]
        folder = await asyncio.to_thread(adapter_folder, self._folders[name])
        return DiskMultiplexConfig(
            model_id=lora_model_id,
            max_total_tokens=None,
            local_path=str(folder),
            lora_assigned_int_id=self._numbers[name],
        )
