"""An encoder and a causal student over HTTP, beside their bare engines and a plain peer.

    python benchmarks/serving.py                     all of it: some 12 minutes on two cores
    python benchmarks/serving.py --only encoder      `encoder`, `backends` or `causal`
    python benchmarks/serving.py --pairs 1           a look

**backends.** all-MiniLM-L6-v2 with a head of five classes on one core with one thread: sequences a
second of each backend of `serve.backend` by batch, and the largest difference of a probability from
torch in float32.

**encoder.** The same student behind HAProxy and a replica, the forward pass in torch on one core
with one thread, everything else (HAProxy, HTTP, tokens, the load generator) on the other. One text
a request, 8 in flight: CPU-milliseconds of HAProxy and the replica less those of the forward
passes, for each request; and the same behind Serve's own proxy. 32 texts a request, 4 in flight:
rows a second beside the bare forward pass on the same batches, tokens read already. Beside it plain
FastAPI with a transformers pipeline (`pipeline_server.py`), with both cores to itself. Bare and
served take turns, and the median pair counts; the ratio with both cores shared is printed.

**causal.** SmolLM2-135M behind `ray.serve.llm` as Stillhouse lays it out, and behind vLLM's own
server, with the same engine arguments; the engines on one core with one thread, everything else on
the other. Output tokens a second of the same prompts, in interleaved pairs, without streaming; with
streaming, and with both cores shared, once more.

Prints a line for each figure, writes benchmarks/results/serving.json (not after a look), and exits
1 where a request takes more than 4 CPU-milliseconds beyond the forward pass, rows are below 0.85 of
bare, or tokens below 0.95 of vLLM's own server.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

# This file has the name of the package that it measures: its folder comes last on the path, and
# Ray's workers do not get it.
HERE, ROOT = str(Path(__file__).parent), Path(__file__).parents[1]
sys.path = [str(ROOT), *(place for place in sys.path if place != HERE), HERE]

from cores import pin  # noqa: E402
from local_ray import start_ray  # noqa: E402

from serving.proxy import proxy_environment  # noqa: E402

sys.path.remove(HERE)

os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ.update(proxy_environment())

BARS = {"request_ms": 4.0, "rows_ratio": 0.85, "causal_ratio": 0.95}
PAIRS = 5
ENGINE_CORE, OTHER_CORE = {0}, {1}
BOTH = {0, 1}
CHOICES = ["business", "health", "politics", "sports", "technology"]
TEXTS = [
    "Central bank holds interest rates as inflation cools in the third quarter",
    "Late goal sends underdogs into the cup final after extra time",
    "New vaccine cuts hospital stays among older patients, a study finds",
    "Senate passes budget bill after an all-night debate over spending",
    "Chipmaker unveils processor built for faster AI on phones and laptops",
]
ROWS = 32
"""Texts of a long request."""
OWN_PROXY = "own-proxy"
"""The part that runs in a process of its own, as Ray needs another environment."""


def main() -> int:
    """Run the parts, print and keep their figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=["backends", "encoder", "causal", OWN_PROXY])
    parser.add_argument("--pairs", type=int, default=PAIRS)
    options = parser.parse_args()
    if options.only == OWN_PROXY:
        return own_proxy()
    parts = {"backends": backends, "encoder": encoder, "causal": causal}
    parts["encoder_behind_own_proxy"] = behind_own_proxy
    target = ROOT / "benchmarks" / "results" / "serving.json"
    kept = json.loads(target.read_text()) if target.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        for name, part in parts.items():
            if options.only in (None, name.partition("_")[0]):
                kept[name] = part(Path(folder), options.pairs)
    measured = {
        "request_ms": kept.get("encoder", {}).get("request_ms"),
        "rows_ratio": kept.get("encoder", {}).get("rows_ratio"),
        "causal_ratio": kept.get("causal", {}).get("ratio"),
    }
    held = {
        name: found <= BARS[name] if name == "request_ms" else found >= BARS[name]
        for name, found in measured.items()
        if found is not None
    }
    kept["bars"] = held
    if options.pairs >= PAIRS:
        target.write_text(json.dumps(kept, indent=1) + "\n")
    print(" ".join(f"{name} {'held' if ok else 'MISSED'}" for name, ok in held.items()))
    return 0 if all(held.values()) else 1


