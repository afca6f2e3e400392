"""What compose.yaml gives each container: no more than it needs, and nothing that is not there."""

import json
import os
import re
import subprocess
import sys
import uuid
from importlib.resources import files
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema.validators import validator_for

from deploy.server import DEFAULTS, GIVEN, render
from llmops_assets.local.stack import REPOSITORY
from llmops_assets.specs.policy import load_policy
from llmops_assets.specs.settings import Settings
from resources.backup import dagster_database, tables
from tests.deploy.processes import COMPOSE, services

THEIRS = {"qdrant", "grafana"}
"""Services in images of others, which start only where they are asked for."""
SERVICES = sorted(services().items())
CONTAINERS = COMPOSE.with_name("compose.docker.yaml")
"""What compose.yaml is merged with where trainings run in containers."""


@pytest.mark.parametrize(("name", "service"), SERVICES, ids=[name for name, _ in SERVICES])
def test_a_container_may_do_and_write_little(name: str, service: dict[str, Any]) -> None:
    assert service["user"] == "${LLMOPS_USER}" and service["read_only"] is True
    assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == ("no" if name == "setup" else "always")
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}, "else its log grows until the disk is full"
    assert "privileged" not in service and "docker.sock" not in str(service)
    assert (name in THEIRS or name == "setup") == ("profiles" in service)
    # Nobody outside is listened to but by nginx.
    assert ("ports" in service) == (name == "nginx")
    for volume in service["volumes"]:
        source, _target, *mode = volume.split(":")
        assert mode == ["ro"] or source.startswith("${LLMOPS_DATA}/"), volume
        assert "secrets" not in source or mode == ["ro"]
        assert not source.startswith("./") or (COMPOSE.parent / source).exists(), volume


@pytest.mark.parametrize(("name", "service"), SERVICES, ids=[name for name, _ in SERVICES])
def test_no_password_is_in_a_command_or_a_variable(name: str, service: dict[str, Any]) -> None:
    environment = service.get("environment") or {}
    for variable, value in environment.items():
        assert not re.search(r"://[^/@\s]*:[^/@\s]+@", str(value)), variable
        named = re.search(r"(?i)password|secret|token|_key", variable)
        assert not named or variable.endswith("_FILE"), variable
    assert not re.search(r"://[^/@\s]*:[^/@\s]+@", str(service.get("command", "")))
    # A secret is given to who reads it, and to nobody else.
    mounted = {v.split(":")[1] for v in service["volumes"] if v.split(":")[1].startswith("/run/secrets/")}
    given = [*environment.values(), *(service.get("command") or [])]
    read = {str(value) for value in given if str(value).startswith("/run/secrets/")}
    if name not in ("postgres", "nginx", "prometheus", *THEIRS):
        assert mounted <= read


