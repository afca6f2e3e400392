"""A run may have trainings in containers, and by that call gain nothing: rules, and a real engine behind them."""

import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import docker
import docker.errors
import pytest
import yaml

from llmops_assets.local.engine_proxy import Engine, server
from llmops_assets.local.stack import REPOSITORY
from llmops_assets.specs.settings import Settings
from llmops_assets.wiring import Wiring
from resources.containers import JOB_LABEL, KEY_FILE, Docker, Ending, Mount, container_environment, container_options
from resources.encryption import VARIABLE, Keyring
from resources.engine_rules import NotAllowed, Rules, asked_of, container_of
from resources.gpus import Device
from tests.training import podman

RULES = Rules(("localhost/llm-train-",), "65534:65534", frozenset({"/srv/home:/var/lib/llmops:rw"}))


def asked(**changes: Any) -> dict[str, Any]:
    """A container as ours are, with changes; `HostConfig__NAME` is one of those."""
    host = {"CapDrop": ["ALL"], "SecurityOpt": ["no-new-privileges"], "NetworkMode": "none", "ShmSize": 8 * 1024**3}
    host |= {"Binds": ["/srv/home:/var/lib/llmops:rw"]}
    body = {"Image": "sha256:" + "a" * 64, "Cmd": ["python", "-m", "images.train", "job.json"], "User": "65534:65534"}
    body |= {"Env": ["HOME=/tmp"], "Labels": {JOB_LABEL: "1"}, "Tty": False, "Hostname": None, "AttachStdout": True}
    for name, value in changes.items():
        area, _, field = name.rpartition("__")
        (host if area else body)[field] = value
    return {**body, "HostConfig": host, **({"HostConfig": None} if changes.get("HostConfig", 1) is None else {})}


@pytest.mark.parametrize(
    "changes",
    [
        {"HostConfig__Privileged": True},
        {"hostconfig": {"Privileged": True}},
        {"HostConfig__privileged": True},
        {"HostConfig__CapAdd": ["SYS_ADMIN"]},
        {"HostConfig__CapDrop": []},
        {"HostConfig__SecurityOpt": ["no-new-privileges", "seccomp=unconfined"]},
        {"HostConfig__NetworkMode": "host"},
        {"HostConfig__NetworkMode": None},
        {"HostConfig__PidMode": "host"},
        {"HostConfig__IpcMode": "host"},
        {"HostConfig__UsernsMode": "host"},
        {"HostConfig__Devices": [{"PathOnHost": "/dev/mem"}]},
        {"HostConfig__Mounts": [{"Type": "bind", "Source": "/", "Target": "/host"}]},
        {"HostConfig__VolumesFrom": ["llmops_postgres_1"]},
        {"HostConfig__Binds": ["/:/host:rw"]},
        {"HostConfig__Binds": ["/srv/home/../..:/var/lib/llmops:rw"]},
        {"HostConfig__Binds": ["/var/run/docker.sock:/var/lib/llmops:rw"]},
        {"HostConfig__Binds": "/:/host:rw"},
        {"HostConfig__Binds": [["/:/host"]]},
        {"HostConfig__Runtime": "kata"},
        {"HostConfig__CgroupParent": "/"},
        {"HostConfig__Sysctls": {"kernel.x": "1"}},
        {"HostConfig__RestartPolicy": {"Name": "always"}},
        {"HostConfig__AutoRemove": True},
        {"HostConfig__ShmSize": 1 << 50},
        {"HostConfig__DeviceRequests": [{"Capabilities": [["gpu"]], "Options": {"a": "b"}}]},
        {"HostConfig__DeviceRequests": [{"Capabilities": [["tpu"]]}]},
        {"HostConfig__DeviceRequests": "gpu"},
        {"User": "0:0"},
        {"User": None},
        {"User": ""},
        {"Entrypoint": ["/bin/sh"]},
        {"Labels": {}},
        {"Labels": None},
        {"Cmd": "sh"},
        {"Env": [1]},
        {"Image": None},
        {"Image": "../../containers"},
        {"Image": "x?y"},
        {"NetworkingConfig": {"EndpointsConfig": {"llmops_back": {}}}},
        {"HostConfig": None},
    ],
    ids=str,
)
def test_a_container_that_could_gain_anything_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(NotAllowed):
        container_of(json.dumps(asked(**changes)).encode(), RULES)


@pytest.mark.parametrize("body", [b"", b"[" * 100_000, b"[]", b"null", b"{", b"\xff", b'{"HostConfig": 1}'])
def test_what_is_no_container_is_refused(body: bytes) -> None:
    with pytest.raises(NotAllowed):
        container_of(body, RULES)


