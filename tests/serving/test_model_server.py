"""Model servers as real processes: what they answer, that they outlive us, and that only what is gone is forgotten."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from images.ask import generate
from llmops_assets.records.jobs import GenerateJob
from resources.backends import processes, reconcile
from resources.catalog import Catalog
from resources.model_server import EngineMissing, ModelServers, ServerError
from tests.serving.conftest import backend, deployment_spec, until

QUESTIONS = [
    "통행료는 얼마인가요?",
    "hi",
    "하이패스 단말기를 잃어버렸어요. " * 4,
    "환불",
    "a b c",
    "휴게소는 어디에 있나요?",
]


def ask(url: str, content: str, **more) -> dict:
    body = {"messages": [{"role": "user", "content": content}], **more}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def evaluated(model: Path, questions: list[str], folder: Path, tokens: int) -> list[dict]:
    """The answers that the evaluation's worker gives."""
    prompts, output = folder / "prompts.jsonl", folder / "answers.jsonl"
    rows = [{"id": str(i), "messages": [{"role": "user", "content": q}]} for i, q in enumerate(questions)]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    job = {"model_dir": str(model), "prompts_file": str(prompts), "output_file": str(output), "max_new_tokens": tokens}
    generate.run(GenerateJob.model_validate(job))
    return [json.loads(line) for line in output.read_text().splitlines()]


def test_a_served_model_gives_the_answers_of_its_evaluation(
    models: dict[str, Path], servers: ModelServers, tmp_path: Path
):
    # Its folder asks for sampling and a penalty, which the evaluation sets aside.
    expected = evaluated(models["qwen"], QUESTIONS, tmp_path, tokens=40)
    running = servers.start(backend("b1", path=models["qwen"]))
    servers.wait_healthy(running)
    # All at once, as one batch of the server.
    with ThreadPoolExecutor(len(QUESTIONS)) as pool:
        served = list(pool.map(lambda q: ask(running.url, q, max_tokens=40, temperature=1.0), QUESTIONS))
    # For Qwen `transformers serve` parses the answer, which strips it.
    assert [s["choices"][0]["message"]["content"].strip() for s in served] == [e["text"].strip() for e in expected]
    assert [s["usage"]["prompt_tokens"] for s in served] == [e["prompt_tokens"] for e in expected]
    assert [s["usage"]["completion_tokens"] for s in served] == [e["tokens"] for e in expected]
    assert len({e["text"] for e in expected}) > 1

    # A request that does not fit is refused and hurts nobody.
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask(running.url, "가나다라 " * 2000)
    assert refused.value.code == 400
    assert "takes 512: shorten" in json.load(refused.value)["detail"]
    # An answer is cut at the endpoint's limit, whatever was asked for.
    assert ask(running.url, "hi", max_tokens=5000)["usage"]["completion_tokens"] <= 64
    assert servers.health(running) == "ok"


