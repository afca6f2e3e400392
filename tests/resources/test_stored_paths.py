"""Nothing stored names a machine's path: records, catalog and MLflow keep paths by the root that they lie under."""

import re
import sqlite3
import typing
from pathlib import Path

import pytest
from pydantic import BaseModel

from llmops_assets.records import datasets, documents, evaluation, experiments, registry, serving, training
from llmops_assets.records.base import PATHS, Record, StoredPath
from llmops_assets.records.training import BaseModelRecord
from resources.catalog import Catalog
from resources.model_server import new_backend
from resources.records import Records
from resources.stored_paths import StoredPaths
from resources.tracking import Tracking

MODULES = (datasets, documents, evaluation, experiments, registry, serving, training)
NAMED_LIKE_A_PATH = re.compile(r"(^|_)(path|paths|dir|folder|file|report|answers|html|card)$")
LINEAGE = {"dataset": "desk@v1", "recipe": "r", "content_hash": "h", "family": "llama", "job_type": "SFT"}


def models() -> list[type[BaseModel]]:
    """Every class that a record consists of."""
    found = {value for module in MODULES for value in vars(module).values() if isinstance(value, type)}
    return sorted(
        (c for c in found if issubclass(c, BaseModel) and c not in (BaseModel, Record)), key=lambda c: c.__name__
    )


def is_stored_path(annotation: object) -> bool:
    if annotation == StoredPath:
        return True
    return any(is_stored_path(part) for part in typing.get_args(annotation))


@pytest.mark.parametrize("model", models(), ids=lambda m: m.__name__)
def test_every_field_of_a_record_that_is_a_path_is_declared_as_one(model: type[BaseModel]) -> None:
    """A field is one by its name or by its description; declared so, no whole path of it is ever written."""
    hints = typing.get_type_hints(model, include_extras=True)
    for name, field in model.model_fields.items():
        described = (field.description or "").startswith(("Path", "Folder"))
        if described or ("str" in str(hints[name]) and NAMED_LIKE_A_PATH.search(name)):
            assert is_stored_path(hints[name]), f"{model.__name__}.{name} holds a path: declare it StoredPath"


@pytest.mark.parametrize("model", models(), ids=lambda m: m.__name__)
def test_no_declared_path_of_a_record_is_written_whole(model: type[BaseModel], tmp_path: Path) -> None:
    paths = StoredPaths(tmp_path)
    hints = typing.get_type_hints(model, include_extras=True)
    values = {n: str(tmp_path / "artifacts" / n) for n in model.model_fields if is_stored_path(hints[n])}
    written = model.model_construct(**values).model_dump_json(context={PATHS: paths}, include=set(values))
    assert str(tmp_path) not in written and all(f'"{n}":"artifacts:{n}"' in written for n in values)


def test_a_path_is_written_by_the_root_that_it_lies_under(tmp_path: Path) -> None:
    paths = StoredPaths(tmp_path / "home", tmp_path / "elsewhere")
    for path, stored in {
        tmp_path / "elsewhere" / "models" / "a": "artifacts:models/a",
        tmp_path / "home" / "servers" / "b" / "server.log": "home:servers/b/server.log",
        tmp_path / "home": "home:",
        Path("/opt/models/c"): "/opt/models/c",
    }.items():
        assert paths.stored(path) == stored and paths.resolved(stored) == str(path)
        assert paths.stored(stored) == stored
    # A name that merely begins alike is another folder; what is no path stays what it is.
    assert paths.stored(f"{tmp_path}/home-2/x") == f"{tmp_path}/home-2/x"
    for text in ("hf:Qwen/Qwen3-0.6B", "", "s3://bucket/x"):
        assert paths.stored(text) == paths.resolved(text) == text


def test_the_root_of_artifacts_may_be_a_bucket() -> None:
    paths = StoredPaths("/srv/home", "s3://bucket/llmops/")
    assert paths.stored("s3://bucket/llmops/reports/q.html") == "artifacts:reports/q.html"
    assert paths.resolved("artifacts:reports/q.html") == "s3://bucket/llmops/reports/q.html"


def test_a_path_that_an_earlier_version_stored_whole_is_found_where_the_home_is_now(tmp_path: Path) -> None:
    merged = tmp_path / "artifacts" / "models" / "sft" / "desk" / "key" / "merged"
    merged.mkdir(parents=True)
    records = Records(tmp_path / "records")
    old = "/gone/host/.llmops/artifacts/models/sft/desk/key/merged"
    assert records.paths.resolved(old) == str(merged)
    # What the layout does not know, or what is not there, is used as it is.
    for text in ("/data/models/qwen", "/gone/artifacts/models/sft/desk/other/merged", "/models/merged"):
        assert records.paths.resolved(text) == text


