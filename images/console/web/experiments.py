"""Pages of A/B tests: a form with its power, the test as it goes, and how it ends; and trainings beside each other."""

from collections.abc import Mapping
from typing import Any

from fastapi import Response

from images.console.api.experiments import plain
from images.console.bodies import AbTestBody
from images.console.translate import experiment as translated
from images.console.web import forms
from images.console.web.i18n import N_
from images.console.web.page import PER_PAGE, Asked, Page, Posted, Slice, address, explained, go, router, start_of
from llmops_assets.operations import experiments
from llmops_assets.operations.experiment_plans import plan_experiment
from llmops_assets.operations.experiment_views import live_experiment
from llmops_assets.operations.forms import experiment_spec
from llmops_assets.operations.training_status import compared_trainings
from llmops_assets.specs.base import SpecError

pages = router()
NUMBERS = ("share", "target", "hours", "window", "minimum_effect", "effect", "users_per_day", "days")
USUAL = {"share": "50", "target": "200", "hours": "336", "window": "24", "effect": "0.3", "auto_promote": "on"}
PLACES = {
    "name": "name",
    "control": "control",
    "treatment": "treatment",
    "split": "share",
    "duration_hours": "hours",
    "rating_window_hours": "window",
    "target_users_per_arm": "target",
    "expected_users": "target",
    "minimum_effect": "minimum_effect",
}


@pages.get("/ab-tests")
def list_(page: Asked) -> Response:
    """Tests, newest first."""
    start = start_of(page.request)
    found = experiments.list_experiments(page.here.wiring)
    shown = [plain(one) for one in found[start : start + PER_PAGE]]
    return page.show("ab_tests.html", found=Slice(shown, start, len(found)))


def _numbers(page: Page, form: forms.Form) -> tuple[dict[str, float | None], dict[str, str]]:
    values: dict[str, float | None] = {}
    faults: dict[str, str] = {}
    for name in NUMBERS:
        try:
            values[name] = float(form[name].replace(",", "")) if form[name] else None
        except ValueError:
            faults[name] = page.t(N_("This should be a number."))
    return values, faults


def _form(
    page: Page, values: Mapping[str, str], faults: Mapping[str, str], detail: str = "", status: int = 200
) -> Response:
    served = {
        one.name: [route["model_ref"] for route in one.routes]
        for one in page.here.wiring.catalog.endpoints()
        if one.routes
    }
    models = sorted({ref for refs in served.values() for ref in refs})
    shown = {"served": served, "models": models, "values": values, "faults": faults, "detail": detail}
    return page.show("ab_create.html", code=status, **shown)


@pages.get("/ab-tests/create")
def create_form(page: Asked) -> Response:
    """The form of a test; an endpoint that serves two models fills it in."""
    asked = forms.fields({**USUAL, "endpoint": page.request.query_params.get("endpoint", "")})
    for one in page.here.wiring.catalog.endpoints():
        refs = [route["model_ref"] for route in one.routes]
        if len(refs) == 2 and asked["endpoint"] in ("", one.name):
            wanted = one.spec.model_ref
            new = wanted if wanted in refs else refs[-1]
            old = next((ref for ref in refs if ref != new), refs[0])
            asked |= {"endpoint": one.name, "control": old, "treatment": new}
            break
    return _form(page, asked, {})


@pages.post("/ab-tests/power")
def power(page: Asked, form: Posted) -> Response:
    """How many users the test needs, and how long that takes: by the rule that will decide it, simulated."""
    values, faults = _numbers(page, form)
    plan, detail = None, ""
    if not faults:
        try:
            plan = plan_experiment(
                page.here.wiring,
                endpoint=form.given("endpoint"),
                effect=values["effect"],
                sd=None,
                users_per_day=values["users_per_day"],
                days=values["days"] or (values["hours"] / 24 if values["hours"] else None),
                share=(values["share"] or 50) / 100,
                alpha=None,
                power=0.8,
                minimum_effect=values["minimum_effect"],
                expected_users=None,
            )
        except Exception as error:
            status, detail, _ = explained(error)
            if status == 500:
                raise
    return page.show("ab_power.html", plan=plan, detail=detail, faults=faults)


