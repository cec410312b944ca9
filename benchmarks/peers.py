"""Stillhouse's `openai` teacher beside distilabel, and beside what a server can give.

    python benchmarks/peers.py                                 2,000 prompts, three rounds of each
    python benchmarks/peers.py --only endpoint                 the first part; `server`: the second
    python benchmarks/peers.py --prompts 200 --rounds 1        a look

**endpoint.** An endpoint answers every request after 50 ms. Stillhouse is `stillhouse run` of a
`teacher_data` recipe with `max_concurrency: 256`, as one sets it where nothing limits an endpoint,
and all else as it comes. distilabel 1.5.3 is `peer_distilabel.py` in the settings of `SETTINGS`, of
which the quickest counts: the larger a batch, the more it asks at once, and each replica is a
process. Its log is at WARNING: at INFO the present `openai` package has it print a line for every
request. Each run is a process and counts whole, from its start to its end; the settings take turns.
A bare client says first how quick the endpoint is, and the endpoint's own share of a core is
printed. Both cores are everybody's.

**server.** vLLM's OpenAI server with SmolLM2-135M has one core, and clients the other. What it can
give is its rate under a bare client, `asyncio` tasks that each post a request and read its answer,
in the number of `CONCURRENCY` that is quickest on a tenth of the prompts; Stillhouse's
`max_concurrency` is the same. The requests are the same, byte by byte. The rate is output tokens
over the seconds from the first request that reaches the server to the last answer that leaves it,
told by the server itself (`stopwatch.py`), in interleaved pairs. Rows per second of Stillhouse's
whole run, its own start included, are printed beside it. The prefix cache is off: the arms send the
same prompts.

distilabel has an environment of its own, in Stillhouse's cache folder; the script makes it with
`PEER_PACKAGES` where it is not there. By hand, and then named with --peer-python:

    python -m venv FOLDER
    FOLDER/bin/python -m pip install 'distilabel[openai]==1.5.3' openai==3.54.0 datasets==5.2.0 \
        pydantic==2.14.3 requests beautifulsoup4

Prints a line for each part, writes benchmarks/results/peers.json (not after a look), and exits 1
where Stillhouse gives less than 5 times distilabel's rows a second, or the median pair less than
0.98 of what the server can give.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import yaml

from core.ledger import Ledger
from core.models import cache_folder, model_folder
from core.recipe_section import Device
from core.recipe_teachers import EndpointTeacher, Teacher
from core.run import Folder, Run
from core.teacher import Sampling
from pipelines.openai_form import completion_request

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
BARS = {"endpoint": 5.0, "server": 0.98}
PROMPTS, ROUNDS = 2_000, 3
MAX_TOKENS = 8
ANSWER_SECONDS = 0.05
ENDPOINT_CONCURRENCY = 256
SETTINGS = ((50, 1), (500, 1), (2_000, 1), (250, 2), (1_000, 2))
"""distilabel's: rows of a batch, and replicas. The first is what it takes by itself."""
PEER_PACKAGES = (
    "distilabel[openai]==1.5.3",
    "openai==3.54.0",
    "datasets==5.2.0",
    "pydantic==2.14.3",
    "requests",  # these two it imports without asking for them
    "beautifulsoup4",
)
MODEL = "embedded://smollm2-135m-instruct"
CONCURRENCY = (32, 64, 128)
SERVER_ARGUMENTS = (
    "--dtype=float32 --max-model-len=512 --max-num-seqs=32 --block-size=32 --enforce-eager "
    "--no-enable-prefix-caching --disable-uvicorn-access-log --middleware=stopwatch.Stopwatch"
)


def draw_prompts(number: int) -> list[str]:
    """Different prompts of some thirty words."""
    draw = random.Random(0)  # noqa: S311, no secret
    words = "market vote goal virus chip coast budget match clinic phone".split()  # noqa: SIM905
    return [
        f"Say in a few words what this is about: {' '.join(draw.choices(words, k=20))} {place}"
        for place in range(number)
    ]


