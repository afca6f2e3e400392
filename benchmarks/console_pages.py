"""How long the console's lists take on many rows: `python -m benchmarks.console_pages [ROWS]`.

Fills a catalog of its own with that many dataset versions, requested trainings and audit lines (10,000 unless given),
asks for each page ten times over ASGI, and prints the median; with Chromium there, also when it first painted.
"""

import statistics
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa
import uvicorn
from starlette.testclient import TestClient

from images.console.__main__ import callers_of
from images.console.app import create_app
from images.console.state import State
from llmops_assets.local.stack import free_port, prepare_home
from llmops_assets.specs.dataset import DatasetSpec
from llmops_assets.specs.settings import Settings
from llmops_assets.wiring import Wiring
from resources.catalog import tables as t

PAGES = ("/", "/catalog/datasets", "/catalog/datasets?start=9000", "/training/jobs", "/training/experiments", "/audit")


def fill(wiring: Wiring, rows: int) -> None:
    """Rows as `rows` registrations and requests leave them."""
    spec = DatasetSpec.model_validate(
        {"name": "desk", "version": "v1", "type": "sft_pair", "files": ["a.csv"], "owner": "desk", "description": "d"}
    )
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    recipe = {"job_type": "SFT", "method": "lora", "base_model_ref": "hf:base", "hyperparams": {"lr": 1e-4, "seed": 1}}
    with wiring.catalog.database.write("bench") as transaction:
        transaction.insert_missing(t.recipes, {"key": "tuned-00000000", "spec": recipe, "created_at": begin})
        for first in range(0, rows, 500):
            numbers = range(first, min(first + 500, rows))
            datasets, requests = [], []
            for number in numbers:
                at, key = begin + timedelta(seconds=number), f"desk@v{number}"
                whole = spec.model_copy(update={"version": f"v{number}"}).model_dump(mode="json")
                row = {"key": key, "name": "desk", "version": f"v{number}", "type": "sft_pair", "spec": whole}
                datasets.append({**row, "digest": "d", "status": "active", "created_at": at, "requested_at": at})
                asked = {"dataset": key, "recipe": "tuned-00000000", "requested_by": "kim", "requested_at": at}
                requests.append({**asked, "reported_at": at})
            transaction.execute(sa.insert(t.datasets).values(datasets))
            transaction.execute(sa.insert(t.training_requests).values(requests))
    for number in range(min(rows, 200)):
        wiring.catalog.log("kim", "dataset.register", f"desk@v{number}")


def first_paint(app: object, path: str) -> float | None:
    """Milliseconds until Chromium painted a page first; None without it."""
    try:
        from playwright.sync_api import sync_playwright

        from tests.gateway.browser import install

        executable = install()
    except (ImportError, RuntimeError):
        return None
    port = free_port("127.0.0.1")
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error"))  # type: ignore[arg-type]
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    script = "performance.getEntriesByType('paint').find(p => p.name === 'first-contentful-paint')?.startTime ?? -1"
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
            page, times = browser.new_page(), []
            for _ in range(5):
                page.goto(f"http://127.0.0.1:{port}{path}")
                # The policy of the pages lets no text be run, so this asks until the browser has noted its paint.
                while (at := float(page.evaluate(script))) < 0:
                    page.wait_for_timeout(20)
                times.append(at)
            browser.close()
    finally:
        server.should_exit = True
        thread.join(20)
    return statistics.median(times)


def main() -> None:
    """Print a line a page."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as folder:
        wiring = Wiring(Settings(home=Path(folder) / "home", _env_file=None))
        prepare_home(wiring.settings)
        fill(wiring, rows)
        app = create_app(State(wiring, callers_of(wiring, open_to="console"), None))
        print(f"{rows:,} rows; milliseconds of the server, and to the first paint in Chromium")
        with TestClient(app, base_url="http://127.0.0.1:8090") as client:
            for path in PAGES:
                times = []
                for _ in range(10):
                    began = time.perf_counter()
                    answer = client.get(path)
                    times.append(1000 * (time.perf_counter() - began))
                    assert answer.status_code == 200, answer.text
                painted = first_paint(app, path)
                print(f"{path:32} {statistics.median(times):6.0f}  {'' if painted is None else f'{painted:6.0f}'}")


if __name__ == "__main__":
    main()
