"""A canary in each secret: it is in no process list, log, answer, error, catalog or file, however things go wrong."""

import base64
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import dagster as dg
import httpx
import pytest
from typer.testing import CliRunner

from images.gateway.access.mode import AccessMisconfigured, access_of
from llmops_assets.cli import app, common
from llmops_assets.local.stack import REPOSITORY, free_port, prepare_home
from llmops_assets.operations.api_keys import KeyWish, create_key
from llmops_assets.operations.datasets import register_dataset
from llmops_assets.operations.users import create_user
from llmops_assets.specs.dataset import DatasetSpec
from llmops_assets.specs.settings import Settings
from llmops_assets.wiring import Wiring
from resources.catalog import Catalog
from resources.encryption import EncryptionError, Keyring
from tests.datasets.test_graph import materialise, rows


def canary(name: str) -> str:
    return f"canary{name}{secrets.token_hex(12)}"


PLANTED = {
    "LLMOPS_ENCRYPTION_KEY": secrets.token_hex(32),
    "LLMOPS_WATERMARK_KEY": secrets.token_hex(32),
    "LLMOPS_JWT_SECRET": canary("jwt") * 2,
    "LLMOPS_GATEWAY_ADMIN_TOKEN": canary("admin"),
    "LLMOPS_QDRANT_API_KEY": canary("qdrant"),
    "LLMOPS_OIDC_CLIENT_SECRET": canary("oidc"),
    "LLMOPS_API_KEY": canary("api"),
    "LLMOPS_PSEUDONYM_KEY": canary("pseudonym"),
    "LLMOPS_LLM_KEY": canary("llm"),
}
STORE = canary("store")
PASSWORD, WRONG = canary("password"), canary("wrong")


class Evidence:
    """Whatever came out of the platform, by where it was seen."""

    def __init__(self) -> None:
        self.seen: dict[str, bytes] = {}
        self.secrets: dict[str, str] = {**PLANTED, "store": STORE, "password": PASSWORD, "wrong password": WRONG}

    def add(self, where: str, what: str | bytes) -> None:
        self.seen[where] = self.seen.get(where, b"") + (what.encode() if isinstance(what, str) else what)

    def folder(self, root: Path) -> None:
        for path in root.rglob("*"):
            if path.is_file():
                self.add(str(path.relative_to(root)), path.read_bytes())

    def leaks(self) -> list[str]:
        forms = {
            f"{name} {kind}": form
            for name, text in self.secrets.items()
            for kind, form in (
                ("as it is", text.encode()),
                ("in base64", base64.b64encode(text.encode())[:-4]),
                ("in hex", text.encode().hex().encode()),
                ("quoted", quote(text, safe="").encode()),
                ("as bytes", bytes.fromhex(text) if len(text) == 64 else text.encode()),
            )
        }
        return [
            f"{name} in {where}" for where, data in self.seen.items() for name, form in forms.items() if form in data
        ]


