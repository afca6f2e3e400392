"""Faults of what is evaluated, registered and served, which no user may meet."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle, pairwise
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.request import Request, urlopen

import pytest

from benchmarks.chain import deployment_spec
from benchmarks.installation import ACTOR, Installation
from images.serve import engines
from llmops_assets.operations import models
from llmops_assets.serving.parity import differences
from llmops_assets.serving.parity_probe import items_of
from tests.serving.stand_in import answering
from tests.truth.conftest import Finished, fault
from tests.truth.faults import one_bit, with_json, with_template
from tests.truth.table import Row


def served(one: Installation) -> list[str]:
    return [route["model_ref"] for route in one.w.catalog.endpoint("desk").routes]


def folder_of(one: Installation) -> Path:
    return Path(one.w.tracking.model("tiny-desk@1").path)


@pytest.mark.parametrize(
    "change",
    [
        fault("template-of-the-server-differs", with_template("{{ messages }}")),
        fault("config-changed", with_json("config.json", rope_theta=10.0)),
        fault("generation-config-changed", with_json("generation_config.json", eos_token_id=5)),
        fault("weights-changed-before-deployment", one_bit),
    ],
)
def test_a_folder_that_was_changed_after_its_evaluation_is_not_deployed(
    one: Installation, row: Row, change: Callable[[Path], None]
) -> None:
    change(folder_of(one))
    row.assert_stopped(one.deploy(deployment_spec()))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        fault("no-such-version", "missing", {"model_ref": "tiny-desk@7"}),
        fault("another-job-type", "other", {"job_type": "RLHF"}),
        fault("answers-cut-by-the-endpoint", "cut", {"runtime": {"max_input_tokens": 128, "max_output_tokens": 3}}),
    ],
)
def test_a_deployment_of_something_else_leaves_the_users_where_they_are(
    shared: Installation, finished: Finished, row: Row, name: str, changes: dict[str, Any]
) -> None:
    row.assert_stopped(shared.deploy(deployment_spec() | changes))
    assert served(shared) == [finished.chain.model_ref]


@pytest.mark.fault("weights-changed-before-evaluation")
def test_other_weights_than_were_merged_are_not_evaluated(one: Installation, finished: Finished, row: Row) -> None:
    one_bit(folder_of(one))
    row.assert_stopped(one.run(finished.chain.tuned, "evaluation"))


@pytest.mark.fault("weights-changed-before-a-restart")
def test_a_server_is_not_started_again_with_other_weights(one: Installation, row: Row) -> None:
    one_bit(folder_of(one))
    row.assert_says(" ".join(one.w.servers.reconcile()))
    assert not any(one.w.servers.alive(backend) for backend in one.w.catalog.backends("desk"))


@pytest.mark.fault("alias-set-by-hand")
def test_a_version_that_nobody_evaluated_gets_no_users_by_its_alias(
    one: Installation, finished: Finished, row: Row
) -> None:
    # The base's weights, registered and put into production by hand.
    base = one.w.tracking.model("tiny-base@1")
    tags = dict(one.w.tracking.version("tiny-desk@1").tags) | {"content_hash": base.content_hash}
    number = one.w.tracking.register("tiny-desk", base.path, None, tags)
    one.w.tracking.set_alias("tiny-desk", "production", number)
    row.assert_stopped(one.deploy(deployment_spec("tiny-desk@production")))
    assert served(one) == [finished.chain.model_ref]


@pytest.mark.fault("promoted-with-other-weights")
def test_other_weights_than_were_registered_are_not_promoted(one: Installation, row: Row) -> None:
    one_bit(folder_of(one))
    one.w.tracking.delete_alias("tiny-desk", "production")
    with pytest.raises(Exception) as refusal:
        models.promote(one.w, ACTOR, "tiny-desk@1", "staging")
    row.assert_says(str(refusal.value))


SERVED = {"device": "cpu", "dtype": "float32", "max_input_tokens": 128, "max_output_tokens": 32}


@contextmanager
def address_of(*servers: str, unsaid: str | None = None) -> Iterator[str]:
    """An address that somebody else runs: it lists a model, and passes what is asked on to the servers in turn, or to
    `unsaid` where a request says nothing of how to sample."""
    turn = cycle(servers)

    class Passing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(200, b'{"object": "list", "data": [{"id": "theirs", "object": "model"}]}')

        def do_POST(self) -> None:
            asked = self.rfile.read(int(self.headers["content-length"]))
            server = next(turn) if unsaid is None or "temperature" in json.loads(asked) else unsaid
            request = Request(f"{server}{self.path}", asked, {"content-type": "application/json"})
            with urlopen(request, timeout=60) as answer:
                self._answer(answer.status, answer.read())

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nobody reads who asked."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Passing) as passing:
        Thread(target=passing.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{passing.server_port}"
        passing.shutdown()


@pytest.mark.fault("another-model-behind-the-address")
def test_an_address_behind_which_another_model_answers_gets_no_users(
    shared: Installation, finished: Finished, row: Row
) -> None:
    other = shared.w.tracking.model("tiny-other@1")
    running = shared.w.servers.probe_server("theirs", other.ref, other.path, "transformers", SERVED)
    with running as theirs, address_of(theirs.url or "") as url:
        address = {"backend": "url", "url": f"{url}/v1", "model": "model"}
        # Whatever runs there may round otherwise, by which no model becomes another one.
        row.assert_stopped(shared.deploy(deployment_spec(engine="vllm", runtime=address)))
    assert served(shared) == [finished.chain.model_ref]


@pytest.mark.parametrize(
    ("listed", "counts"),
    [
        fault("server-of-fewer-tokens", {"id": "theirs", "max_model_len": 64}, 1 << 30),
        fault("server-that-cuts-prompts", {"id": "theirs"}, 20),
    ],
)
def test_a_server_that_takes_less_than_its_endpoint_promises_gets_no_users(
    shared: Installation, finished: Finished, row: Row, listed: dict[str, Any], counts: int
) -> None:
    with answering(listed, counts) as url:
        lengths = {"max_input_tokens": 128, "max_output_tokens": 32}
        address = {"backend": "url", "url": url, "model": "theirs", **lengths}
        row.assert_stopped(shared.deploy(deployment_spec(engine="vllm", runtime=address)))
    assert served(shared) == [finished.chain.model_ref]


@pytest.mark.right("penalties-of-the-folder")
def test_penalties_that_a_base_came_with_hold_for_nobody_who_did_not_ask_for_them(
    shared: Installation, finished: Finished, tmp_path: Path
) -> None:
    model = shared.w.tracking.model(finished.chain.model_ref)
    folder = Path(shutil.copytree(model.path, tmp_path / "penalised"))
    penalties = {"do_sample": True, "temperature": 3.0, "repetition_penalty": 5.0, "no_repeat_ngram_size": 2}
    with_json("generation_config.json", **penalties)(folder)
    sample = items_of(model, shared.w.records, shared.w.store, most=4)
    with shared.w.servers.probe_server("penalised", model.ref, str(folder), "transformers", SERVED) as backend:
        limit = {"max_tokens": sample.max_new_tokens, "token_ids": True}
        answers = [
            shared.w.servers.complete(backend, asked, tools=tools, **limit) for asked, tools in sample.conversations
        ]
    assert len(answers) == 4 and differences(sample.rows, answers) == []
    lengths = engines.limits({}, 64, 64, engines.Cache())
    command = engines.vllm_command("python", "m", "h", 1, lengths, device="cpu", dtype="auto", drain_seconds=1)
    assert ("--generation-config", "vllm") in pairwise(command)
