"""What the gateway costs: processor time and latency a request, against the same model server asked directly.

Run it with ``python -m benchmarks.gateway``. The upstream answers a fixed text at once, so all that is measured is the
gateway with its assignment, its masked log and its metrics. Processor time is the figure to compare: it depends least
on what else the machine does; that of the main thread is what one core can answer, the rest masks and writes the log.
With `--litellm FOLDER`, an environment that has `litellm[proxy]`, LiteLLM's proxy is measured beside it: the same
upstream, the same load, one worker, no database.
"""

import argparse
import asyncio
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import numpy as np
import psutil

from llmops_assets.specs.deployment import DeploymentSpec
from resources.catalog import Backend, Catalog

ANSWER = "서울 영업소의 통행료는 1,200원입니다. 하이패스로 내시면 할인을 받으실 수 있습니다."
CHUNKS = 100


async def upstream(port: int) -> None:
    """A model server that has its answer ready, whole or in events."""
    from aiohttp import web

    whole = json.dumps(
        {
            "id": "x",
            "object": "chat.completion",
            "created": 1,
            "model": "model",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 20, "completion_tokens": 30, "total_tokens": 50},
        }
    ).encode()
    event = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "model"}
    chunk = json.dumps({**event, "choices": [{"index": 0, "delta": {"content": "통행료"}, "finish_reason": None}]})

    end = json.dumps({**event, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    last = f"data: {end}\n\ndata: [DONE]\n\n".encode()

    async def chat(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if not body.get("stream"):
            return web.Response(body=whole, content_type="application/json")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for _ in range(CHUNKS):
            await response.write(f"data: {chunk}\n\n".encode())
            # So that each is sent on its own, as tokens are.
            await asyncio.sleep(0)
        await response.write(last)
        return response

    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


async def load(url: str, requests: int, at_once: int, stream: bool) -> np.ndarray:
    """Seconds of each of `requests` requests, `at_once` of them in flight."""
    seconds: list[float] = []
    numbers = iter(range(requests))

    async def one_user(session: aiohttp.ClientSession) -> None:
        for number in numbers:
            body = {"model": "desk", "messages": [{"role": "user", "content": "서울에서 통행료가 얼마인가요?"}]}
            body |= {"user": f"user-{number % 500}", "stream": stream}
            begun = time.perf_counter()
            async with session.post(f"{url}/v1/chat/completions", json=body) as response:
                await response.read()
                assert response.status == 200, await response.text()
            seconds.append(time.perf_counter() - begun)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(one_user(session) for _ in range(at_once)))
    return np.array(seconds)


def prepare(folder: Path, urls: list[str]) -> Catalog:
    """A catalog with the endpoint `desk`, split between two backends."""
    catalog = Catalog(f"sqlite:///{folder / 'catalog.db'}")
    spec = {"model_ref": "desk@1", "model_family": "llama", "job_type": "SFT", "serve_target": "GENERATION"}
    spec |= {"endpoint": "desk", "environment": "dev", "resources": {"gpus": 0}}
    catalog.want_endpoint(DeploymentSpec.model_validate(spec))
    routes = []
    for number, url in enumerate(urls):
        catalog.add_backend(
            Backend(
                id=f"desk-{number}",
                endpoint="desk",
                model_ref=f"desk@{number + 1}",
                model_path="",
                engine="transformers",
                runtime={},
                url=url,
                pid=None,
                pid_started=None,
                state="healthy",
                log_path=None,
                created_at=datetime.now(UTC),
            )
        )
        routes.append({"backend_id": f"desk-{number}", "model_ref": f"desk@{number + 1}", "weight": 50})
    catalog.set_routes("desk", routes)
    return catalog


def wait_for(url: str, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway", description=__doc__)
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--litellm", type=Path, metavar="FOLDER", help="virtual environment with litellm[proxy]")
    parser.add_argument("--upstream", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.upstream:
        asyncio.run(upstream(arguments.upstream))
        return
    # ParsedCompletion to end, it takes its servers with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory() as name:
        folder, ports, admin = Path(name), [free_port() for _ in range(4)], free_port()
        urls = [f"http://127.0.0.1:{port}" for port in ports]
        token = secrets.token_hex(16)
        catalog = prepare(folder, urls[:2])
        environment = os.environ | {"LLMOPS_HOME": name, "LLMOPS_CATALOG_URL": catalog.url}
        environment |= {"LLMOPS_GATEWAY_ADMIN_PORT": str(admin), "LLMOPS_GATEWAY_ADMIN_TOKEN": token}
        commands = [["benchmarks.gateway", "--upstream", str(port)] for port in ports[:2]]
        commands.append(["images.gateway", "--port", str(ports[2])])
        with open(folder / "log", "wb") as log:
            processes = [
                subprocess.Popen([sys.executable, "-m", *command], env=environment, stdout=log, stderr=log)
                for command in commands
            ]
        try:
            for url in urls[:3]:
                wait_for(f"{url}/readyz")
            print(HEAD)
            measure("ours", urls[0], urls[2], psutil.Process(processes[2].pid), arguments.requests)
            if arguments.litellm:
                processes.append(litellm(arguments.litellm, folder, urls[0], ports[3]))
                wait_for(f"{urls[3]}/health/liveliness", 120)
                # It is slower by far: fewer requests say as much.
                process = psutil.Process(processes[3].pid)
                measure("LiteLLM", urls[0], urls[3], process, max(20, arguments.requests // 25))
            written = catalog.request_count(endpoint="desk")
            asked = urllib.request.Request(
                f"http://127.0.0.1:{admin}/metrics", headers={"Authorization": f"Bearer {token}"}
            )
            metrics = urllib.request.urlopen(asked).read().decode()
            dropped = [
                line for line in metrics.splitlines() if line.startswith("llmops_gateway_exposures_dropped_total")
            ]
            print(f"\nlog rows written so far: {written:,}; dropped: {'; '.join(x.split('{')[1] for x in dropped)}")
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(40)


HEAD = (
    "| proxy | requests | at once | direct p50 | p50 | added p50 | added p99 | answered | CPU | of it main thread |"
    "\n|---|---|---|---|---|---|---|---|---|---|"
)


def litellm(environment: Path, folder: Path, upstream: str, port: int) -> subprocess.Popen:
    """Start LiteLLM's proxy with one worker in front of the same upstream, under the same name."""
    model = {"model": "openai/model", "api_base": f"{upstream}/v1", "api_key": "unused"}
    config = folder / "litellm.yaml"
    config.write_text(json.dumps({"model_list": [{"model_name": "desk", "litellm_params": model}]}))
    command = [environment / "bin" / "litellm", "--config", config, "--host", "127.0.0.1", "--port", str(port)]
    # Its list of prices comes from the network otherwise; and it wants to be told that it may run without a key.
    more = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true"}
    with open(folder / "litellm.log", "wb") as log:
        return subprocess.Popen(
            [*command, "--num_workers", "1"], env=os.environ | more, stdout=log, stderr=log, cwd=folder
        )


def processor_seconds(process: psutil.Process) -> tuple[float, float]:
    """What a process and its children have used, and the main thread of it."""
    everyone = [process, *process.children(recursive=True)]
    times = [one.cpu_times() for one in everyone]
    main = next((t for t in process.threads() if t.id == process.pid), None)
    return sum(t.user + t.system for t in times), 0.0 if main is None else main.user_time + main.system_time


def measure(name: str, direct: str, proxy: str, process: psutil.Process, requests: int) -> None:
    """Print a line for each kind of load: alone, at 32 at once, and streams."""
    for stream, at_once, share in ((False, 1, 1.0), (False, 32, 2.0), (True, 8, 0.1)):
        count = max(at_once, int(requests * share))
        asyncio.run(load(proxy, min(200, count), at_once, stream))
        plain = asyncio.run(load(direct, count, at_once, stream))
        before, begun = processor_seconds(process), time.perf_counter()
        through = asyncio.run(load(proxy, count, at_once, stream))
        wall, after = time.perf_counter() - begun, processor_seconds(process)
        cpu, main = ((after[n] - before[n]) / count * 1e6 for n in (0, 1))
        added = {p: (np.percentile(through, p) - np.percentile(plain, p)) * 1e3 for p in (50, 99)}
        kind = f"stream, {CHUNKS} chunks" if stream else "whole"
        a_chunk = f" ({main / CHUNKS:.0f} µs a chunk)" if stream else ""
        print(
            f"| {name} | {kind} | {at_once} | {np.median(plain) * 1e3:.2f} ms | {np.median(through) * 1e3:.2f} ms | "
            f"{added[50]:.2f} ms | {added[99]:.1f} ms | {count / wall:,.0f}/s | {cpu:,.0f} µs | "
            f"{main:,.0f} µs{a_chunk} |"
        )


if __name__ == "__main__":
    main()
