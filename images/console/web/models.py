"""Pages of models: cards, the evidence beside every step of their life, comparison, and their files."""

from typing import Any

from fastapi import Response
from fastapi.responses import RedirectResponse, StreamingResponse

from images.console.archive import weights
from images.console.problems import Problem
from images.console.web import forms
from images.console.web.page import (
    HEADERS,
    PER_PAGE,
    Asked,
    Page,
    Posted,
    Slice,
    address,
    explained,
    go,
    report,
    router,
    start_of,
)
from llmops_assets.operations import dossiers
from llmops_assets.operations import model_entries as entries
from llmops_assets.operations import model_evidence as found_of
from llmops_assets.operations.models import history, measure_parity
from llmops_assets.specs.base import SpecError

pages = router()
DONE = {"approved": "approved", "archived": "archived", "staging": "promoted", "production": "promoted"}


@pages.get("/catalog/models")
def list_(page: Asked, status: str = "") -> Response:
    """Base models and trained versions, newest first."""
    start = start_of(page.request)
    found = entries.list_models(page.here.wiring, status or None)
    shown = Slice(found[start : start + PER_PAGE], start, len(found))
    return page.show("models.html", found=shown, status=status, states=entries.STATES)


def _enter_form(page: Page, values: forms.Form, status: int = 200, **more: Any) -> Response:
    shown = {"detail": "", "faults": {}, **more}
    families = sorted(page.here.wiring.policy.families)
    return page.show("model_create.html", code=status, values=values, families=families, **shown)


@pages.get("/catalog/models/create")
def create_form(page: Asked) -> Response:
    """The form of a base model."""
    return _enter_form(page, forms.fields({"version": "1.0"}))


@pages.post("/catalog/models/create")
def create(page: Asked, form: Posted) -> Response:
    """Enter a base model as a draft; files on this machine are looked at."""
    here = page.here
    uri = form["storage_uri"]
    try:
        if not form["name"] or not form["version"] or not uri:
            raise Problem(422, page.t("Name, version and files are needed."))
        model = entries.enter_model(
            here.wiring,
            page.name,
            name=form["name"],
            version=form["version"],
            storage_uri=f"file://{uri}" if uri.startswith("/") else uri,
            family=form["family"],
            license=form.given("license"),
            owner=form["owner"] or "unassigned",
            detail={"description": form["description"]} if form["description"] else {},
            allowed=here.import_roots,
        )
    except SpecError as error:
        return _enter_form(page, form, 422, detail=str(error))
    except Exception as error:
        status, detail, _ = explained(error)
        if status == 500:
            raise
        return _enter_form(page, form, status, detail=detail)
    return go(address("catalog", "models", model.id), "entered")


@pages.get("/catalog/models/compare")
def compare(page: Asked, first: str = "", second: str = "") -> Response:
    """Two trained versions beside each other."""
    wiring = page.here.wiring
    known = [one.id for one in entries.list_models(wiring) if one.kind == "trained"][:200]
    found = found_of.compare_models(wiring, first, second) if first and second else None
    return page.show("compare.html", known=known, first=first, second=second, found=found)


@pages.get("/catalog/models/comparison")
def comparison(page: Asked, first: str, second: str) -> Response:
    """The comparison with its picture, which the page above shows."""
    return report(found_of.comparison_page(page.here.wiring, first, second))


@pages.get("/catalog/models/{ref:path}/evaluation")
def evaluation(page: Asked, ref: str) -> Response:
    """The report of a model's evaluation itself."""
    return report(found_of.evaluation_report(page.here.wiring, ref))


@pages.get("/catalog/models/{ref:path}/steps")
def steps(page: Asked, ref: str) -> Response:
    """The buttons of a model's next steps, and what stands against each: its files are hashed for that."""
    model = entries.find_model(page.here.wiring, ref)
    return page.show("model_steps.html", model=model, steps=found_of.steps_ahead(page.here.wiring, ref))


@pages.get("/catalog/models/{ref:path}/dossier")
def dossier(page: Asked, ref: str) -> Response:
    """The technical documentation of a version, with a form for what only a person can state."""
    wiring = page.here.wiring
    known = entries.trained_version(wiring, ref)
    return page.show("dossier.html", id=known, gaps=dossiers.gaps(wiring, known, page.language))


@pages.get("/catalog/models/{ref:path}/dossier.html")
def dossier_file(page: Asked, ref: str) -> Response:
    """The same as the file that is handed on."""
    known = entries.trained_version(page.here.wiring, ref)
    return report(dossiers.dossier_page(page.here.wiring, known, page.language))


@pages.get("/catalog/models/{ref:path}/dossier.pdf")
def dossier_pdf(page: Asked, ref: str) -> Response:
    """The same, printed."""
    known = entries.trained_version(page.here.wiring, ref)
    printed = dossiers.dossier_pdf(page.here.wiring, known, page.language)
    name = f"{known.replace('@', '-')}-dossier-{page.language}.pdf"
    headers = {**HEADERS, "Content-Disposition": f'attachment; filename="{name}"'}
    return Response(printed, headers=headers, media_type="application/pdf")


@pages.post("/catalog/models/{ref:path}/dossier")
def state(page: Asked, ref: str, form: Posted) -> Response:
    """Keep what somebody states about a gap, with name and date."""
    known = entries.trained_version(page.here.wiring, ref)
    dossiers.state(page.here.wiring, page.name, known, form["gap"], form["text"])
    return go(address("catalog", "models", known, "dossier"), "stated")


@pages.get("/catalog/models/{ref:path}/run")
def run(page: Asked, ref: str) -> Response:
    """To the run that made it, in MLflow."""
    return RedirectResponse(found_of.run_address(page.here.wiring, ref), 303, HEADERS)


@pages.get("/catalog/models/{ref:path}/download")
def download(page: Asked, ref: str) -> Response:
    """The files of a version as one archive; who took them goes to the audit log."""
    name, pieces = weights(page.here, page.name, ref)
    headers = {**HEADERS, "Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(pieces, headers=headers, media_type="application/x-tar")


@pages.post("/catalog/models/{ref:path}/status")
def status(page: Asked, ref: str, form: Posted) -> Response:
    """A step of a model's life: approve, stage, promote, archive."""
    model = entries.set_status(page.here.wiring, page.name, ref, form["status"], page.here.import_roots)
    return go(address("catalog", "models", model.id), DONE[form["status"]])


@pages.post("/catalog/models/{ref:path}/parity")
def parity(page: Asked, ref: str, form: Posted) -> Response:
    """Serve a version for a moment, and compare its answers with those of its evaluation."""
    name, _ = measure_parity(page.here.wiring, page.name, ref, items=None, engine="transformers")
    return go(address("catalog", "models", name))


@pages.get("/catalog/models/{ref:path}")
def show(page: Asked, ref: str) -> Response:
    """One model: its state, its evaluation beside the buttons, its card, and who did what with it."""
    wiring = page.here.wiring
    found = found_of.evidence(wiring, ref)
    model = found.model
    card = None
    if model.kind == "trained":
        try:
            card = entries.card(wiring, model.id)
        except LookupError:
            card = None
    others = [m.id for m in entries.list_models(wiring) if m.kind == "trained" and m.id != model.id][:50]
    lines = history(wiring, model.ref or model.id, 20)
    return page.show("model.html", model=model, found=found, card=card, others=others, history=lines)
