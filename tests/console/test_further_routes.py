"""Routes beyond the source documents: prompts, reviews, comparison, erasure, rollouts, ratings."""

from tests.console.test_documents import DATASET, V1, answered, enter_and_upload, register_version, rows  # noqa: F401
from tests.serving.conftest import deployment_spec


def test_a_prompt_gets_versions_and_an_alias_points_to_one(api, wiring):
    first = answered(api.post(f"{V1}/prompts", json={"name": "desk", "template": "Answer {{question}}."}), 201)
    assert (first["id"], first["aliases"], first["author"]) == ("desk@1", [], "kim")
    messages = [{"role": "system", "content": "짧게 답하세요."}]
    answered(api.post(f"{V1}/prompts", json={"name": "desk", "template": messages, "message": "in Korean"}), 201)
    done = answered(api.post(f"{V1}/prompts/desk/promote", json={"version": 2, "alias": "production"}), 200)
    assert (done["version"], done["endpoints"]) == (2, [])
    shown = answered(api.get(f"{V1}/prompts/desk"), 200)["versions"]
    assert [(one["version"], one["aliases"]) for one in shown] == [(2, ["production"]), (1, [])]
    assert shown[0]["template"] == messages
    assert answered(api.get(f"{V1}/prompts"), 200)["items"] == [{"name": "desk", "aliases": {"production": 2}}]
    for path, body, status in (
        ("desk/promote", {"version": 9, "alias": "production"}, 404),
        ("none/promote", {"version": 1, "alias": "production"}, 404),
        ("desk/promote", {"version": 1, "alias": "latest"}, 422),
        ("desk/promote", {"version": 1, "alias": "v1"}, 422),
        ("", {"name": "desk", "template": ""}, 422),
        ("", {"name": "../desk", "template": "x"}, 422),
    ):
        answered(api.post(f"{V1}/prompts/{path}".rstrip("/"), json=body), status)
    assert api.get(f"{V1}/prompts/none").status_code == 404
    assert [line["actor"] for line in wiring.catalog.audit_of("desk@2")] == ["kim", "kim"]


def test_versions_of_a_dataset_are_listed_and_what_is_not_made_yet_says_so(api, wiring, rows):  # noqa: F811
    enter_and_upload(api, rows)
    answered(api.post(f"{V1}/catalog/datasets", json={**DATASET, "version": "v2.0"}), 201)
    name = f"{V1}/catalog/datasets/customer-support-dataset@v1.0"
    listed = answered(api.get(f"{name}/versions"), 200)
    assert listed["total"] == 2
    assert [(one["version"], one["status"]) for one in listed["items"]] == [
        ("v2.0", "awaiting_files"),
        ("v1.0", "ingesting"),
    ]
    for path, status in (
        ("diff?against=customer-support-dataset@v1.0", 409),
        ("diff?against=none@v1", 404),
        ("diff?against=customer-support-dataset@v1.0&step=rows", 422),
        ("quarantine", 200),
    ):
        assert api.get(f"{name}/{path}").status_code == status, path
    found = f"{V1}/catalog/datasets/customer-support-dataset/forget"
    plan = answered(api.post(found, json={"texts": ["질문 7:"], "dry_run": True}), 200)
    assert plan["erasure"] is None and plan["versions"][0]["dataset"] == "customer-support-dataset@v1.0"
    assert wiring.catalog.dataset_entry("customer-support-dataset@v1.0").status == "active"
    assert api.post(found, json={"texts": ["a"]}).status_code == 422 and api.post(found, json={}).status_code == 422
    viewer = {"X-User-Id": "park", "X-User-Roles": "llm-ops-user,viewer"}
    # Looking for a person is as much as erasing them.
    assert api.post(found, json={"texts": ["질문 7:"], "dry_run": True}, headers=viewer).status_code == 403


def test_what_names_nothing_is_not_found_and_what_cannot_be_is_refused(api, wiring, model):
    for method, path, status in (
        ("GET", "catalog/models/compare?first=a@1&second=b@1", 404),
        ("GET", "catalog/models/none@1/evaluation", 404),
        ("GET", "catalog/models/none@1/download", 404),
        ("GET", "catalog/models/none/download", 404),
        ("GET", "reviews?status=open", 200),
        ("POST", "serving/endpoints/none/advance", 404),
        ("POST", "serving/endpoints/none/fly", 422),
    ):
        assert api.request(method, f"{V1}/{path}").status_code == status, path
    assert api.post(f"{V1}/reviews/none", json={"verdict": "accept"}).status_code == 404
    assert api.post(f"{V1}/reviews/none", json={"verdict": "perhaps"}).status_code == 422
    assert api.post(f"{V1}/reviews", json={"endpoint": "desk", "name": "reviewed"}).status_code == 422
    assert api.post(f"{V1}/serve/none/feedback", json={"request_id": "r", "rating": 5}).status_code == 404
    register_version(wiring, model)
    wiring.catalog.want_endpoint(deployment_spec("desk", "tuned@1"), "kim")
    for action in ("advance", "rollback"):
        refused = api.post(f"{V1}/serving/endpoints/desk/{action}")
        assert refused.status_code == 422, refused.text
    assert wiring.catalog.endpoint("desk").revision == 1


def test_the_files_of_a_version_come_as_one_archive(api, wiring, model, tmp_path):
    import io
    import tarfile

    from resources.content import content_hash

    register_version(wiring, model, content=content_hash(model))
    sent = api.get(f"{V1}/catalog/models/tuned@1/download")
    assert sent.status_code == 200 and 'filename="tuned-1.tar"' in sent.headers["content-disposition"]
    with tarfile.open(fileobj=io.BytesIO(sent.content)) as archive:
        archive.extractall(tmp_path / "out", filter="data")
    for file in model.iterdir():
        assert (tmp_path / "out" / "tuned-1" / file.name).read_bytes() == file.read_bytes()
    assert wiring.catalog.audit_of("tuned@1")[0]["action"] == "model.download"
    assert list((wiring.settings.root / "incoming").iterdir()) == []