# Encoders


def make_student(folder: Path) -> Path:
    """all-MiniLM-L6-v2 with a head as it is drawn: what is computed is the same."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from core.models import model_folder

    base, student = model_folder("embedded://all-minilm-l6-v2"), folder / "student"
    if not student.exists():
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_pretrained(
            base, id2label=dict(enumerate(CHOICES)), label2id={c: i for i, c in enumerate(CHOICES)}
        )
        model.save_pretrained(student)
        AutoTokenizer.from_pretrained(base).save_pretrained(student)
    return student


def backends(folder: Path, _: int) -> dict[str, Any]:
    """Sequences a second of every backend, on one core."""
    import torch

    from core.recipe_section import Device
    from serving.backends import load_backend
    from serving.encoder_input import softmax

    torch.set_num_threads(1)
    pin([os.getpid()], ENGINE_CORE)
    student, found = make_student(folder), {}
    names = ["input_ids", "token_type_ids", "attention_mask"]
    shapes = ((1, 16), (8, 16), (32, 16), (32, 64), (8, 256))
    drawn = np.random.default_rng(0)
    batches = {
        shape: {
            "input_ids": drawn.integers(1000, 20000, shape),
            "token_type_ids": np.zeros(shape, np.int64),
            "attention_mask": np.ones(shape, np.int64),
        }
        for shape in shapes
    }
    exact = None
    for backend in ("torch", "torch-bfloat16", "onnx", "onnx-int8"):
        forward = load_backend(backend, student, Device(), names, reads_choices=False)
        rates = {}
        for shape, batch in batches.items():
            seconds = []
            for _ in range(3):
                forward.logits(batch)
            end = time.perf_counter() + 2
            while time.perf_counter() < end:
                began = time.perf_counter()
                forward.logits(batch)
                seconds.append(time.perf_counter() - began)
            rates["x".join(map(str, shape))] = round(shape[0] / statistics.median(seconds), 1)
        told = np.array([softmax(row) for row in forward.logits(batches[32, 16]).tolist()])
        exact = told if exact is None else exact
        found[backend] = {"rows_per_second": rates, "difference": float(np.abs(told - exact).max())}
        print(
            f"backend {backend}: {rates}, probabilities within {found[backend]['difference']:.4f}"
        )
    pin([os.getpid()], BOTH)
    return found


def encoder(folder: Path, pairs: int) -> dict[str, Any]:
    """A student behind HTTP, beside its bare forward pass and a plain peer."""
    from core.recipe_serving import Serve
    from serving.application import deploy
    from serving.encoder import encoder_student
    from serving.load import LoadGenerator

    student = make_student(folder)
    start_ray()
    with LoadGenerator(folder / "load.log") as generator, peer(student) as plain:
        endpoint = deploy(
            {"minilm": encoder_student(str(student))},
            # So that requests and forward passes have equal batches.
            Serve(port=0, max_batch_size=ROWS, log_requests=True),
            name="bench",
            logs=folder / "logs",
        )
        served = Served(endpoint, generator)
        found: dict[str, Any] = {}
        for cores, suffix in ((OTHER_CORE, ""), (BOTH, "_shared")):
            served.pin(cores)
            if suffix == "":
                requests = [served.one_by_one() for _ in range(pairs)]
                found["request_ms"] = statistics.median(one["beyond_ms"] for one in requests)
                found["requests"] = requests
            rows = [(bare_rows(student, cores), served.rows()) for _ in range(pairs)]
            found[f"rows{suffix}"] = rows
            found[f"rows_ratio{suffix}"] = statistics.median(many / bare for bare, many in rows)
        pin([plain.pid], BOTH)
        found["peer"] = peer_figures(plain, generator)
        endpoint.close()
    stop_ray()
    first = found["requests"][len(found["requests"]) // 2]
    print(
        f"encoder: {found['request_ms']:.2f} CPU-ms a request beyond the forward pass (bar 4), of "
        f"which HAProxy {first['proxy_ms']:.2f}; p50 {first['p50_ms']:.1f} ms, "
        f"{first['per_second']:.0f} a second; plain FastAPI with a pipeline: "
        f"{found['peer']['cpu_ms']:.2f} CPU-ms in all (ours {first['cpu_ms']:.2f}), p50 "
        f"{found['peer']['p50_ms']:.1f} ms, {found['peer']['per_second']:.0f} a second"
    )
    bare, many = found["rows"][0]
    print(
        f"encoder: {found['rows_ratio']:.3f} of bare rows a second at {ROWS} a request (bar 0.85; "
        f"{many:.0f} of {bare:.0f}), both cores shared {found['rows_ratio_shared']:.3f}; the peer "
        f"{found['peer']['rows']:.0f} rows a second"
    )
    return found


def behind_own_proxy(_: Path, __: int) -> dict[str, float]:
    """The same behind Serve's own proxy: in a process of its own, with another environment."""
    done = subprocess.run(
        [sys.executable, __file__, "--only", OWN_PROXY], check=True, capture_output=True, text=True
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]  # Ray writes, too
    found: dict[str, float] = json.loads(lines[-1])
    print(f"encoder behind Serve's own proxy: {found['beyond_ms']:.2f} CPU-ms a request beyond it")
    return found