@pages.post("/ab-tests/create")
def create(page: Asked, form: Posted) -> Response:
    """Start the test."""
    wiring = page.here.wiring
    values, faults = _numbers(page, form)
    for name in ("name", "control", "treatment"):
        if not form[name]:
            faults[name] = page.t(N_("This is needed."))
    if faults:
        return _form(page, form, faults, status=422)
    share = (values["share"] or 50) / 100
    body = AbTestBody.model_construct(
        experiment_name=form["name"],
        model_a_id=form["control"],
        model_b_id=form["treatment"],
        traffic_split={"a": 1 - share, "b": share},
        target_samples=None if values["target"] is None else int(values["target"]),
        success_metric="user_rating",
        endpoint=form.given("endpoint"),
        duration_hours=values["hours"],
        auto_promote=form.is_on("auto_promote"),
        description=form.given("description"),
    )
    try:
        fields, _ = translated(body, wiring.policy.experiments)
        if values["window"] is not None:
            fields["rating_window_hours"] = values["window"]
        if values["minimum_effect"] is not None:
            fields["minimum_effect"] = values["minimum_effect"]
        spec = experiment_spec(
            wiring, control=form["control"], treatment=form["treatment"], endpoint=body.endpoint, values=fields
        )
        started = experiments.start_experiment(wiring, page.name, spec)
    except SpecError as error:
        shown = {PLACES.get(fault.field, "name"): fault.message for fault in error.faults}
        return _form(page, form, shown, str(error), 422)
    except Exception as error:
        status, detail, _ = explained(error)
        if status == 500:
            raise
        return _form(page, form, {}, detail, status)
    return go(address("ab-tests", started.name), "test_started")


def _sequence(page: Page, points: list[dict[str, float]]) -> dict[str, Any]:
    return {
        "label": page.t(N_("users who rated")),
        "x": [p["n"] for p in points],
        "lines": [
            {"name": page.t(N_("upper end")), "values": [p["high"] for p in points], "dashed": True, "colour": 1},
            {"name": page.t(N_("lower end")), "values": [p["low"] for p in points], "dashed": True, "colour": 2},
            # Last, for what is drawn later is not hidden by the band between the ends.
            {"name": page.t(N_("difference")), "values": [p["difference"] for p in points], "colour": 0},
        ],
        "band": [1, 2],
    }


@pages.get("/ab-tests/{name}")
def show(page: Asked, name: str) -> Response:
    """A test as it stands at this moment, and what was decided."""
    wiring = page.here.wiring
    found = experiments.experiment_report(wiring, name)
    live = live_experiment(wiring, name)
    return page.show(
        "ab_test.html",
        test=plain(found.experiment),
        spec=found.experiment.spec,
        figures=live.figures,
        least=live.least_users,
        series=_sequence(page, live.sequence),
        has_sequence=bool(live.sequence),
        report=found.analysis,
    )


@pages.post("/ab-tests/{name}/stop")
def stop(page: Asked, name: str, form: Posted) -> Response:
    """End it without a winner: the model in place gets all users."""
    experiments.stop_experiment(page.here.wiring, page.name, name, form.given("reason"))
    return go(address("ab-tests", name), "test_stopped")


@pages.post("/ab-tests/{name}/conclude")
def conclude(page: Asked, name: str, form: Posted) -> Response:
    """Give all users to the model that a person chose."""
    winner: experiments.Winner = "control" if form["winner"] == "a" else "treatment"
    experiments.conclude_experiment(page.here.wiring, page.name, name, winner)
    return go(address("ab-tests", name), "test_concluded")


@pages.get("/training/experiments")
def compared(page: Asked) -> Response:
    """Trainings beside each other: hyperparameters and what came of them, and the way to MLflow."""
    start = start_of(page.request)
    rows, total = compared_trainings(page.here.wiring, start, PER_PAGE)
    names = sorted({name for row in rows for name in row.hyperparams})
    constant = {n for n in names if len({str(row.hyperparams.get(n)) for row in rows}) == 1} if len(rows) > 1 else set()
    return page.show(
        "experiments.html",
        found=Slice(rows, start, total),
        varied=[name for name in names if name not in constant],
        constant={name: rows[0].hyperparams.get(name) for name in sorted(constant)},
        mlflow=page.here.wiring.settings.mlflow_url,
    )