def test_a_server_outlives_its_starter_and_is_kept_running_until_nobody_routes_to_it(
    models: dict[str, Path], servers: ModelServers, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LLMOPS_HF_TOKEN", "hf_secret")
    starter = (
        "import sys; from tests.serving.conftest import backend; from llmops_assets.specs.policy import load_policy;"
        "from resources.catalog import Catalog; from resources.model_server import ModelServers;"
        "s = ModelServers(Catalog(sys.argv[1]), sys.argv[2], policy=load_policy().serving, threads=1);"
        "s.start(backend('b1', path=sys.argv[3]))"
    )
    subprocess.run([sys.executable, "-c", starter, catalog.url, str(servers.state_dir), str(models["old"])], check=True)
    running = catalog.backend("b1")
    assert running.state == "starting"
    assert os.getsid(running.pid) == running.pid
    assert servers.wait_healthy(running).tokens > 0
    assert catalog.backend("b1").state == "healthy"
    # Started under its id again, it is the same process.
    assert servers.start(backend("b1", path=models["old"])).pid == running.pid
    # None of our secrets is in its environment.
    assert "hf_secret" not in psutil.Process(running.pid).environ().values()

    # Killed, it is started again, because an endpoint routes to it.
    catalog.want_endpoint(deployment_spec())
    catalog.set_routes("desk", [{"backend_id": "b1", "model_ref": "desk@1", "weight": 100}])
    assert servers.reconcile() == []
    os.kill(running.pid, signal.SIGKILL)
    until(lambda: servers.health(running) == "gone")
    # Looked after without waiting, as something does that has more to look after.
    assert servers.reconcile(wait=False) == ["started b1 of desk again: it was gone"]
    second = catalog.backend("b1")
    assert second.state == "starting"
    until(lambda: servers.reconcile(wait=False) == [] and catalog.backend("b1").state == "healthy", 120)
    assert second.pid != running.pid
    # The platform goes down: the process ends, the record stays, without an address that another might take.
    assert servers.suspend() == []
    stopped = catalog.backend("b1")
    assert (stopped.state, stopped.url, stopped.pid) == ("stopped", "", None)
    assert not servers.alive(second)
    # Of an endpoint that a deployment is at work on, what nothing routes to yet is left alone.
    catalog.set_routes("desk", [])
    with servers.exclusively("desk"):
        other = ModelServers(catalog, servers.state_dir, policy=servers.policy, threads=1)
        assert other.reconcile() == ["started b1 of desk again: it was gone"]
        assert (catalog.backend("b1").wanted, catalog.backend("b1").state) == ("running", "healthy")
    catalog.update_endpoint("desk", state="deleting")
    assert servers.reconcile() == ["stopped b1, which desk does not route to", "removed endpoint desk"]
    assert catalog.endpoints() == []
    servers.stop("b1")


def test_a_process_that_was_given_the_id_of_a_server_is_not_killed(servers: ModelServers, catalog: Catalog):
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        started = psutil.Process(stranger.pid).create_time() - 3600
        catalog.add_backend(backend("b1", pid=stranger.pid, pid_started=started))
        assert servers.health(catalog.backend("b1")) == "gone"
        servers.stop("b1")
        assert catalog.backends() == []
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_server_that_does_not_end_stays_on_record_and_is_stopped_again(
    servers: ModelServers, catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
    mark = {processes.MARK: servers.local.mark("b1")}
    process = subprocess.Popen([sys.executable, "-c", deaf], env=os.environ | mark, stdout=subprocess.PIPE)
    process.stdout.readline()
    servers.local.children.add(process)
    started = psutil.Process(process.pid).create_time()
    catalog.want_endpoint(deployment_spec())
    catalog.add_backend(backend("b1", pid=process.pid, pid_started=started))
    servers.policy = servers.policy.model_copy(update={"stop_timeout_seconds": 0.3})
    monkeypatch.setattr(reconcile, "KILL_SECONDS", 0.3)
    kill = processes.send
    monkeypatch.setattr(processes, "send", lambda p, number: None if number == signal.SIGKILL else kill(p, number))
    with pytest.raises(ServerError, match=f"process {process.pid} is still there"):
        servers.stop("b1")
    assert catalog.backend("b1").state == "stopping"
    assert process.poll() is None
    # The next time SIGKILL works: reconciling retries what no endpoint routes to.
    monkeypatch.setattr(processes, "send", kill)
    assert servers.reconcile() == ["stopped b1, which desk does not route to"]
    assert catalog.backends() == []
    assert process.wait(5) == -signal.SIGKILL


def test_a_server_that_cannot_start_says_why(
    models: dict[str, Path], servers: ModelServers, catalog: Catalog, tmp_path: Path
):
    with pytest.raises(ServerError, match="no model folder"):
        servers.start(backend("b1", path=tmp_path))
    with pytest.raises(EngineMissing, match="make engines"):
        servers.start(backend("b2", path=models["old"], engine="vllm"))
    assert catalog.backends() == []
