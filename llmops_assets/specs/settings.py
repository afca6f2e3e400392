"""Every setting of an installation, read from the environment (prefix ``LLMOPS_``) or from a ``.env`` file."""

from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Where an installation keeps its state and what it talks to. The defaults need no server of any kind."""

    # An error would else show what was given, and some of it is secret.
    model_config = SettingsConfigDict(
        env_prefix="LLMOPS_", env_file=".env", env_ignore_empty=True, extra="ignore", hide_input_in_errors=True
    )

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
    qdrant_url: str | None = Field(
        default=None,
        description="Address of a Qdrant server that holds the indexes. Default: Qdrant embedded in each retriever.",
    )
    qdrant_api_key: SecretStr | None = Field(default=None, description="Key of the Qdrant server.")
    qdrant_api_key_file: Path | None = Field(
        default=None, description="File that holds the key of the Qdrant server, instead of the variable above."
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
    reconciler: Literal["auto", "service"] = Field(
        default="auto",
        description="Who starts and stops model servers: `llmops reconciler`, which `llmops up` runs, and where none "
        "is at work whoever waits for a server; `service`: the former alone, for runs in containers of their own.",
    )
    serve_network: str | None = Field(
        default=None,
        description="Docker network of model servers in containers, for a platform in a container. Default: loopback.",
    )
    volume: str | None = Field(
        default=None,
        description="Named volume (docker) or claim (kubernetes) of the home, if the platform is in a container too.",
    )
    volume_key_file: Path | None = Field(
        default=None,
        description="File of the engine's host that holds the encryption keys, mounted into trainings where the home "
        "is a volume (docker). Default: they reach a training in its environment, which the engine shows.",
    )
    tls_certificate: Path | None = Field(
        default=None,
        description="Certificate of a server's door, whose end `llmops doctor` and the figures tell in advance.",
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
        description="Address that `llmops up` binds. The pages have no login: keep them on loopback (gateway_host).",
    )
    dagster_port: int = Field(default=3000, description="Port of the Dagster UI.")
    mlflow_port: int = Field(default=5000, description="Port of the MLflow UI.")
    gateway_port: int = Field(default=8080, description="Port of the gateway.")
    gateway_host: str | None = Field(
        default=None,
        description="Address that the gateway binds. Beyond loopback it asks for keys. Default: that of `llmops up`.",
    )
    gateway_access: Literal["on", "off"] | None = Field(
        default=None,
        description="Whether the gateway asks who calls; off on loopback alone. Default: off there, unless tokens or "
        "proxies are named, and on elsewhere.",
    )
    gateway_limits: Literal["on", "off"] | None = Field(
        default=None,
        description="Whether requests a minute are limited as the policy says. Default: where access is on.",
    )
    gateway_trusted_proxies: str | None = Field(
        default=None,
        description="Networks (10.0.0.0/8, …) whose X-Forwarded-For says who calls. Default: it is ignored.",
    )
    gateway_workers: int = Field(
        default=1, ge=1, le=64, description="Processes that answer on the gateway's port; several need a store."
    )
    gateway_keep_alive_seconds: float = Field(
        default=75.0,
        ge=1,
        description="How long a client's connection is kept that nothing is asked on. Longer than a proxy "
        "or balancer in front of it keeps it (60 s mostly; Google's 600): else that sends on one that ends just then.",
    )
    gateway_log: Literal["text", "json"] = Field(
        default="text",
        description="Form of the gateway's log; json has a line for every request, with its id and without any text.",
    )
    otlp_endpoint: str | None = Field(
        default=None,
        description="Where the gateway sends traces (OTLP over HTTP, such as http://collector:4318). Default: nowhere.",
    )
    gateway_store_url: str | None = Field(
        default=None,
        description="Valkey or Redis (redis://…, rediss://… with TLS) in which several workers or gateways count "
        "limits together.",
    )
    gateway_store_failure: Literal["open", "closed"] = Field(
        default="open",
        description="While that store is away: open, each worker counts by itself; closed, requests get 503.",
    )
    api_key: SecretStr | None = Field(
        default=None, description="Key or token that `llmops chat` and `llmops demo` call the gateway with."
    )
    jwt_issuer: str | None = Field(default=None, description="The iss of tokens that are taken.")
    jwt_audience: str | None = Field(default=None, description="The aud of tokens that are taken.")
    jwt_jwks: str | None = Field(
        default=None,
        description="URL (https, or http on loopback) or file of the issuer's public keys, for RS256 and ES256.",
    )
    jwt_secret: SecretStr | None = Field(
        default=None, description="Secret of tokens that are signed with HS256, 32 bytes or more."
    )
    jwt_secret_file: Path | None = Field(
        default=None, description="File that holds that secret, instead of the variable above."
    )
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
    console_requests_per_minute: int | None = Field(
        default=None,
        ge=1,
        description="Requests a minute of one caller that the console answers. Default: 600, on loopback any number.",
    )
    trusted_proxies: str | None = Field(
        default=None,
        description="Networks, with commas, whose `X-User-Id` and `X-User-Roles` the console believes: the proxy that "
        "logs users in. Default: this machine, where the console is on loopback; else none.",
    )
    public_url: str | None = Field(
        default=None,
        description="Address of the console as browsers have it, such as https://llm.example: what a provider of "
        "logins sends users back to, and whether cookies are for TLS alone.",
    )
    cerbos_url: str | None = Field(
        default=None,
        description="Cerbos (http://cerbos:3592) that decides who may do what, by the policies of `llmops access "
        "cerbos`. Default: the policy's table.",
    )
    console_server: str | None = Field(
        default=None,
        description="Address of the console as other processes of a server reach it. Default: that of `llmops up`.",
    )
    dagster_page: str | None = Field(
        default=None, description="Dagster's pages as browsers have them, for links. Default: that of `llmops up`."
    )
    mlflow_page: str | None = Field(
        default=None, description="MLflow's pages as browsers have them, for links. Default: that of `llmops up`."
    )
    dagster_webserver: str | None = Field(
        default=None,
        description="Address of Dagster's webserver, with its path prefix, that the console passes launches on to. "
        "Default: that of `llmops up`.",
    )
    oidc_issuer: str | None = Field(
        default=None, description="OpenID provider that users of the console log in at (https, or http on loopback)."
    )
    oidc_client_id: str | None = Field(default=None, description="What the provider knows the console as.")
    oidc_client_secret: SecretStr | None = Field(
        default=None, description="The console's secret at the provider; none for a public client."
    )
    oidc_client_secret_file: Path | None = Field(
        default=None, description="File that holds that secret, instead of the variable above."
    )
    oidc_scopes: str = Field(default="openid profile email", description="What the console asks the provider for.")
    oidc_user_claim: str = Field(
        default="preferred_username",
        description="What the provider says that a user is called here. It has to be one person's alone, such as sub.",
    )
    actor_key: SecretStr | None = Field(
        default=None,
        description="API key that `llmops` acts by: as its owner, with its role. Default: whoever has the command may "
        "do everything on the machine.",
    )
    actor_key_file: Path | None = Field(
        default=None, description="File that holds that key, instead of the variable above."
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

    def as_environment(self) -> dict[str, str]:
        """The settings that were given, not the defaults, as the variables that say the same; paths are absolute."""
        found: dict[str, str] = {}
        for name in self.model_fields_set & type(self).model_fields.keys():
            value = getattr(self, name)
            if isinstance(value, SecretStr):
                value = value.get_secret_value()
            elif isinstance(value, Path):
                value = value.expanduser().absolute()
            if value is not None:
                found[f"LLMOPS_{name.upper()}"] = str(value)
        return found

    @property
    def root(self) -> Path:
        """The home folder as an absolute path, whatever the working directory of the process."""
        return self.home.expanduser().absolute()

    @cached_property
    def dagster_home(self) -> Path:
        return self.root / "dagster"

    @property
    def key_file_of_host(self) -> Path | None:
        """The file of the encryption keys as an engine of containers finds it; None where they are in no such file."""
        # A file of our own container is none of the host's.
        own = None if self.volume or self.encryption_key else self.encryption_key_file
        return self.volume_key_file if self.volume else own

    @property
    def watermark_secret(self) -> str | None:
        """The watermark key, from the variable or from its file; None without one."""
        if self.watermark_key is not None:
            return self.watermark_key.get_secret_value()
        return self.watermark_key_file.read_text(encoding="utf-8") if self.watermark_key_file else None

    @property
    def jwt_key(self) -> bytes | None:
        """The secret of tokens, from the variable or from its file; None without one."""
        if self.jwt_secret is not None:
            return self.jwt_secret.get_secret_value().encode()
        return self.jwt_secret_file.read_bytes().strip() if self.jwt_secret_file else None

    @property
    def oidc_secret(self) -> str | None:
        """The console's secret at the provider, from the variable or from its file; None without one."""
        if self.oidc_client_secret is not None:
            return self.oidc_client_secret.get_secret_value()
        file = self.oidc_client_secret_file
        return file.expanduser().read_text(encoding="utf-8").strip() if file else None

    @property
    def actor_secret(self) -> str | None:
        """The API key that the command acts by, from the variable or from its file; None without one."""
        if self.actor_key is not None:
            return self.actor_key.get_secret_value()
        file = self.actor_key_file
        return file.expanduser().read_text(encoding="utf-8").strip() if file else None

    @property
    def own_key(self) -> str:
        """What commands call the gateway with; a word where it asks for nothing."""
        return self.api_key.get_secret_value() if self.api_key else "unused"

    @property
    def gateway_address(self) -> str:
        """The address that the gateway binds."""
        return self.gateway_host or self.host

    @property
    def qdrant_secret(self) -> str | None:
        """The key of the Qdrant server, from the variable or from its file; None without one."""
        if self.qdrant_api_key is not None:
            return self.qdrant_api_key.get_secret_value()
        file = self.qdrant_api_key_file
        return file.expanduser().read_text(encoding="utf-8").strip() if file else None

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
        return f"http://{_asked_at(self.gateway_address)}:{self.gateway_port}"

    @property
    def gateway_admin_url(self) -> str:
        return f"http://{_asked_at(self.gateway_address)}:{self.gateway_admin_port or self.gateway_port + 1}"

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
        return (self.console_server or f"http://{self.host}:{self.console_port}").rstrip("/")

    @property
    def dagster_url(self) -> str:
        """Address of Dagster's pages, for links."""
        return (self.dagster_page or f"http://{self.host}:{self.dagster_port}").rstrip("/")

    @property
    def dagster_server(self) -> str:
        """Address of Dagster's webserver for programs, with its path prefix."""
        return (self.dagster_webserver or f"http://{self.host}:{self.dagster_port}").rstrip("/")

    @property
    def dagster_graphql(self) -> str:
        """Where Dagster's webserver takes queries and launches."""
        return f"{self.dagster_server}/graphql"

    @property
    def mlflow_url(self) -> str:
        """Address of the MLflow UI, for links; the store itself is `mlflow`."""
        if self.mlflow_page:
            return self.mlflow_page.rstrip("/")
        if self.mlflow.startswith(("http://", "https://")):
            return self.mlflow
        return f"http://{self.host}:{self.mlflow_port}"


def _asked_at(address: str) -> str:
    """Where a program of this machine finds what binds an address: all of them are no place to ask."""
    if address in ("0.0.0.0", "::"):
        return "127.0.0.1" if address == "0.0.0.0" else "[::1]"
    return f"[{address}]" if ":" in address else address
