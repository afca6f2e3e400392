"""The pages without a browser: what they let in, what they say, and in which language."""

import ast
import asyncio
import json
import re
from hashlib import sha256

from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po
from starlette.testclient import TestClient

from images.console.app import create_app
from images.console.limits import Limiter
from images.console.web import i18n, page
from images.console.web.forms import COOKIE
from llmops_assets.operations import alerts
from llmops_assets.specs.dataset import DatasetSpec
from llmops_assets.specs.deployment import DeploymentSpec
from tests.console.conftest import HOST, USER
from tests.console.test_documents import DATASET, enter_and_upload, enter_model, rows  # noqa: F401

PAGES = (
    "/",
    "/catalog/datasets",
    "/catalog/datasets/create",
    "/training/jobs",
    "/training/jobs/submit",
    "/training/experiments",
    "/catalog/models",
    "/catalog/models/create",
    "/catalog/models/compare",
    "/serving/endpoints",
    "/serving/endpoints/deploy",
    "/ab-tests",
    "/ab-tests/create",
    "/reviews",
    "/usage",
    "/audit",
    "/catalog/forget",
)


def token_of(text: str) -> str:
    return re.search(r'name="csrf" value="([0-9a-f]{64})"', text)[1]


def send(api, form: str, fields: dict, to: str | None = None):
    """Fill in the form of a page and send it, as a browser does."""
    shown = api.get(form)
    assert shown.status_code == 200, shown.text
    return api.post(to or form, data={"csrf": token_of(shown.text), **fields}, follow_redirects=False)


def test_every_page_lets_nothing_run_but_its_own_files_and_names_its_controls(api, wiring):
    for path in PAGES:
        shown = api.get(path)
        assert shown.status_code == 200, path
        policy, text = shown.headers["content-security-policy"], shown.text.replace(wiring.settings.mlflow_url, "")
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert not re.search(r'<script(?![^>]*\bsrc="/static/)|\son[a-z]+=|style="|(src|href)="https?:', text), path
        ids = re.findall(r'\bid="([^"]+)"', text)
        assert len(ids) == len(set(ids)), f"two elements of {path} have one id"
        labelled = set(re.findall(r'<label for="([^"]+)"', text))
        for control in re.findall(r"<(?:input|select|textarea)\b[^>]*>", text):
            if 'type="hidden"' not in control and 'type="checkbox"' not in control:
                assert re.search(r'\bid="([^"]+)"', control)[1] in labelled, (path, control)


def test_no_message_lacks_a_korean_translation():
    methods = [("**.py", "python"), ("templates/**.html", "jinja2.ext:babel_extract")]
    options = {"templates/**.html": {"newstyle_gettext": "true", "silent": "false"}}
    keywords = {"_": None, "N_": None, "gettext": None, "ngettext": (1, 2)}
    found = {
        message
        for _, _, message, _, _ in extract_from_dir(page.FOLDER, methods, options_map=options, keywords=keywords)
    }
    assert len(found) > 400
    with open(i18n.LOCALE / "ko.po", "rb") as file:
        catalog = read_po(file, locale="ko")
    translated = {message.id for message in catalog if message.id and message.string and not message.fuzzy}
    assert found - translated == set() and translated - found == set()
    for message in catalog:
        if message.id:
            names = [set(re.findall(r"%\((\w+)\)s", text)) for text in (str(message.id), str(message.string))]
            assert names[0] == names[1], message.id
            # Templates put values into each, whether or not it names one: a lone % would end the page.
            for text in (message.id, message.string):
                for form in text if isinstance(text, tuple) else (text,):
                    assert form % dict.fromkeys(["num", *names[0]], "1")


def test_the_language_is_the_browser_s_until_somebody_chooses(api):
    assert (
        "<h1>데이터셋</h1>" in api.get("/catalog/datasets", headers={"Accept-Language": "en;q=0.4, ko-KR;q=0.9"}).text
    )
    assert "<h1>Datasets</h1>" in api.get("/catalog/datasets", headers={"Accept-Language": "fr, en;q=0.5"}).text
    chosen = api.get("/language/ko?to=/catalog/models", follow_redirects=False)
    assert chosen.headers["location"] == "/catalog/models"
    assert "<h1>모델</h1>" in api.get("/catalog/models", headers={"Accept-Language": "en"}).text
    for elsewhere in ("//example.org/", "https://example.org/", "/\\example.org"):
        answer = api.get("/language/en", params={"to": elsewhere}, follow_redirects=False)
        assert answer.headers["location"] == "/"