@pytest.mark.parametrize("file", [COMPOSE, CONTAINERS], ids=lambda file: file.name)
def test_a_compose_file_is_what_compose_reads(file: Path) -> None:
    schema = json.loads((files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json").read_text())
    faults = validator_for(schema)(schema).iter_errors(yaml.safe_load(file.read_text(encoding="utf-8")))
    assert [f"{'.'.join(map(str, fault.path))}: {fault.message}" for fault in faults] == []


def test_the_gateway_gets_the_catalog_alone() -> None:
    for name in ("gateway", "shipper"):
        service = services()[name]
        (passwords,) = [volume for volume in service["volumes"] if ":/run/secrets/pgpass:" in volume]
        assert passwords.startswith("${LLMOPS_DATA}/secrets/pgpass-catalog:")
        assert "/var/lib/llmops" not in [volume.split(":")[1] for volume in service["volumes"]]


def test_only_who_has_to_is_in_the_network_that_reaches_outside() -> None:
    text = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    assert [name for name, network in text["networks"].items() if not network.get("internal")] == ["front"]
    front = {name for name, service in services().items() if "front" in service["networks"]}
    assert front == {
        "nginx",
        "gateway",
        "console",
        "webserver",
        "webserver-readonly",
        "mlflow",
        "prometheus",
        "grafana",
    }
    assert {name for name, service in services().items() if "store" in service["networks"]} == {"redis", "gateway"}


def test_nobody_who_starts_earlier_gets_the_address_of_the_proxy(tmp_path: Path) -> None:
    (network,) = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["networks"]["front"]["ipam"]["config"]
    assert network == {"subnet": "${LLMOPS_SUBNET}", "ip_range": "${LLMOPS_OTHERS}"}
    render(tmp_path, {"LLMOPS_SUBNET": "10.8.0.0/20", "LLMOPS_PROXY": "10.8.0.9"})
    written = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines())
    assert ip_address("10.8.0.9") not in ip_network(written["LLMOPS_OTHERS"])
    assert ip_network(written["LLMOPS_OTHERS"]).subnet_of(ip_network("10.8.0.0/20"))
    for proxy in ("10.8.15.9", "172.28.44.2"):
        with pytest.raises(ValueError, match=f"LLMOPS_PROXY={proxy}: name an address of 10.8.0.0/21"):
            render(tmp_path, {"LLMOPS_PROXY": proxy})


def test_the_engine_s_socket_is_one_container_s_and_code_alone_reaches_that() -> None:
    text = yaml.safe_load(CONTAINERS.read_text(encoding="utf-8"))
    assert text["networks"] == {"engine": {"internal": True}}
    with_socket = {name for name, service in text["services"].items() if "SOCKET" in str(service.get("volumes"))}
    in_network = {name for name, service in text["services"].items() if "engine" in service.get("networks", ())}
    assert with_socket == {"engine"} and in_network == {"engine", "code"}
    engine = text["services"]["engine"]
    assert engine["networks"] == ["engine"] and len(engine["volumes"]) == 1 and "environment" not in engine
    assert engine["logging"] == services()["code"]["logging"]
    assert engine["read_only"] is True and engine["cap_drop"] == ["ALL"] and "ports" not in engine
    assert set(services()["code"]["networks"]) <= set(text["services"]["code"]["networks"])


def test_there_is_a_train_image_for_every_job_type_as_the_policy_names_it() -> None:
    text = yaml.safe_load(CONTAINERS.read_text(encoding="utf-8"))
    built = {
        service["build"]["args"]["JOB_TYPE"]: service["image"].removeprefix("${LLMOPS_IMAGES}").partition(":")[0]
        for service in text["services"].values()
        if "build" in service
    }
    assert built == {kind: name.partition(":")[0] for kind, name in load_policy().images.train.items()}
    begin = text["services"]["engine"]["command"][text["services"]["engine"]["command"].index("--image") + 1]
    assert all(f"${{LLMOPS_IMAGES}}{name}".startswith(begin) for name in built.values())


def test_an_image_is_built_once_and_before_that_which_is_made_of_it(tmp_path: Path) -> None:
    text = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    all_services = text["services"] | yaml.safe_load(CONTAINERS.read_text(encoding="utf-8"))["services"]
    built = [service["image"] for service in all_services.values() if "build" in service]
    assert len(built) == len(set(built)), "podman-compose builds an image for every service that says how"
    ours = {service["image"] for service in all_services.values() if "LLMOPS_IMAGES" in service.get("image", "")}
    assert ours == set(built)
    # The console's is made of the one that `setup` builds.
    assert text["services"]["console"]["build"]["args"]["CONTROL"] == text["services"]["setup"]["image"]
    shown = "sh -c 'echo \"$$COMPOSE_PARALLEL_LIMIT $$BUILDAH_FORMAT $$*\"' --"
    command = ["make", "server-images", f"COMPOSE={shown}", f"DATA={tmp_path}"]
    said = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    builds = [line for line in said.splitlines() if " build" in line and "sh -c" not in line]
    # One after another, and with what an image says of its health, which podman leaves out of its own format.
    assert all(line.startswith("1 docker ") for line in builds)
    # The second does not begin with what the first has made: of another stage's files podman knows no cache.
    assert [line.partition(" --profile ")[2] for line in builds] == ["setup build setup", "images build"]
    apart = {name for name, service in all_services.items() if "build" in service and service.get("profiles")}
    assert {all_services[name]["profiles"][0] for name in apart - {"setup"}} == {"images"}


@pytest.mark.parametrize(
    ("user", "compose", "kept"),
    [("1000", "podman-compose", "keep-id"), ("0", "podman-compose", ""), ("1000", "docker", "")],
)
def test_podman_without_root_keeps_the_number_of_who_owns_the_files(
    tmp_path: Path, user: str, compose: str, kept: str
) -> None:
    """Else the owner is root within the user's namespace, and who a container runs as may read none of its mounts."""
    (tmp_path / "id").write_text(f"#!/bin/sh\necho {user}\n")
    (tmp_path / "id").chmod(0o755)
    shown = f"sh -c 'echo {compose} userns=$$PODMAN_USERNS' --"
    command = ["make", "-s", "server-down", f"COMPOSE={shown}", f"DATA={tmp_path / 'data'}"]
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    said = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True, env=environment).stdout
    assert said.splitlines()[-1] == f"{compose} userns={kept}"


