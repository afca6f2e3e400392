"""What the policy asks of data: duplicates, personal data, toxicity."""

from typing import Literal

from pydantic import Field, model_validator

from llmops_assets.specs.base import Bool, Float, Int, Part, Text
from llmops_assets.specs.recognizers import Recognizer


class MinHash(Part):
    """Near-duplicates: `bands` × `rows` permutations over character `shingle`-grams, verified at `jaccard`."""

    bands: Int = Field(ge=1)
    rows: Int = Field(ge=1)
    shingle: Int = Field(ge=1)
    jaccard: Float = Field(gt=0, le=1)
    facts: Literal["keep", "drop"] = Field(
        default="keep",
        description="What becomes of documents that are alike but for numbers, names and other facts: each is kept, or "
        "one of them. Rows that ask something are kept whenever they differ in a fact.",
    )


class NameModelRules(Part):
    """A token classifier of the user's that marks names of persons."""

    model: Text = Field(description="A local folder: config.json, safetensors, a fast tokenizer.")
    instead: Bool = Field(default=False, description="Instead of ours; by default a name is what either finds.")
    labels: list[Text] | None = Field(
        default=None, min_length=1, description="Labels that mean a person, where they are none of the usual ones."
    )


class Pii(Part):
    """What counts as personal data here, and what becomes of it."""

    mode: Literal["mask", "drop", "pseudonymise"] = Field(
        description="What clean_dataset does with personal data: a placeholder, no row, or a stand-in by a secret key."
    )
    names: Bool | NameModelRules = Field(
        default=True, description="Look for persons' names too, the costliest part by far; or by which model."
    )
    placeholders: dict[Text, Text] = Field(description="What replaces a span, by type of personal data.")
    recognizers: list[Recognizer] = Field(default_factory=list, description="Personal data of the house's own.")

    @model_validator(mode="after")
    def _of_its_own_type(self) -> "Pii":
        names: set[str] = set()
        for recognizer in self.recognizers:
            if recognizer.name in names:
                raise ValueError(f"recognizers: two are named {recognizer.name!r}")
            names.add(recognizer.name)
        return self


class Toxicity(Part):
    """What flags toxic rows. Nothing is deleted by it."""

    scorer: Literal["lexicon", "linear", "transformers"] = "lexicon"
    path: Text | None = Field(default=None, description="The model: a file of train-toxicity, or a model's folder.")
    threshold: Float | None = Field(default=None, gt=0, lt=1, description="By default the model's own, or 0.5.")
    clean_labels: list[Text] = Field(
        default_factory=lambda: ["clean", "none", "normal", "neutral", "non-toxic", "nontoxic", "LABEL_0"],
        description="Labels of a transformers model that mean nothing bad.",
    )

    @model_validator(mode="after")
    def _has_its_model(self) -> "Toxicity":
        if (self.path is None) != (self.scorer == "lexicon"):
            raise ValueError("path is for linear and transformers, which need it, and not for lexicon")
        return self


class DatasetPolicy(Part):
    """What a dataset version is held to."""

    max_quarantined_share: Float = Field(ge=0, le=1)
    require_category: Bool
    min_quality_score: Float = Field(ge=0, le=1)
    min_generated_score: Float = Field(default=0.7, ge=0, le=1, description="The same for rows that a model wrote.")
    max_contaminated_share: Float = Field(
        default=0.01, ge=0, le=1, description="Share of a suite's items that may stand in training rows."
    )
    max_same_answer_share: Float = Field(
        default=0.9, ge=0, le=1, description="Share of a version's rows that may have one and the same answer."
    )
    max_unreadable_answer_share: Float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="Share of the answers that may be nan, in misread letters, or cut by an export.",
    )
    max_moved_answers_share: Float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of the stretches of 256 rows whose answers may fit the questions of other rows better.",
    )
    max_untested_share: Float = Field(
        default=0.01, ge=0, le=1, description="Share of the rows whose category may be without a test row."
    )
    minhash: MinHash
    max_duplicate_share: Float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Share of the rows that may be dropped as near duplicates; exact copies are not counted.",
    )
    control_tokens: Literal["text", "drop"] = Field(
        default="text",
        description="Rows with control tokens of models in their texts (<|im_end|>): kept, and trained and served as "
        "text, or dropped by clean_dataset.",
    )
    pii: Pii
    toxicity: Toxicity = Field(default_factory=Toxicity)
