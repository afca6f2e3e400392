"""Simulated users ask a real gateway, over the network, and what they leave behind decides the experiment."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from examples.expressway.users import simulate
from images.gateway.app import create_app
from llmops_assets.experiments.analysis import analyse, plan_of
from llmops_assets.experiments.decision import decide
from llmops_assets.specs.deployment import DeploymentSpec
from llmops_assets.specs.policy import load_policy
from llmops_assets.specs.settings import Settings
from resources.catalog import Backend, Catalog
from tests.experiments.traffic import CONTROL, TREATMENT, routes, spec

QUESTIONS = [("통행료는 얼마인가요?", "구간마다 다릅니다."), ("휴게소는 어디에 있나요?", "다음은 20km 앞입니다.")]


@contextmanager
def served(app: Starlette) -> Iterator[str]:
    """`app` on a free port of this machine; gives its address."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started:
        if time.monotonic() > deadline or not thread.is_alive():
            raise RuntimeError("the server did not start within 20 s")
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(20)


def model(answers: dict[str, str]) -> Starlette:
    """A chat completions server that knows some answers by heart."""

    async def chat(request: Request) -> JSONResponse:
        asked = (await request.json())["messages"][-1]["content"]
        text = answers.get(asked, "잘 모르겠습니다.")
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}
        return JSONResponse(
            {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
        )

    return Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[tuple[str, Catalog]]:
    """A gateway in front of a model that knows nothing (control) and one that knows all answers (treatment)."""
    catalog = Catalog(f"sqlite:///{tmp_path}/catalog.db")
    deployment = {
        "model_ref": CONTROL,
        "model_family": "llama",
        "job_type": "SFT",
        "serve_target": "GENERATION",
        "endpoint": "desk",
        "environment": "dev",
        "resources": {"gpus": 0},
    }
    catalog.want_endpoint(DeploymentSpec.model_validate(deployment))
    with served(model({})) as ignorant, served(model(dict(QUESTIONS))) as knowing:
        for backend, ref, url in (("b-control", CONTROL, ignorant), ("b-treatment", TREATMENT, knowing)):
            catalog.add_backend(
                Backend(
                    id=backend,
                    endpoint="desk",
                    model_ref=ref,
                    model_path="unused",
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
        # The salt is drawn anew for an endpoint, and one in twenty draws a split that a promotion would wait with.
        with catalog.database.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE endpoints SET salt = 'desk'")
        catalog.set_routes("desk", routes())
        catalog.create_experiment(spec(rating_window_hours=0.5))
        with served(
            create_app(catalog, lambda text: text, settings=Settings(home=tmp_path, _env_file=None))
        ) as gateway:
            yield gateway, catalog


def test_what_users_meet_decides_the_experiment(desk: tuple[str, Catalog]) -> None:
    url, catalog = desk
    seen: list[tuple[int, int]] = []
    summary = simulate(
        url, "desk", QUESTIONS, users=540, questions_per_user=3, seed=5, progress=lambda *at: seen.append(at)
    )
    assert (summary.requests, summary.failed, summary.first_error) == (1620, 0, None)
    assert seen[-1] == (1620, 1620)
    assert 0.4 < summary.right / summary.requests < 0.6
    assert 0.8 < summary.rated / summary.requests < 1.0

    deadline = time.monotonic() + 20
    while catalog.exposure_count(experiment="base-or-tuned") < summary.requests:
        assert time.monotonic() < deadline, "the gateway did not log every request within 20 s"
        time.sleep(0.05)
    experiment = catalog.experiment("base-or-tuned")
    analysis = analyse(
        catalog.exposures(experiment="base-or-tuned"),
        catalog.feedback(experiment="base-or-tuned"),
        plan_of(experiment.spec, load_policy().experiments, experiment.started_at),
        catalog.phases("desk"),
        datetime.now(UTC) + timedelta(hours=1),
    )
    assert sum(a.requests for a in analysis.arms) == summary.requests
    assert (analysis.inconstant_users, analysis.foreign_ratings) == (0, 0)
    control, treatment = analysis.arms
    assert control.mean_rating < 2.5 < 4 < treatment.mean_rating
    decision = decide(analysis)
    assert decision.outcome == "promote", decision.reason


def test_the_same_seed_brings_the_same_users(desk: tuple[str, Catalog]) -> None:
    url, _ = desk
    first, again = (simulate(url, "desk", QUESTIONS, users=20, questions_per_user=2, seed=9) for _ in range(2))
    assert (first.right, first.rated, first.mean_rating) == (again.right, again.rated, again.mean_rating)


def test_errors_are_counted_and_told() -> None:
    summary = simulate("http://127.0.0.1:1", "desk", QUESTIONS, users=2, questions_per_user=2, timeout=5)
    assert (summary.requests, summary.failed, summary.rated) == (4, 4, 0)
    assert "Connect" in (summary.first_error or "")
    assert summary.latency_p50_ms is None


def test_users_without_questions_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one question"):
        simulate("http://127.0.0.1:1", "desk", [], users=1, questions_per_user=1)
