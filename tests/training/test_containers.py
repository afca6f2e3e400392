"""The worker in a container: the weights of a child process, its log live, stopped, killed, and gone afterwards."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import docker
import pytest

from llmops_assets.records.jobs import PlanJob
from llmops_assets.records.training import AdapterRecord, PlanRecord
from llmops_assets.specs.policy import load_policy
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.training import folders
from resources import content
from resources.backends.docker import BACKEND_LABEL, DockerServers
from resources.backends.protocol import ServerError
from resources.catalog import Catalog
from resources.containers import KEY_FILE, Docker, Ending, Mount, container_options, inputs, job_name
from resources.encryption import Keyring
from resources.gpus import Device, cpu, declared, parse_nvidia_smi
from resources.model_server import ModelServers
from resources.pipes import docker_client
from resources.server_guard import with_content
from resources.tracking import Tracking
from resources.trainer import Trainer, TrainerError
from tests.serving.conftest import backend, deployment_spec, make_model
from tests.training.conftest import Desk, sft_spec, typed
from tests.training.house import House, opened
from tests.training.podman import Engine, engine, host_python

IMAGE = "localhost/llm-train-sft:test"
SERVE_IMAGE = "localhost/llm-serve-generation:test"
QUESTION = [{"role": "user", "content": "안녕하세요"}]
KEY = "ab" * 32
SECRETS = {"LLMOPS_CATALOG_URL": "postgresql://user:hush-catalog@db/llmops", "AWS_SECRET_ACCESS_KEY": "hush-storage"}
STEPS = 200


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with engine(tmp_path_factory.mktemp("podman")) as ours, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", ours.socket)
        ours.build("SFT", IMAGE)
        yield ours


@pytest.fixture(scope="module")
def client(podman: Engine) -> Iterator[docker.DockerClient]:
    with closing(docker.from_env()) as client:
        yield client


def launcher(root: Path, **more: Any) -> Docker:
    mounts = [Mount.same(root / "artifacts"), Mount.same(root / "pipes"), *host_python()]
    return Docker(docker_client(root / "pipes"), image_of=lambda job: IMAGE, mounts=mounts, **more)


@pytest.fixture(scope="module")
def house(podman: Engine, desk: Desk, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """An installation that trains in containers, with keys in a file."""
    root = tmp_path_factory.mktemp("container-house")
    key_file = root / "keys" / "encryption.key"
    key_file.parent.mkdir()
    key_file.write_text(KEY)
    in_containers = launcher(root, key_file=key_file)
    trainer = Trainer(locks=root / "locks", threads=1, keys=Keyring.parse(KEY), launcher=in_containers)
    with opened(root, desk, trainer) as house:
        ref = f"hf:{tiny_base}"
        catalog = house.resources["catalog"]
        catalog.register_base(
            ref, family="llama", path=str(tiny_base), content_hash=content.content_hash(tiny_base), license=None
        )
        catalog.approve_base(ref)
        yield house


@pytest.fixture(scope="module")
def cell(house: House, tiny_base: Path) -> str:
    endless = {"num_epochs": 1000, "max_steps": STEPS, "save_steps": 10 * STEPS}
    cell = house.request(sft_spec(f"hf:{tiny_base}", **endless), "desk@v1")
    assert house.run(cell, "training_plan").success
    return cell


def until(what: str, found: Callable[[], Any], seconds: float = 120) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := found():
            return result
        time.sleep(0.4)
    raise AssertionError(f"waited {seconds:.0f} s for {what}")


def of_job(client: docker.DockerClient, job_file: Path, **filters: Any) -> list[Any]:
    return client.containers.list(all=True, filters={"label": f"llmops.job={job_name(job_file)}", **filters})


def logged(house: House) -> str:
    """All that runs so far have said."""
    lines = [entry.user_message for run in house.instance.get_runs() for entry in house.instance.all_logs(run.run_id)]
    return "\n".join(lines)


def test_a_training_is_stopped_and_goes_on_in_containers_and_makes_the_weights_of_a_child_process(
    house: House, cell: str, client: docker.DockerClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    plan = house.records.load(PlanRecord, cell)
    folder = Path(plan.model_dir)
    tracking: Tracking = house.resources["tracking"]
    observed: dict[str, Any] = {}

    def stop_when_all_has_arrived() -> None:
        try:
            (container,) = until("a container", lambda: of_job(client, folder / "work" / "train.json"))
            observed["container"] = container.attrs
            until("the worker's log", lambda: "step 1/" in logged(house))
            note = until("an MLflow run", (folder / "mlflow-run.txt").exists) and folder / "mlflow-run.txt"
            until("live metrics", lambda: tracking.run_metrics(note.read_text()).get("loss"))
            container.reload()
            observed["status"] = container.status
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    watch = threading.Thread(target=stop_when_all_has_arrived, daemon=True)
    watch.start()
    with pytest.raises(BaseException) as caught:
        house.run(cell, "adapter")
    watch.join()
    assert not isinstance(caught.value, Exception)
    assert observed["status"] == "running", "log and metrics came while it trained"
    message = json.loads((folder / "work" / "train.error").read_text())["message"]
    assert "SIGTERM" in message and "its checkpoint is saved" in message
    assert tracking.run_status((folder / "mlflow-run.txt").read_text()) == "KILLED"
    step, _path, _warnings = folders.last_checkpoint(folder / "checkpoints")
    assert step and step < STEPS
    assert client.containers.list(all=True) == [], "a container that was stopped is gone"

    shown = json.dumps(observed["container"])
    assert "hush" not in shown and KEY not in shown
    assert f"LLMOPS_ENCRYPTION_KEY_FILE={KEY_FILE}" in observed["container"]["Config"]["Env"]
    assert observed["container"]["HostConfig"]["NetworkMode"] == "none"
    readable = {mount["Destination"]: mount["RW"] for mount in observed["container"]["Mounts"]}
    root = house.resources["settings"].root
    assert readable[plan.base.path] is False and readable[str(root / "artifacts")] is True
    # Not the catalog, not the keys' folder, not the code: that is in the image.
    assert not {"/", str(root), str(root / "keys"), str(Path(__file__).parents[2])} & set(readable)

    result = house.run(cell, "adapter", "merged_model")
    record = house.records.load(AdapterRecord, cell)
    assert record.resumed_from == step and record.steps == STEPS
    assert client.containers.list(all=True) == []
    known = client.images.get(IMAGE).id
    assert record.image == plan.image == f"{IMAGE}@{known}"
    assert result.asset_materializations_for_node("adapter")[0].metadata["image"].value == record.image

    job = json.loads((folder / "work" / "train.json").read_text())
    alone = Trainer(locks=tmp_path / "locks", threads=1, keys=Keyring.parse(KEY))
    moved = {"checkpoints": str(tmp_path / "checkpoints"), "output": str(tmp_path / "adapter"), "alive": None}
    alone.run(None, typed(job | moved), work_dir=tmp_path / "work")
    name = "adapter_model.safetensors"
    assert (tmp_path / "adapter" / name).read_bytes() == (Path(record.path) / name).read_bytes()


STEP = """
import json, sys
from pathlib import Path
from llmops_assets.records.jobs import read_job
from resources.containers import Docker, Mount
from resources.encryption import Keyring
from resources.trainer import Trainer
given = json.loads(sys.argv[1])
docker = Docker(None, image_of=lambda job: given["image"], mounts=[Mount(*m) for m in given["mounts"]],
                patience=given["patience"])
