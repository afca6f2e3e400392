"""Prompts with versions: put before what users write, filled with plain text, and following their alias."""

import json

import pytest
from openai import BadRequestError

from images.gateway.errors import ApiError
from images.gateway.prompting import filled, messages_of, values_of
from llmops_assets.operations.errors import Refused
from llmops_assets.operations.prompts import add_prompt, list_prompts, promote_prompt, prompt_versions, resolve_for
from llmops_assets.records.prompts import ResolvedPrompt
from llmops_assets.serving.prompts import refresh
from llmops_assets.specs.prompt import fault_of, variables
from llmops_assets.specs.settings import Settings
from llmops_assets.wiring import Wiring
from resources.prompts import Prompts, UnknownPrompt
from tests.gateway.desk import Desk
from tests.serving.conftest import deployment_spec, until

TEXT = "너는 {{ brand }} 상담원이다. {{tone}} 말투로 답한다."


@pytest.fixture(scope="module")
def wiring(desk: Desk, tmp_path_factory: pytest.TempPathFactory) -> Wiring:
    return Wiring(Settings(home=tmp_path_factory.mktemp("platform"), catalog_url=desk.catalog.url))


@pytest.fixture(scope="module")
def prompted(desk: Desk, wiring: Wiring) -> Desk:
    add_prompt(wiring, "kim", "desk", TEXT, "first")
    add_prompt(
        wiring, "kim", "chat", [{"role": "system", "content": "{{tone}}"}, {"role": "assistant", "content": "네"}]
    )
    promote_prompt(wiring, "kim", "desk", 1, "production")
    for name, prompt in {"text": ("desk", "production", None), "chat": ("chat", None, 1)}.items():
        ref = {"name": prompt[0], "alias": prompt[1], "version": prompt[2]}
        spec = {"prompt": {k: v for k, v in ref.items() if v is not None}}
        resolve_for(wiring, "kim", deployment_spec(name, engine="vllm", **spec))
        desk.serve(name, **spec)
    desk.serve("bare")
    return desk


def ask(desk: Desk, model: str = "text", question: str = "통행료?", **values):
    extra = {"prompt_variables": values} if values else None
    messages = [{"role": "user", "content": question}]
    return desk.client().chat.completions.with_raw_response.create(model=model, messages=messages, extra_body=extra)


def test_the_prompt_stands_before_what_the_user_wrote(prompted: Desk) -> None:
    raw = ask(prompted, brand="하이웨이", tone="공손한")
    sent = prompted.script.asked[-1]
    assert sent["messages"] == [
        {"role": "system", "content": "너는 하이웨이 상담원이다. 공손한 말투로 답한다."},
        {"role": "user", "content": "통행료?"},
    ]
    assert "prompt_variables" not in sent
    assert prompted.exposure(raw.headers["x-request-id"])["prompt_version"] == "desk@1"
    ask(prompted, "chat", tone="짧게")
    assert [m["role"] for m in prompted.script.asked[-1]["messages"]] == ["system", "assistant", "user"]


def test_a_value_is_text_and_never_a_template(prompted: Desk) -> None:
    ask(prompted, brand="{{tone}} {% raw %} {{ 7*7 }}", tone="${PATH} \\1")
    content = prompted.script.asked[-1]["messages"][0]["content"]
    assert content == "너는 {{tone}} {% raw %} {{ 7*7 }} 상담원이다. ${PATH} \\1 말투로 답한다."


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"brand": "x"}, "tone"),
        ({"brand": "x", "tone": "y", "mood": "z"}, "mood"),
        ({"brand": ["x"], "tone": "y"}, "brand"),
    ],
)
def test_a_missing_or_unknown_variable_is_named(prompted: Desk, values: dict, named: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        ask(prompted, **values)
    assert refused.value.param == f"prompt_variables.{named}" and named in str(refused.value)
    assert prompted.script.asked == []


def test_an_endpoint_without_a_prompt_takes_no_variables(prompted: Desk) -> None:
    with pytest.raises(BadRequestError, match="has no prompt"):
        ask(prompted, "bare", brand="x")
    assert prompted.exposure(ask(prompted, "bare").headers["x-request-id"])["prompt_version"] is None


def test_a_promoted_version_reaches_the_gateway_and_says_who_moved_it(prompted: Desk, wiring: Wiring) -> None:
    add_prompt(wiring, "lee", "desk", "둘째 판: {{tone}}")
    moved = promote_prompt(wiring, "lee", "desk", 2, "production")
    assert [(one.endpoint, one.prompt) for one in moved] == [("text", "desk@2")]
    assert promote_prompt(wiring, "lee", "desk", 2, "production") == [], "it is there already"

    def is_second() -> bool:
        prompted.script.reset()
        try:
            ask(prompted, tone="짧은")
        except BadRequestError:
            return False
        return prompted.script.asked[-1]["messages"][0]["content"] == "둘째 판: 짧은"

    until(is_second)
    lines = [line for line in prompted.catalog.audit_log() if line["action"] in ("endpoint.prompt", "prompt.promote")]
    assert {(line["actor"], line["action"]) for line in lines[:2]} == {
        ("lee", "endpoint.prompt"),
        ("lee", "prompt.promote"),
    }


def test_an_alias_moved_behind_the_platforms_back_is_noticed(prompted: Desk, wiring: Wiring) -> None:
    Prompts(wiring.tracking).set_alias("desk", "production", 1)
    assert [one.prompt for one in refresh(prompted.catalog, wiring.tracking, "prompt_aliases")] == ["desk@1"]
    assert refresh(prompted.catalog, wiring.tracking, "prompt_aliases") == []
    newest = next(line for line in prompted.catalog.audit_log() if line["action"] == "endpoint.prompt")
    assert newest["actor"] == "prompt_aliases" and json.loads(json.dumps(newest["detail"]))["before"] == "desk@2"


def test_the_registry_is_shown_as_it_is(prompted: Desk, wiring: Wiring) -> None:
    assert dict(list_prompts(wiring))["desk"] == {"production": 1}
    versions = prompt_versions(wiring, "desk")
    assert [(v.version, v.author) for v in versions] == [(2, "lee"), (1, "kim")]
    assert versions[1].template == TEXT and versions[1].aliases == ("production",)
    assert wiring.tracking.models() == [], "a prompt is no model"


def test_what_cannot_be_used_is_refused(wiring: Wiring, prompted: Desk) -> None:
    with pytest.raises(Refused, match="message 0"):
        add_prompt(wiring, "kim", "bad", [{"role": "robot", "content": "x"}])
    with pytest.raises(UnknownPrompt, match="has no version 9"):
        promote_prompt(wiring, "kim", "desk", 9, "production")
    with pytest.raises(Refused, match="no prompt 'nowhere@production'"):
        resolve_for(wiring, "kim", deployment_spec("x", prompt={"name": "nowhere", "alias": "production"}))


def test_templates_are_read_plainly() -> None:
    assert variables("{{ a }} {{b}} {{a}} {c} {{ d.e }} {{ 1 }}") == ["a", "b"]
    assert filled("{{a}}{{ a }}", {"a": "{{a}}"}) == "{{a}}{{a}}"
    assert fault_of("  ") and fault_of([]) and fault_of([{"role": "user"}]) and fault_of(3)
    prompt = ResolvedPrompt("p", 1, "수 {{n}}")
    assert messages_of(prompt, values_of({"prompt_variables": {"n": 3}}, prompt))[0]["content"] == "수 3"
    with pytest.raises(ApiError, match="object"):
        values_of({"prompt_variables": "n"}, prompt)