def processes(evidence: Evidence) -> None:
    """What every user of the machine sees of every process."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                evidence.add("process list", (folder / "cmdline").read_bytes() + b"\n")
            except OSError:
                continue


@pytest.fixture
def evidence() -> Evidence:
    return Evidence()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LLMOPS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LLMOPS_JWT_ISSUER", "https://login.example")
    monkeypatch.setenv("LLMOPS_JWT_AUDIENCE", "llmops")
    monkeypatch.setenv("LLMOPS_GATEWAY_STORE_URL", f"redis://:{STORE}@127.0.0.1:{free_port('127.0.0.1')}/0")
    monkeypatch.chdir(tmp_path)
    prepare_home(Settings())
    common.wiring.cache_clear()
    yield tmp_path / "home"
    common.wiring.cache_clear()


def test_no_secret_leaves_its_place_however_things_go(home: Path, evidence: Evidence, tmp_path: Path):
    wiring = Wiring(Settings())
    create_user(wiring, "root", "kim", ["admin"], PASSWORD)
    _, key = create_key(wiring, "root", KeyWish("kim", role="admin"))
    evidence.secrets["API key"] = key
    _ingest(wiring, tmp_path, evidence)
    gateway, console = free_port("127.0.0.1"), free_port("127.0.0.1")
    started = [
        _start("images.gateway", gateway, "--port", str(gateway), log=home / "logs" / "gateway.log"),
        _start("images.console", console, "--port", str(console), log=home / "logs" / "console.log"),
    ]
    try:
        _ask_gateway(f"http://127.0.0.1:{gateway}", f"http://127.0.0.1:{gateway + 1}", key, evidence)
        evidence.secrets["session"] = _ask_console(f"http://127.0.0.1:{console}", key, evidence)
        processes(evidence)
    finally:
        for process in started:
            process.terminate()
            process.wait(60)
    for command in (["settings"], ["settings", "--json"], ["key", "list"], ["user", "list"], ["audit", "list"],
                    ["keys", "status"], ["watermark", "show"], ["usage"], ["model", "list"]):  # fmt: skip
        done = CliRunner().invoke(app, command)
        evidence.add(f"llmops {' '.join(command)}", done.output + repr(done.exception))
    evidence.folder(home)
    assert len(evidence.seen) > 20 and any(name.endswith("catalog.db") for name in evidence.seen)
    assert evidence.leaks() == []
    # What was planted would be found: it is where it may be.
    evidence.add("environment", json.dumps(dict(os.environ)))
    assert len({leak.partition(" ")[0] for leak in evidence.leaks()}) >= len(PLANTED)


def _ingest(wiring: Wiring, folder: Path, evidence: Evidence) -> None:
    """A dataset in Dagster, with its log and its storage in the home."""
    source = folder / "desk.jsonl"
    source.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows(40)), encoding="utf-8")
    spec = DatasetSpec.model_validate(
        {"name": "desk", "version": "v1", "type": "sft_pair", "schema_ref": "sft_pair@1", "files": [str(source)],
         "owner": "data", "description": "made for a test"}
    )  # fmt: skip
    register_dataset(wiring, "root", spec, [str(source)])
    house = {name: getattr(wiring, name) for name in ("artifacts", "store", "records", "catalog", "policy")}
    with dg.DagsterInstance.local_temp(str(wiring.settings.dagster_home)) as instance:
        done = materialise(house, spec.key, instance)
        evidence.add("events", "\n".join(str(event) for event in done.all_events))


def _start(module: str, port: int, *arguments: str, log: Path) -> subprocess.Popen[bytes]:
    log.parent.mkdir(exist_ok=True)
    with open(log, "wb") as out:
        command = [sys.executable, "-m", module, *arguments]
        process = subprocess.Popen(command, stdout=out, stderr=out, cwd=REPOSITORY)
    deadline = time.monotonic() + 120
    while True:
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
        try:
            httpx.get(f"http://127.0.0.1:{port}/", trust_env=False)
            return process
        except httpx.HTTPError:
            time.sleep(0.05)


def _ask_gateway(url: str, admin: str, key: str, evidence: Evidence) -> None:
    body = {"model": "desk", "messages": [{"role": "user", "content": "hi"}]}
    with httpx.Client(trust_env=False, timeout=60) as client:
        for credential in ("x", key, key[:-1], "a.b.c", PLANTED["LLMOPS_GATEWAY_ADMIN_TOKEN"], ""):
            answer = client.post(
                f"{url}/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {credential}".strip()}
            )
            evidence.add("gateway", f"{answer.status_code} {answer.headers} {answer.text}")
        for path in ("/readyz", "/healthz", "/metrics", "/v1/models", "/nothing"):
            evidence.add("gateway", client.get(f"{url}{path}", headers={"Authorization": f"Bearer {key}"}).text)
        for token in ("wrong", PLANTED["LLMOPS_GATEWAY_ADMIN_TOKEN"]):
            for path in ("/metrics", "/admin/routes", "/nothing"):
                evidence.add("gateway", client.get(f"{admin}{path}", headers={"Authorization": f"Bearer {token}"}).text)


def _ask_console(url: str, key: str, evidence: Evidence) -> str:
    """Asks it for what is right and what is wrong; the secret of the session, which the browser alone may have."""
    with httpx.Client(base_url=url, trust_env=False, timeout=60, headers={"Origin": url}) as client:
        for name, password in (("kim", WRONG), (WRONG, PASSWORD), ("kim", PASSWORD)):
            answer = client.post("/login", data={"name": name, "password": password})
            evidence.add("console", answer.text)
        session = client.cookies["llmops-session"]
        for headers in ({}, {"Authorization": f"Bearer {key}"}, {"Authorization": f"Bearer {key[:-1]}"}):
            for path in ("session", "openapi.json", "audit", "usage", "catalog/datasets", "catalog/models/none@1"):
                evidence.add("console", client.get(f"/llm-ops/v1/{path}", headers=headers).text)
            for body in ({}, {"name": "desk", "version": "v1", "type": "sft_pair"}, {"password": 1}):
                evidence.add("console", client.post("/llm-ops/v1/catalog/datasets", json=body, headers=headers).text)
        return session


def test_a_wrong_secret_is_not_in_the_error_about_it(home: Path, evidence: Evidence, monkeypatch: pytest.MonkeyPatch):
    def told(name: str, value: str, ask) -> None:
        with monkeypatch.context() as patched:
            patched.setenv(name, value)
            with pytest.raises((ValueError, EncryptionError, AccessMisconfigured, SystemExit, OSError)) as error:
                ask(Settings())
        evidence.add(name, f"{error.value}{error.value!r}")

    short = canary("s")[:20]
    evidence.secrets["short"] = short
    told("LLMOPS_ENCRYPTION_KEY", f"{short}{short}", Keyring.of_settings)
    told("LLMOPS_JWT_SECRET", short, lambda found: access_of(found, Wiring(found).policy.access))
    told("LLMOPS_GATEWAY_STORE_URL", f"http://:{short}@x", lambda found: access_of(found, Wiring(found).policy.access))
    told("LLMOPS_RUNNER", "no such runner", lambda _found: None)
    told("LLMOPS_GATEWAY_WORKERS", f"{short}", lambda _found: None)
    assert len(evidence.seen) == 5 and all(evidence.seen.values())
    assert evidence.leaks() == []


def test_a_database_that_does_not_answer_is_named_without_its_password(evidence: Evidence, monkeypatch, tmp_path: Path):
    url = f"postgresql+psycopg://kim:{PASSWORD}@127.0.0.1:{free_port('127.0.0.1')}/llmops"
    monkeypatch.setenv("LLMOPS_CATALOG_URL", url)
    monkeypatch.setenv("LLMOPS_HOME", str(tmp_path))
    common.wiring.cache_clear()
    done = CliRunner().invoke(app, ["user", "list"])
    with pytest.raises(Exception) as error:
        Catalog(url).open()
    evidence.add("command", done.output + repr(done.exception))
    evidence.add("catalog", f"{error.value}{error.value!r}{error.getrepr(showlocals=False)}")
    common.wiring.cache_clear()
    assert evidence.leaks() == []
