"""The door itself: who may ask, what is carried out once, what is too large, and uploads that break off."""

import ipaddress
import threading
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from images.console import parts
from images.console.__main__ import callers_of, state_of
from images.console.app import create_app
from images.console.callers import Callers, networks
from images.console.once import LARGEST_BODY
from images.console.state import State
from images.console.works import Works
from llmops_assets.local.stack import prepare_home
from llmops_assets.specs.settings import Settings
from llmops_assets.wiring import Wiring
from resources.catalog import Conflict
from tests.console.conftest import HOST, USER
from tests.console.test_documents import DATASET, V1

ROW = b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'


def client_of(wiring, callers: Callers, peer: str = "127.0.0.1", host: str = HOST) -> TestClient:
    return TestClient(create_app(State(wiring, callers, [])), base_url=host, client=(peer, 5))


@pytest.mark.parametrize(
    ("peer", "headers", "status"),
    [
        ("10.0.0.7", USER, 200),
        ("10.0.0.8", USER, 401),
        ("10.0.0.7", {"X-User-Id": "kim"}, 403),
        ("10.0.0.7", {"X-User-Id": "kim", "X-User-Roles": "llm-ops-user-not"}, 403),
        ("10.0.0.7", {}, 401),
        ("not an address", USER, 401),
    ],
)
def test_a_user_is_believed_from_a_trusted_proxy_alone(wiring, peer, headers, status):
    api = client_of(wiring, callers_of(wiring, networks("10.0.0.7/32")), peer)
    response = api.get(f"{V1}/catalog/datasets", headers=headers)
    assert response.status_code == status, response.text
    if status == 401:
        assert response.headers["www-authenticate"] == "Bearer"


def test_a_page_of_another_site_and_a_name_that_points_here_get_nothing(wiring):
    open_here = callers_of(wiring, (), "console")
    assert client_of(wiring, open_here).get(f"{V1}/catalog/datasets").status_code == 200
    evil = {"Origin": "https://evil.example"}
    assert client_of(wiring, open_here).post(f"{V1}/catalog/datasets", json=DATASET, headers=evil).status_code == 403
    rebound = client_of(wiring, open_here, host="http://evil.example:8090")
    assert rebound.get(f"{V1}/catalog/datasets").status_code == 401
    assert wiring.catalog.drafts.datasets() == []


def test_beyond_loopback_somebody_has_to_tell_who_asks(tmp_path):
    settings = Settings(home=tmp_path, _env_file=None)
    with pytest.raises(SystemExit, match="LLMOPS_TRUSTED_PROXIES"):
        state_of(settings, "0.0.0.0")
    behind = state_of(settings.model_copy(update={"trusted_proxies": "10.1.0.0/16"}), "0.0.0.0")
    assert behind.callers.open_to is None and behind.import_roots == []
    assert behind.callers.trusted == [ipaddress.ip_network("10.1.0.0/16")]
    assert state_of(settings, "127.0.0.1").import_roots is None
    with pytest.raises(ValueError, match=r"'10\.1' is no address"):
        networks("10.1")


def test_a_request_under_a_key_is_carried_out_once(api, wiring):
    key = {"Idempotency-Key": "a-1"}
    first = api.post(f"{V1}/catalog/datasets", json=DATASET, headers=key)
    wiring.catalog.drafts.close_dataset(first.json()["id"], "test")
    again = api.post(f"{V1}/catalog/datasets", json=DATASET, headers=key)
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["idempotent-replayed"] == "true" and wiring.catalog.drafts.datasets() == []
    other = api.post(f"{V1}/catalog/datasets", json={**DATASET, "version": "v2"}, headers=key)
    assert other.status_code == 409 and "choose a new one" in other.json()["detail"]
    # A failure is no answer to keep: mended, the same key may be sent again.
    wrong = api.post(f"{V1}/catalog/datasets", json={**DATASET, "type": "x"}, headers={"Idempotency-Key": "b"})
    right = api.post(f"{V1}/catalog/datasets", json={**DATASET, "version": "v3"}, headers={"Idempotency-Key": "b"})
    assert (wrong.status_code, right.status_code) == (422, 201)