def test_vendored_files_are_those_that_were_published_and_come_with_their_licences(api):
    folder = page.FOLDER / "static" / "vendor"
    known = json.loads((folder / "hashes.json").read_text())
    there = {
        file.name: sha256(file.read_bytes()).hexdigest() for file in folder.iterdir() if file.suffix in (".js", ".css")
    }
    assert there == known
    assert (
        "Zero-Clause BSD" in (folder / "htmx-LICENSE.txt").read_text()
        and "MIT" in (folder / "uplot-LICENSE.txt").read_text()
    )
    for name in known:
        shown = api.get(page.asset(f"vendor/{name}"))
        assert shown.status_code == 200 and "immutable" in shown.headers["cache-control"]
    for outside in ("/static/../page.py", "/static/%2e%2e/page.py", "/static/vendor/hashes.json", "/static/none.js"):
        assert api.get(outside).status_code == 404


def test_a_form_is_taken_from_our_own_page_alone(api, model):
    fields = {"name": "base", "version": "1", "family": "llama", "storage_uri": str(model)}
    assert api.post("/catalog/models/create", data=fields).status_code == 403
    token = token_of(api.get("/catalog/models/create").text)
    nonce = api.cookies[COOKIE]
    api.cookies.clear()
    assert api.post("/catalog/models/create", data={**fields, "csrf": token}).status_code == 403
    api.cookies.set(COOKIE, nonce)
    # The token of one user is none of another's.
    other = {"X-User-Id": "lee", "X-User-Roles": "llm-ops-user"}
    assert api.post("/catalog/models/create", data={**fields, "csrf": token}, headers=other).status_code == 403
    elsewhere = {"Origin": "https://example.org"}
    assert api.post("/catalog/models/create", data={**fields, "csrf": token}, headers=elsewhere).status_code == 403
    assert api.post("/catalog/models/create", json={**fields, "csrf": token}).status_code == 415
    done = api.post("/catalog/models/create", data={**fields, "csrf": token}, follow_redirects=False)
    assert (done.status_code, done.headers["location"]) == (303, "/catalog/models/base@1?done=entered")


def test_the_first_page_has_the_alerts_that_there_are_and_somebody_takes_one_on(api, wiring):
    alerts.watch_heartbeat(wiring)
    (alert,) = alerts.list_alerts(wiring, "kim", is_open=True)
    shown = api.get("/").text
    assert "gave no sign" in shown and f'action="/alerts/{alert.id}/ack"' in shown
    viewer = {"X-User-Id": "park", "X-User-Roles": "llm-ops-user,viewer"}
    assert "gave no sign" not in api.get("/", headers=viewer).text
    done = api.post(f"/alerts/{alert.id}/ack", data={"csrf": token_of(shown)}, follow_redirects=False)
    assert (done.status_code, done.headers["location"]) == (303, "/?done=taken_on")
    shown = api.get("/?done=taken_on").text
    assert f'action="/alerts/{alert.id}/ack"' not in shown and "Taken on by" in shown
    alerts.beat(wiring)
    alerts.watch_heartbeat(wiring)
    assert "Nothing is wrong." in api.get("/").text


def test_the_users_of_an_endpoint_are_shown_in_percent_whatever_its_weights_add_up_to(api, wiring):
    about = {"model_ref": "desk-tuned@2", "model_family": "llama", "job_type": "SFT", "resources": {"gpus": 0}}
    spec = DeploymentSpec(endpoint="desk", environment="dev", serve_target="GENERATION", **about)
    wiring.catalog.want_endpoint(spec, "kim")
    arms = [{"backend_id": f"desk-{n}", "model_ref": f"desk-tuned@{n}", "weight": w} for n, w in ((1, 75.0), (2, 25.0))]
    for weights in (arms, [{**arm, "weight": arm["weight"] / 100} for arm in arms]):
        wiring.catalog.set_routes("desk", weights)
        for path in ("/serving/endpoints", "/serving/endpoints/desk"):
            shown = re.sub("<[^>]+>", "", api.get(path).text)
            assert "desk-tuned@1: 75 %" in shown and "desk-tuned@2: 25 %" in shown, path


def test_every_list_and_page_shows_what_was_only_just_entered(api, model, rows):  # noqa: F811
    entered = enter_model(api, model)["id"]
    enter_and_upload(api, rows)
    for path in (*PAGES, f"/catalog/models/{entered}", f"/catalog/models/{entered}/steps"):
        assert api.get(path).status_code == 200, path
    assert entered in api.get("/catalog/models").text


def test_figures_are_written_for_people():
    assert [page.probability(p) for p in (0.0, 1e-9, 0.5, None, float("nan"))] == [
        "< 0.001", "< 0.001", "= 0.500", "= –", "= –",
    ]  # fmt: skip
    assert page.share(1, [{"weight": 1}, {"weight": 3}]) == "25 %" and page.share(0, []) == "–"
    assert page.when(None) == "" and ">1970-01-01 00:00</time>" in page.when(0.0)
    assert page.plainly([{"weight": 50.0, "model": "한글"}]) == '[{"weight": 50.0, "model": "한글"}]'