def test_what_is_created_is_made_anew_of_what_was_looked_at() -> None:
    twice = json.dumps(asked())[:-1] + ', "Labels": {"' + JOB_LABEL + '": "2"}}'
    assert container_of(twice.encode(), RULES)["Labels"] == {JOB_LABEL: "2"}
    made = container_of(
        json.dumps(asked(HostConfig__DeviceRequests=[{"Capabilities": [["gpu"]], "Count": -1}])).encode(), RULES
    )
    assert made.keys() == {"Image", "Cmd", "User", "Labels", "Env", "HostConfig"}
    assert made["HostConfig"]["DeviceRequests"] == [{"Capabilities": [["gpu"]], "Count": -1, "DeviceIDs": []}]


def test_what_the_platform_asks_for_is_let_through() -> None:
    """As `resources/containers.py` and Docker's client make it, on a machine with GPUs."""
    job = {"task": "train", "gpus": 1}
    options = container_options(
        job, Path("/var/lib/llmops/artifacts/job.json"), mounts=[Mount("/srv/home", "/var/lib/llmops")],
        devices=[Device("cuda", "GPU-1", "H100", 80 * 1024**3)], image="localhost/llm-train-sft@sha256:1",
    )  # fmt: skip
    options["user"] = RULES.user
    sent = docker.models.containers._create_container_args(
        {"image": "sha256:" + "a" * 64, "command": ["python"], "version": "1.41", "environment": {"A": "b"}, **options}
    )
    sent["host_config"] = (
        docker.types.HostConfig(**sent["host_config"])
        if not isinstance(sent["host_config"], dict)
        else sent["host_config"]
    )
    body = docker.types.ContainerConfig("1.41", **{k: v for k, v in sent.items() if k != "networking_config"})
    assert container_of(json.dumps(body).encode(), RULES)["HostConfig"]["Binds"] == ["/srv/home:/var/lib/llmops:rw"]


def test_what_code_asks_for_is_what_engine_lets_through_and_holds_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run([sys.executable, "deploy/server.py", str(tmp_path)], cwd=REPOSITORY, check=True, capture_output=True)
    server_env = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines())
    home, key = tmp_path / "home", (tmp_path / "secrets" / "encryption.key").read_text().strip()

    def here(text: str) -> str:
        text = re.sub(r"\$\{(\w+)\}", lambda found: server_env[found[1]], text)
        return text.replace("/var/lib/llmops", str(home)).replace("/run/secrets", str(tmp_path / "secrets"))

    both = [
        yaml.safe_load((REPOSITORY / "deploy" / name).read_text()) for name in ("compose.yaml", "compose.docker.yaml")
    ]
    command = [here(part) for part in both[1]["services"]["engine"]["command"]]
    given = {
        name: [command[at + 1] for at, part in enumerate(command) if part == f"--{name}"] for name in ("bind", "image")
    }
    rules = Rules(tuple(given["image"]), server_env["LLMOPS_USER"], frozenset(given["bind"]))
    for environment in (file["services"]["code"]["environment"] for file in both):
        for name, value in environment.items():
            monkeypatch.setenv(name, here(value))
    monkeypatch.delenv("LLMOPS_CATALOG_URL")
    wiring = Wiring(Settings())
    launcher = wiring.launcher()
    assert isinstance(launcher, Docker)
    job = {"task": "plan", "locks": str(home / "gpus"), "device": "cpu"}
    mounts = launcher._mounts(job, home / "artifacts" / "job.json")
    options = container_options(job, home / "job.json", mounts=mounts, devices=[], image="x")
    sent = container_environment(wiring.keys.environment(), key_file=launcher.key_file, gpus=False)
    body = asked(HostConfig__Binds=options["volumes"], Env=[f"{k}={v}" for k, v in sent.items()], User=rules.user)
    made = json.dumps(container_of(json.dumps(body).encode(), rules))
    assert f"{tmp_path}/secrets/encryption.key:{KEY_FILE}:ro" in made and key not in made
    # The worker finds it there, and nothing is sealed where the platform seals nothing.
    assert sent[f"{VARIABLE}_FILE"] == KEY_FILE and Keyring.load(None, tmp_path / "secrets" / "encryption.key")
    monkeypatch.delenv(f"{VARIABLE}_FILE")
    without = Wiring(Settings()).launcher()
    assert isinstance(without, Docker) and without.key_file is None


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "/containers/x/exec"),
        ("POST", "/exec/x/start"),
        ("POST", "/build"),
        ("POST", "/images/create?fromImage=evil"),
        ("POST", "/images/x/tag?repo=localhost/llm-train-sft"),
        ("PUT", "/containers/x/archive?path=/"),
        ("GET", "/containers/x/archive?path=/"),
        ("POST", "/containers/x/attach?stream=1"),
        ("POST", "/containers/x/update"),
        ("POST", "/containers/prune"),
        ("GET", "/secrets"),
        ("POST", "/volumes/create"),
        ("GET", "/v1.41/../containers/x/logs"),
        ("GET", "/containers/..%2fimages/json"),
        ("GET", "//containers/json"),
        ("GET", "/images/a/../../containers/x/json"),
        ("GET", "/images/a//b/json"),
        ("GET", "http://elsewhere/containers/json"),
        ("POST", "/containers/create?name=llmops_postgres_1"),
        ("DELETE", "/images/x"),
        ("GET", "/libpod/containers/json"),
        ("GET", "/containers/json?filters=x"),
        ("GET", "/containers/json?filters=1"),
        ("OPTIONS", "/_ping"),
    ],
)
def test_no_other_call_is_let_through(method: str, target: str) -> None:
    with pytest.raises(NotAllowed):
        asked_of(method, target)