def ended(command: list[str], folder: Path, **environment: str) -> float:
    """Seconds that a command takes, as a process from its start to its end.

    Raises:
        SystemExit: It fails; with the end of what it printed.
    """
    log = folder / "output.txt"
    with log.open("wb") as stream:
        began = time.monotonic()
        done = subprocess.run(
            command,
            check=False,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**os.environ, "HF_HUB_OFFLINE": "1", **environment},
        )
        seconds = time.monotonic() - began
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{log.read_text()[-3000:]}")
    return seconds


def run_stillhouse(
    prompts: list[str], url: str, model: str, concurrency: int, folder: Path
) -> tuple[float, int]:
    """Seconds of a whole `stillhouse run`, and the output tokens in its ledger."""
    rows = "".join(json.dumps({"question": prompt}) + "\n" for prompt in prompts)
    (folder / "questions.jsonl").write_text(rows)
    teacher = {
        "backend": "openai",
        "model": model,
        "base_url": url,
        "max_concurrency": concurrency,
    }
    sampling = {"max_tokens": MAX_TOKENS, "temperature": 0.0}
    recipe = {
        "name": "peers",
        "method": "teacher_data",
        "inputs": {"file": "questions.jsonl"},
        "teachers": {"far": teacher},
        "ask": {"far": {"prompt": "{{ question }}", "sampling": sampling}},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    where = folder / "run"
    command = [sys.executable, "-m", "stillhouse.command_line", "run"]
    command += [str(folder / "recipe.yaml"), "--run", str(where)]
    seconds = ended(command, folder, PYTHONPATH=str(ROOT))
    run = Run(Folder(str(where)))
    manifest = run.finished_stages()["ask"].manifest()
    assert manifest is not None
    assert manifest.rows == len(prompts), f"{manifest.rows} rows; {manifest.rejected}"
    return seconds, sum(entry.tokens_out for entry in Ledger(run.ledger).entries())


def run_distilabel(
    python: Path, prompts: list[str], url: str, setting: tuple[int, int], folder: Path
) -> float:
    """Seconds of a whole run of distilabel."""
    batch_size, replicas = setting
    file = folder / "instructions.jsonl"
    file.write_text("".join(json.dumps({"instruction": one}) + "\n" for one in prompts))
    command = [str(python), str(BENCHMARKS / "peer_distilabel.py"), "--prompts", str(file)]
    command += ["--base-url", url, "--max-tokens", str(MAX_TOKENS), "--folder", str(folder)]
    command += ["--batch-size", str(batch_size), "--replicas", str(replicas)]
    home = str(folder / "hugging-face")
    seconds = ended(command, folder, HF_HOME=home, DISTILABEL_LOG_LEVEL="WARNING", PYTHONPATH="")
    said = json.loads((folder / "output.txt").read_text().splitlines()[-1])
    assert said == {"rows": len(prompts), "answered": len(prompts)}, said
    return seconds


async def load(url: str, model: str, prompts: list[str], concurrency: int) -> tuple[float, int]:
    """The bare client: seconds from its first request to its last answer, and output tokens."""
    sampling = Sampling(max_tokens=MAX_TOKENS, temperature=0.0)
    endpoint = EndpointTeacher(backend="openai", model=model, base_url=url)
    requests = (completion_request(endpoint, prompt, sampling) for prompt in prompts)
    bodies = iter([json.dumps(request).encode() for request in requests])
    tokens = 0

    async def ask() -> None:
        nonlocal tokens
        for body in bodies:  # shared: each takes the next
            async with session.post(f"{url}/chat/completions", data=body) as response:
                assert response.status == 200, await response.text()
                tokens += (await response.json())["usage"]["completion_tokens"]

    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), headers={"Content-Type": "application/json"}
    ) as session:
        began = time.monotonic()
        await asyncio.gather(*(ask() for _ in range(concurrency)))
        return time.monotonic() - began, tokens