def test_what_users_write_is_text_on_every_page(api, wiring, rows):  # noqa: F811
    hostile = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    enter_and_upload(api, rows, {**DATASET, "description": hostile, "owner_team": hostile})
    for path in ("/", "/catalog/datasets", "/catalog/datasets/customer-support-dataset@v1.0", "/audit"):
        shown = api.get(path).text
        assert "<script>alert" not in shown and "<img" not in shown
    shown = api.get(f"/catalog/datasets/{hostile.replace('/', '')}")
    assert shown.status_code == 404 and "<script>alert" not in shown.text and "&lt;script&gt;" in shown.text
    assert "<img" not in page.markdown(f"{hostile} ![x](javascript:alert(1)) [x](javascript:alert(1))")


def upload(api, name: str, files: list, **fields):
    token = token_of(api.get("/catalog/datasets/create").text)
    values = {"csrf": token, "name": name, "version": "v1", "type": "auto", **fields}
    return api.post("/catalog/datasets/create", data=values, files=files, follow_redirects=False)


def test_a_file_is_looked_at_before_it_is_registered_and_its_columns_are_mapped(api, wiring):
    lines = [
        "물음,풀이,category",
        *(f"질문 {n}은 무엇인가요? 010-1234-567{n % 10},답 {n}입니다,일반" for n in range(30)),
    ]
    file = ("files", ("desk.csv", "\n".join(lines).encode(), "text/csv"))
    # Nothing tells what these columns are, so it has to be said.
    refused = upload(api, "desk", [file])
    assert refused.status_code == 422 and "choose it" in refused.text and 'value="desk"' in refused.text
    assert wiring.catalog.drafts.datasets() == []
    entered = upload(api, "desk", [file], type="sft_pair")
    assert entered.headers["location"] == "/catalog/datasets/desk@v1/mapping"
    shown = api.get("/catalog/datasets/desk@v1/mapping").text
    assert "0 of the first 30 rows are taken" in shown and "010-1234" not in shown
    mapped = {"type": "sft_pair", "map_question": "물음", "map_answer": "풀이"}
    assert "30 of the first 30 rows are taken" in api.get("/catalog/datasets/desk@v1/mapping", params=mapped).text
    assert wiring.catalog.datasets() == []
    done = send(api, "/catalog/datasets/desk@v1/mapping", mapped)
    assert done.headers["location"] == "/catalog/datasets/desk@v1?done=registered"
    spec: DatasetSpec = wiring.catalog.dataset("desk@v1")
    assert spec.mapping == {"question": "물음", "answer": "풀이"} and spec.type == "sft_pair"
    assert list((wiring.settings.root / "incoming").iterdir()) == []
    assert wiring.catalog.intents.newest("ingest", "desk@v1").requested_by == "kim"


def test_an_upload_that_is_refused_leaves_nothing_and_keeps_what_was_typed(api, wiring):
    file = ("files", ("desk.csv", b"question,answer\nq,a\n", "text/csv"))
    refused = upload(api, "../desk", [file], description="what <b>it</b> is")
    assert refused.status_code == 422
    assert 'value="what &lt;b&gt;it&lt;/b&gt; is"' in refused.text and 'aria-invalid="true"' in refused.text
    assert list((wiring.settings.root / "incoming").iterdir()) == []
    token = {"csrf": "0" * 64, "name": "desk", "version": "v1", "type": "sft_pair"}
    assert api.post("/catalog/datasets/create", data=token, files=[file]).status_code == 403
    assert list((wiring.settings.root / "incoming").iterdir()) == [] and wiring.catalog.drafts.datasets() == []


