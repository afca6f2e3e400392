"""The part of the policy that says how the train worker runs in a Kubernetes cluster."""

from typing import Literal

from pydantic import Field

from llmops_assets.specs.base import Int, Part, Text


class Toleration(Part):
    """A taint of nodes that pods of the worker bear."""

    key: Text | None = Field(default=None, description="Left out, with operator Exists: every key.")
    operator: Literal["Equal", "Exists"] = "Equal"
    value: Text | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class Kubernetes(Part):
    """Where pods of the worker run, and what they are given."""

    namespace: Text = "llmops"
    service_account: Text | None = Field(
        default=None, description="Of the pod; the worker itself asks nothing of the API."
    )
    image_pull_secrets: list[Text] = Field(default_factory=list)
    node_selector: dict[Text, Text] = Field(default_factory=dict)
    gpu_node_selector: dict[Text, Text] = Field(default_factory=dict, description="Besides, for jobs that take GPUs.")
    tolerations: list[Toleration] = Field(default_factory=list)
    gpu_tolerations: list[Toleration] = Field(
        default_factory=lambda: [Toleration(key="nvidia.com/gpu", operator="Exists", effect="NoSchedule")],
        description="Besides, for jobs that take GPUs.",
    )
    gpu_resource: Text = Field(default="nvidia.com/gpu", description="What the device plugin calls a GPU.")
    cpu: Text = Field(default="4", description="CPUs asked for, as Kubernetes writes it.")
    memory: Text = Field(default="16Gi", description="Memory asked for, which is the limit too.")
    run_as_user: Int | None = Field(
        default=None,
        ge=1,
        description="User and group of the pods. Default: the platform's, who owns the files.",
    )
    key_secret: Text | None = Field(default=None, description="Secret that holds the encryption keys.")
    key_secret_key: Text = Field(default="encryption-key", description="The key of the Secret under which they are.")