def test_a_request_that_is_being_carried_out_is_not_begun_again(wiring):
    assert wiring.catalog.answered.begin("kim", "k", "d") is None
    with pytest.raises(Conflict, match="being carried out"):
        wiring.catalog.answered.begin("kim", "k", "d")
    assert wiring.catalog.answered.begin("lee", "k", "d") is None


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[" * 100_000, 400),
        (b'{"name": ' + b'"' + b"a" * 2_000_000 + b'"}', 413),
        (b'{"name": "\xff"}', 400),
        (b"[]", 422),
        (b"null", 422),
        (b"", 422),
        (b'{"name": "../x", "type": "sft_pair"}', 422),
        (b'{"name": "x", "type": "no_such_type"}', 422),
        (b'{"name": "x", "type": "sft_pair", "surprise": 1}', 422),
    ],
)
def test_a_body_that_cannot_be_used_is_a_problem_and_never_a_fault_of_ours(api, body, status):
    response = api.post(f"{V1}/catalog/datasets", content=body, headers={"content-type": "application/json"})
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == status and response.json()["detail"]


def test_unknown_things_are_named(api):
    for path in ("catalog/datasets/none@v1", "catalog/models/none@1", "training/jobs/none", "serving/endpoints/none"):
        response = api.get(f"{V1}/{path}")
        assert response.status_code == 404 and "none" in response.json()["detail"], response.text
    assert api.get(f"{V1}/operations/op-1").status_code == 404
    assert api.get("/nothing").headers["content-type"] == "application/problem+json"
    assert api.delete(f"{V1}/catalog/datasets").status_code == 405


@pytest.mark.parametrize("name", ["../../evil.jsonl", "..\\..\\evil.jsonl", ".hidden.jsonl", "a/../.x", ""])
def test_the_name_of_an_uploaded_file_leads_nowhere_else(api, wiring, name):
    api.post(f"{V1}/catalog/datasets", json=DATASET)
    response = api.post(f"{V1}/catalog/datasets/{DATASET['name']}@v1.0/upload", files={"files": (name, ROW)})
    home = wiring.settings.root
    if response.status_code == 201:
        assert wiring.artifacts.path("uploads", f"{DATASET['name']}@v1.0", "evil.jsonl").is_file()
    else:
        assert response.status_code in (400, 422), response.text
    assert not (home / "evil.jsonl").exists() and not (home.parent / "evil.jsonl").exists()
    assert list((home / "incoming").iterdir()) == []


def test_a_multipart_body_without_its_end_leaves_nothing(api, wiring):
    api.post(f"{V1}/catalog/datasets", json=DATASET)
    head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.jsonl"\r\n\r\n'
    where = f"{V1}/catalog/datasets/{DATASET['name']}@v1.0/upload"
    kind = {"content-type": "multipart/form-data; boundary=b"}
    response = api.post(where, content=head + ROW * 50, headers=kind)
    assert response.status_code == 400 and list((wiring.settings.root / "incoming").iterdir()) == []
    assert api.post(where, content=b"x", headers={"content-type": "text/plain"}).status_code == 415
    assert wiring.catalog.datasets() == []


def test_a_file_that_broke_off_goes_on_where_it_stood(api, wiring):
    api.post(f"{V1}/catalog/datasets", json=DATASET)
    where = f"{V1}/catalog/datasets/{DATASET['name']}@v1.0/files/rows.jsonl"
    data = ROW * 10
    assert api.put(where, content=data[:100]).headers["upload-offset"] == "100"
    wrong = api.put(where, content=data[50:], headers={"Upload-Offset": "50"})
    assert wrong.status_code == 409 and wrong.headers["upload-offset"] == "100"
    assert api.head(where).headers["upload-offset"] == "100"
    api.put(where, content=data[100:], headers={"Upload-Offset": "100"})
    done = api.post(f"{V1}/catalog/datasets/{DATASET['name']}@v1.0/register")
    assert done.status_code == 201, done.text
    assert wiring.artifacts.path("uploads", f"{DATASET['name']}@v1.0", "rows.jsonl").read_bytes() == data


