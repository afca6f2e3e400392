"""Uploading a dataset from a page: a form with files, a preview with the columns to map, and the registration."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi import Response
from starlette.concurrency import run_in_threadpool

from images.console import parts, uploads
from images.console.problems import Problem
from images.console.web import forms
from images.console.web.i18n import N_
from images.console.web.page import Asked, Page, Posted, address, explained, go, router
from llmops_assets.operations import dataset_entries as entries
from llmops_assets.operations.upload_preview import FIELDS, Preview, preview_files
from llmops_assets.specs.base import SpecError

pages = router()
MAP = "map_"
AUTO = "auto"
TYPES = {
    AUTO: N_("recognise it by its columns"),
    "sft_pair": N_("questions and answers, or conversations (fine-tuning)"),
    "rlhf_pair": N_("pairs of a better and a worse answer (preferences)"),
    "kto": N_("answers that were found good or bad"),
    "rag_qa": N_("questions with passages and answers"),
    "embedding_pair": N_("texts that belong together (embeddings)"),
    "pretrain_corpus": N_("plain text (pre-training)"),
    "eval_suite": N_("questions for an evaluation"),
}


def _form(page: Page, values: Mapping[str, str], status: int = 200, **more: Any) -> Response:
    types = [(key, page.t(words)) for key, words in TYPES.items()]
    limit = page.here.wiring.policy.limits.max_upload_bytes
    shown = {"detail": "", "faults": {}, **more}
    return page.show("dataset_create.html", code=status, types=types, values=values, limit=limit, **shown)


@pages.get("/catalog/datasets/create")
def create_form(page: Asked) -> Response:
    """The form of a new version."""
    return _form(page, forms.fields({"type": AUTO, "version": "v1"}))


@pages.post("/catalog/datasets/create")
async def create(page: Asked) -> Response:
    """Keep the files, enter the version, and go on to its preview; nothing is registered yet."""
    here = page.here
    folder = await run_in_threadpool(uploads.Folder, here.uploads)
    try:
        given = await uploads.receive_form(page.request, folder.path, here.wiring.policy.limits.max_upload_bytes)
        values = forms.fields(given)
        forms.check(here, page.caller, page.request, values.pop(forms.FIELD, ""))
        return await run_in_threadpool(_enter, page, values, folder.path)
    finally:
        folder.close()


def _enter(page: Page, values: forms.Form, folder: Path) -> Response:
    here = page.here
    try:
        if not any(folder.iterdir()):
            raise Problem(422, page.t("Choose a file."))
        kind = values["type"]
        if kind == AUTO:
            guessed = preview_files(here.wiring, page.name, folder, "sft_pair")
            if guessed.type is None:
                fault = page.t("The columns do not tell it: choose it.") + f" ({guessed.guess})"
                return _form(page, values, 422, detail="", faults={"type": fault})
            kind = guessed.type
        fields = {
            "name": values["name"],
            "version": values["version"],
            "type": kind,
            "owner": values["owner"] or "unassigned",
            "description": values["description"] or f"{kind} of {values['owner'] or 'unassigned'}",
            "license": values.given("license"),
        }
        entered = entries.enter_dataset(here.wiring, page.name, {k: v for k, v in fields.items() if v is not None})
    except SpecError as error:
        return _form(page, values, 422, faults={fault.field: fault.message for fault in error.faults})
    except Exception as error:
        status, detail, _ = explained(error)
        if status == 500:
            raise
        return _form(page, values, status, detail=detail)
    # They wait for their owner, sealed where a key is set.
    parts.keep(folder, parts.folder_of(here.uploads, page.name, entered.key), here.wiring.keys)
    return go(address("catalog", "datasets", entered.key, "mapping"))


@contextmanager
def _uploaded(page: Page, ref: str) -> Iterator[tuple[str, Path, Path]]:
    """The key of a version, and a folder with the files of this user that wait under it, gone afterwards; and where
    their pieces lie."""
    here = page.here
    key = entries.find_version(here.wiring, ref)
    pieces = parts.folder_of(here.uploads, page.name, key)
    if not pieces.is_dir() or not any(pieces.iterdir()):
        raise Problem(409, f"no files of yours wait under {key}: upload them first")
    folder = uploads.Folder(here.uploads)
    try:
        parts.collect(pieces, folder.path, here.wiring.keys)
        yield key, folder.path, pieces
    finally:
        folder.close()


def _mapping(values: Mapping[str, str]) -> dict[str, str]:
    return {name.removeprefix(MAP): column for name, column in values.items() if name.startswith(MAP) and column}


def _preview(page: Page, key: str, folder: Path, values: Mapping[str, str]) -> Preview:
    known = entries.version(page.here.wiring, key).type
    kind = values.get("type") or known
    if kind not in FIELDS:
        raise Problem(422, f"type {kind[:40]!r}: choose one of {', '.join(FIELDS)}")
    return preview_files(page.here.wiring, page.name, folder, kind, _mapping(values))


@pages.get("/catalog/datasets/{ref}/mapping")
def mapping(page: Asked, ref: str) -> Response:
    """The first rows of what was uploaded, what they would be read as, and a choice of columns for each field.

    htmx asks for it again with every change, and shows the part that changed.
    """
    with _uploaded(page, ref) as (key, folder, _):
        found = _preview(page, key, folder, page.request.query_params)
    types = [(kind, page.t(words)) for kind, words in TYPES.items() if kind != AUTO]
    return page.show("mapping.html", key=key, found=found, types=types, prefix=MAP)


@pages.post("/catalog/datasets/{ref}/mapping")
def register(page: Asked, ref: str, form: Posted) -> Response:
    """Register the files with the chosen columns, and have them read."""
    wiring = page.here.wiring
    chosen = _mapping(form)
    with _uploaded(page, ref) as (key, folder, pieces):
        _preview(page, key, folder, form)
        fields = dict(wiring.catalog.drafts.dataset(key).fields)
        entries.enter_dataset(wiring, page.name, {**fields, "type": form["type"], "mapping": chosen or None})
        entries.add_files(wiring, page.name, key, folder)
        shutil.rmtree(pieces, ignore_errors=True)
    return go(address("catalog", "datasets", key), "registered")
