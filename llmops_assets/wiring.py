"""Builds what assets, sensors and the command talk to from one set of settings."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmops_assets.specs.job_types import ServeTarget
from llmops_assets.specs.policy import Policy, load_policy
from llmops_assets.specs.settings import Settings

if TYPE_CHECKING:
    from resources.artifacts import Artifacts
    from resources.backends.protocol import Runner
    from resources.catalog import Backend, Catalog
    from resources.cerbos import Cerbos
    from resources.dataset_store import DatasetStore
    from resources.encryption import Keyring
    from resources.engines import Engines
    from resources.gateway import GatewayAdmin
    from resources.gpus import Device
    from resources.model_server import ModelServers
    from resources.records import Records
    from resources.retrieval.indexes import Indexes
    from resources.run_log import RunLog
    from resources.stored_paths import StoredPaths
    from resources.tracking import Tracking
    from resources.trainer import Launcher, PipesClient, Trainer

IMAGE_OF_TASK = {"retrieve": "EMBEDDING", "embed": "EMBEDDING"}
"""Whose image a job without a job type runs in, where that of SFT does not have what its task needs."""


@dataclass(frozen=True)
class Wiring:
    """Every resource that needs no orchestrator, made when it is first asked for."""

    settings: Settings

    @cached_property
    def policy(self) -> Policy:
        return load_policy(self.settings.policy_file)

    @cached_property
    def cerbos(self) -> "Cerbos | None":
        """Who decides what somebody may do, instead of the policy's table; None where the table does."""
        from resources.cerbos import Cerbos

        return Cerbos(self.settings.cerbos_url) if self.settings.cerbos_url else None

    @cached_property
    def keys(self) -> "Keyring":
        from resources.encryption import Keyring

        return Keyring.of_settings(self.settings)

    @cached_property
    def paths(self) -> "StoredPaths":
        from resources.stored_paths import StoredPaths

        return StoredPaths(self.settings.root, self.settings.artifacts)

    @cached_property
    def catalog(self) -> "Catalog":
        from resources.catalog import Catalog

        return Catalog(self.settings.catalog, self.paths)

    @cached_property
    def records(self) -> "Records":
        from resources.records import Records

        return Records(self.settings.root / "records", self.keys, self.paths, self.catalog.record_digests)

    @cached_property
    def artifacts(self) -> "Artifacts":
        from resources.artifacts import Artifacts

        return Artifacts(self.settings.artifacts, self.keys)

    @cached_property
    def store(self) -> "DatasetStore":
        from resources.dataset_store import DatasetStore

        return DatasetStore(self.artifacts.upath("datasets"), self.keys)

    @cached_property
    def indexes(self) -> "Indexes":
        from resources.retrieval.indexes import open_indexes

        return open_indexes(self.settings)

    @cached_property
    def tracking(self) -> "Tracking":
        from resources.tracking import Tracking

        return Tracking(self.settings.mlflow, str(Path(self.settings.root / "mlflow-artifacts")), self.paths)

    @cached_property
    def run_log(self) -> "RunLog":
        from resources.run_log import RunLog

        return RunLog(self.settings.dagster_home)

    @cached_property
    def servers(self) -> "ModelServers":
        from resources.model_server import ModelServers

        return ModelServers(
            self.catalog,
            self.settings.root / "servers",
            policy=self.policy.serving,
            engines=self.settings.engines,
            host=self.settings.host,
            threads=self.serve_threads,
            runners={"docker": self.docker_servers, "kubernetes": self.kubernetes_servers},
            drained=lambda endpoint, id: self.gateway.is_drained(endpoint, id),
            acts=self.settings.reconciler == "auto",
            retrieval=self.retrieval_environment,
        )

    def retrieval_environment(self) -> dict[str, str]:
        """What a retriever needs of our settings: where the indexes are, and the keys to them."""
        settings = self.settings
        given = {
            "LLMOPS_HOME": str(settings.root),
            "LLMOPS_ARTIFACT_ROOT": settings.artifacts,
            "LLMOPS_QDRANT_URL": settings.qdrant_url,
            "LLMOPS_QDRANT_API_KEY": settings.qdrant_secret if settings.qdrant_url else None,
        }
        return {name: value for name, value in given.items() if value} | self.keys.environment()

    @property
    def serve_threads(self) -> int:
        """CPU threads of one model server.

        Two stand side by side in every rollout; threads that spin for the same core halve both.
        """
        return self.settings.omp_threads or max(1, (os.cpu_count() or 2) // 2)

    def docker_servers(self) -> "Runner":
        """What runs model servers in containers."""
        from resources.backends.docker import DockerServers

        settings = self.settings
        return DockerServers(
            str(settings.root),
            policy=self.policy.serving,
            image_of=self.serve_image,
            host=settings.host,
            network=settings.serve_network,
            volume=settings.volume,
            home=settings.root,
            devices=self.devices,
            threads=self.serve_threads,
        )

    def kubernetes_servers(self) -> "Runner":
        """What runs model servers in a cluster."""
        from resources.backends.kubernetes import KubernetesServers, load_configuration

        rules = self.policy.kubernetes
        return KubernetesServers(
            str(self.settings.root),
            policy=self.policy.serving,
            rules=rules,
            image_of=self.serve_image,
            claim=self.settings.volume,
            home=self.settings.root,
            user=rules.run_as_user or os.getuid(),
            configure=load_configuration,
        )

    def serve_image(self, backend: "Backend") -> str:
        """The image of a model server: its spec's own, or the fixed one of its purpose."""
        own = backend.runtime.get("image")
        target: ServeTarget = backend.runtime.get("serve_target", "GENERATION")
        return own or f"{self.settings.image_registry.rstrip('/')}/{self.policy.images.serve[target]}"

    @cached_property
    def engines(self) -> "Engines":
        from resources.engines import Engines

        return Engines(self.settings.engines)

    @cached_property
    def gateway(self) -> "GatewayAdmin":
        from resources.gateway import GatewayAdmin

        return GatewayAdmin.of(self.catalog, self.settings)

    def trainer(self, client: "PipesClient | None" = None) -> "Trainer":
        """The trainer; with a Pipes client its work shows in the run's log."""
        from resources.trainer import Trainer

        return Trainer(
            client,
            locks=self.settings.root / "gpus",
            threads=self.settings.omp_threads,
            keys=self.keys,
            launcher=self.launcher(client),
            devices=self.devices,
        )

    def launcher(self, client: "PipesClient | None" = None) -> "Launcher | None":
        """What runs the worker in an image; None where it is a child process."""
        settings = self.settings
        if settings.runner == "subprocess":
            return None
        from resources.containers import Docker, Mount

        # Rows, models, leases and messages; the catalog and the rest of the home are none of the worker's business.
        shared = [settings.root / "gpus", settings.root / "pipes"]
        shared += [Path(settings.artifacts).absolute()] if "://" not in settings.artifacts else []
        if settings.runner == "kubernetes":
            from resources.kubernetes import Pods

            return Pods(
                client,
                image_of=self.train_image,
                rules=self.policy.kubernetes,
                claim=settings.volume,
                home=settings.root,
                shared=shared,
                sealed=bool(self.keys),
                devices=self.devices,
            )
        whole = [Mount(settings.volume, str(settings.root))] if settings.volume else []
        return Docker(
            client,
            image_of=self.train_image,
            # A part of a named volume cannot be mounted.
            mounts=whole or [Mount.same(folder) for folder in shared],
            volume=settings.volume is not None,
            # Where nothing is sealed here, a worker with a key would seal what nobody here can open.
            key_file=settings.key_file_of_host if self.keys else None,
            devices=self.devices,
        )

    def train_image(self, job: Mapping[str, Any]) -> str:
        """The image of a job of the worker: its spec's own, or the fixed one of its type."""
        own = (job.get("spec") or {}).get("image")
        kind = job.get("job_type") or IMAGE_OF_TASK.get(job.get("task", ""), "SFT")
        return own or f"{self.settings.image_registry.rstrip('/')}/{self.policy.images.train[kind]}"

    def devices(self) -> "list[Device]":
        """What there is to train on: what the settings declare, or else what this machine has."""
        from resources.gpus import declared, discover

        return declared(self.settings.worker_gpus) if self.settings.worker_gpus else discover()