@contextmanager
def late_endpoint() -> Iterator[tuple[str, psutil.Process]]:
    """The endpoint that answers after a while: its address and its process."""
    command = [sys.executable, str(BENCHMARKS / "late_endpoint.py"), str(ANSWER_SECONDS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), psutil.Process(process.pid)
        finally:
            process.terminate()


def beside_distilabel(python: Path, prompts: list[str], rounds: int) -> dict[str, Any]:
    """Whole runs of both, in turns."""
    stillhouse: list[float] = []
    peer: dict[tuple[int, int], list[float]] = {setting: [] for setting in SETTINGS}
    busy = 0.0
    with late_endpoint() as (url, process):
        seconds, _ = asyncio.run(load(url, "late", prompts, ENDPOINT_CONCURRENCY))
        bare = len(prompts) / seconds
        for _ in range(rounds):
            for setting in (None, *SETTINGS):
                before = sum(process.cpu_times()[:2])
                with scratch() as folder:
                    if setting is None:
                        seconds, _ = run_stillhouse(
                            prompts, url, "late", ENDPOINT_CONCURRENCY, folder
                        )
                        stillhouse.append(seconds)
                    else:
                        seconds = run_distilabel(python, prompts, url, setting, folder)
                        peer[setting].append(seconds)
                busy = max(busy, (sum(process.cpu_times()[:2]) - before) / seconds)
                name = setting or "Stillhouse"
                print(f"  {name}: {seconds:.2f} s", file=sys.stderr, flush=True)
    best = min(peer, key=lambda setting: statistics.median(peer[setting]))
    rate = len(prompts) / statistics.median(stillhouse)
    peer_rate = len(prompts) / statistics.median(peer[best])
    found = {
        "prompts": len(prompts),
        "stillhouse_seconds": stillhouse,
        "distilabel_seconds": {f"batches of {b}, replicas {r}": s for (b, r), s in peer.items()},
        "stillhouse_rows_per_second": rate,
        "distilabel_rows_per_second": peer_rate,
        "ratio": rate / peer_rate,
        "bare_client_requests_per_second": bare,
        "endpoint_busy": busy,
    }
    print(
        f"endpoint that answers after {ANSWER_SECONDS * 1000:.0f} ms, {len(prompts):,} prompts, "
        f"whole runs: Stillhouse {rate:,.0f} rows/s, distilabel {peer_rate:,.0f} (batches of "
        f"{best[0]}, replicas {best[1]}; by itself "
        f"{len(prompts) / statistics.median(peer[SETTINGS[0]]):,.0f}): {rate / peer_rate:.1f} "
        f"times; a bare client {bare:,.0f} requests/s; the endpoint was busy {busy:.0%} of a core "
        "at most",
        flush=True,
    )
    return found


@contextmanager
def vllm_server(folder: Path) -> Iterator[str]:
    """Run vLLM's server on its core; this process and what it starts get the other.

    Raises:
        SystemExit: It ends instead of answering; with the end of what it printed.
    """
    from pipelines.engine_start import environment_of  # vLLM's setting for one core; loads Ray

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    model = str(model_folder(MODEL))
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", f"--model={model}"]
    command += ["--served-model-name=smollm2", "--host=127.0.0.1", f"--port={port}"]
    command += SERVER_ARGUMENTS.split()
    engine = environment_of(Teacher(model=MODEL, device=Device(cpus=1)))
    environment = {**os.environ, **engine, "PYTHONPATH": str(BENCHMARKS), "HF_HUB_OFFLINE": "1"}
    log = folder / "server.txt"
    all_cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(all_cores)})
    with (
        log.open("wb") as stream,
        subprocess.Popen(
            command, stdout=stream, stderr=subprocess.STDOUT, env=environment
        ) as process,
    ):
        os.sched_setaffinity(0, {max(all_cores)})
        try:
            while not asyncio.run(healthy(port)):
                if process.poll() is not None:
                    raise SystemExit(f"vLLM's server ended:\n{log.read_text()[-3000:]}")
                time.sleep(1)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            os.sched_setaffinity(0, all_cores)


async def healthy(port: int) -> bool:
    """Whether a server answers."""
    try:
        async with aiohttp.request("GET", f"http://127.0.0.1:{port}/health") as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False


async def lap(url: str) -> dict[str, float]:
    """What the server's stopwatch tells."""
    async with aiohttp.request("GET", f"{url.removesuffix('/v1')}/lap") as response:
        told: dict[str, float] = await response.json()
        return told


