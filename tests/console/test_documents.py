"""The bodies of the source documents are taken as they stand, each by the route that they are written for."""

import csv
import json
from pathlib import Path

import pytest

from llmops_assets.records.datasets import SplitsRecord
from tests.experiments.traffic import CONTROL, TREATMENT
from tests.serving.conftest import deployment_spec

V1, ADMIN = "/llm-ops/v1", "/api/v1/admin"
DATASET = {
    "name": "customer-support-dataset",
    "version": "v1.0",
    "owner_team": "ml-platform",
    "type": "sft_pair",
    "storage_uri": "s3://datasets/customer-support-dataset/v1.0/",
}
MODEL = {
    "name": "example-base-model",
    "version": "1.0",
    "type": "base",
    "ownerTeam": "ml-platform",
    "metadata": {
        "architecture": "llama",
        "parameters": "7B",
        "framework": "pytorch",
        "model_family": "llama",
        "description": "an example",
    },
    "storageUri": "s3://models/example-base-model/1.0/",
    "status": "draft",
}
TRAINING = {
    "modelId": "example-base-model@1.0",
    "datasetId": "customer-support-dataset@v1.0",
    "jobType": "finetune",
    "useGpu": False,
    "resourceProfile": {"cpuCores": 4, "memory": "8Gi", "maxDuration": 60},
    "trainJobSpec": {
        "model_ref": "example-base-model-1.0",
        "model_family": "llama",
        "job_type": "SFT",
        "dataset_ref": "customer-support-dataset-v1.0",
        "dataset_type": "instruction",
        "resources": {"gpus": 0},
        "hyperparameters": {"learning_rate": 2e-5, "batch_size": 4, "num_epochs": 1},
        "use_gpu": False,
    },
}
ENDPOINT = {
    "modelId": "tuned@1",
    "environment": "dev",
    "route": "/llm-ops/v1/serve/example-model",
    "minReplicas": 1,
    "maxReplicas": 3,
    "useGpu": False,
    "deploymentSpec": {
        "model_ref": "tuned@1",
        "model_family": "llama",
        "job_type": "SFT",
        "serve_target": "GENERATION",
        "resources": {"gpus": 0, "gpu_memory_gb": 80},
        "runtime": {"max_concurrent_requests": 256, "max_input_tokens": 4096, "max_output_tokens": 1024},
        "use_gpu": False,
    },
}
JOB = {
    "job_name": "desk-lora",
    "base_model": "Qwen/Qwen3-7B-Instruct",
    "dataset_id": "desk@v1",
    "method": "lora",
    "hyperparameters": {
        "lora_rank": 16,
        "lora_alpha": 32,
        "learning_rate": 2e-4,
        "batch_size": 4,
        "gradient_accumulation_steps": 8,
        "num_epochs": 3,
        "warmup_steps": 100,
        "max_seq_length": 2048,
    },
    "gpu_ids": "0,1",
}
TEST = {
    "experiment_name": "base-or-tuned",
    "model_a_id": CONTROL,
    "model_b_id": TREATMENT,
    "traffic_split": {"a": 0.5, "b": 0.5},
    "target_samples": 200,
    "success_metric": "user_rating",
}


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """What somebody exported: a CSV with a byte-order mark, quotes and a line break in a cell."""
    path = tmp_path / "support.csv"
    with open(path, "w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["question", "answer"])
        for number in range(40):
            writer.writerow([f"질문 {number}: 환불은 어떻게 하나요?", f'"안내" {number}\n영수증을 가져오세요.'])
    return path


def answered(response, status: int):
    assert response.status_code == status, response.text
    return response.json()


def enter_and_upload(api, rows: Path, body=DATASET) -> dict:
    answered(api.post(f"{V1}/catalog/datasets", json=body), 201)
    with open(rows, "rb") as file:
        where = f"{V1}/catalog/datasets/{body['name']}-{body['version']}/upload"
        return answered(api.post(where, files={"files": ("support.csv", file, "text/csv")}), 201)


def enter_model(api, model: Path, body=MODEL) -> dict:
    return answered(api.post(f"{V1}/catalog/models", json={**body, "storageUri": f"file://{model}"}), 201)


def test_a_dataset_is_entered_and_gets_its_file_by_upload(api, wiring, rows):
    draft = answered(api.post(f"{V1}/catalog/datasets", json=DATASET), 201)
    assert (draft["id"], draft["status"]) == ("customer-support-dataset@v1.0", "awaiting_files")
    done = enter_and_upload(api, rows)
    assert (done["status"], done["is_new"]) == ("ingesting", True)
    entry = wiring.catalog.dataset_entry("customer-support-dataset@v1.0")
    assert (entry.spec.owner, entry.spec.type) == ("ml-platform", "sft_pair")
    kept = wiring.artifacts.path("uploads", entry.key) / "support.csv"
    assert kept.read_bytes() == rows.read_bytes()
    assert wiring.catalog.intents.newest("ingest", entry.key).requested_by == "kim"
    # Nothing is left of the upload, and the entry is no draft any more.
    assert list((wiring.settings.root / "incoming").iterdir()) == [] and wiring.catalog.drafts.datasets() == []
    listed = answered(api.get(f"{V1}/catalog/datasets"), 200)["items"]
    assert [one["id"] for one in listed] == ["customer-support-dataset@v1.0"]


def test_a_model_whose_files_are_elsewhere_is_a_draft_that_says_so_and_cannot_be_approved(api):
    entered = answered(api.post(f"{V1}/catalog/models", json=MODEL), 201)
    assert (entered["status"], entered["ref"]) == ("draft", None)
    refused = answered(api.patch(f"{V1}/catalog/models/{entered['id']}/status", json={"status": "approved"}), 409)
    assert "s3://models/example-base-model/1.0/ are not on this machine" in refused["detail"]


def test_a_model_on_this_machine_is_looked_at_entered_and_approved(api, wiring, model):
    entered = enter_model(api, model)
    assert (entered["id"], entered["status"]) == ("example-base-model@1.0", "draft")
    done = answered(api.patch(f"{V1}/catalog/models/{entered['id']}/status", json={"status": "approved"}), 200)
    assert done["status"] == "approved"
    assert wiring.catalog.base_model(f"hf:{model}").approved_by == "kim"


def test_a_training_is_asked_for_by_the_names_of_the_document(api, wiring, model, rows):
    enter_and_upload(api, rows)
    enter_model(api, model)
    early = answered(api.post(f"{V1}/training/jobs", json=TRAINING), 409)
    assert "example-base-model@1.0 is draft" in early["detail"]
    api.patch(f"{V1}/catalog/models/example-base-model@1.0/status", json={"status": "approved"})
    job = answered(api.post(f"{V1}/training/jobs", json=TRAINING), 202)
    spec = job["spec"]
    assert (spec["base_model_ref"], spec["dataset_ref"]) == (f"hf:{model}", "customer-support-dataset@v1.0")
    assert spec["hyperparams"]["lr"] == 2e-5 and spec["hyperparams"]["batch_size"] == 4
    assert spec["hyperparams"]["max_seq_len"] == 2048 and spec["resources"]["gpus"] == 0
    # What cannot be honoured is said, field by field.
    assert [note.split()[0] for note in job["notes"]] == [
        "resourceProfile.cpuCores",
        "resourceProfile.memory",
        "resourceProfile.maxDuration",
    ]
    assert job["status"] in ("requested", "held") and job["requested_by"] == "kim"
    again = answered(api.get(f"{V1}/training/jobs/{job['id']}"), 200)
    assert again["id"] == job["id"] and "model_dir" not in again
    assert [one["id"] for one in answered(api.get(f"{V1}/training/jobs"), 200)["items"]] == [job["id"]]
    stopped = answered(api.post(f"{V1}/training/jobs/{job['id']}/stop"), 200)
    assert stopped["status"] == "stopped"
    assert answered(api.post(f"{V1}/training/jobs/{job['id']}/resume"), 202)["status"] in ("requested", "held")


def register_version(wiring, model: Path, name: str = "tuned", content: str = "c") -> None:
    tags = {"dataset": "d@v1", "recipe": "r", "content_hash": content, "family": "llama", "job_type": "SFT"}
    run = wiring.tracking.start_run("tests", name)
    wiring.tracking.register(name, model, run, tags, "a model")


def test_an_endpoint_is_wanted_as_the_document_writes_it(api, wiring, model):
    register_version(wiring, model)
    done = answered(api.post(f"{V1}/serving/endpoints", json=ENDPOINT), 202)
    assert (done["id"], done["status"], done["model_ref"]) == ("example-model", "pending", "tuned@1")
    assert any("gpu_memory_gb is ignored" in note for note in done["notes"])
    spec = wiring.catalog.endpoint("example-model").spec
    assert (spec.replicas.min, spec.replicas.max, spec.runtime.max_input_tokens) == (1, 3, 4096)
    wiring.catalog.conclude_deployment("example-model", 1, state="live", message="")
    assert answered(api.get(f"{V1}/serving/endpoints/example-model"), 200)["status"] == "healthy"
    answered(api.delete(f"{V1}/serving/endpoints/example-model"), 200)
    assert api.get(f"{V1}/serving/endpoints/example-model").status_code == 404


def test_the_forms_of_the_fine_tuning_document_lead_to_the_same_operations(api, wiring, model, rows):
    with open(rows, "rb") as file:
        made = answered(
            api.post(
                f"{ADMIN}/training/datasets",
                data={"name": "desk", "description": "상담 기록"},
                files={"file": ("desk.csv", file, "text/csv")},
            ),
            201,
        )
    assert (made["id"], made["description"]) == ("desk@v1", "상담 기록")
    listed = answered(api.get(f"{ADMIN}/training/datasets?status=ingesting&skip=0&limit=10"), 200)
    assert listed["total"] == 1 and listed["items"][0]["id"] == "desk@v1"
    pending = answered(api.post(f"{ADMIN}/training/datasets/desk@v1/validate"), 202)
    assert pending["is_valid"] is None
    shares = {"train_ratio": 0.8, "val_ratio": 0.1, "test_ratio": 0.1}
    assert answered(api.post(f"{ADMIN}/training/datasets/desk@v1/split", json=shares), 202)["splits"] is None
    other = {"train_ratio": 0.7, "val_ratio": 0.2, "test_ratio": 0.1}
    assert (
        "a version never changes"
        in answered(api.post(f"{ADMIN}/training/datasets/desk@v1/split", json=other), 422)["detail"]
    )
    more = {"train_ratio": 0.8, "val_ratio": 0.3, "test_ratio": 0.1}
    refused = answered(api.post(f"{ADMIN}/training/datasets/desk@v1/split", json=more), 422)
    assert "add up to 1" in refused["detail"]

    spaced = answered(
        api.post(f"{ADMIN}/finetuning/jobs", json={**JOB, "job_name": "창구 안내", "dataset_id": None}), 422
    )
    assert spaced["errors"] == [
        {
            "field": "job_name",
            "message": "'창구 안내' is not allowed here",
            "hint": "Use Latin letters, digits, '.', '_' and '-', starting with a letter or digit",
        },
        {"field": "dataset_id", "message": "should be text, not null", "hint": ""},
    ]
    missing = answered(api.post(f"{ADMIN}/finetuning/jobs", json=JOB), 404)
    assert "Qwen/Qwen3-7B-Instruct" in missing["detail"]
    about = {"family": "llama", "path": str(model), "content_hash": None, "license": None}
    wiring.catalog.register_base("hf:Qwen/Qwen3-7B-Instruct", **about)
    wiring.catalog.approve_base("hf:Qwen/Qwen3-7B-Instruct")
    job = answered(api.post(f"{ADMIN}/finetuning/jobs", json=JOB), 202)
    hyper = job["spec"]["hyperparams"]
    assert (hyper["lora_rank"], hyper["lora_alpha"], hyper["max_seq_len"], hyper["warmup_steps"]) == (16, 32, 2048, 100)
    assert job["spec"]["resources"]["gpus"] == 2 and job["spec"]["output"]["artifact_name"] == "desk-lora"
    assert answered(api.get(f"{ADMIN}/finetuning/jobs/{job['id']}/logs?lines=100"), 200)["lines"] == []
    assert answered(api.get(f"{ADMIN}/finetuning/jobs/{job['id']}/metrics"), 200)["metrics"] == {}
    wrong = answered(api.post(f"{ADMIN}/finetuning/jobs/{job['id']}/resume", json={"checkpoint_id": "5"}), 409)
    assert "its last whole checkpoint, there is none" in wrong["detail"]


def test_an_ab_test_is_started_on_the_endpoint_that_serves_both(api, wiring, model):
    for ref in (CONTROL, TREATMENT):
        name, version = ref.split("@")
        for number in range(int(version)):
            register_version(wiring, model, name, f"{name}-{number}")
    none = answered(api.post(f"{ADMIN}/ab-tests", json=TEST), 409)
    assert "none does" in none["detail"]
    wiring.catalog.want_endpoint(deployment_spec("desk", model_ref=CONTROL))
    routes = [
        {"backend": f"b{n}", "model_ref": ref, "weight": 0.5, "engine": "transformers", "url": None}
        for n, ref in enumerate((CONTROL, TREATMENT))
    ]
    wiring.catalog.set_routes("desk", routes, "test")
    started = answered(api.post(f"{ADMIN}/ab-tests", json=TEST), 201)
    assert (started["endpoint"], started["status"], started["is_new"]) == ("desk", "running", True)
    assert wiring.catalog.experiment("base-or-tuned").spec.target_users_per_arm == 200
    results = answered(api.get(f"{ADMIN}/ab-tests/base-or-tuned/results"), 200)
    assert results["analysis"] is None and results["model_b"] == TREATMENT
    assert answered(api.get(f"{ADMIN}/ab-tests"), 200)["total"] == 1
    assert answered(api.post(f"{ADMIN}/ab-tests/base-or-tuned/conclude", json={"winner": "c"}), 422)["errors"]
    assert "base-or-tuned" in answered(api.delete(f"{V1}/serving/endpoints/desk"), 409)["detail"]
    done = answered(api.post(f"{ADMIN}/ab-tests/base-or-tuned/conclude", json={"winner": "b"}), 200)
    assert (done["decision"], done["winner"], done["is_new"]) == ("promote", TREATMENT, True)
    assert wiring.catalog.endpoint("desk").spec.model_ref == TREATMENT
    # It is decided once: whoever stops it afterwards is told what it came to.
    late = answered(api.post(f"{ADMIN}/ab-tests/base-or-tuned/stop"), 200)
    assert (late["decision"], late["is_new"]) == ("promote", False)


def test_what_was_used_is_summed_as_it_is_asked_for(api):
    assert answered(api.get(f"{V1}/usage?by=team&by=model&since=2026-01-01"), 200) == {"items": []}
    assert "choose of key" in answered(api.get(f"{V1}/usage?by=user"), 422)["detail"]


def test_what_nobody_knows_is_refused_by_its_path(api):
    body = {**TRAINING, "trainJobSpec": {**TRAINING["trainJobSpec"], "warmup": 3, "hyperparameters": {"lr_decay": 1}}}
    refused = answered(api.post(f"{V1}/training/jobs", json=body), 422)
    assert api.post(f"{V1}/training/jobs", json=body).headers["content-type"] == "application/problem+json"
    assert {fault["field"] for fault in refused["errors"]} == {
        "trainJobSpec.warmup",
        "trainJobSpec.hyperparameters.lr_decay",
    }


def test_a_ready_version_shows_its_rows_and_its_splits(api, wiring, rows):
    enter_and_upload(api, rows)
    key = "customer-support-dataset@v1.0"
    made = dict.fromkeys(("train", "validation", "test"), 4)
    about = {"dataset": key, "type": "sft_pair", "manifests": {}, "rows": made, "stratify_by": None, "group_by": None}
    wiring.records.save(key, SplitsRecord(**about, seed=0, data_hash="h"))
    shown = api.get(f"{V1}/catalog/datasets/{key}")
    assert answered(shown, 200)["status"] == "ready" and shown.json()["splits"] == made
    same = api.get(f"{V1}/catalog/datasets/{key}", headers={"If-None-Match": shown.headers["etag"]})
    assert same.status_code == 304 and same.content == b""
    report = answered(api.post(f"{ADMIN}/training/datasets/{key}/validate"), 200)
    assert report["is_valid"] is True
    assert json.loads(api.get(f"{V1}/catalog/datasets/{key}/stats").text)["splits"]["rows"] == made
