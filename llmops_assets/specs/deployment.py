"""What a user says about an endpoint: which model it serves, on what, and how a new model takes over."""

import ipaddress
import re
from collections.abc import Iterator
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field

from llmops_assets.specs.base import NAME_PATTERN, Bool, Float, Int, Name, Part, Rule, Spec, Text, VersionedRef, View
from llmops_assets.specs.cache import Cache
from llmops_assets.specs.guards import Guards
from llmops_assets.specs.job_types import Environment, JobType, ServeTarget
from llmops_assets.specs.jobs import CONTEXT_TEMPLATE
from llmops_assets.specs.prompt import Prompt
from llmops_assets.specs.rollout import Rollout, rollout_rules
from llmops_assets.specs.shadow import Shadow


class ServeResources(Part):
    """What every replica of a model server gets."""

    gpus: Int = Field(ge=0, description="GPUs a replica; 0 serves on the CPU.")
    gpu_memory_gb: Int | None = Field(
        default=None, ge=1, description="Memory that each GPU must have, in 10⁹ bytes; ignored where gpus is 0."
    )


class Runtime(Part):
    """What a model server accepts at most."""

    max_concurrent_requests: Int = Field(default=256, ge=1)
    max_input_tokens: Int | None = Field(default=None, ge=1, description="Left out: what the model allows.")
    max_output_tokens: Int | None = Field(default=None, ge=1, description="Left out: what the model allows.")
    tool_call_parser: Text | None = Field(
        default=None,
        description="engine vllm only: how this model writes calls, by vLLM's name (hermes, llama3_json, mistral, …). "
        "Left out: requests with tools are refused.",
    )
    backend: Literal["local", "docker", "kubernetes", "url"] = Field(
        default="local",
        description="What runs the model servers: processes of this machine, containers, a cluster, or somebody else.",
    )
    url: Text | None = Field(default=None, description="url only: the OpenAI-compatible address, up to before /v1.")
    model: Text | None = Field(default=None, description="url only: what the server there calls the model.")
    api_key_variable: Text | None = Field(
        default=None, description="url only: name of the environment variable that holds the server's key."
    )


class Holdout(Part):
    """Users who stay on the model from before, so that what later models gained is measured."""

    percent: Int = Field(ge=1, le=50, description="Of the users; always the same ones.")
    model_ref: VersionedRef | None = Field(
        default=None, description="Their model, one that the endpoint serves. Left out: the one before the next."
    )


class Replicas(Part):
    """Servers of the same model beside each other."""

    min: Int = Field(default=1, ge=1, description="Started with the endpoint.")
    max: Int = Field(default=1, ge=1, description="Added one by one where the others have too much to do.")
    target_in_flight: Int = Field(
        default=8, ge=1, description="Requests under way at once that one server is good for; more want another server."
    )
    target_latency_ms: Float | None = Field(
        default=None, gt=0, description="Mean time of an answer, above which another server is wanted. Left out: any."
    )
    cooldown_seconds: Int = Field(default=120, ge=0, description="Between two changes of their number.")


class RagServing(Part):
    """What an endpoint with `serve_target: RAG` gives its model beside the question."""

    index: Name = Field(description="The name of an index: llmops index list.")
    top_k: Int = Field(default=4, ge=1, le=50, description="Passages that the model is given at most.")
    mode: Literal["hybrid", "dense", "sparse"] = Field(
        default="hybrid", description="By vectors and by words, or by one of them alone."
    )
    min_score: Float | None = Field(
        default=None, ge=-1, le=1, description="Cosine of question and passage, below which a passage is not found."
    )
    reranker: Text | None = Field(
        default=None, description="Folder of a local cross-encoder, which orders what was found anew."
    )
    candidates: Int = Field(default=20, ge=1, le=50, description="Passages that the reranker orders, top_k at least.")
    template: Text = Field(
        default=CONTEXT_TEMPLATE,
        description="What the model is asked: with {question}, and {context} (passages numbered, as readers are "
        "trained) or {passages} (each inside of <passage id=…>).",
    )
    max_passage_tokens: Int = Field(
        default=1024, ge=16, description="Of all passages together, counted by the model's own tokenizer."
    )
    refuse_when_nothing: Bool = Field(
        default=False, description="Where no passage is found, answer that instead of asking the model."
    )
    refusal: Text | None = Field(
        default=None, description="What is answered then; left out, in the question's language."
    )
    timeout_seconds: Float = Field(default=5, gt=0, le=60, description="For finding the passages of one question.")


