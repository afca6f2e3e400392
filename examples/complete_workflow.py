"""From a file of questions and answers to a chat with the model that was trained on it, over HTTP alone.

    python examples/complete_workflow.py --data desk.csv --model /models/Qwen3-0.6B --family qwen

`llmops up` has to run. The environment says where and as whom: LLM_OPS_API_BASE_URL, LLM_OPS_USER_ID,
LLM_OPS_USER_ROLES, LLM_OPS_API_KEY, USE_GPU.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import requests

BASE_URL = os.environ.get("LLM_OPS_API_BASE_URL", "http://127.0.0.1:8090/llm-ops/v1").rstrip("/")
USE_GPU = os.environ.get("USE_GPU", "false").lower() == "true"


def headers() -> dict[str, str]:
    """Who asks: an API key, or what a trusted proxy says of its user."""
    if key := os.environ.get("LLM_OPS_API_KEY"):
        return {"Authorization": f"Bearer {key}"}
    user, roles = os.environ.get("LLM_OPS_USER_ID"), os.environ.get("LLM_OPS_USER_ROLES", "llm-ops-user")
    return {"X-User-Id": user, "X-User-Roles": roles} if user else {}


def call(method: str, path: str, **more: Any) -> Any:
    """What the platform answers; ends the program with its words when it refuses. Long work is waited for."""
    answer = requests.request(method, BASE_URL + path, headers=headers(), timeout=120, **more)
    while answer.status_code == 202 and (place := answer.headers.get("Location")):
        time.sleep(0.5)
        answer = requests.get(BASE_URL.removesuffix("/llm-ops/v1") + place, headers=headers(), timeout=120)
        if answer.ok and answer.json().get("status") == "running":
            answer.status_code = 202
            answer.headers["Location"] = place
    if not answer.ok:
        sys.exit(f"{method} {path}: {answer.status_code} {words_of(answer)}")
    return answer.json()


def words_of(answer: requests.Response) -> str:
    """Why it was refused: the platform's own words, or those of a proxy that could not reach it, which are a page."""
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return f"{answer.reason}: {answer.text[:300]}"


def wait(path: str, done: set[str], over: set[str], seconds: float) -> dict[str, Any]:
    """Look at `path` until its status is one of `done`; ends the program for one of `over`, and after `seconds`."""
    deadline, shown = time.monotonic() + seconds, ""
    while time.monotonic() < deadline:
        found = call("GET", path)
        said = f"  {found['status']} {found.get('detail') or found.get('message') or ''}".rstrip()
        if said != shown:
            print(said, flush=True)
            shown = said
        if found["status"] in done:
            return found
        if found["status"] in over:
            sys.exit(f"{path} is {found['status']}: {found.get('detail') or found.get('message')}")
        time.sleep(1)
    sys.exit(f"{path} was not {' or '.join(sorted(done))} within {seconds:.0f} s")


def main() -> None:
    """Register and upload, enter and approve, train, deploy, chat."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="A file of rows: CSV, JSONL, …")
    parser.add_argument("--model", type=Path, required=True, help="The folder of a base model, on the server.")
    parser.add_argument("--family", default="llama")
    parser.add_argument("--name", default="customer-support", help="Of what is made here.")
    parser.add_argument("--version", default="v1.0")
    parser.add_argument("--hyperparameters", type=json.loads, default={}, help="JSON, besides the usual ones.")
    parser.add_argument("--question", default="환불은 어떻게 하나요?")
    parser.add_argument("--hours", type=float, default=12, help="How long the training is waited for.")
    a = parser.parse_args()

    print(f"the platform is {call('GET', '/health')['status']}")
    about = {"name": a.name, "version": a.version, "type": "sft_pair", "owner_team": "ml-platform"}
    dataset = call("POST", "/catalog/datasets", json=about)["id"]
    print(f"dataset {dataset}: {a.data.name} is uploaded")
    with open(a.data, "rb") as file:
        call("POST", f"/catalog/datasets/{dataset}/upload", files={"files": (a.data.name, file)})

    entered = {
        "name": f"{a.name}-base",
        "version": "1.0",
        "type": "base",
        "ownerTeam": "ml-platform",
        "metadata": {"model_family": a.family},
        "storageUri": f"file://{a.model.absolute()}",
        "status": "draft",
    }
    base = call("POST", "/catalog/models", json=entered)["id"]
    call("PATCH", f"/catalog/models/{base}/status", json={"status": "approved"})
    print(f"model {base}: approved")
    wait(f"/catalog/datasets/{dataset}", {"ready"}, {"failed", "blocked", "erased"}, 3600)

    spec = {
        "model_ref": base,
        "model_family": a.family,
        "job_type": "SFT",
        "dataset_ref": dataset,
        "dataset_type": "instruction",
        "resources": {"gpus": 1 if USE_GPU else 0},
        "hyperparameters": {"learning_rate": 2e-4, "batch_size": 4, "num_epochs": 1, **a.hyperparameters},
        "use_gpu": USE_GPU,
    }
    asked = {"modelId": base, "datasetId": dataset, "jobType": "finetune", "useGpu": USE_GPU, "trainJobSpec": spec}
    job = call("POST", "/training/jobs", json=asked)
    print(f"training {job['id']}")
    wait(f"/training/jobs/{job['id']}", {"registered"}, {"failed", "stopped", "withheld"}, 3600 * a.hours)
    trained = next(m for m in call("GET", "/catalog/models")["items"] if m["detail"].get("recipe") == job["recipe"])
    print(f"model {trained['id']}: {trained['status']}")

    wanted = {
        "modelId": trained["id"],
        "environment": "dev",
        "route": f"/llm-ops/v1/serve/{a.name}",
        "minReplicas": 1,
        "maxReplicas": 1,
        "useGpu": USE_GPU,
    }
    endpoint = call("POST", "/serving/endpoints", json=wanted)["id"]
    print(f"endpoint {endpoint}")
    wait(f"/serving/endpoints/{endpoint}", {"healthy"}, {"failed", "deleting"}, 1800)

    asked = {"messages": [{"role": "user", "content": a.question}], "max_tokens": 100}
    answer = call("POST", f"/serve/{endpoint}/chat", json=asked)
    print(f"{a.question}\n{answer['choices'][0]['message']['content']}")


if __name__ == "__main__":
    main()