Trainer(locks=given["locks"], threads=1, keys=Keyring.parse(given["key"]), launcher=docker).run(
    None, read_job(json.dumps(given["job"])), work_dir=given["work"])
"""


def test_a_container_whose_step_was_killed_ends_by_itself_and_the_next_attempt_stops_one_that_has_not(
    house: House, cell: str, client: docker.DockerClient, tmp_path: Path
) -> None:
    plan = house.records.load(PlanRecord, cell)
    kept = json.loads((Path(plan.model_dir) / "work" / "train.json").read_text())
    spec = kept["spec"] | {"hyperparams": kept["spec"]["hyperparams"] | {"max_steps": 10 * STEPS}}
    moved = {"checkpoints": str(tmp_path / "checkpoints"), "output": str(tmp_path / "adapter"), "spec": spec}
    job, work = kept | moved, tmp_path / "work"
    mounts = [Mount.same(tmp_path), Mount.same(Path(plan.model_dir)), *host_python()]

    def killed_while_it_trains(patience: float) -> None:
        given = {
            **{"image": IMAGE, "mounts": [list(m.__dict__.values()) for m in mounts], "patience": patience},
            **{"locks": str(tmp_path / "locks"), "key": KEY, "job": job, "work": str(work)},
        }
        (work / "train.metrics").unlink(missing_ok=True)
        with open(tmp_path / "step.log", "a") as log:
            step = subprocess.Popen([sys.executable, "-c", STEP, json.dumps(given)], stdout=log, stderr=log)
        until("live metrics", lambda: step.poll() is not None or (work / "train.metrics").exists())
        assert step.poll() is None, (tmp_path / "step.log").read_text()
        step.kill()
        step.wait()

    def saved() -> int:
        step, _path, _warnings = folders.last_checkpoint(tmp_path / "checkpoints")
        return step or 0

    killed_while_it_trains(patience=6)
    (orphan,) = until("the end of the orphan", lambda: of_job(client, work / "train.json", status="exited"))
    assert orphan.wait()["StatusCode"] == 130
    first = saved()
    assert first

    killed_while_it_trains(patience=600)
    (second,) = of_job(client, work / "train.json")
    assert second.id != orphan.id and second.status == "running", "what had ended was removed, and this one trains"

    class Stopping(Ending):
        """Ends the third attempt as soon as it has taken the place of the second."""

        def wait(self) -> dict[str, Any]:
            assert [c.id for c in of_job(client, work / "train.json")] == [self.container.id]
            until("live metrics", (work / "train.metrics").exists)
            return {"StatusCode": 130}

    third = Docker(None, image_of=lambda job: IMAGE, mounts=mounts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("resources.containers.Ending", Stopping)
        with pytest.raises(TrainerError, match="SIGTERM"):
            Trainer(locks=tmp_path / "locks", threads=1, keys=Keyring.parse(KEY), launcher=third).run(
                None, typed(job), work_dir=work
            )
    log = (work / "train.log").read_text()
    resumed = [int(line.split("step ")[1]) for line in log.splitlines() if "resuming from the checkpoint" in line]
    assert resumed[0] == first and resumed[1] > first, "each attempt went on from where the one before had come to"
    assert saved() > resumed[1]
    assert of_job(client, work / "train.json") == []


def planned_job(job_type: str, folder: Path, **more: Any) -> PlanJob:
    """A job to plan, of which only the door is seen."""
    one = TrainJobSpec.model_validate({**sft_spec("hf:x"), "dataset_ref": "desk@v1"})
    return PlanJob(job_type=job_type, spec=one, store=str(folder), manifests={}, plan_dir=str(folder / "plan"), **more)


def test_an_image_refuses_the_jobs_of_another_type(podman: Engine, tmp_path: Path) -> None:
    trainer = Trainer(locks=tmp_path / "locks", launcher=launcher(tmp_path))
    with pytest.raises(TrainerError, match="this image is built for SFT, but the job is of type RLHF"):
        trainer.run(None, planned_job("RLHF", tmp_path), work_dir=tmp_path / "work")


def test_another_image_under_the_same_name_is_another_training(
    house: House, cell: str, podman: Engine, client: docker.DockerClient
) -> None:
    before = house.records.load(PlanRecord, cell)
    trainer: Trainer = house.resources["trainer"]
    old = client.images.get(IMAGE)
    newer = f"FROM {IMAGE}\nLABEL llmops.newer=yes\n"
    podman.podman("build", "--tag", IMAGE, "--file", "-", data=newer.encode())
    try:
        now = trainer.image({"job_type": "SFT"})
        assert now != before.image
    finally:
        old.tag(*IMAGE.split(":"))
    assert trainer.image({"job_type": "SFT"}) == before.image


def test_an_image_that_is_gone_is_named(podman: Engine, tmp_path: Path) -> None:
    trainer = Trainer(locks=tmp_path / "locks", launcher=launcher(tmp_path))
    planned = f"{IMAGE}@sha256:{'0' * 64}"
    with pytest.raises(TrainerError, match=f"the image {planned}, with which this training was planned"):
        trainer.run(None, planned_job("SFT", tmp_path, image=planned), work_dir=tmp_path / "work")


def test_a_container_sees_the_gpus_of_the_machine_where_its_job_takes_one() -> None:
    two = parse_nvidia_smi("0, GPU-aa, NVIDIA H200, 143771\n1, GPU-bb, NVIDIA H200, 143771\n")

    def asked(job: dict[str, Any], devices: list[Device]) -> list[dict[str, Any]]:
        return container_options(job, Path("/jobs/train.json"), mounts=[], devices=devices, image="x")[
            "device_requests"
        ]

    train = {"task": "train", "device": "cuda", "gpus": 1}
    known = {"Driver": "", "Count": 0, "DeviceIDs": ["GPU-aa", "GPU-bb"], "Capabilities": [["gpu"]], "Options": {}}
    assert asked(train, two) == [known], "the lease inside decides which of them"
    assert asked(train, declared("8xh200")) == [known | {"Count": -1, "DeviceIDs": []}]
    assert (
        asked(train | {"device": "cpu"}, two) == asked({"task": "merge", "gpus": 0}, two) == asked(train, [cpu()]) == []
    )


def test_models_that_lie_elsewhere_are_seen_with_what_their_links_lead_to(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "main"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    (blobs / "weights").write_text("w")
    (snapshot / "model.safetensors").symlink_to("../../blobs/weights")
    job = {"task": "plan", "base": {"path": str(snapshot)}, "store": str(tmp_path / "none")}
    assert inputs(job | {"spec": {"path": "/etc/passwd"}}) == [blobs, snapshot], "and nothing that a user wrote"


def test_what_lies_outside_of_a_named_volume_cannot_be_seen(podman: Engine, tmp_path: Path) -> None:
    home = Mount("llmops-home", "/var/lib/llmops")
    in_volume = Docker(None, image_of=lambda job: IMAGE, mounts=[home], volume=True)
    trainer = Trainer(locks=tmp_path / "locks", launcher=in_volume)
    with pytest.raises(TrainerError, match="lies outside of the volume that LLMOPS_VOLUME names"):
        trainer.run(None, planned_job("SFT", tmp_path), work_dir=tmp_path / "work")


def test_a_model_is_served_from_its_image_by_a_container_that_may_and_sees_little(
    podman: Engine, client: docker.DockerClient, tmp_path: Path
) -> None:
    podman.build_serve(SERVE_IMAGE)
    model, catalog = make_model(tmp_path / "served", seed=1), Catalog(f"sqlite:///{tmp_path / 'catalog.db'}")
    policy = load_policy().serving
    containers = DockerServers(
        str(tmp_path),
        policy=policy,
        image_of=lambda backend: SERVE_IMAGE,
        network="host",
        mounts=host_python(),
        threads=1,
    )
    servers = ModelServers(catalog, tmp_path / "servers", policy=policy, runners={"docker": lambda: containers})
    runtime = {"max_input_tokens": 512, "max_output_tokens": 64, "device": "cpu", "dtype": "float32"}
    one = backend("b1", path=model, runtime=with_content({**runtime, "backend": "docker"}, content.content_hash(model)))
    catalog.want_endpoint(deployment_spec())
    catalog.set_routes("desk", [{"backend_id": "b1", "model_ref": "desk@1", "weight": 100}])
    if not os.getuid():
        # What root wrote for itself alone, nobody else in a container may read.
        with pytest.raises(ServerError, match="would run as user 65534, who may not read"):
            containers.start(one, lambda backend: None)
        for path in model.iterdir():
            path.chmod(0o644)
        model.chmod(0o755)
    servers.want(one)
    answer = servers.wait_observed("b1")
    assert answer.tokens > 0

    def ours() -> list[Any]:
        return client.containers.list(all=True, filters={"label": BACKEND_LABEL})

    (container,) = ours()
    assert container.attrs["Config"]["User"] == f"{os.getuid() or 65534}:{os.getuid() or 65534}"
    host = container.attrs["HostConfig"]
    assert host["ReadonlyRootfs"] and not host["Privileged"] and host["RestartPolicy"]["Name"] in ("", "no")
    borrowed = {mount.target for mount in host_python()}
    seen = {mount["Destination"]: mount["RW"] for mount in container.attrs["Mounts"]}
    assert {path: rw for path, rw in seen.items() if path not in borrowed | {"/tmp"}} == {"/model": False}
    # Whoever reconciles next, and knows nothing of its start, finds it.
    catalog.observe_backend("b1", state="wanted", pid=None, pid_started=None)
    assert servers.reconcile() == ["started b1 of desk again: it was gone"]
    assert [found.id for found in ours()] == [container.id]
    assert catalog.backend("b1").pid_started is not None

    config = (model / "generation_config.json").read_text()
    (model / "generation_config.json").write_text('{"eos_token_id": 5}')
    container.kill()
    (reason,) = servers.reconcile()
    assert "generation_config.json" in reason or "is not what was registered" in reason
    (model / "generation_config.json").write_text(config)
    assert servers.reconcile() == ["started b1 of desk again: it was gone"]
    (second,) = ours()
    assert second.id != container.id and servers.complete(catalog.backend("b1"), QUESTION).text == answer.text
    catalog.set_routes("desk", [])
    assert servers.reconcile() == ["stopped b1, which desk does not route to"]
    assert ours() == []