_OF_THE_SERVERS = ("engine", "load_mode", "image", "resources", "runtime")
"""Fields of a deployment that say how a model is run; the others say what the endpoint is."""


class DeploymentSpec(Spec):
    """One endpoint."""

    kind: ClassVar[str] = "deployment"

    model_ref: VersionedRef = Field(description="NAME@VERSION or NAME@ALIAS of the registry.")
    model_family: Text = Field(description="A family of the policy; verified against the model's own config.")
    job_type: JobType = Field(description="The job that made the model.")
    serve_target: ServeTarget
    endpoint: Name = Field(description="Name of the endpoint; left out, that of the model.")
    engine: Literal["transformers", "vllm"] = "transformers"
    load_mode: Literal["merged", "base+adapter"] = "merged"
    environment: Environment
    resources: ServeResources
    runtime: Runtime = Field(default_factory=Runtime)
    replicas: Replicas = Field(default_factory=Replicas)
    rollout: Rollout = Field(default_factory=Rollout)
    holdout: Holdout | None = Field(default=None, description="Left out: every user gets new models.")
    cache: Cache | None = Field(default=None, description="Left out: every request goes to a model.")
    shadow: Shadow | None = Field(default=None, description="Left out: no request is copied to a candidate.")
    guards: Guards = Field(default_factory=Guards)
    rag: RagServing | None = Field(default=None, description="serve_target RAG only, and required there.")
    prompt: Prompt | None = Field(default=None, description="Put before what users write; its variables come with it.")
    image: Text | None = Field(default=None, description="Another serve image than the policy's; for some roles only.")

    @property
    def model_name(self) -> str:
        return self.model_ref.partition("@")[0]

    @property
    def model_version(self) -> str:
        """The version or the alias after the ``@``."""
        return self.model_ref.partition("@")[2]

    def notes(self) -> list[str]:
        """What of this spec is set aside."""
        found = []
        gpus, replicas = self.resources.gpus, self.replicas
        if gpus == 0 and self.resources.gpu_memory_gb is not None:
            found.append("resources.gpu_memory_gb is ignored: gpus is 0, so the CPU serves")
        if gpus > 1 and self.engine == "transformers":
            found.append(f"resources.gpus: transformers serves on one GPU of the {gpus}; engine: vllm uses them all")
        if replicas.max > replicas.min and self.runtime.backend == "url":
            found.append("replicas is ignored: how many servers are behind runtime.url is for whoever runs them")
        if self.runtime.backend == "url":
            found.append("runtime.backend is url: the files there are somebody else's, so only answers are compared")
        return found

    def for_all_users(
        self, model_ref: str, model_family: str, job_type: JobType, served_as: "DeploymentSpec | None" = None
    ) -> "DeploymentSpec":
        """What is wanted when a model shall have all users of the endpoint: a rollback, or a decided experiment.

        served_as: what was wanted when the endpoint last came to serve that model. Its servers are run as they were
        then: where they are and what they accept is the model's, and this spec is another's.
        """
        changes = {"model_ref": model_ref, "model_family": model_family, "job_type": job_type, "rollout": Rollout()}
        if served_as is not None:
            changes |= {name: getattr(served_as, name) for name in _OF_THE_SERVERS}
        return self.model_copy(update=changes)

    @classmethod
    def complete(cls, data: dict[str, Any]) -> None:
        if data.get("endpoint") is None:
            name = str(data.get("model_ref", "")).partition("@")[0]
            # A fault of model_ref is not to be told again as one of endpoint.
            data["endpoint"] = name if re.fullmatch(NAME_PATTERN, name) else "unnamed"
        data.setdefault("engine", "transformers")
        if isinstance(data.get("rollout"), dict):
            data["rollout"].setdefault("strategy", "blue-green")

    @classmethod
    def rules(cls, view: View) -> Iterator[Rule]:
        environment, mode = view.get("environment", str), view.get("load_mode", str)
        if environment == "production" and mode == "base+adapter":
            yield "load_mode", "production serves merged models only", "Write load_mode: merged"
        if mode == "base+adapter" and view.get("engine", str) == "transformers":
            yield "engine", "transformers serves no adapters beside their base", "Write engine: vllm, or load merged"
        if view.get("cache", dict) is not None and view.get("serve_target", str) == "RAG":
            yield "cache", "an index may change under its name: what it gave before is no answer to keep", "Remove it"
        candidate = view.get("shadow.endpoint", str)
        if candidate is not None and candidate == view.get("endpoint", str):
            yield (
                "shadow.endpoint",
                "the endpoint itself is no candidate",
                "Name the endpoint that serves the candidate",
            )
        low, high = view.get("replicas.min", int) or 1, view.get("replicas.max", int) or 1
        if low > high:
            yield "replicas.max", f"{high} is less than replicas.min {low}", "Make it at least replicas.min"
        yield from rollout_rules(view)
        yield from _runtime_rules(view)
        yield from _rag_rules(view)


