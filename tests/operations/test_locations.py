"""Whoever does not own the machine has files read from folders that were named, and from nowhere else."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from llmops_assets.operations import dataset_entries
from llmops_assets.operations.access import Actor
from llmops_assets.operations.errors import Refused
from llmops_assets.operations.locations import checked_location
from llmops_assets.operations.model_entries import enter_model
from llmops_assets.specs.settings import Settings
from llmops_assets.wiring import Wiring

ROW = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that files may be read from, beside a secret that none may."""
    (tmp_path / "import").mkdir()
    (tmp_path / "import" / "desk.jsonl").write_text(ROW)
    (tmp_path / "secret.jsonl").write_text(ROW)
    return tmp_path / "import"


@pytest.mark.parametrize(
    "uri",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://[::ffff:169.254.169.254]/",
        "http://2852039166/",
        "http://127.0.0.1:5000/api",
        "https://rebound.example/desk.jsonl",
        "s3://somebody-elses/desk.jsonl",
        "gs://x/y",
        "ftp://127.0.0.1/x",
        "memory://x",
        "data:,x",
        "github://org:repo@main/x",
        "simplecache::file://{secret}",
        "filecache::{secret}",
        "zip://desk.jsonl::file://{secret}",
        "{import}/desk.jsonl::file://{secret}",
        "FILE://{secret}",
        "File://{secret}",
        "file://{secret}",
        "local://{secret}",
        "file://{import}/../secret.jsonl",
        "{import}/../secret.jsonl",
        "~/secret.jsonl",
        "/proc/self/environ",
        "{import}/link.jsonl",
        "{import}/links",
    ],
)
def test_nothing_else_is_read_for_somebody_else(folder, uri):
    secret = folder.parent / "secret.jsonl"
    (folder / "link.jsonl").symlink_to(secret)
    (folder / "links").mkdir()
    (folder / "links" / "inner.jsonl").symlink_to(secret)
    with pytest.raises(Refused, match="may not be read from here"):
        checked_location(uri.replace("{import}", str(folder)).replace("{secret}", str(secret)), [folder])


def test_what_lies_there_is_read_and_the_owner_of_the_machine_reads_what_they_like(folder):
    (folder / "inside.jsonl").symlink_to(folder / "desk.jsonl")
    for uri in (f"{folder}", f"file://{folder}/desk.jsonl", f"{folder}/inside.jsonl"):
        assert Path(checked_location(uri, [folder])).is_relative_to(folder)
    assert checked_location("s3://bucket/x", None) == "s3://bucket/x"


def test_a_registered_address_is_never_asked_and_a_link_that_comes_later_is_not_followed(folder, tmp_path):
    asked: list[str] = []

    class Inner(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(302)
            self.send_header("Location", "http://169.254.169.254/")
            self.end_headers()

        do_HEAD = do_GET

    server = HTTPServer(("127.0.0.1", 0), Inner)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    wiring, kim = Wiring(Settings(home=tmp_path / "home", _env_file=None)), Actor("kim", ["admin"])
    try:
        for number, uri in enumerate((f"http://127.0.0.1:{server.server_port}/a.jsonl", f"{folder}/desk.jsonl")):
            fields = {"name": "desk", "version": f"v{number}", "type": "sft_pair", "storage_uri": uri}
            dataset_entries.enter_dataset(wiring, kim, {**fields, "owner": "kim", "description": "of a test"})
        with pytest.raises(Refused, match="may not be read from here"):
            dataset_entries.register_stored(wiring, kim, "desk@v0", [folder])
        (folder / "desk.jsonl").unlink()
        (folder / "desk.jsonl").symlink_to(folder.parent / "secret.jsonl")
        with pytest.raises(Refused, match="may not be read from here"):
            dataset_entries.register_stored(wiring, kim, "desk@v1", [folder])
    finally:
        server.shutdown()
        server.server_close()
    assert asked == [] and wiring.catalog.datasets() == []


@pytest.mark.parametrize("uri", ["hf:/etc", "hf:./x", "hf:../x", "hf:~/x", "hf:{outside}", "file:///etc", "/etc"])
def test_a_model_lies_in_a_folder_that_was_named_however_it_is_written(folder, tmp_path, uri):
    wiring = Wiring(Settings(home=tmp_path / "home", _env_file=None))
    with pytest.raises(Refused, match="may not be read from here"):
        enter_model(
            wiring,
            Actor("kim", ["admin"]),
            name="base",
            version="1",
            storage_uri=uri.replace("{outside}", str(tmp_path)),
            family="qwen",
            license=None,
            owner="kim",
            detail={},
            allowed=[folder],
        )