def own_proxy() -> int:
    """What is measured there, as JSON."""
    os.environ["RAY_SERVE_ENABLE_HA_PROXY"] = "0"
    from core.recipe_serving import Serve
    from serving.application import deploy
    from serving.encoder import encoder_student
    from serving.load import LoadGenerator

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        student = make_student(folder)
        start_ray()
        with LoadGenerator(folder / "load.log") as generator:
            settings = Serve(port=0, max_batch_size=ROWS)
            models = {"minilm": encoder_student(str(student))}
            endpoint = deploy(models, settings, name="bench", logs=folder / "logs")
            served = Served(endpoint, generator)
            served.pin(OTHER_CORE)
            print(json.dumps(served.one_by_one()))
        stop_ray()
    return 0


class Served:
    """The endpoint, and how it is loaded."""

    def __init__(self, endpoint: Any, generator: Any) -> None:
        from ray import serve

        self._endpoint = endpoint
        self._generator = generator
        self._front = serve.get_deployment_handle("front", "bench")
        self._send("warm-up", [TEXTS[0]] * 64, 8)

    def pin(self, others: set[int]) -> None:
        """Put the forward pass on a core of its own, and all else on these."""
        me = psutil.Process()
        for process in (me, *me.children(recursive=True), *_haproxies()):
            pin([process.pid], others)
        if others != BOTH:
            thread = int(self._statistics()["forward_thread"])
            os.sched_setaffinity(thread, ENGINE_CORE)

    def one_by_one(self) -> dict[str, float]:
        """One text a request."""
        number = 800
        before = self._statistics()
        result = self._send("minilm", [TEXTS[n % len(TEXTS)] for n in range(number)], 8)
        forward = self._statistics()["forward_cpu_seconds"] - before["forward_cpu_seconds"]
        return {
            "beyond_ms": (result.cpu_seconds - forward) / number * 1000,
            "proxy_ms": result.path_cpu_seconds / number * 1000,
            "cpu_ms": result.cpu_seconds / number * 1000,
            "p50_ms": result.latency_ms["p50"],
            "per_second": number / result.wall_seconds,
        }

    def rows(self) -> float:
        """Rows a second with many texts in a request."""
        requests = 40
        result = self._send("minilm", [texts_of_request()] * requests, 4)
        return requests * ROWS / result.wall_seconds

    def _send(self, model: str, inputs: Sequence[Any], concurrency: int) -> Any:
        from serving.load import Load, Request

        model = "minilm" if model == "warm-up" else model
        requests = [Request("/v1/classify", {"model": model, "input": one}) for one in inputs]
        load = Load(self._endpoint.url, requests, concurrency=concurrency)
        result = self._generator.send(self._endpoint, load)
        assert len(result.answered) == len(inputs), result.replies[0].error
        return result

    def _statistics(self) -> dict[str, float]:
        found: dict[str, float] = self._front.statistics.remote("minilm").result()
        return found