def test_a_record_of_an_earlier_version_is_read_and_written_anew(tmp_path: Path) -> None:
    folder = tmp_path / "artifacts" / "reports" / "desk@v1"
    folder.mkdir(parents=True)
    (folder / "quality.html").write_text("")
    records = Records(tmp_path / "records")
    path = records.path(datasets.QualityRecord, "desk@v1")
    path.parent.mkdir(parents=True)
    values = {"dataset": "desk@v1", "rows": 1, "findings": "f", "pii": {}, "pii_rows": 0, "exact_duplicates": 0}
    values |= {"near_duplicates": 0, "clusters": "c", "scores": "s", "score_mean": 1.0, "toxic_rows": 0}
    values |= {"chat_faults": {}, "statistics": {}, "html": "/old/artifacts/reports/desk@v1/quality.html"}
    path.write_text(datasets.QualityRecord(**values).model_dump_json())
    record = records.load(datasets.QualityRecord, "desk@v1")
    assert record.html == str(folder / "quality.html")
    assert '"artifacts:reports/desk@v1/quality.html"' in records.save("desk@v1", record).read_text()


def test_paths_inside_a_record_of_records_are_written_by_their_roots(tmp_path: Path) -> None:
    base = BaseModelRecord(ref="x", family="llama", path=str(tmp_path / "models" / "b"), content_hash="h")
    plan = training.PlanRecord.model_construct(base=base, auxiliary_models={"reward": base})
    written = plan.model_dump_json(context={PATHS: StoredPaths(tmp_path)}, include={"base", "auxiliary_models"})
    assert written.count("home:models/b") == 2 and str(tmp_path) not in written


def test_the_catalog_names_no_folder_of_this_machine(tmp_path: Path) -> None:
    catalog = Catalog(f"sqlite:///{tmp_path}/catalog.db")
    model, log = tmp_path / "artifacts" / "models" / "m", tmp_path / "servers" / "b-1" / "server.log"
    catalog.register_base("hf:x", family="llama", path=str(tmp_path / "base"), content_hash="h", license=None)
    catalog.register_base("hf:org/y", family="llama", path="org/y", content_hash="h", license=None)
    made = new_backend("b-1", endpoint="e", model_ref="m@1", model_path=str(model), engine="transformers", runtime={})
    catalog.add_backend(made)
    catalog.update_backend("b-1", log_path=str(log))
    assert catalog.base_model("hf:x").path == str(tmp_path / "base")
    assert catalog.base_model("hf:org/y").path == "org/y"
    [backend] = catalog.backends("e")
    assert (backend.model_path, backend.log_path) == (str(model), str(log))
    with sqlite3.connect(tmp_path / "catalog.db") as connection:
        stored = connection.execute("SELECT model_path, log_path FROM backends").fetchall()
        assert stored == [("artifacts:models/m", "home:servers/b-1/server.log")]
        assert not [line for line in connection.iterdump() if str(tmp_path) in line]


def test_mlflow_names_no_folder_of_this_machine_and_a_store_that_does_is_rewritten(tmp_path: Path) -> None:
    home = tmp_path / "home"
    merged = home / "artifacts" / "models" / "sft" / "desk" / "key" / "merged"
    merged.mkdir(parents=True)
    page = tmp_path / "report.html"
    page.write_text("<p>one</p>")
    tracking = Tracking(f"sqlite:///{home}/mlflow.db")
    run = tracking.start_run("desk", "first")
    tracking.log_artifact(run, page, "evaluation")
    tracking.set_run_tags(run, {"llmops.weights": str(merged)})
    card = str(merged / "README.md")
    tracking.register("desk", merged, run, {**LINEAGE, "card": card})
    model = tracking.model("desk@1")
    assert (model.path, model.card) == (str(merged), card)
    assert tracking.register("desk", merged, run, {**LINEAGE, "card": card}) == 1

    def names() -> list[str]:
        with sqlite3.connect(home / "mlflow.db") as connection:
            return [line for line in connection.iterdump() if str(tmp_path) in line]

    assert names() == []
    # As an earlier version left it, on another machine.
    with sqlite3.connect(home / "mlflow.db") as connection:
        old = "/old/host/.llmops"
        place = f"{old}/mlflow-artifacts/desk"
        connection.execute("UPDATE experiments SET artifact_location = ? WHERE name = 'desk'", (place,))
        connection.execute("UPDATE runs SET artifact_uri = ?", (f"{place}/{run}/artifacts",))
        source = f"file://{old}/artifacts/models/sft/desk/key/merged"
        connection.execute("UPDATE model_versions SET source = ?, storage_location = ?", (source, source))
        connection.execute(
            "UPDATE model_version_tags SET value = ? WHERE key = 'path'", (source.removeprefix("file://"),)
        )
    again = Tracking(f"sqlite:///{home}/mlflow.db")
    assert again.model("desk@1").path == str(merged)
    again.log_artifact(run, page, "again")
    assert (home / "mlflow-artifacts" / "desk" / run / "artifacts" / "again" / "report.html").is_file()
    with sqlite3.connect(home / "mlflow.db") as connection:
        assert not [line for line in connection.iterdump() if "/old/host" in line]
        assert connection.execute("SELECT source FROM model_versions").fetchone() == (
            "llmops:/artifacts/models/sft/desk/key/merged",
        )
    again.delete_artifacts(run, "evaluation")
    assert not (home / "mlflow-artifacts" / "desk" / run / "artifacts" / "evaluation").exists()