def test_every_variable_of_compose_is_written_by_the_server_s_folder(tmp_path: Path) -> None:
    text = COMPOSE.read_text(encoding="utf-8") + CONTAINERS.read_text(encoding="utf-8")
    asked = set(re.findall(r"\$\{(\w+)\}", text))
    command = [sys.executable, "deploy/server.py", str(tmp_path)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    written = {line.split("=", 1)[0] for line in (tmp_path / "env").read_text().splitlines()}
    assert written - {GIVEN} == asked == DEFAULTS.keys() | {"LLMOPS_DATA", "LLMOPS_OTHERS", "LLMOPS_USER"}
    mounted = {
        volume.split(":")[0].removeprefix("${LLMOPS_DATA}/")
        for service in services().values()
        for volume in service["volumes"]
        if volume.startswith("${LLMOPS_DATA}/")
    }
    assert [name for name in mounted if not (tmp_path / name).exists()] == []


def test_what_nobody_said_of_a_server_follows_the_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def written() -> dict[str, str]:
        return dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines())

    render(tmp_path, {"LLMOPS_QDRANT_IMAGE": "registry/qdrant:1"})
    name = written()["LLMOPS_SERVER_NAME"]
    newer = {"LLMOPS_VERSION": "9.0", "LLMOPS_QDRANT_IMAGE": "qdrant:9", "LLMOPS_GRAFANA_IMAGE": "grafana:9"}
    for variable, value in {**newer, "LLMOPS_SERVER_NAME": "another.machine"}.items():
        monkeypatch.setitem(DEFAULTS, variable, value)
    render(tmp_path, {"LLMOPS_HTTPS_PORT": "9443"})
    after = written()
    assert (after["LLMOPS_VERSION"], after["LLMOPS_GRAFANA_IMAGE"]) == ("9.0", "grafana:9")
    assert (after["LLMOPS_QDRANT_IMAGE"], after["LLMOPS_SERVER_NAME"]) == ("registry/qdrant:1", name)
    render(tmp_path, {})
    assert written() == after, "what was said once is kept"

    # As a folder was written before it told which were said.
    lines = [line for line in (tmp_path / "env").read_text().splitlines() if not line.startswith(GIVEN)]
    (tmp_path / "env").write_text("\n".join(lines).replace("=9.0", "=0.1.0"))
    monkeypatch.setitem(DEFAULTS, "LLMOPS_GRAFANA_IMAGE", "grafana:10")
    render(tmp_path, {})
    assert (written()["LLMOPS_VERSION"], written()["LLMOPS_GRAFANA_IMAGE"]) == ("9.0", "grafana:9")