def texts_of_request() -> list[str]:
    """The texts of a long request."""
    return [TEXTS[number % len(TEXTS)] for number in range(ROWS)]


BARE = """
import json, sys, time
import torch
torch.set_num_threads(1)
from pathlib import Path
from core.recipe_section import Device
from serving.answers import Question
from serving.backends import load_backend
from serving.encoder_input import EncoderInput
folder, texts = Path(sys.argv[1]), json.loads(sys.argv[2])
reads = EncoderInput(folder, tuple("abcde"))
forward = load_backend("torch", folder, Device(), reads.names, reads_choices=False)
batch = reads.batch([one for own in reads.sequences([Question(t) for t in texts]) for one in own])
for _ in range(5): forward.logits(batch)
began, passes = time.perf_counter(), 0
while time.perf_counter() - began < 3:
    forward.logits(batch); passes += 1
print(passes * len(texts) / (time.perf_counter() - began))
"""


def bare_rows(student: Path, others: set[int]) -> float:
    """Rows a second of the bare forward pass; on the core of the engine unless both are shared."""
    cores = BOTH if others == BOTH else ENGINE_CORE
    done = subprocess.run(
        [sys.executable, "-c", BARE, str(student), json.dumps(texts_of_request())],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    return float(done.stdout.strip().splitlines()[-1])


@contextlib.contextmanager
def peer(student: Path) -> Iterator[Any]:
    """The plain peer's process, with its address."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "benchmarks/pipeline_server.py"), str(student), str(port)]
    )
    process.url = f"http://127.0.0.1:{port}"  # type: ignore[attr-defined]
    try:
        wait_for(f"{process.url}/pid", process)  # type: ignore[attr-defined]
        yield process
    finally:
        process.terminate()
        process.wait()


def peer_figures(process: Any, generator: Any) -> dict[str, float]:
    """What the peer takes for the same requests."""
    from serving.application import Endpoint
    from serving.load import Load, Request

    class Plain(Endpoint):
        def processes(self) -> list[int]:
            return [process.pid]

        def shared_processes(self) -> list[int]:
            return []

    endpoint = Plain("plain", process.url)

    def send(inputs: Sequence[Any], concurrency: int) -> Any:
        requests = [Request("/v1/classify", {"input": one}) for one in inputs]
        return generator.send(endpoint, Load(process.url, requests, concurrency=concurrency))

    send([TEXTS[0]] * 16, 8)
    number, requests = 300, 20
    one = send([TEXTS[n % len(TEXTS)] for n in range(number)], 8)
    many = send([texts_of_request()] * requests, 4)
    return {
        "cpu_ms": one.cpu_seconds / number * 1000,
        "p50_ms": one.latency_ms["p50"],
        "per_second": number / one.wall_seconds,
        "rows": requests * ROWS / many.wall_seconds,
    }


# Causal students

ENGINE = {"max_model_len": 512, "max_num_seqs": 16, "block_size": 32, "dtype": "float32"}
"""Engine arguments of both servers; eager, as a CPU has no graphs."""
PROMPTS, OUTPUT = 48, 24
"""Requests of a turn, and tokens of an answer."""


def causal(folder: Path, pairs: int) -> dict[str, Any]:
    """SmolLM2 behind `ray.serve.llm` and behind vLLM's own server."""
    from core.models import model_folder
    from core.recipe_section import Device
    from core.recipe_serving import Serve
    from core.student_reading import StudentReading
    from serving.load import LoadGenerator
    from serving.writers import deploy_writers, writing_student

    student = folder / "smollm2"
    student.mkdir()
    for file in model_folder("embedded://smollm2-135m-instruct").iterdir():
        (student / file.name).symlink_to(file)
    reading = {"family": "causal", "head": None, "objective": "sequence", "answer_prefix": ""}
    StudentReading(**reading, max_length=256, max_answer_length=OUTPUT).write(student)
    start_ray()
    with LoadGenerator(folder / "load.log") as generator, vllm_server(student) as own:
        endpoint = deploy_writers(
            {"smollm2": writing_student(str(student), engine={**ENGINE, "enforce_eager": True})},
            Serve(port=0, device=Device(cpus=1), log_requests=True),
            name="bench",
            logs=folder / "logs",
        )
        arms = {"vllm": own, "stillhouse": endpoint.url}
        found: dict[str, Any] = {}
        for name, stream in (("plain", False), ("streaming", True)):
            pin_engines(OTHER_CORE)
            turns = pairs if not stream else max(1, pairs // 2)
            found[name] = [
                {arm: tokens_per_second(generator, url, stream) for arm, url in arms.items()}
                for _ in range(turns)
            ]
        pin_engines(BOTH)
        found["shared"] = [
            {arm: tokens_per_second(generator, url, stream=False) for arm, url in arms.items()}
            for _ in range(max(1, pairs // 2))
        ]
        endpoint.close()
    stop_ray()

    def ratio(name: str) -> float:
        return statistics.median(one["stillhouse"] / one["vllm"] for one in found[name])

    found |= {"ratio": ratio("plain"), "streaming_ratio": ratio("streaming")}
    found["shared_ratio"] = ratio("shared")
    first = found["plain"][0]
    print(
        f"causal: {found['ratio']:.3f} of vLLM's own server (bar 0.95; "
        f"{first['stillhouse']:.0f} of {first['vllm']:.0f} tokens a second), streaming "
        f"{found['streaming_ratio']:.3f}, both cores shared {found['shared_ratio']:.3f}"
    )
    return found


@contextlib.contextmanager
def vllm_server(student: Path) -> Iterator[str]:
    """VLLM's own server on the same model with the same engine arguments."""
    from serving.writers import core_environment

    port = free_port()
    arguments = [
        part
        for name, value in ENGINE.items()
        for part in (f"--{name.replace('_', '-')}", str(value))
    ]
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(student)),
            *("--served-model-name", "smollm2", "--port", str(port), "--enforce-eager"),
            *("--disable-uvicorn-access-log", "--no-enable-log-requests", *arguments),
        ],
        env={**os.environ, **core_environment(1)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def tokens_per_second(generator: Any, url: str, stream: bool) -> float:
    """Output tokens a second of one turn."""
    from serving.application import Endpoint
    from serving.load import Load, Request

    class Told(Endpoint):
        def processes(self) -> list[int]:
            return []

        def shared_processes(self) -> list[int]:
            return []

    requests = [
        Request(
            "/v1/completions",
            {
                "model": "smollm2",
                "prompt": f"{number}. {TEXTS[number % len(TEXTS)]}. In other words,",
                "max_tokens": OUTPUT,
                "temperature": 0,
                "ignore_eos": True,
                "stream": stream,
            },
        )
        for number in range(PROMPTS)
    ]
    result = generator.send(Told("told", url), Load(url, requests, concurrency=16))
    assert len(result.answered) == PROMPTS, result.replies[0].error
    return PROMPTS * OUTPUT / result.wall_seconds


def pin_engines(others: set[int]) -> None:
    """Put the two engines' cores on one core, and everything else on these."""
    me = psutil.Process()
    for process in (me, *me.children(recursive=True), *_haproxies()):
        with contextlib.suppress(psutil.NoSuchProcess):
            engine = "EngineCore" in " ".join((process.name(), *process.cmdline()))
            pin([process.pid], ENGINE_CORE if engine and others != BOTH else others)


# What all parts use


def stop_ray() -> None:
    """Serve goes first: what is left of it in this process would be taken for the next Ray's."""
    import ray
    from ray import serve

    serve.shutdown()
    ray.shutdown()


def _haproxies() -> list[psutil.Process]:
    return [p for p in psutil.process_iter() if p.name() == "haproxy"]


def free_port() -> int:
    """A port that nothing listens on."""
    from serving.instance import free_port as any_port

    return any_port("127.0.0.1", 0)


def wait_for(url: str, process: subprocess.Popen[Any]) -> None:
    """Until a server answers."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"{process.args} ended with {process.returncode}")
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url).status_code == 200:
                return
        time.sleep(0.5)
    raise SystemExit(f"{url} did not answer")


if __name__ == "__main__":
    sys.exit(main())