@pytest.mark.parametrize("kind", [{}, {"content-type": "application/json"}, {"content-type": "text/csv"}])
def test_a_piece_may_be_larger_than_a_body_of_json_whatever_its_type(api, kind):
    api.post(f"{V1}/catalog/datasets", json=DATASET)
    where = f"{V1}/catalog/datasets/{DATASET['name']}@v1.0/files/rows.jsonl"
    data = ROW * (2 * LARGEST_BODY // len(ROW))
    assert api.put(where, content=data, headers=kind).headers["upload-offset"] == str(len(data))
    assert (
        api.post(f"{V1}/catalog/datasets", content=data, headers={"content-type": "application/json"}).status_code
        == 413
    )


def test_what_is_being_uploaded_is_sealed_and_goes_with_who_sent_it(tmp_path: Path, monkeypatch):
    wiring = Wiring(Settings(home=tmp_path / "home", encryption_key="ab" * 32, _env_file=None))
    prepare_home(wiring.settings)
    state = State(wiring, callers_of(wiring, networks("127.0.0.1"), "console"), None, Works(patience=60))
    incoming, data = wiring.settings.root / "incoming", ROW * 20_000
    with TestClient(create_app(state), base_url=HOST, client=("127.0.0.1", 5), headers=USER) as api:
        api.post(f"{V1}/catalog/datasets", json=DATASET)
        where = f"{V1}/catalog/datasets/{DATASET['name']}@v1.0/files/rows.jsonl"
        half = len(data) // 2 + 7
        api.put(where, content=data[:half])
        assert api.put(where, content=data[half:], headers={"Upload-Offset": str(half)}).status_code == 204
        pieces = [path for path in incoming.rglob("*") if path.is_file()]
        assert len(pieces) == 2 and not any(ROW[:20] in path.read_bytes() for path in pieces)
        # A piece that was being written when its process was killed is no piece.
        (pieces[0].parent / f"{len(data):015d}-4.tmp").write_bytes(b"x")
        assert api.head(where).headers["upload-offset"] == str(len(data))
        assert api.post(f"{V1}/catalog/datasets/{DATASET['name']}@v1.0/register").status_code == 201
        stored = wiring.artifacts.path("uploads", f"{DATASET['name']}@v1.0", "rows.jsonl").read_bytes()
        assert wiring.keys.open(stored) == data != stored and list(incoming.iterdir()) == []
        api.put(where, content=data[:100])
        api.put(f"{V1}/catalog/datasets/{DATASET['name']}@v1.0/files/more.jsonl", content=data[:100])
    # What an upload left behind that was killed goes at the next start; pieces, when nobody went on with them.
    (incoming / ".plain-dead").mkdir()
    (incoming / ".plain-dead" / "rows.jsonl").write_bytes(data)
    create_app(state)
    assert len([path for path in incoming.rglob("*") if path.is_file()]) == 2
    monkeypatch.setattr(parts, "KEPT_SECONDS", -1)
    create_app(state)
    assert list(incoming.iterdir()) == []


def test_a_path_of_the_machine_is_read_from_the_named_folders_alone(wiring, tmp_path):
    (tmp_path / "allowed").mkdir()
    (tmp_path / "allowed" / "rows.jsonl").write_bytes(ROW)
    (tmp_path / "secret.jsonl").write_bytes(ROW)
    (tmp_path / "allowed" / "link").symlink_to(tmp_path)
    state = State(
        wiring, callers_of(wiring, networks("127.0.0.1"), "console"), [tmp_path / "allowed"], Works(patience=60)
    )
    with TestClient(create_app(state), base_url=HOST, client=("127.0.0.1", 5), headers=USER) as api:
        for version, path, status in (
            ("v1", tmp_path / "allowed", 201),
            ("v2", tmp_path / "secret.jsonl", 422),
            ("v3", tmp_path / "allowed" / ".." / "secret.jsonl", 422),
            ("v4", tmp_path / "allowed" / "link" / "secret.jsonl", 422),
        ):
            api.post(f"{V1}/catalog/datasets", json={**DATASET, "version": version, "storage_uri": f"file://{path}"})
            done = api.post(f"{V1}/catalog/datasets/{DATASET['name']}@{version}/register")
            assert done.status_code == status, done.text
        assert [entry.spec.version for entry in wiring.catalog.datasets()] == ["v1"]


def test_work_that_takes_long_is_answered_with_a_place_to_look(state):
    state.works.patience = 0.0
    held = threading.Event()
    app = create_app(state)

    @app.app.post("/slow")
    async def slow():
        return await state.works.run(lambda: held.wait(60) and {"done": True}, "/llm-ops/v1/operations", 201)

    with TestClient(app, base_url=HOST, client=("127.0.0.1", 5), headers=USER) as api:
        begun = api.post("/slow")
        assert begun.status_code == 202 and api.get(begun.headers["location"]).json()["status"] == "running"
        held.set()
        deadline = threading.Event()
        for _ in range(600):
            found = api.get(begun.headers["location"])
            if found.status_code == 201:
                break
            deadline.wait(0.05)
        assert (found.status_code, found.json()) == (201, {"done": True})


def test_pages_are_whole_behind_their_cursors(api, wiring):
    for number in range(7):
        api.post(f"{V1}/catalog/datasets", json={**DATASET, "version": f"v{number}"})
    found, cursor = [], None
    while True:
        where = f"{V1}/catalog/datasets?limit=3" + (f"&cursor={cursor}" if cursor else "")
        part = api.get(where).json()
        found += [one["version"] for one in part["items"]]
        # One that is gone meanwhile moves nobody out of the next page.
        if cursor is None:
            wiring.catalog.drafts.close_dataset(f"{DATASET['name']}@v6", "test")
        cursor = part["next_cursor"]
        if cursor is None:
            break
    assert found == [f"v{number}" for number in range(6, -1, -1)]
    assert api.get(f"{V1}/catalog/datasets?cursor=nonsense").status_code == 400


def test_a_key_may_do_what_its_role_may_and_nothing_once_it_is_revoked(wiring):
    def key(role: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {wiring.catalog.api_keys.create('lee', owner=f'a {role}', role=role)[1]}"}

    api = client_of(wiring, callers_of(wiring), "10.9.9.9", "https://llmops.example")
    viewer, scientist, operator = key("viewer"), key("data-scientist"), key("operator")
    refused = api.post(f"{V1}/catalog/datasets", json=DATASET, headers=viewer)
    assert refused.status_code == 403 and "'a viewer' may not do dataset.register as viewer" in refused.json()["detail"]
    assert api.post(f"{V1}/catalog/datasets", json=DATASET, headers=scientist).status_code == 201
    assert wiring.catalog.drafts.datasets()[0].created_by == "a data-scientist"
    assert api.get(f"{V1}/audit", headers=scientist).status_code == 403
    assert api.get(f"{V1}/audit", headers=operator).status_code == 200
    # What may be read may be read by all who have a key; without one, nothing may.
    assert api.get(f"{V1}/catalog/datasets", headers=viewer).status_code == 200
    assert api.get(f"{V1}/catalog/datasets").status_code == 401
    for wrong in ("llmops-", "nothing", "llmops-" + "0" * 12 + "-" + "0" * 64, ""):
        assert api.get(f"{V1}/catalog/datasets", headers={"Authorization": f"Bearer {wrong}"}).status_code == 401
    wiring.catalog.api_keys.revoke("lee", wiring.catalog.api_keys.all()[0].id)
    still = [api.get(f"{V1}/catalog/datasets", headers=h).status_code for h in (viewer, scientist, operator)]
    assert sorted(still) == [200, 200, 401]


def test_roles_of_a_proxy_are_those_of_the_policy_and_others_are_none(wiring):
    callers = callers_of(wiring, networks("10.0.0.7"))

    def roles(words: str, who: Callers = callers, host: str = "llmops.example"):
        headers = {"x-user-id": "kim", "x-user-roles": words, "host": host}
        return who.identify("10.0.0.7", headers).roles

    assert roles("llm-ops-user, approver") == {"approver"}
    assert roles("llm-ops-user") == set() and roles("llm-ops-user, ADMIN, root") == set()
    # On loopback the owner of the machine asks, whatever name is given.
    own = callers_of(wiring, networks("10.0.0.7"), "console")
    assert roles("llm-ops-user", own, "localhost:8090") is None
    assert roles("llm-ops-user, viewer", own, "localhost:8090") == {"viewer"}