def test_a_training_is_checked_field_by_field_before_it_is_asked_for(api, wiring, model, rows, monkeypatch):  # noqa: F811
    enter_and_upload(api, rows)
    entered = enter_model(api, model)
    usual = {"dataset": "customer-support-dataset@v1.0", "job_type": "SFT", "method": "lora", "gpus": "0", "lr": "2e-4"}
    usual |= {"batch_size": "4", "num_epochs": "1"}
    page_ = "/training/jobs/submit"

    def faults(**changes) -> set[str]:
        shown = send(api, page_, {**usual, "model": entered["id"], **changes}, to="/training/jobs/check")
        return set(re.findall(r'data-fault="(\w+)"', shown.text))

    # A draft is nothing to start from, and no field is at fault for that.
    drafted = send(api, page_, {**usual, "model": entered["id"]}, to="/training/jobs/check")
    assert "is draft" in drafted.text and faults() == set()
    send(api, "/catalog/models/create", {"status": "approved"}, to=f"/catalog/models/{entered['id']}/status")
    assert faults() == set()
    assert faults(lr="fast") == {"lr"} and faults(lr="7") == {"lr"} and faults(batch_size="0") == {"batch_size"}
    assert faults(lora_rank="4.5") == {"lora_rank"} and faults(model="") == {"model"} and faults(gpus="-1") == {"gpus"}
    assert faults(more="- a") == {"more"} and faults(more="nothing_of_this: 1") == {"more"}
    assert faults(job_type="RLHF") == {"dataset"}
    assert wiring.catalog.training_requests() == []
    again = send(api, page_, {**usual, "model": entered["id"], "lr": "7"})
    assert again.status_code == 422 and 'value="7"' in again.text and wiring.catalog.training_requests() == []
    done = send(api, page_, {**usual, "model": entered["id"], "name": "tuned"})
    place = done.headers["location"]
    assert done.status_code == 303 and place.startswith("/training/jobs/customer-support-dataset@v1.0~tuned-")
    assert wiring.catalog.training_requests()[0].requested_by == "kim"
    shown = api.get(place).text
    assert 'data-state="requested"' in shown or 'data-state="held"' in shown
    ident = place.partition("?")[0]
    # While it waits nothing changes: the page is told all the same that it is being followed, or it would ask anew.
    monkeypatch.setattr("images.console.web.trainings.LONGEST_SECONDS", 0)
    assert api.get(f"{ident}/events").text.rstrip().endswith("event: alive\ndata: {}")
    assert send(api, page_, {}, to=f"{ident}/stop").status_code == 303
    assert 'data-state="stopped"' in api.get(ident).text


def test_pages_of_other_documents_lead_to_ours(api):
    for path in (
        "/admin/training/datasets",
        "/admin/training/jobs",
        "/admin/training/experiments",
        "/admin/models",
        "/admin/ab-tests",
    ):
        answer = api.get(path)
        assert answer.status_code == 200 and "<h1>" in answer.text and len(answer.history) == 1


def test_a_form_that_is_left_while_it_is_sent_is_no_fault_of_the_platform(state, caplog):
    body = [{"type": "http.request", "body": b"csrf=0", "more_body": True}, {"type": "http.disconnect"}]
    headers = {"host": "127.0.0.1:8090", "content-type": "application/x-www-form-urlencoded", **USER}
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": "/training/jobs/check",
        "scheme": "http",
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8090),
    }
    sent = []

    async def receive():
        return body.pop(0) if len(body) > 1 else body[0]

    async def send(message):
        sent.append(message)

    asyncio.run(create_app(state)(scope, receive, send))
    assert [m["status"] for m in sent if m["type"] == "http.response.start"] == [499]
    assert "a page failed" not in caplog.text


def test_roles_decide_on_pages_as_they_do_elsewhere(api, wiring, model):
    viewer = {"X-User-Id": "park", "X-User-Roles": "llm-ops-user,viewer"}
    shown = api.get("/catalog/models/create", headers=viewer)
    fields = {
        "name": "base",
        "version": "1",
        "family": "llama",
        "storage_uri": str(model),
        "csrf": token_of(shown.text),
    }
    refused = api.post("/catalog/models/create", data=fields, headers=viewer)
    assert refused.status_code == 403 and "may not do base.register" in refused.text
    assert wiring.catalog.drafts.models() == []
    refused = api.get("/audit", headers=viewer)
    assert refused.status_code == 403 and "may not do audit.read" in refused.text


def test_no_page_imports_what_only_operations_may_know():
    for file in page.FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("llmops_assets."):
                assert node.module.split(".")[1] in ("operations", "specs"), f"{file.name}: {node.module}"


def test_a_caller_who_asks_too_often_waits_and_no_other_does(state):
    at = [0.0]
    state.limiter = Limiter(3, clock=lambda: at[0])
    with TestClient(create_app(state), base_url=HOST, client=("127.0.0.1", 50000)) as client:
        kim, lee = USER, {**USER, "X-User-Id": "lee"}
        assert [client.get("/llm-ops/v1/audit", headers=kim).status_code for _ in range(4)] == [200, 200, 200, 429]
        refused = client.get("/audit", headers=kim)
        assert refused.status_code == 429 and refused.headers["retry-after"] == "20" and "<h1>" in refused.text
        assert client.get("/audit", headers=lee).status_code == 200
        at[0] += 20
        assert [client.get("/audit", headers=kim).status_code for _ in range(2)] == [200, 429]
