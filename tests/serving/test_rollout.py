"""Rollouts with real model servers behind the real gateway, while users keep asking."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest
from openai import OpenAI, OpenAIError

from llmops_assets.serving.rollout import Outcome, RolloutFailed, Target, carry_out, plan, shares
from resources.catalog import Catalog
from resources.content import content_hash
from resources.gateway import GatewayAdmin
from resources.model_server import ModelServers
from tests.serving.conftest import RunningGateway, deployment_spec, until


class Users:
    """Users who ask the endpoint one after the other, and remember which answer each got and what failed."""

    def __init__(self, gateway: RunningGateway) -> None:
        self.client = OpenAI(base_url=f"{gateway.url}/v1", api_key="unused", max_retries=0, timeout=30)
        self.answers: dict[str, list[str]] = {}
        self.faults: list[str] = []
        self.asked = 0
        self.leave = threading.Event()

    def ask(self, user: str, *, stream: bool = False) -> str:
        question = [{"role": "user", "content": "통행료는 얼마인가요?"}]
        if not stream:
            answer = self.client.chat.completions.create(model="desk", messages=question, user=user, max_tokens=12)
            return answer.choices[0].message.content
        chunks = self.client.chat.completions.create(
            model="desk", messages=question, user=user, max_tokens=12, stream=True
        )
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)

    def keep_asking(self) -> None:
        while not self.leave.is_set():
            user = f"user-{self.asked % 40}"
            try:
                self.answers.setdefault(user, []).append(self.ask(user))
            except OpenAIError as error:
                self.faults.append(str(error))
            self.asked += 1
            self.leave.wait(0.02)


@contextmanager
def asking(users: Users) -> Iterator[None]:
    thread = threading.Thread(target=users.keep_asking)
    users.leave.clear()
    thread.start()
    try:
        yield
    finally:
        users.leave.set()
        thread.join(60)


def test_models_come_and_go_and_no_user_notices(
    models: dict[str, Path],
    catalog: Catalog,
    servers: ModelServers,
    start_gateway: Callable[..., RunningGateway],
    tmp_path: Path,
):
    running = start_gateway()
    gateway, users, said = running.admin(catalog), Users(running), []
    # The gateway of another installation at our address would never follow.
    foreign = start_gateway(Catalog(f"sqlite:///{tmp_path / 'foreign.db'}"))
    deaf = foreign.admin(catalog, follow_seconds=0.5)
    endpoint = catalog.want_endpoint(deployment_spec())

    def deploy(name: str, path: Path, share: int = 100, gateway: GatewayAdmin = gateway) -> Outcome:
        runtime = {"max_input_tokens": 512, "max_output_tokens": 64, "device": "cpu", "dtype": "float32"}
        digest = content_hash(path) if path.is_dir() else name
        target = Target("desk", f"{name}@1", str(path), digest, "transformers", runtime, share=share)
        with servers.exclusively("desk"):
            routes, known = catalog.endpoint("desk").routes, [b.id for b in catalog.backends("desk")]
            return carry_out(
                target, plan(target, routes, known), catalog=catalog, servers=servers, gateway=gateway, say=said.append
            )

    first = deploy("old", models["old"])
    assert (first.phase, first.reused, shares(first.routes)) == (1, False, {"old@1": 100})
    assert first.startup_seconds > 0 < first.answer.tokens
    old_answer = users.ask("user-0")
    # Streamed, what is no valid UTF-8 at the end of random bytes does not arrive.
    assert old_answer.startswith(users.ask("user-0", stream=True)[:3])

    broken = tmp_path / "broken"
    broken.mkdir()
    for file in models["new"].iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    (broken / "model.safetensors").write_bytes(b"no weights")
    with asking(users):
        # A model that does not answer changes nothing for anybody, and leaves nothing behind.
        with pytest.raises(RolloutFailed, match=r"its traffic is as before: the model server desk-.* ended") as told:
            deploy("broken", broken)
        assert "server.log ends with" in str(told.value)
        assert "safetensors" in str(told.value)
        assert catalog.endpoint("desk").routes == first.routes
        assert [b.model_ref for b in catalog.backends("desk")] == ["old@1"]

        canary = deploy("new", models["new"], share=50)
        assert shares(canary.routes) == {"old@1": 50, "new@1": 50}
        seen = users.asked
        until(lambda: users.asked > seen + 80, 60)
        assert {answers[-1] == old_answer for answers in users.answers.values()} == {True, False}

        with pytest.raises(RolloutFailed, match="Does it belong to another installation"):
            deploy("new", models["new"], gateway=deaf)
        assert catalog.endpoint("desk").routes == canary.routes

        # The new model for everybody: it runs already, so only the routes change and the old one goes.
        after = deploy("new", models["new"])
        assert after.reused
        assert [b.model_ref for b in catalog.backends("desk")] == ["new@1"]
        seen = users.asked
        until(lambda: users.asked > seen + 45, 60)
        assert old_answer not in {answers[-1] for answers in users.answers.values()}

        # And back: deploying the model before.
        back = deploy("old", models["old"])
        assert shares(back.routes) == {"old@1": 100}
        seen = users.asked
        until(lambda: users.asked > seen + 45, 60)
        assert {answers[-1] for answers in users.answers.values()} == {old_answer}
    assert users.faults == []
    assert back.left == after.left == []
    # Nobody changed sides within a phase.
    until(lambda: catalog.request_count(endpoint="desk") == users.asked + 2)
    met = catalog.exposures(endpoint="desk").group_by("phase", "user").agg(models=pl.col("model_ref"))
    assert met["models"].list.n_unique().max() == 1
    assert set(catalog.exposures(endpoint="desk")["status"]) == {200}
    assert catalog.phases("desk").keys() >= {1, canary.phase, after.phase, back.phase}
    assert endpoint.name in {e.name for e in catalog.endpoints()}