def _rag_rules(view: View) -> Iterator[Rule]:
    if view.get("rag", dict) is None:
        # Endpoints of earlier releases have none: that one is needed is said where it is deployed.
        return
    if view.get("serve_target", str) == "GENERATION":
        yield "rag", "only for serve_target RAG", "Remove the block, or write serve_target: RAG"
    if view.get("cache", dict) is not None:
        yield "cache", "an answer that is kept would outlive its passages, erased ones too", "Remove it, or rag"
    template = view.get("rag.template", str)
    if template is not None:
        context = [name for name in ("{context}", "{passages}") if name in template]
        if len(context) != 1 or template.count(context[0]) != 1:
            yield "rag.template", "has to hold {passages} or {context}, one of them once", "For example {passages}"
        if "{question}" not in template:
            yield "rag.template", "has no {question}", "Write {question} where the user's question shall stand"


_KEY_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")
_PARSER = re.compile(r"[a-z0-9][a-z0-9_.-]*")


def _runtime_rules(view: View) -> Iterator[Rule]:
    backend = view.get("runtime.backend", str) or "local"
    url = view.get("runtime.url", str)
    for name in ("url", "model", "api_key_variable"):
        if backend != "url" and view.get(f"runtime.{name}", str) is not None:
            yield f"runtime.{name}", f"only for backend: url, and this is {backend}", "Remove it"
    parser = view.get("runtime.tool_call_parser", str)
    if parser is not None:
        if backend == "url":
            yield "runtime.tool_call_parser", "the server at runtime.url is started by somebody else", "Remove it"
        elif view.get("engine", str) == "transformers":
            advice = "Write engine: vllm, or remove it"
            yield "runtime.tool_call_parser", "transformers reads no calls out of answers", advice
        elif not _PARSER.fullmatch(parser):
            yield "runtime.tool_call_parser", "no name of a parser of vLLM's", "For example hermes"
    if backend != "url":
        return
    if url is None:
        yield "runtime.url", "required for backend: url", "Write the server's address, as in http://vllm.internal:8000"
    else:
        yield from _address_rules(url)
    variable = view.get("runtime.api_key_variable", str)
    if variable is not None and not _KEY_VARIABLE.fullmatch(variable):
        yield "runtime.api_key_variable", "no name of an environment variable", "Name the variable, not the key itself"


def _address_rules(url: str) -> Iterator[Rule]:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        yield "runtime.url", f"no address: {error}", "Write it as http://HOST:PORT"
        return
    if parts.scheme not in ("http", "https") or not host:
        yield "runtime.url", "no address of a server", "Write it as http://HOST:PORT or https://HOST"
    elif parts.username is not None or parts.password is not None:
        yield "runtime.url", "holds a name or a password", "Name the variable with the key as runtime.api_key_variable"
    elif parts.query or parts.fragment:
        yield "runtime.url", "holds more than an address and a path", "Leave out what follows ? or #"
    elif _is_link_local(host):
        yield (
            "runtime.url",
            f"{host} is where clouds tell machines their secrets",
            "Name the model server's own address",
        )


def _is_link_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_link_local
    except ValueError:
        return host.rstrip(".").lower() in ("metadata.google.internal", "metadata")
