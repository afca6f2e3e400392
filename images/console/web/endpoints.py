"""Pages of endpoints: what each serves, how a new model takes over, and a chat with it."""

from collections.abc import Mapping
from typing import Any

from fastapi import Response

from images.console.api.endpoints import plain
from images.console.problems import Problem
from images.console.web import forms
from images.console.web.i18n import N_
from images.console.web.page import Asked, Page, Posted, address, explained, go, router
from llmops_assets.operations import endpoints, rollouts
from llmops_assets.operations.deployment_preview import preview_deployment
from llmops_assets.operations.errors import Refused
from llmops_assets.operations.forms import EndpointForm, endpoint_spec
from llmops_assets.operations.model_entries import list_models
from llmops_assets.operations.refused_requests import refused_requests
from llmops_assets.operations.shadows import shadow_report
from llmops_assets.specs.base import SpecError
from llmops_assets.specs.deployment import DeploymentSpec

pages = router()
USUAL = {"environment": "dev", "serve_target": "GENERATION", "gpus": "0", "replicas": "1", "strategy": "blue-green"}
WHY = {
    "access_unavailable": N_("who may call could not be asked"),
    "backend_unavailable": N_("no model server was up"),
    "busy": N_("all places of the endpoint were taken"),
    "chat_only": N_("it answers questions from documents alone"),
    "client_left": N_("the client left before it was answered"),
    "content_filter": N_("a guard refused what was asked"),
    "context_length_exceeded": N_("the question was too long"),
    "endpoint_forbidden": N_("the key or token is for other endpoints"),
    "guard_failed": N_("a guard could not judge"),
    "guards_busy": N_("the guards had too much to judge"),
    "index_unavailable": N_("the documents could not be searched"),
    "insufficient_quota": N_("the tokens of the month were used up"),
    "internal_error": N_("the gateway failed; its log says why"),
    "invalid_request_error": N_("the request was not as the interface takes it"),
    "key_expired": N_("the key had expired"),
    "keys_unavailable": N_("the keys of tokens could not be read"),
    "limits_unavailable": N_("limits could not be counted"),
    "not_ready": N_("the endpoint served no model yet"),
    "rate_limit_exceeded": N_("too many requests within a minute"),
    "role_forbidden": N_("the caller's role may not call endpoints"),
    "token_expired": N_("the token had expired"),
    "unsupported_parameter": N_("the engine does not have what was asked for"),
}
"""Codes of refusals in words."""
PLACES = {"endpoint": "endpoint", "model_ref": "model", "resources.gpus": "gpus", "replicas.max": "replicas"}


@pages.get("/serving/endpoints")
def list_(page: Asked) -> Response:
    """Endpoints, newest first."""
    found = [plain(one) for one in page.here.wiring.catalog.endpoints()]
    is_busy = any(one["status"] in ("pending", "deploying", "deleting") for one in found)
    return page.show("endpoints.html", found=found, is_busy=is_busy)


def _whole(form: forms.Form, name: str, faults: dict[str, str], page: Page) -> int | None:
    text = form[name]
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        faults[name] = page.t(N_("This should be a whole number."))
        return None
    return int(text)


def _spec(page: Page, form: forms.Form) -> tuple[DeploymentSpec | None, dict[str, str], str, int]:
    """The spec of a form, or its faults by field, words in general and a status."""
    faults: dict[str, str] = {}
    numbers = {n: _whole(form, n, faults, page) for n in ("gpus", "replicas", "share", "max_input", "max_output")}
    if not form["model"]:
        faults["model"] = page.t(N_("Choose one."))
    if faults:
        return None, faults, "", 422
    more: dict[str, Any] = {"replicas": {"min": numbers["replicas"] or 1, "max": numbers["replicas"] or 1}}
    runtime = {"max_input_tokens": numbers["max_input"], "max_output_tokens": numbers["max_output"]}
    if any(runtime.values()):
        more["runtime"] = {name: value for name, value in runtime.items() if value}
    if form["strategy"] == "canary":
        share = 10 if numbers["share"] is None else numbers["share"]
        more["rollout"] = {"strategy": "canary", "traffic_split": {"old": 100 - share, "new": share}}
    elif form["strategy"] == "steps":
        more["rollout"] = {"strategy": "canary", "steps": [10, 50, 100]}
    asked = EndpointForm(
        model=form["model"],
        endpoint=form.given("endpoint"),
        environment=form["environment"] or "dev",
        serve_target=form["serve_target"] or "GENERATION",
        gpus=numbers["gpus"] or 0,
        more=more,
    )
    try:
        return endpoint_spec(page.here.wiring, asked), {}, "", 200
    except SpecError as error:
        found = {PLACES.get(f.field, "strategy" if "rollout" in f.field else f.field): f.message for f in error.faults}
        return None, found, "" if found.keys() <= {*USUAL, "model", "endpoint", "share"} else str(error), 422
    except Exception as error:
        status, detail, _ = explained(error)
        if status == 500:
            raise
        return None, {}, detail, status


