"""Students that write, behind the OpenAI API: causal ones on vLLM, seq2seq ones on transformers.

Causal students run on `ray.serve.llm`. vLLM serves no T5, so a seq2seq student has a replica of
ours that speaks to the same ingress; to callers there is no difference.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ray import serve

from core.errors import UseError
from core.placement import label_selector
from core.recipe_section import Device
from core.recipe_serving import Serve
from core.run import Folder
from core.student_reading import FILE, StudentReading
from serving.application import LIGHT_FRONT_REQUESTS, Endpoint, always, held_options, run

INGRESS = "openai"
"""Name of the deployment that speaks HTTP."""

CPU_ENGINE: dict[str, Any] = {"dtype": "float32", "enforce_eager": True, "block_size": 32}
"""Engine arguments where a CPU runs the engine: it has no graphs, and its default blocks are longer
than most prompts."""


@dataclass(frozen=True)
class WritingStudent:
    """A student that writes, ready to be served."""

    folder: str
    """Path or URL of the Hugging Face folder, with safetensors."""
    reading: StudentReading
    """How it is asked."""
    engine: dict[str, Any] = field(default_factory=dict)
    """Engine arguments of a causal one, handed to vLLM as they are."""
    adapters: dict[str, str] = field(default_factory=dict)
    """LoRA adapters of a causal one by name: asked as `STUDENT:ADAPTER`."""
    card: str = ""
    """Its model card."""


def writing_student(
    folder: str,
    engine: Mapping[str, Any] | None = None,
    adapters: Mapping[str, str] | None = None,
    card: str = "",
) -> WritingStudent:
    """Describe the student in a folder; reads no weights.

    Raises:
        UseError: The folder holds no student that writes, or one that takes no such options.
    """
    reading = reading_of(folder)
    if reading is None or reading.family == "encoder":
        raise UseError(
            folder,
            f"there is no student here that writes: {FILE} says nothing of one.",
            "Name the model folder of a finished run's causal or seq2seq student.",
        )
    if reading.family == "seq2seq" and (engine or adapters):
        raise UseError(
            folder,
            "this is a seq2seq student: it runs on transformers, without engine and adapters.",
            "Leave serve.engine and adapters out.",
        )
    place = Folder(folder)
    if not card and place.has("README.md"):
        card = place.read("README.md").decode()
    return WritingStudent(folder, reading, dict(engine or {}), dict(adapters or {}), card)


def reading_of(folder: str) -> StudentReading | None:
    """How a student's folder says that it is asked; None where it says nothing."""
    place = Folder(folder)
    return StudentReading(**place.read_json(FILE)) if place.has(FILE) else None


def lay_out_writers(students: Mapping[str, WritingStudent], settings: Serve) -> serve.Application:
    """One application of any number of students, causal and seq2seq ones beside each other."""
    from serving.openai_ingress import bind_ingress

    served = {
        name: (_causal if student.reading.family == "causal" else _seq2seq)(name, student, settings)
        for name, student in students.items()
    }
    options = {
        "name": INGRESS,
        "ray_actor_options": {"num_cpus": 0},
        "max_ongoing_requests": LIGHT_FRONT_REQUESTS,
        **always(settings),
    }
    return bind_ingress(served, students, settings, options)


def deploy_writers(
    students: Mapping[str, WritingStudent],
    settings: Serve,
    *,
    name: str = "stillhouse",
    prefix: str | None = None,
    logs: Path | None = None,
) -> Endpoint:
    """Serve students that write in one application and wait until all of them answer.

    Args:
        students: By the name that requests give.
        settings: The recipe's `serve` section.
        name: Of the application; one of the same name is replaced.
        prefix: What its routes begin with; `/NAME` if absent.
        logs: Folder for Serve's logs, or None for Ray's own session folder.

    Raises:
        UseError: The port cannot be had, or vLLM is not installed.
        WorkError: A student could not be loaded.
    """
    return run(
        lambda: lay_out_writers(students, settings),
        list(students),
        settings,
        name=name,
        prefix=prefix,
        logs=logs,
    )


def _causal(name: str, student: WritingStudent, settings: Serve) -> serve.Application:
    from ray.serve.llm import LLMConfig, build_llm_deployment

    from serving.student_server import StudentServer

    device = settings.device
    arguments = {**(CPU_ENGINE if not device.gpus else {}), **settings.engine, **student.engine}
    if student.adapters:
        arguments |= {"enable_lora": True}
    options, selector = held_options(settings), label_selector("server", device.kind)
    config = LLMConfig(
        model_loading_config={"model_id": name, "model_source": student.folder},
        engine_kwargs=arguments,
        # Without it ray.serve.llm asks for a GPU.
        placement_group_config={"bundles": [_bundle(device)]},
        deployment_config=_llm_options(options),
        lora_config={"max_num_adapters_per_replica": 16} if student.adapters else None,
        runtime_env={"env_vars": core_environment(device.cpus)} if not device.gpus else None,
        log_engine_metrics=True,
    )
    return build_llm_deployment(
        config,
        name_prefix="",
        deployment_cls=StudentServer,
        bind_kwargs={"reading": asdict(student.reading), "adapters": student.adapters},
        override_serve_options={
            **{key: options[key] for key in ("backpressure_config", "max_surge_percent")},
            **({"placement_group_bundle_label_selector": [selector]} if selector else {}),
        },
    )


def _seq2seq(name: str, student: WritingStudent, settings: Serve) -> serve.Application:
    from serving.seq2seq import Seq2SeqServer

    options = held_options(settings)
    return serve.deployment(name=name, **options)(Seq2SeqServer).bind(name, student, settings)


def _bundle(device: Device) -> dict[str, float]:
    return {"CPU": device.cpus, **({"GPU": device.gpus} if device.gpus else {})}


def _llm_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """What `LLMConfig.deployment_config` takes; the placement group holds the device."""
    known = (
        *("num_replicas", "autoscaling_config", "max_ongoing_requests", "max_queued_requests"),
        *("graceful_shutdown_timeout_s", "graceful_shutdown_wait_loop_s"),
    )
    found = {key: options[key] for key in known if key in options}
    if "autoscaling_config" in found:
        found["autoscaling_config"] = found["autoscaling_config"].model_dump()
    return {**found, "ray_actor_options": {"num_cpus": 0}}


def core_environment(cpus: float) -> dict[str, str]:
    """What vLLM's processes need to use their cores, as teachers' engines are started."""
    environment = {
        # vLLM's own binding keeps one core back, half of a two-core machine.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(max(1, int(cpus))),
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    }
    openmp = Path(sys.prefix) / "lib" / "libiomp5.so"
    if openmp.exists():  # half as fast again as the OpenMP that torch brings
        environment["LD_PRELOAD"] = os.pathsep.join(
            part for part in (str(openmp), os.environ.get("LD_PRELOAD", "")) if part
        )
    return environment
