"""A full disk is told as the platform's trouble, with what to do, and never as a fault of what was sent."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from starlette.testclient import TestClient

from images.console import problems, uploads


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    app = FastAPI()
    problems.install(app)

    @app.post("/files")
    async def files(request: Request) -> list[str]:
        return await uploads.receive(request, tmp_path, 1_000_000)

    @app.post("/full")
    def full() -> None:
        with open("/dev/full", "wb", buffering=0) as file:
            file.write(b"x")

    return TestClient(app, raise_server_exceptions=False)


def test_an_upload_that_does_not_fit_is_no_fault_of_its_body(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_file: int, _data: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(uploads.os, "write", full)
    answer = client.post("/files", files={"files": ("rows.jsonl", b"{}\n")})
    assert answer.status_code == 503 and "a disk of the platform is full" in answer.json()["detail"]
    assert answer.headers["retry-after"] == "60"


def test_what_is_no_multipart_body_still_is_the_callers_fault(client: TestClient) -> None:
    answer = client.post("/files", content=b"no part", headers={"content-type": "multipart/form-data; boundary=x"})
    assert answer.status_code == 400


def test_a_device_without_space_is_told_of_any_route(client: TestClient) -> None:
    assert client.post("/full").status_code == 503
