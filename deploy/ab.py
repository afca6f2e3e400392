"""An A/B test on a server that runs, from a second training to the promoted model, over its interfaces alone."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from deploy.running import Server

PER_ARM = 200
"""The least that the policy decides on."""
USERS = 440
"""As many on one model as on the other: left to chance an arm is too small, or the split too uneven to be trusted, one
time in ten."""
CANDIDATES = 560
"""Of whom both models have half of `USERS`, but for once in a million times."""
WINDOW_HOURS = 0.05
_TRIES = 60
QUESTION = "환불은 어떻게 하나요?"
WAIT_SECONDS = 1800.0
API = "/llm-ops/v1"


def ab_test(server: Server, name: str) -> str:
    """Train a second model on the dataset of endpoint `name`, give it half of the users, have them rate answers, and
    wait until the test is decided and the endpoint serves its winner; the winner.

    Users like the second model better. Raises RuntimeError where one step is not done, with what was answered.
    """
    first = str(_ask(server, f"{API}/serving/endpoints/{name}")["model_ref"])
    known = _answer(server, name, "before")["choices"][0]["message"]["content"]
    model = first.partition("@")[0]
    second = _second_model(server, name, model)
    print(f"{first} against {second}", flush=True)
    half = {"strategy": "canary", "traffic_split": {"old": 50, "new": 50}}
    wanted = {"modelId": second, "environment": "dev", "route": f"/llm-ops/v1/serve/{name}", "minReplicas": 1,
              "maxReplicas": 1, "useGpu": False, "deploymentSpec": {"rollout": half}}  # fmt: skip
    _ask(server, f"{API}/serving/endpoints", wanted)
    _wait(server, f"{API}/serving/endpoints/{name}", lambda one: one["status"] == "healthy")
    _compare(server, name, first, second, known, _crowd(server, name, known))
    return second


def _compare(server: Server, name: str, first: str, second: str, known: str, crowd: dict[str, bool]) -> None:
    """Run the test with a crowd, and wait until its winner has all users."""
    test = f"{name}-{second.rpartition('@')[2]}-against-{first.rpartition('@')[2]}-{int(time.time())}"
    spec = {"name": test, "endpoint": name, "control": first, "treatment": second, "split": [50, 50],
            "duration_hours": 24, "target_users_per_arm": PER_ARM, "expected_users": USERS,
            "rating_window_hours": WINDOW_HOURS, "auto_promote": True,
            # So few requests bound a share of failures to 1.9 percent at best: the policy's 1 would stay open.
            "guardrails": {"failed_requests": 0.05, "slow_requests": 0.1}}  # fmt: skip
    # By the command: a test over the interface counts ratings of a whole day, and nobody waits for that here.
    file = server.folder / "home" / "import" / "ab.json"
    file.write_text(json.dumps(spec), encoding="utf-8")
    file.chmod(0o644)
    server.command("ab", "create", "/var/lib/llmops/import/ab.json")
    users = _users(server, name, known, list(crowd))
    if users != crowd:
        raise RuntimeError(f"{sum(users[one] != crowd[one] for one in crowd)} users changed their model with the test")
    print(f"{sum(users.values())} of {len(users)} users had {second}", flush=True)
    found = _wait(server, f"{API}/ab-tests/{test}", lambda one: one["decision"] is not None)
    print(f"decided: {found['decision']}: {found['reason']}", flush=True)
    if found["decision"] != "promote":
        raise RuntimeError(f"the test {test} came to {found['decision']}: {found['reason']}")
    _wait(server, f"{API}/serving/endpoints/{name}", lambda one: one["status"] == "healthy")
    _wait(server, f"{API}/serving/endpoints/{name}/routes", lambda one: _only(one, second))


def _second_model(server: Server, name: str, model: str) -> str:
    """Train on the same data and base, for longer: the version that is registered."""
    listed = _ask(server, f"{API}/catalog/models?limit=200")["items"]
    known = {one["id"] for one in listed if one["id"].partition("@")[0] == model}
    spec = {
        "model_ref": f"{name}-base@1.0", "model_family": "llama", "job_type": "SFT", "dataset_ref": f"{name}@v1.0",
        "dataset_type": "instruction", "resources": {"gpus": 0}, "use_gpu": False,
        "hyperparameters": {"learning_rate": 2e-3, "batch_size": 16, "num_epochs": 40, "max_steps": 50,
                            "max_seq_length": 128},
    }  # fmt: skip
    asked = {"modelId": spec["model_ref"], "datasetId": spec["dataset_ref"], "jobType": "finetune", "useGpu": False,
             "trainJobSpec": spec}  # fmt: skip
    job = _ask(server, f"{API}/training/jobs", asked)
    _wait(server, f"{API}/training/jobs/{job['id']}", lambda one: one["status"] == "registered")
    listed = _ask(server, f"{API}/catalog/models?limit=200")["items"]
    mine = [one["id"] for one in listed if one.get("detail", {}).get("recipe") == job["recipe"]]
    new = [one for one in mine if one not in known] or mine
    if not new:
        raise RuntimeError(f"training {job['id']} is registered, and no model of recipe {job['recipe']} is listed")
    return str(new[0])


def _crowd(server: Server, name: str, known: str) -> dict[str, bool]:
    """Users, and whether the canary gives each another answer than the `known` one: as many as it does not."""

    def has_other(key: str, user: str) -> bool:
        return bool(_answer(server, name, user, key)["choices"][0]["message"]["content"] != known)

    candidates = [f"user-{number}" for number in range(CANDIDATES)]
    with server.own_key("ab-test", "--rate", "100000") as key, ThreadPoolExecutor(4) as pool:
        found = dict(zip(candidates, pool.map(partial(has_other, key), candidates), strict=True))
    arms = [[user for user, other in found.items() if other is arm][: USERS // 2] for arm in (False, True)]
    if {len(arm) for arm in arms} != {USERS // 2}:
        raise RuntimeError(f"{sum(found.values())} of {CANDIDATES} users have the new model of a canary of 50 %")
    # As they come, and not one arm after the other.
    return {user: found[user] for user in candidates if user in {*arms[0], *arms[1]}}


def _users(server: Server, name: str, known: str, crowd: list[str]) -> dict[str, bool]:
    """Let users ask once and rate; whether each had another answer than the `known` one, of the model in place."""

    def rated(key: str, number: int) -> bool:
        user = crowd[number]
        answer = _answer(server, name, user, key)
        is_other = answer["choices"][0]["message"]["content"] != known
        # Not all of them: who agrees on everything is no crowd.
        rating = (5 if number % 5 else 4) if is_other else (2 if number % 4 else 3)
        body = {"request_id": answer["id"], "rating": rating, "user": user}
        for _ in range(_TRIES):
            # An answer may be rated once it is written down, on a busy server some seconds later.
            status, said = server.ask("/v1/feedback", body, key)
            if status != 404:
                break
            time.sleep(1)
        if status != 201:
            raise RuntimeError(f"/v1/feedback answers {status}: {said[:300].decode(errors='replace')}")
        return is_other

    # One address asks for all of them, faster than the policy lets one caller.
    with server.own_key("ab-test", "--rate", "100000") as key, ThreadPoolExecutor(4) as pool:
        return dict(zip(crowd, pool.map(partial(rated, key), range(len(crowd))), strict=True))


def _answer(server: Server, name: str, user: str, key: str | None = None) -> Any:
    """What a user is answered; the same model always answers the same."""
    messages = [{"role": "user", "content": QUESTION}]
    body = {"model": name, "messages": messages, "max_tokens": 8, "temperature": 0, "user": user}
    return _ask(server, "/v1/chat/completions", body, key)


def _only(routes: dict[str, Any], model: str) -> bool:
    return {one["model_ref"] for one in routes.get("routes", routes.get("items", []))} == {model}


def _ask(server: Server, path: str, body: object = None, key: str | None = None) -> Any:
    status, text = server.ask(path, body, key)
    if not 200 <= status < 300:
        raise RuntimeError(f"{path} answers {status}: {text[:300].decode(errors='replace')}")
    return json.loads(text)


def _wait(server: Server, path: str, done: Any) -> Any:
    """Look until it is so; RuntimeError where it has failed, or takes too long."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        found = _ask(server, path)
        if done(found):
            return found
        if found.get("status") in ("failed", "withheld", "stopped", "invalid") or time.monotonic() > deadline:
            raise RuntimeError(f"{path}: {json.dumps(found, ensure_ascii=False)[:500]}")
        time.sleep(1)
