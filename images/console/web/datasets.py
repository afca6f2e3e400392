"""Pages of datasets: the list, a version with its report, what was refused, how two versions differ."""

from fastapi import Response

from images.console.web.page import PER_PAGE, Asked, Slice, report, router, start_of
from llmops_assets.operations import dataset_entries as entries
from llmops_assets.operations import dataset_reports as reports

pages = router()


@pages.get("/catalog/datasets")
def list_(page: Asked, name: str = "") -> Response:
    """Versions, those that wait for their files first, then the newest."""
    start = start_of(page.request)
    found, total = entries.versions_page(page.here.wiring, start, PER_PAGE, name or None)
    return page.show("datasets.html", found=Slice(found, start, total), name=name)


@pages.get("/catalog/datasets/{ref}")
def show(page: Asked, ref: str) -> Response:
    """One version: where it stands, what was found in it, and its report with its pictures."""
    wiring = page.here.wiring
    key = entries.find_version(wiring, ref)
    version = entries.version(wiring, key)
    waits = version.state == "awaiting_files"
    made = {} if waits else entries.reports(wiring, key)
    others = [one.key for one in entries.versions_page(wiring, 0, 20, version.name)[0] if one.key != key]
    return page.show(
        "dataset.html",
        version=version,
        made=made,
        checks=[] if waits else entries.checks(wiring, key),
        others=others,
        has_report=bool((made.get("quality_report") or {}).get("html")),
    )


@pages.get("/catalog/datasets/{ref}/report")
def quality(page: Asked, ref: str) -> Response:
    """The quality report itself, which the version's page shows."""
    return report(reports.quality_report(page.here.wiring, ref))


@pages.get("/catalog/datasets/{ref}/quarantine")
def quarantine(page: Asked, ref: str) -> Response:
    """Every row that was refused: file, line, field and reason."""
    start = start_of(page.request)
    found = reports.quarantine(page.here.wiring, ref, start, PER_PAGE)
    key = entries.find_version(page.here.wiring, ref)
    return page.show("quarantine.html", key=key, found=Slice(found.rows, start, found.total))


@pages.get("/catalog/datasets/{ref}/diff")
def diff(page: Asked, ref: str, against: str = "", step: str = "clean") -> Response:
    """What was added, removed and changed against another version."""
    wiring = page.here.wiring
    key = entries.find_version(wiring, ref)
    others = [one.key for one in entries.versions_page(wiring, 0, 100, key.partition("@")[0])[0] if one.key != key]
    found = reports.compare_versions(wiring, against, key, step) if against else None
    return page.show("diff.html", key=key, others=others, against=against, step=step, steps=reports.STEPS, found=found)