def test_nobody_elses_containers_are_listed() -> None:
    for filters in ("", "{}", '{"label": ["other"]}', '{"name": ["llmops_postgres_1"]}'):
        found = asked_of("GET", f"/v1.41/containers/json?all=1&filters={filters}")
        assert JOB_LABEL in found.target and "postgres" not in found.target and "other" not in found.target
    assert f"{JOB_LABEL}%3D7" in asked_of("GET", f'/containers/json?filters={{"label": ["{JOB_LABEL}=7"]}}').target


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[podman.Engine]:
    with podman.engine(tmp_path_factory.mktemp("engine")) as ours:
        for name in ("localhost/llm-train-sft:0.1.0", "localhost/other:1"):
            # The second is another image, not another name.
            ours.podman("import", "--change", f"LABEL is={name}", "-", name, data=podman._base())
        yield ours


def test_a_real_engine_behind_it_runs_ours_and_nothing_else(engine: podman.Engine, tmp_path: Path) -> None:
    mounts = [mount.bind for mount in podman.host_python()]
    rules = Rules(RULES.images, "65534:65534", frozenset([*mounts, f"{tmp_path}:/var/lib/llmops:rw"]))
    asked_to_wait: list[bool] = []

    class Noting(Engine):
        """Notes of each call to wait whether its container still ran."""

        def ask(self, method: str, target: str, body: bytes | None = None) -> tuple[int, str, bytes]:
            if target.partition("?")[0].endswith("/wait"):
                asked_to_wait.append(bool((self.look("containers", target.split("/")[-2]) or {})["State"]["Running"]))
            return super().ask(method, target, body)

    serving = server(Noting(Path(engine.socket.removeprefix("unix://"))), rules, "127.0.0.1", 0)
    threading.Thread(target=serving.serve_forever).start()
    tmp_path.chmod(0o777)
    other = engine.podman("create", "localhost/other:1", "true")
    options: dict[str, Any] = {
        "user": "65534:65534", "labels": {JOB_LABEL: "7"}, "network_mode": "none", "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"], "shm_size": "64m",
        "volumes": [*mounts, f"{tmp_path}:/var/lib/llmops:rw"],
    }  # fmt: skip
    try:
        with closing(docker.DockerClient(base_url=f"tcp://127.0.0.1:{serving.server_port}", timeout=120)) as client:
            assert client.ping()
            image = client.images.get("localhost/llm-train-sft:0.1.0")
            made = client.containers.create(
                image.id, ["/bin/sh", "-c", "sleep 0.3; echo 7 > /var/lib/llmops/done"], **options
            )
            assert [one.id for one in client.containers.list(all=True)] == [made.id]
            ending = Ending(made)
            ending.start()
            assert ending.wait()["StatusCode"] == 0 and (tmp_path / "done").read_text() == "7\n"
            assert asked_to_wait == [False], "podman looks without a pause while it is asked to wait"
            with pytest.raises(docker.errors.APIError, match="403"):
                made.exec_run("id")
            made.remove(force=True)
            assert client.containers.list(all=True) == []
            for call in (
                lambda: client.containers.create("localhost/other:1", ["true"], **options),
                lambda: client.containers.create(image.id, ["true"], **{**options, "privileged": True}),
                lambda: client.containers.get(other),
                lambda: client.images.get("localhost/other:1"),
                lambda: client.images.pull("localhost/other:1"),
                lambda: client.api.remove_container(other, force=True),
            ):
                with pytest.raises(docker.errors.APIError, match="403"):
                    call()
            with pytest.raises(docker.errors.ImageNotFound):
                client.images.get("localhost/llm-train-nothing:1")
        assert engine.podman("ps", "--all", "--quiet", "--no-trunc") == other
        with socket.create_connection(("127.0.0.1", serving.server_port)) as raw:
            raw.sendall(b"POST /containers/create HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
            assert raw.recv(100).startswith(b"HTTP/1.1 413")
    finally:
        serving.shutdown()
        serving.server_close()