def beside_server(prompts: list[str], rounds: int) -> dict[str, Any]:
    """The server's rates under the bare client and under Stillhouse, in pairs."""
    rates: dict[str, list[float]] = {"bare": [], "stillhouse": []}
    whole: list[float] = []

    def bare(asked: list[str], concurrency: int) -> float:
        _, tokens = asyncio.run(load(url, "smollm2", asked, concurrency))
        told = asyncio.run(lap(url))
        assert told["answers"] == len(asked), told
        return tokens / told["seconds"]

    with scratch() as around, vllm_server(around) as url:
        some = prompts[: max(len(prompts) // 10, *CONCURRENCY)]
        bare(some[: CONCURRENCY[0]], CONCURRENCY[0])  # the first pass warms up
        tried = {concurrency: bare(some, concurrency) for concurrency in CONCURRENCY}
        best = max(tried, key=lambda concurrency: tried[concurrency])
        for number in range(rounds):
            for arm in ("bare", "stillhouse") if number % 2 == 0 else ("stillhouse", "bare"):
                if arm == "bare":
                    rates[arm].append(bare(prompts, best))
                else:
                    with scratch() as folder:
                        seconds, tokens = run_stillhouse(prompts, url, "smollm2", best, folder)
                    told = asyncio.run(lap(url))
                    assert told["answers"] == len(prompts), told
                    rates[arm].append(tokens / told["seconds"])
                    whole.append(len(prompts) / seconds)
                print(f"  {arm}: {rates[arm][-1]:.1f} tokens/s", file=sys.stderr, flush=True)
    ratios = [s / b for s, b in zip(rates["stillhouse"], rates["bare"], strict=True)]
    found = {
        "prompts": len(prompts),
        "tokens_per_second": rates,
        "ratios": ratios,
        "ratio": statistics.median(ratios),
        "concurrency": best,
        "bare_tokens_per_second_by_concurrency": tried,
        "whole_run_rows_per_second": whole,
    }
    print(
        f"vLLM's server on one core, {len(prompts):,} prompts, {best} at once: Stillhouse "
        f"{found['ratio']:.3f} of what the server can give (median of {rounds} pairs; "
        f"{statistics.median(rates['bare']):.0f} output tokens/s under the bare client); the whole "
        f"run {statistics.median(whole):.2f} rows/s",
        flush=True,
    )
    return found


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder on the disk that runs are on."""
    (ROOT / "runs").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / "runs") as folder:
        yield Path(folder)


def peer_python() -> Path:
    """The interpreter that has distilabel, made where it is not there yet.

    Raises:
        SystemExit: It cannot be made.
    """
    folder = cache_folder() / "peers" / "distilabel-1.5.3"
    python = folder / "bin" / "python"
    if (folder / "made").exists():
        return python
    print(f"Making distilabel's environment in {folder}", file=sys.stderr, flush=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for command in ([sys.executable, "-m", "venv", str(folder)], [*install, *PEER_PACKAGES]):
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(
                f"distilabel's environment could not be made; {' '.join(command)} said:\n"
                f"{(done.stdout + done.stderr)[-2000:]}"
            )
    (folder / "made").touch()
    return python


def main() -> int:
    """Run the parts, print and write the figures; 1 where a bar does not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--only", choices=BARS, help="one part")
    parser.add_argument("--prompts", type=int, default=PROMPTS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--peer-python", type=Path, help="interpreter that has distilabel")
    options = parser.parse_args()
    prompts = draw_prompts(options.prompts)
    results = BENCHMARKS / "results" / "peers.json"
    found = json.loads(results.read_text()) if results.exists() else {}
    parts = [options.only] if options.only else list(BARS)
    for part in parts:
        if part == "endpoint":
            python = options.peer_python or peer_python()
            found[part] = beside_distilabel(python, prompts, options.rounds)
        else:
            found[part] = beside_server(prompts, options.rounds)
        found[part]["bar"] = found[part]["ratio"] >= BARS[part]
    held = {part: found[part]["bar"] for part in parts}
    print(", ".join(f"bar {p} ({BARS[p]}): {'holds' if h else 'MISSED'}" for p, h in held.items()))
    if options.prompts == PROMPTS and options.rounds >= ROUNDS:
        results.write_text(json.dumps(found, indent=2) + "\n")
    return 0 if all(held.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
