"""Model, prompt and index go back together to what was served, by one intent; what is gone of it is named."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llmops_assets.cli import app, common
from llmops_assets.operations.access import Actor
from llmops_assets.operations.endpoints import want_endpoint
from llmops_assets.operations.errors import Forbidden, Refused
from llmops_assets.operations.prompts import add_prompt, promote_prompt
from llmops_assets.operations.rollbacks import roll_back_to, way_back
from llmops_assets.operations.rollouts import roll_back
from llmops_assets.serving.prompts import refresh
from llmops_assets.serving.together import BACK_TO, Gone, Together, together_of
from llmops_assets.specs.settings import Settings
from llmops_assets.wiring import Wiring
from resources.catalog import Conflict, NotFound
from resources.gateway import GatewayAdmin
from resources.prompts import Prompts
from tests.retrieval.test_indexes import PASSAGES, index_of
from tests.serving.conftest import deployment_spec

NOBODY = "http://127.0.0.1:1"
RAG = {"index": "docs", "top_k": 3, "mode": "sparse"}


class Desk:
    """An endpoint that has served three things after each other, each its model, prompt and index."""

    def __init__(self, home: Path, versions: list[str] | None = None, moments: list[datetime] | None = None) -> None:
        self.w = Wiring(Settings(home=home, _env_file=None))
        self.gateway = GatewayAdmin(self.w.catalog, NOBODY, admin_url=NOBODY, token="unused")
        self.folders = [home / "models" / f"{number}" for number in (1, 2, 3)]
        self.versions, self.moments = list(versions or []), list(moments or [])

    def serve_three(self) -> "Desk":
        for number in (1, 2, 3):
            index = index_of(self.w.indexes, PASSAGES[: 5 + number], dataset=f"docs@v{number}")
            self.versions.append(index.facts.version)
            self.publish(number)
            self.serve(number)
        return self

    def serve(self, number: int) -> None:
        """A model and a prompt of that number, served with the index as it is."""
        self._model(self.folders[number - 1])
        add_prompt(self.w, "kim", "greet", f"{number}: 안녕하세요.")
        promote_prompt(self.w, "kim", "greet", number, "production")
        runtime = {"max_output_tokens": 100 * number}
        more = {"prompt": {"name": "greet", "alias": "production"}, "rag": RAG, "runtime": runtime}
        spec = deployment_spec("desk", f"desk@{number}", job_type="RAG_TUNING", serve_target="RAG", **more)
        want_endpoint(self.w, "kim", spec)
        self.run(number)
        self.moments.append(datetime.now(UTC))

    def _model(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "config.json").write_text('{"model_type": "llama"}')
        tags = {"dataset": "desk@v1", "recipe": "r", "content_hash": folder.name, "family": "llama"}
        version = self.w.tracking.register("desk", folder, None, tags | {"job_type": "RAG_TUNING"})
        self.w.tracking.tag("desk", version, "state", "approved")

    def publish(self, number: int) -> None:
        version, dataset = self.versions[number - 1], f"docs@v{number}"
        self.w.indexes.point("docs", version)
        self.w.catalog.log("retrieval_index", "index.publish", "docs", version=version, dataset=dataset)

    def run(self, number: int) -> None:
        """Switch as the asset `deployment` does, and acknowledge."""
        catalog, intent = self.w.catalog, self.w.catalog.intents.newest("deploy", "desk")
        together = together_of(intent, self.w.tracking, self.w.indexes)
        route = {"backend_id": f"desk-{number}", "model_ref": f"desk@{number}", "weight": 100, "rag": RAG}
        together.bound("desk", catalog, self.gateway).to([route])
        catalog.conclude_deployment("desk", intent.revision, state="live", served=f"desk@{number}")

    @property
    def served(self) -> tuple[str, str, str]:
        catalog = self.w.catalog
        model = catalog.endpoint("desk").routes[0]["model_ref"]
        return model, catalog.prompts.all()["desk"].label, self.w.indexes.version("docs")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    desk = Desk(tmp_path_factory.mktemp("made")).serve_three()
    desk.w.catalog.database.compact()
    return desk


@pytest.fixture
def desk(made: Desk, tmp_path: Path) -> Desk:
    """A copy of it, to change."""
    home = tmp_path / "home"
    shutil.copytree(made.w.settings.root, home)
    return Desk(home, made.versions, made.moments)


def test_nothing_moves_before_the_run_and_all_of_it_moves_with_it(desk: Desk):
    before = desk.served
    assert before == ("desk@3", "greet@3", desk.versions[2])
    wanted = roll_back_to(desk.w, "lee", "desk", desk.moments[0], operation="incident-17")
    assert (wanted.revision, wanted.model_ref) == (4, "desk@1")
    # The sensor that follows aliases leaves it to the run, however often it looks.
    assert refresh(desk.w.catalog, desk.w.tracking, "prompt_aliases") == [] and desk.served == before
    again = roll_back_to(desk.w, "lee", "desk", desk.moments[0], operation="incident-17")
    assert again.revision == 4 and desk.w.catalog.endpoint("desk").revision == 4
    desk.run(1)
    assert desk.served == ("desk@1", "greet@1", desk.versions[0])
    # It stays there: the spec names the version, where the alias has moved on.
    refresh(desk.w.catalog, desk.w.tracking, "prompt_aliases")
    assert desk.served == ("desk@1", "greet@1", desk.versions[0])
    spec = desk.w.catalog.endpoint("desk").spec
    assert spec.prompt.ref == "greet@1" and spec.serve_target == "RAG" and spec.rag.top_k == 3
    assert spec.runtime.max_output_tokens == 100, "its servers are run as they were"
    lines = [line for line in desk.w.catalog.audit_log(50) if line["target"] in ("desk", "docs")]
    want = next(line for line in lines if line["action"] == "endpoint.want")
    assert want["actor"] == "lee" and want["detail"]["back_to"]["index"] == ["docs", desk.versions[0]]
    assert {"endpoint.routes", "endpoint.prompt", "index.publish", "deploy.done"} <= {line["action"] for line in lines}
    # As a revision: what was served when that was carried out, and what this has made of it.
    assert way_back(desk.w, "desk", 2).model_ref == "desk@2"
    assert way_back(desk.w, "desk", 4).index == ("docs", desk.versions[0])


def test_a_model_that_was_served_in_several_ways_comes_back_as_it_was_at_that_moment(desk: Desk):
    w = desk.w
    spec = w.catalog.endpoint("desk").spec.model_copy(update={"model_ref": "desk@1", "engine": "vllm"})
    want_endpoint(w, "kim", spec)
    desk.run(1)
    assert way_back(w, "desk", 1).spec.engine == "transformers"
    assert way_back(w, "desk", 4).spec.engine == "vllm"
    assert way_back(w, "desk", desk.moments[1]).spec.runtime.max_output_tokens == 200
    desk.run(1)
    want_endpoint(w, "kim", spec.model_copy(update={"model_ref": "desk@2"}))
    desk.run(2)
    assert roll_back(w, "kim", "desk").model_ref == "desk@1"
    assert w.catalog.endpoint("desk").spec.engine == "vllm"


def test_a_way_back_that_fails_leaves_prompt_and_index_where_they_were(desk: Desk):
    before = desk.served
    roll_back_to(desk.w, "lee", "desk", 1)
    intent = desk.w.catalog.intents.newest("deploy", "desk")
    together = together_of(intent, desk.w.tracking, desk.w.indexes)
    switch = together.bound("desk", desk.w.catalog, desk.gateway)
    routes = desk.w.catalog.endpoint("desk").routes
    switch.to([{"backend_id": "desk-1", "model_ref": "desk@1", "weight": 100, "rag": RAG}])
    assert desk.served == ("desk@1", "greet@1", desk.versions[0])
    switch.back(routes)
    assert desk.served == before
    desk.w.catalog.conclude_deployment("desk", intent.revision, state="failed", message="no", outcome="failed")
    refresh(desk.w.catalog, desk.w.tracking, "prompt_aliases")
    assert desk.served == before, "what failed is carried out by nobody else"
    with pytest.raises(Refused, match="revision 4 of endpoint 'desk' was never served: failed: no"):
        way_back(desk.w, "desk", 4)


def test_what_is_gone_is_refused_by_name_and_nothing_is_wanted(desk: Desk):
    w, wanted = desk.w, desk.w.catalog.endpoint("desk").revision
    with pytest.raises(Refused, match="has no revision 9: the newest is 3"):
        roll_back_to(w, "lee", "desk", 9)
    with pytest.raises(NotFound, match="no endpoint 'nobody'"):
        roll_back_to(w, "lee", "nobody", 1)
    with pytest.raises(Refused, match="served nothing at 2020"):
        roll_back_to(w, "lee", "desk", datetime(2020, 1, 1, tzinfo=UTC))
    w.tracking.tag("desk", "2", "state", "archived")
    with pytest.raises(Refused, match=r"model desk@2 cannot be served again: it is archived"):
        roll_back_to(w, "lee", "desk", 2)
    w.tracking.tag("desk", "2", "state", "approved")
    shutil.rmtree(desk.folders[1])
    with pytest.raises(Refused, match=r"model desk@2 cannot be served again: its folder .*models/2 is gone"):
        roll_back_to(w, "lee", "desk", 2)
    folder = w.indexes.folder(desk.versions[0])
    shutil.rmtree(folder)
    with pytest.raises(Refused, match=rf"version {desk.versions[0]} of index docs .* build it anew from docs@v1"):
        roll_back_to(w, "lee", "desk", 1)
    w.tracking.with_client(lambda client: client.delete_prompt_version("greet", "3"))
    with pytest.raises(Refused, match="prompt greet@3 cannot be used again"):
        roll_back_to(w, "lee", "desk", 3)
    with pytest.raises(Forbidden, match=r"endpoint\.want"):
        roll_back_to(w, Actor("guest", ["viewer"]), "desk", 1)
    assert w.catalog.endpoint("desk").revision == wanted


def test_a_point_is_a_revision_or_a_moment_as_people_write_it(desk: Desk):
    assert way_back(desk.w, "desk", "1").model_ref == way_back(desk.w, "desk", 1).model_ref == "desk@1"
    moment = desk.moments[1]
    assert way_back(desk.w, "desk", moment.isoformat()).model_ref == "desk@2"
    local = moment.astimezone().replace(tzinfo=None).isoformat()
    assert way_back(desk.w, "desk", local).at == moment, "without a zone it is this machine's"
    for text in ("yesterday", "", "1.5", "-1", "²", "１", "9" * 30):
        with pytest.raises(Refused, match="revision"):
            roll_back_to(desk.w, "lee", "desk", text)
    with pytest.raises(NotFound, match="no endpoint 'nobody'"):
        way_back(desk.w, "nobody", "yesterday")


def test_what_goes_between_asking_and_the_run_is_named_by_the_run(desk: Desk):
    roll_back_to(desk.w, "lee", "desk", 1)
    shutil.rmtree(desk.w.indexes.folder(desk.versions[0]))
    with pytest.raises(Gone, match=desk.versions[0]):
        together_of(desk.w.catalog.intents.newest("deploy", "desk"), desk.w.tracking, desk.w.indexes)
    assert desk.served == ("desk@3", "greet@3", desk.versions[2])


def test_an_index_that_others_search_in_goes_back_with_their_consent_alone(desk: Desk):
    spec = deployment_spec("help", "desk@3", job_type="RAG_TUNING", serve_target="RAG", rag=RAG)
    want_endpoint(desk.w, "kim", spec)
    assert way_back(desk.w, "desk", 1).shared_with == ["help"]
    with pytest.raises(Refused, match="help search in index docs too"):
        roll_back_to(desk.w, "lee", "desk", 1)
    # To the same version nothing moves for anybody.
    desk.w.indexes.point("docs", desk.versions[0])
    assert roll_back_to(desk.w, "lee", "desk", 1).revision == 4
    desk.w.indexes.point("docs", desk.versions[2])
    assert roll_back_to(desk.w, "lee", "desk", 1, shared_index=True).revision == 5


def test_of_several_models_one_is_named(desk: Desk):
    catalog = desk.w.catalog
    catalog.set_routes(
        "desk",
        [
            {"backend_id": "a", "model_ref": "desk@1", "weight": 5, "holdout": True},
            {"backend_id": "b", "model_ref": "desk@2", "weight": 47.5},
            {"backend_id": "c", "model_ref": "desk@3", "weight": 47.5},
        ],
    )
    now = datetime.now(UTC)
    with pytest.raises(Refused, match=r"served desk@2 \(47.5 %\), desk@3 \(47.5 %\): name one with --model"):
        way_back(desk.w, "desk", now)
    with pytest.raises(Refused, match="did not serve desk@1"):
        way_back(desk.w, "desk", now, model="desk@1")
    found = way_back(desk.w, "desk", now, model="desk@2")
    assert found.model_ref == "desk@2" and found.index is None and found.spec.serve_target == "GENERATION"
    assert found.spec.rag is None and found.spec.prompt.ref == "greet@3"


def test_somebody_else_wanted_something_meanwhile(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    real = Prompts.resolve

    def resolve(self: Prompts, wanted: object) -> object:
        monkeypatch.setattr(Prompts, "resolve", real)
        desk.w.catalog.want_endpoint(deployment_spec("desk", "desk@3"), "kim")
        return real(self, wanted)

    monkeypatch.setattr(Prompts, "resolve", resolve)
    with pytest.raises(Conflict, match="something else is wanted of endpoint 'desk'"):
        roll_back_to(desk.w, "lee", "desk", 1)


def test_an_intent_without_a_way_back_changes_neither_prompt_nor_index(desk: Desk):
    intent = desk.w.catalog.intents.newest("deploy", "desk")
    assert BACK_TO not in intent.detail
    assert together_of(intent, desk.w.tracking, desk.w.indexes) == Together()
    assert together_of(None, desk.w.tracking, desk.w.indexes) == Together()


def test_the_command(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LLMOPS_HOME", str(desk.w.settings.root))
    monkeypatch.chdir(desk.w.settings.root)
    common.wiring.cache_clear()
    run = CliRunner().invoke
    try:
        shown = run(app, ["endpoint", "rollback", "desk", "--to", "1", "--dry-run"])
        assert shown.exit_code == 0 and '"model_ref": "desk@1"' in shown.output
        assert desk.w.catalog.endpoint("desk").revision == 3
        asked = run(app, ["endpoint", "rollback", "desk", "--to", desk.moments[1].isoformat(), "--operation", "x"])
        assert asked.exit_code == 0 and "revision 4, model desk@2" in asked.output
        assert run(app, ["endpoint", "rollback", "desk", "--model", "desk@1"]).exit_code == common.Exit.INVALID
        assert run(app, ["endpoint", "rollback", "desk", "--to", "yesterday"]).exit_code == common.Exit.INVALID
    finally:
        common.wiring.cache_clear()