def test_links_of_a_server_lead_through_its_door_and_programs_ask_within(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = services()["code"]["environment"]
    for name in ("LLMOPS_DAGSTER_PAGE", "LLMOPS_MLFLOW_PAGE", "LLMOPS_DAGSTER_WEBSERVER", "LLMOPS_CONSOLE_SERVER"):
        value = (
            environment[name].replace("${LLMOPS_SERVER_NAME}", "llm.example").replace("${LLMOPS_HTTPS_PORT}", "8443")
        )
        monkeypatch.setenv(name, value)
    settings = Settings(_env_file=None)
    assert settings.dagster_url == "https://llm.example:8443/dagster"
    assert settings.mlflow_url == "https://llm.example:8443/mlflow"
    assert settings.dagster_graphql == "http://webserver:3000/dagster/graphql"
    assert settings.console_url == "http://console:8090"


def test_settings_of_the_house_reach_every_process_of_the_platform_and_stay_as_they_are(tmp_path: Path) -> None:
    ours = {name for name, service in services().items() if "LLMOPS_HOME" in (service.get("environment") or {})}
    told = {name for name, service in services().items() if service.get("env_file") == ["${LLMOPS_DATA}/settings.env"]}
    assert told == ours >= {"code", "console", "gateway", "shipper", "setup"}
    render(tmp_path, {})
    file = tmp_path / "settings.env"
    assert all(line.startswith("#") for line in file.read_text().splitlines()) and file.stat().st_mode & 0o077 == 0
    file.write_text("LLMOPS_OIDC_ISSUER=https://login.example\n")
    render(tmp_path, {})
    assert file.read_text() == "LLMOPS_OIDC_ISSUER=https://login.example\n"


@pytest.mark.parametrize(
    ("folder", "given"),
    [
        ("a folder", {}),
        ("cost$", {}),
        ("12:30", {}),
        ("plain", {"LLMOPS_SERVER_NAME": "llm.example # ours"}),
        ("plain", {"LLMOPS_POLICY_FILE": "'/etc/llmops/policy/policy.yaml'"}),
    ],
)
def test_what_compose_would_read_as_something_else_is_refused_before_anything_is_made(
    tmp_path: Path, folder: str, given: dict[str, str]
) -> None:
    with pytest.raises(ValueError, match="name another"):
        render(tmp_path / folder, given)
    assert list(tmp_path.iterdir()) == []


def test_every_program_that_is_started_is_there() -> None:
    for name, service in services().items():
        command = [str(part) for part in service.get("command", [])]
        if command[:2] in (["python", "-m"], ["python3", "-m"]) and command[2].startswith(("llmops_assets", "images")):
            module = REPOSITORY / command[2].replace(".", "/")
            assert module.with_suffix(".py").exists() or (module / "__main__.py").exists(), name


def test_dagster_takes_its_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgres: str) -> None:
    import dagster as dg
    import sqlalchemy as sa

    engine = sa.create_engine(postgres, isolation_level="AUTOCOMMIT")
    name = f"dagster_{uuid.uuid4().hex[:12]}"
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    engine.dispose()
    url = sa.make_url(postgres).set(database=name, drivername="postgresql+psycopg2").render_as_string(False)
    monkeypatch.setenv("LLMOPS_DAGSTER_DATABASE_URL", url)
    (tmp_path / "dagster.yaml").write_text((REPOSITORY / "deploy" / "dagster.yaml").read_text())
    # A restore asks where the storage is, and wants it empty.
    assert dagster_database.address(tmp_path) == url
    tables.refuse_filled(url)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert sa.make_url(instance.run_storage.postgres_url).drivername == "postgresql+psycopg2"
        assert not instance.telemetry_enabled and not instance.nux_enabled
        assert instance.run_monitoring_enabled and instance.run_retries_enabled
        skipped = instance.get_tick_retention_settings(dg._core.definitions.run_request.InstigatorType.SENSOR)
        assert {status.value: days for status, days in skipped.items()} | {"STARTED": -1} == {
            "SKIPPED": 1, "FAILURE": 30, "SUCCESS": 30, "STARTED": -1,
        }  # fmt: skip
        assert instance.run_coordinator.get_run_queue_config().max_concurrent_runs == 10