def _form(page: Page, values: forms.Form, faults: Mapping[str, str], detail: str, status: int = 200) -> Response:
    models = [one for one in list_models(page.here.wiring) if one.kind == "trained" and one.state != "archived"][:200]
    return page.show(
        "endpoint_form.html",
        code=status,
        values=values,
        faults=faults,
        detail=detail,
        models=[(one.id, f"{one.id} ({one.state})") for one in models],
        names=page.here.wiring.catalog.endpoint_names(),
    )


@pages.get("/serving/endpoints/deploy")
def deploy_form(page: Asked) -> Response:
    """The form of an endpoint; what the address names is filled in."""
    asked = {name: value for name, value in page.request.query_params.items() if name in ("model", "endpoint")}
    return _form(page, forms.fields({**USUAL, **asked}), {}, "")


@pages.post("/serving/endpoints/preview")
def preview(page: Asked, form: Posted) -> Response:
    """What the deployment would do as things are; nothing is done."""
    spec, faults, detail, _ = _spec(page, form)
    found = preview_deployment(page.here.wiring, page.name, spec) if spec else None
    return page.show("endpoint_preview.html", found=found, faults=faults, detail=detail)


@pages.post("/serving/endpoints/deploy")
def deploy(page: Asked, form: Posted) -> Response:
    """Say what the endpoint shall serve."""
    spec, faults, detail, status = _spec(page, form)
    if spec is None:
        return _form(page, form, faults, detail, status)
    wanted = endpoints.want_endpoint(page.here.wiring, page.name, spec)
    return go(address("serving", "endpoints", wanted.endpoint), "wanted")


@pages.get("/serving/endpoints/{name}")
def show(page: Asked, name: str) -> Response:
    """One endpoint: what it serves in which shares, its servers, and its rollout where one is on its way."""
    wiring = page.here.wiring
    endpoint = wiring.catalog.endpoint(name)
    found = plain(endpoint)
    return page.show(
        "endpoint.html",
        found=found,
        spec=endpoint.spec,
        is_busy=found["status"] in ("pending", "deploying", "deleting"),
        servers=wiring.catalog.backends(name),
        rollout=rollouts.rollout_of(wiring, name),
        test=wiring.catalog.running_experiments().get(name),
        lines=wiring.catalog.audit_of(name, limit=12),
        refused=refused_requests(wiring, page.name, name),
        why=WHY,
    )


@pages.get("/serving/endpoints/{name}/shadow")
def shadow(page: Asked, name: str, days: int = 7) -> Response:
    """What the candidate of an endpoint would have answered: a part of its page."""
    wiring = page.here.wiring
    spec = wiring.catalog.endpoint(name).spec.shadow
    try:
        found = shadow_report(wiring, page.name, name, days=max(1, min(days, 365)))
    except Refused:
        found = None
    return page.show("shadow.html", name=name, spec=spec, found=found)


ACTIONS = {
    "advance": (rollouts.advance_rollout, "advanced"),
    "promote": (rollouts.promote, "wanted"),
    "hold": (rollouts.hold_rollout, "held"),
    "rollback": (rollouts.roll_back, "rolled_back"),
}


@pages.post("/serving/endpoints/{name}/delete")
def delete(page: Asked, name: str, form: Posted) -> Response:
    """Stop its servers and forget it."""
    endpoints.delete_endpoint(page.here.wiring, page.name, name)
    return go("/serving/endpoints", "deleted")


@pages.post("/serving/endpoints/{name}/{action}")
def act(page: Asked, name: str, action: str, form: Posted) -> Response:
    """A step of its rollout: advance, promote, hold, rollback."""
    if action not in ACTIONS:
        raise Problem(404, f"an endpoint has no action {action[:40]!r}: {', '.join(ACTIONS)}, delete")
    operation, done = ACTIONS[action]
    operation(page.here.wiring, page.name, name)
    return go(address("serving", "endpoints", name), done)


@pages.get("/serving/chat/{name}")
def chat(page: Asked, name: str) -> Response:
    """A chat with an endpoint; every answer can be rated."""
    found = plain(page.here.wiring.catalog.endpoint(name))
    return page.show("chat.html", found=found)
