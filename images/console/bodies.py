"""What programs send: bodies as they are written against the platform, with every field read, noted or refused."""

from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field

from llmops_assets.specs.base import NAME_PATTERN

Version = Annotated[str, BeforeValidator(lambda v: str(v) if type(v) in (int, float) else v), Field(max_length=100)]
"""A version; programs write 1.0 as a number too."""
Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=100)]


def either(*names: str) -> Any:
    """A field that programs write in either of these ways."""
    return AliasChoices(*names)


class Body(BaseModel):
    """A body: a field that nobody knows is refused by its path, so that none is dropped in silence."""

    model_config = ConfigDict(extra="forbid")


class DatasetBody(Body):
    """A dataset version to enter."""

    name: Name
    version: Version = "v1"
    type: str
    owner_team: str = Field(default="unassigned", validation_alias=either("owner_team", "ownerTeam", "owner"))
    storage_uri: str | None = Field(default=None, validation_alias=either("storage_uri", "storageUri"))
    description: str | None = None
    license: str | None = None
    mapping: dict[str, str] | None = None
    split: dict[str, Any] | None = None
    suite: dict[str, Any] | None = None


class ForgetBody(Body):
    """Whose rows are erased: texts that identify the person, in any spelling, and ids of rows."""

    texts: list[Annotated[str, Field(max_length=1000)]] = Field(
        default_factory=list, max_length=100, validation_alias=either("texts", "match")
    )
    rows: list[Annotated[str, Field(max_length=200)]] = Field(default_factory=list, max_length=1000)
    everywhere: bool = False
    reason: str = Field(default="on request", max_length=500)
    dry_run: bool = False


class ModelMetadata(Body):
    """What is said of a base model; `model_family` is a family of the policy."""

    architecture: str | None = None
    parameters: str | int | None = None
    framework: str | None = None
    model_family: str | None = None
    description: str | None = None
    tags: list[str] | None = None


class ModelBody(Body):
    """A base model to enter."""

    name: Name
    version: Version
    type: Literal["base"] = "base"
    owner_team: str = Field(default="unassigned", validation_alias=either("ownerTeam", "owner_team", "owner"))
    metadata: ModelMetadata = Field(default_factory=ModelMetadata)
    storage_uri: str = Field(validation_alias=either("storageUri", "storage_uri"))
    status: Literal["draft"] = Field(default="draft", description="A model is approved by a request of its own.")
    license: str | None = None


class StatusBody(Body):
    """The state that a model shall have."""

    status: str
    comment: str | None = Field(default=None, max_length=2000)


class StatementBody(Body):
    """What a person states of a model that its lineage cannot tell."""

    text: str = Field(min_length=1, max_length=20_000)


class ResourceProfile(Body):
    """What a training asks of the machine; it is noted, because runs are given what the platform has."""

    cpu_cores: float | None = Field(default=None, validation_alias=either("cpuCores", "cpu_cores"))
    memory: str | None = None
    max_duration: float | None = Field(default=None, validation_alias=either("maxDuration", "max_duration"))
    gpus: int | None = None


class TrainResources(Body):
    """The GPUs of a training."""

    gpus: int = Field(default=0, ge=0)
    gpu_memory_gb: float | None = None
    gpu_type: str | None = None
    nodes: int | None = None
    sharding: str | None = None


class Hyperparameters(Body):
    """In the words of the source documents, and in ours."""

    lr: float | None = Field(default=None, validation_alias=either("learning_rate", "lr"))
    batch_size: int | None = None
    num_epochs: float | None = Field(default=None, validation_alias=either("num_epochs", "epochs"))
    max_seq_len: int | None = Field(default=None, validation_alias=either("max_seq_length", "max_seq_len"))
    max_steps: int | None = None
    gradient_accumulation_steps: int | None = None
    warmup_steps: int | None = None
    warmup_ratio: float | None = None
    weight_decay: float | None = None
    scheduler: str | None = Field(default=None, validation_alias=either("scheduler", "lr_scheduler_type"))
    lora_rank: int | None = Field(default=None, validation_alias=either("lora_rank", "lora_r"))
    lora_alpha: float | None = None
    lora_dropout: float | None = None
    target_modules: str | list[str] | None = None
    train_embeddings: bool | None = None
    precision: str | None = None
    seed: int | None = None
    overlong: str | None = None
    packing: bool | None = None
    save_steps: int | None = None
    eval_steps: int | None = None

    def given(self) -> dict[str, Any]:
        """The fields that were given, in our words."""
        return self.model_dump(exclude_none=True)


