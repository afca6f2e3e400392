"""What a user says about a dataset version when registering it."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal, get_args
from urllib.parse import urlsplit

from pydantic import Field

from llmops_assets.specs.base import Float, Int, Name, Part, Rule, Spec, Text, VersionedRef, View
from llmops_assets.specs.suite import SuiteSpec

DatasetType = Literal["pretrain_corpus", "sft_pair", "rag_qa", "rlhf_pair", "kto", "embedding_pair", "eval_suite"]
DATASET_TYPES: tuple[str, ...] = get_args(DatasetType)


class SplitSpec(Part):
    """How the rows of a version are divided into train, validation and test."""

    stratify_by: Text | None = Field(
        default="category", description="Field whose shares are kept in every split; null for none."
    )
    group_by: Text | None = Field(
        default=None,
        description="Metadata field whose equal values stay together in one split, besides duplicate clusters.",
    )
    ratios: Annotated[tuple[Float, Float, Float], Field(description="Shares of train, validation and test.")] = (
        0.8,
        0.1,
        0.1,
    )
    seed: Int = Field(default=0, ge=0)


class GenerationSpec(Part):
    """How a model writes rows about the registered documents."""

    endpoint: Text = Field(
        description="Base address of an OpenAI-compatible API (https://…/v1), or endpoint:NAME for one of our own."
    )
    model: Text = Field(description="Name of the model at that address.")
    template: Literal["qa", "chat", "summary"] = "qa"
    language: Literal["auto", "ko", "en"] = Field(default="auto", description="auto: that of the passage.")
    per_passage: Int = Field(default=3, ge=1, le=20, description="Rows that are asked for about each passage.")
    passage_chars: Int = Field(default=1500, ge=200, le=20000, description="Characters of the longest passage.")
    temperature: Float = Field(default=0.2, ge=0, le=2)
    max_tokens: Int = Field(default=1024, ge=64, le=32768, description="Tokens of one answer.")
    concurrency: Int = Field(default=4, ge=1, le=64, description="Passages that are asked about at a time.")
    timeout_seconds: Float = Field(default=120, gt=0, le=3600, description="For one answer, to its last byte.")
    attempts: Int = Field(default=3, ge=1, le=10, description="For a silent server, and for an answer that is no JSON.")
    min_groundedness: Float = Field(
        default=0.6, ge=0, le=1, description="Share of an answer's words that its passage must have."
    )
    max_failed: Float = Field(default=0.2, ge=0, le=1, description="Share of passages that may come to nothing.")
    api_key_env: Text = Field(
        default="LLMOPS_LLM_KEY",
        description="Environment variable of the key, LLMOPS_LLM_KEY or with more behind it. The key is never stored.",
    )


class DatasetSpec(Spec):
    """One immutable version of a dataset, before any of its files is read.

    Give `files` (they are copied into the platform) or `storage_uri` (where they already lie), or both.
    """

    kind: ClassVar[str] = "dataset"

    name: Name
    version: Name
    type: DatasetType
    files: list[Text] = Field(
        default_factory=list,
        description="Paths, folders or fsspec URLs of the raw files; relative ones start at the spec's folder.",
    )
    storage_uri: Text | None = Field(default=None, description="Where the registered files lie.")
    schema_ref: VersionedRef = Field(
        description="Schema of the canonical rows, TYPE@VERSION. Left out, it is the current one of the type."
    )
    owner: Text = Field(description="The team that answers for the data.")
    description: Text
    status: Literal["active", "deprecated", "archived"] = "active"
    license: Text | None = None
    mapping: dict[Text, Text] | None = Field(
        default=None,
        description="Canonical field by the column of the files that holds it, where recognition would fail.",
    )
    split: SplitSpec = Field(default_factory=SplitSpec)
    suite: SuiteSpec | None = Field(default=None, description="eval_suite: how its rows are asked and judged.")
    derived_from: list[VersionedRef] = Field(
        default_factory=list,
        description="Dataset versions that the rows came from: what is erased there on request is erased here, too.",
    )

    generation: GenerationSpec | None = Field(
        default=None, description="The files are documents, and a model writes the rows about them (sft_pair)."
    )

    @property
    def key(self) -> str:
        """``name@version``, the partition key."""
        return f"{self.name}@{self.version}"

    @classmethod
    def complete(cls, data: dict[str, Any]) -> None:
        if data.get("schema_ref") is None:
            type_ = data.get("type")
            data["schema_ref"] = f"{type_ if type_ in DATASET_TYPES else 'unknown'}@1"

    @classmethod
    def rules(cls, view: View) -> Iterator[Rule]:
        if not view.get("files") and not view.get("storage_uri"):
            yield "files", "names no file, and storage_uri is empty too", "List the raw files, or give storage_uri"
        type_, schema = view.get("type", str), view.get("schema_ref", str)
        if type_ and schema and schema.split("@")[0] != type_:
            yield (
                "schema_ref",
                f"{schema} is no schema of type {type_}",
                f"Write {type_}@1, or leave schema_ref out",
            )
        if view.get("suite") and type_ and type_ != "eval_suite":
            yield "suite", f"{type_} is no suite", "Write type: eval_suite, or leave suite out"
        if view.get("generation"):
            yield from _generation_rules(view, type_)
        ratios = view.get("split.ratios", list, tuple)
        if ratios and len(ratios) == 3 and all(isinstance(share, (int, float)) for share in ratios):
            if any(share < 0 for share in ratios) or abs(sum(ratios) - 1) > 1e-6:
                yield (
                    "split.ratios",
                    f"{list(ratios)} should be three shares from 0 to 1 that add up to 1",
                    "For example [0.8, 0.1, 0.1]",
                )
            elif ratios[0] == 0 and type_ != "eval_suite":
                yield "split.ratios", "leaves no rows to train on", "Make the first share larger than 0"


def _generation_rules(view: View, type_: str | None) -> Iterator[Rule]:
    if type_ and type_ != "sft_pair":
        yield "type", f"rows written about documents are sft_pair, not {type_}", "Write sft_pair"
    endpoint = view.get("generation.endpoint", str)
    if endpoint and not endpoint.startswith("endpoint:"):
        address = urlsplit(endpoint)
        if address.scheme not in ("http", "https") or not address.hostname:
            yield "generation.endpoint", f"{endpoint!r} is no address", "Write http(s)://HOST/v1, or endpoint:NAME"
        elif address.username or address.password or address.query:
            # What is registered is stored and shown: an address must not carry a secret.
            yield "generation.endpoint", "an address with a user or a query is stored as it is", "Give the key apart"
    # Any other variable could be sent to any address: the key that seals the files, for example.
    variable = view.get("generation.api_key_env", str)
    if variable and not re.fullmatch(r"LLMOPS_LLM_KEY(_[A-Z0-9_]+)?", variable):
        yield (
            "generation.api_key_env",
            f"{variable} is no key for a model",
            "Name it LLMOPS_LLM_KEY or LLMOPS_LLM_KEY_…",
        )


def reviewed_answers_of(endpoint: str) -> str:
    """The description of a version that was made of an endpoint's reviewed answers, by which it is found again."""
    return f"Reviewed answers of endpoint {endpoint}."
