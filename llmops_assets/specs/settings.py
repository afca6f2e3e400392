"""Every setting of an installation, read from the environment (prefix ``LLMOPS_``) or from a ``.env`` file."""

from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Where an installation keeps its state and what it talks to. The defaults need no server of any kind."""

    model_config = SettingsConfigDict(env_prefix="LLMOPS_", env_file=".env", env_ignore_empty=True, extra="ignore")

    home: Path = Field(
        default=Path(".llmops"),
        description="Folder of all local state: catalog, artifacts, MLflow, DAGSTER_HOME, logs.",
    )
    catalog_url: str | None = Field(
        default=None,
        description="SQLAlchemy URL of the catalog. Default: SQLite in the home folder.",
    )
    artifact_root: str | None = Field(
        default=None,
        description="Folder or fsspec URL of datasets, models and reports. Default: `artifacts` in the home folder.",
    )
    mlflow_tracking_uri: str | None = Field(
        default=None,
        description="MLflow tracking and registry URI. Default: SQLite in the home folder.",
    )
    encryption_key: SecretStr | None = Field(
        default=None,
        description="Key that seals files at rest, from `llmops keys new`. Further ones behind a comma only open.",
    )
    encryption_key_file: Path | None = Field(
        default=None,
        description="File that holds the encryption keys, instead of the variable above.",
    )
    watermark_key: SecretStr | None = Field(
        default=None,
        description="Key of the marks that show whose a model is, from `llmops watermark key`.",
    )
    watermark_key_file: Path | None = Field(
        default=None,
        description="File that holds the watermark key, instead of the variable above.",
    )
    policy_file: Path | None = Field(
        default=None,
        description="The policy: model families, images, gates, limits. Default: the one shipped in the package.",
    )
    runner: Literal["subprocess", "docker", "kubernetes"] = Field(
        default="subprocess",
        description="Where training runs: a child process, or the fixed image of the job type in Docker or Kubernetes.",
    )
    volume: str | None = Field(
        default=None,
        description="Named volume (docker) or claim (kubernetes) of the home, if the platform is in a container too.",
    )
    worker_gpus: str | None = Field(
        default=None,
        description="GPUs of the machines that train, as in `4xh100`, where the platform itself sees none.",
    )
    image_registry: str = Field(
        default="registry", description="Prefix of the train and serve images named in the policy."
    )
    engines: Path = Field(
        default=Path(".engines"),
        description="Folder of the environments of engines with pins of their own (vllm, axolotl).",
    )
    host: str = Field(
        default="127.0.0.1",
        description="Address that `llmops up` binds. Nothing here has a login yet: keep it on loopback.",
    )
    dagster_port: int = Field(default=3000, description="Port of the Dagster UI.")
    mlflow_port: int = Field(default=5000, description="Port of the MLflow UI.")
    gateway_port: int = Field(default=8080, description="Port of the gateway.")
    gateway_admin_port: int | None = Field(
        default=None,
        description="Port of the gateway's routes and metrics, for programs with its token. Default: the next one.",
    )
    gateway_admin_token: SecretStr | None = Field(
        default=None,
        description="Token that opens that port and marks a request as a probe. Default: from a file in the home.",
    )
    gateway_admin_token_file: Path | None = Field(
        default=None,
        description="File that holds the token, instead of the variable above. `llmops up` makes it if missing.",
    )
    console_port: int = Field(default=8090, description="Port of the console's HTTP interface.")
    trusted_proxies: str | None = Field(
        default=None,
        description="Networks, with commas, whose `X-User-Id` and `X-User-Roles` the console believes: the proxy that "
        "logs users in. Default: this machine, where the console is on loopback; else none.",
    )
    import_roots: str | None = Field(
        default=None,
        description="Folders, with colons, that the console may register files and models from by path. Default: any, "
        "where it is on loopback; else none.",
    )
    sensor_interval_seconds: int = Field(
        default=5,
        ge=1,
        description="Shortest time between two looks at what is wanted; other sensors take multiples of it.",
    )
    omp_threads: int | None = Field(
        default=None,
        ge=1,
        description="Threads of one training or model server. Default: all cores to train, half of them to serve.",
    )

    @model_validator(mode="after")
    def _can_run(self) -> "Settings":
        if self.runner == "kubernetes" and find_spec("dagster_k8s") is None:
            raise ValueError("the runner kubernetes needs dagster-k8s: pip install 'llmops[kubernetes]'")
        return self

    @property
    def root(self) -> Path:
        """The home folder as an absolute path, whatever the working directory of the process."""
        return self.home.expanduser().absolute()

    @cached_property
    def dagster_home(self) -> Path:
        return self.root / "dagster"

    @property
    def watermark_secret(self) -> str | None:
        """The watermark key, from the variable or from its file; None without one."""
        if self.watermark_key is not None:
            return self.watermark_key.get_secret_value()
        return self.watermark_key_file.read_text(encoding="utf-8") if self.watermark_key_file else None

    @property
    def catalog(self) -> str:
        return self.catalog_url or f"sqlite:///{self.root / 'catalog.db'}"

    @property
    def engines_here(self) -> Path | None:
        """Folder of the environments of engines, where training runs in this machine's processes; None in images."""
        return self.engines.absolute() if self.runner == "subprocess" else None

    @property
    def artifacts(self) -> str:
        return self.artifact_root or str(self.root / "artifacts")

    @property
    def mlflow(self) -> str:
        return self.mlflow_tracking_uri or f"sqlite:///{self.root / 'mlflow.db'}"

    @property
    def gateway_url(self) -> str:
        return f"http://{self.host}:{self.gateway_port}"

    @property
    def gateway_admin_url(self) -> str:
        return f"http://{self.host}:{self.gateway_admin_port or self.gateway_port + 1}"

    @property
    def admin_token_path(self) -> Path:
        return self.gateway_admin_token_file or self.root / "gateway-admin.token"

    @property
    def admin_token(self) -> str | None:
        """The gateway's administrative token, from the variable or from its file; None without one."""
        if self.gateway_admin_token is not None:
            return self.gateway_admin_token.get_secret_value()
        try:
            return self.admin_token_path.read_text(encoding="utf-8").strip() or None
        except FileNotFoundError:
            return None

    @property
    def console_url(self) -> str:
        return f"http://{self.host}:{self.console_port}"

    @property
    def dagster_url(self) -> str:
        return f"http://{self.host}:{self.dagster_port}"

    @property
    def mlflow_url(self) -> str:
        """Address of the MLflow UI, for links; the store itself is `mlflow`."""
        if self.mlflow.startswith(("http://", "https://")):
            return self.mlflow
        return f"http://{self.host}:{self.mlflow_port}"