class TrainJobBody(Body):
    """A training in the words of a spec."""

    model_ref: str | None = None
    model_family: str | None = None
    job_type: str = "SFT"
    dataset_ref: str | None = None
    dataset_type: str | None = None
    method: str | None = None
    resources: TrainResources = Field(default_factory=TrainResources)
    hyperparameters: Hyperparameters = Field(
        default_factory=Hyperparameters, validation_alias=either("hyperparameters", "hyperparams")
    )
    output: dict[str, Any] | None = None
    evaluation: dict[str, Any] | None = None
    rlhf: dict[str, Any] | None = None
    rag: dict[str, Any] | None = None
    embedding: dict[str, Any] | None = None
    trainer: str | None = None
    use_gpu: bool | None = None


class TrainingBody(Body):
    """A training as it is asked for."""

    model_id: str | None = Field(default=None, validation_alias=either("modelId", "model_id"))
    dataset_id: str | None = Field(default=None, validation_alias=either("datasetId", "dataset_id"))
    job_type: str | None = Field(default=None, validation_alias=either("jobType", "job_type"))
    job_name: Name | None = Field(default=None, validation_alias=either("jobName", "job_name"))
    use_gpu: bool | None = Field(default=None, validation_alias=either("useGpu", "use_gpu"))
    resource_profile: ResourceProfile = Field(
        default_factory=ResourceProfile, validation_alias=either("resourceProfile", "resource_profile")
    )
    spec: TrainJobBody = Field(
        default_factory=TrainJobBody, validation_alias=either("trainJobSpec", "train_job_spec", "spec")
    )


class ServeResources(Body):
    """The GPUs of a model server."""

    gpus: int = Field(default=0, ge=0)
    gpu_memory_gb: int | None = None


class DeploymentBody(Body):
    """An endpoint in the words of a spec."""

    model_ref: str | None = None
    model_family: str | None = None
    job_type: str | None = None
    serve_target: str = "GENERATION"
    resources: ServeResources = Field(default_factory=ServeResources)
    runtime: dict[str, Any] | None = None
    rollout: dict[str, Any] | None = None
    engine: str | None = None
    use_gpu: bool | None = None


class EndpointBody(Body):
    """An endpoint as it is asked for."""

    model_id: str | None = Field(default=None, validation_alias=either("modelId", "model_id"))
    environment: str = "dev"
    route: str | None = None
    min_replicas: int | None = Field(default=None, validation_alias=either("minReplicas", "min_replicas"))
    max_replicas: int | None = Field(default=None, validation_alias=either("maxReplicas", "max_replicas"))
    use_gpu: bool | None = Field(default=None, validation_alias=either("useGpu", "use_gpu"))
    spec: DeploymentBody = Field(
        default_factory=DeploymentBody, validation_alias=either("deploymentSpec", "deployment_spec", "spec")
    )


class EvaluateBody(Body):
    """What a model is asked besides its own test split."""

    test_dataset_id: str = Field(validation_alias=either("test_dataset_id", "testDatasetId", "suite"))


class AbTestBody(Body):
    """A test of two models: `a` is the one in place."""

    experiment_name: Name
    model_a_id: str
    model_b_id: str
    traffic_split: dict[Literal["a", "b"], float] = Field(default_factory=lambda: {"a": 0.5, "b": 0.5})
    target_samples: int | None = None
    success_metric: str = "user_rating"
    endpoint: str | None = None
    duration_hours: float | None = None
    auto_promote: bool | None = None
    description: str | None = None


class StopBody(Body):
    """Why a test is ended."""

    reason: str | None = Field(default=None, max_length=2000)


class ConcludeBody(Body):
    """Which model gets all users: `a` is the one in place."""

    winner: Literal["a", "b"]


class FinetuningBody(Body):
    """A fine-tuning as the administrative interface asks for it."""

    job_name: Name
    base_model: str
    dataset_id: str
    method: str = "lora"
    hyperparameters: Hyperparameters = Field(default_factory=Hyperparameters)
    gpu_ids: str | None = None


class SplitBody(Body):
    """Shares of train, validation and test."""

    train_ratio: float = 0.8
    val_ratio: float = 0.1
    test_ratio: float = 0.1


class RegisterBody(Body):
    """A model as the fine-tuning interface registers it."""

    name: Name = Field(validation_alias=either("name", "model_name"))
    version: Version = "1"
    base_model: str | None = None
    storage_uri: str = Field(validation_alias=either("storage_uri", "storageUri", "path", "model_path"))
    model_family: str
    description: str | None = None
    tags: list[str] | None = None
    license: str | None = None
