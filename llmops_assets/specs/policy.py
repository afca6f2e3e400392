"""The policy of an installation: which models, images, data and releases are allowed, read from one YAML file."""

from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import Field, ValidationError, model_validator

from llmops_assets.specs.access import AccessPolicy
from llmops_assets.specs.alerts import AlertPolicy
from llmops_assets.specs.base import Bool, Float, Int, Part, SpecError, SpecFault, Text, VersionedRef, faults_of
from llmops_assets.specs.kubernetes import Kubernetes
from llmops_assets.specs.prices import Prices
from llmops_assets.specs.recognizers import Recognizer
from llmops_assets.specs.suite import JudgeKind

JobType = Literal["PRETRAIN", "SFT", "RAG_TUNING", "RLHF", "EMBEDDING"]
JOB_TYPES: tuple[str, ...] = get_args(JobType)
ServeTarget = Literal["GENERATION", "RAG"]
Scheme = Literal["w4a16", "w8a8", "fp8", "awq", "int8"]
Environment = Literal["dev", "staging", "production"]
DEFAULT_POLICY = Path(__file__).with_name("policy.yaml")
FAMILY_VERSION_KEY = "llmops_family_version"
"""Key of config.json under which a PRETRAIN job writes the version of the family that it follows."""


class VersionSign(Part):
    """What a config.json must show for a model to count as at least `version`."""

    version: Text
    vocab_size_at_least: Int | None = None
    rope_theta_at_least: Float | None = None
    rope_type: Text | None = None


class Family(Part):
    """A family of base models: how it is recognised, and what may be trained of it."""

    architectures: list[Text] = Field(min_length=1)
    encoder_architectures: list[Text] = Field(
        default_factory=list, description="Without a language head; for EMBEDDING only."
    )
    model_types: list[Text] = Field(min_length=1)
    job_types: list[JobType] = Field(min_length=1)
    min_version: Text | None = None
    version_signs: list[VersionSign] = Field(default_factory=list, description="Strongest first.")
    rule: Text = Field(description="The rule in words, for messages.")


class Images(Part):
    """Image names without their registry."""

    train: dict[JobType, Text]
    serve: dict[ServeTarget, Text]
    override_roles: list[Text] = Field(default_factory=list)


class Gate(Part):
    """What a model must reach: a metric of a suite, on enough items."""

    metric: Text
    suite: Text = "test"
    judge: JudgeKind | None = Field(
        default=None, description="Rule that the suite must be judged by for its accuracy to count; left out, any."
    )
    at_least: Float | None = None
    at_most: Float | None = None
    n_at_least: Int = Field(ge=1)
    decided_by: Literal["point", "interval"] = Field(
        default="point", description="What is held against the bound: the estimate, or its worse 95 % bound."
    )

    @model_validator(mode="after")
    def _one_bound(self) -> "Gate":
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("a gate has exactly one of at_least and at_most")
        return self

    def passes(self, value: float, n: int, *, low: float | None = None, high: float | None = None) -> bool:
        """Whether a metric of `value`, measured on `n` items, opens the gate. NaN never does.

        On the interval its worse end decides: `low` where the figure must be high, `high` where it must be low. A
        figure without an interval does not open such a gate.
        """
        if self.decided_by == "interval":
            value = low if self.at_least is not None else high
            if value is None:
                return False
        enough = n >= self.n_at_least
        return enough and (value >= self.at_least if self.at_least is not None else value <= self.at_most)

    @property
    def text(self) -> str:
        """The gate in words: ``accuracy of test >= 0.9 on 200 items or more``."""
        bound = f">= {self.at_least}" if self.at_least is not None else f"<= {self.at_most}"
        what = ""
        if self.decided_by == "interval":
            what = f"{'lower' if self.at_least is not None else 'upper'} 95 % bound of "
        return f"{what}{self.metric} of {self.suite} {bound} on {self.n_at_least} items or more"


class JudgeEndpoint(Part):
    """The OpenAI-compatible server whose model judges answers where a suite asks for an LLM judge."""

    base_url: Text
    model: Text
    api_key_env: Text | None = Field(default=None, description="Environment variable that holds the key.")
    timeout_seconds: Float = Field(default=60.0, gt=0)
    concurrency: Int = Field(default=8, ge=1)


class Forgetting(Part):
    """How far the accuracy on a general suite may fall below that of the base."""

    max_fall: Float = Field(default=0.05, ge=0, le=1, description="In accuracy, as a difference: 0.05 is five points.")
    decided_by: Literal["point", "interval"] = Field(
        default="interval",
        description="interval: only a fall beyond chance counts (the whole paired 95 % interval beyond max_fall).",
    )


class Regression(Part):
    """Against the model in production, by McNemar's test on the same items."""

    alpha: Float = Field(default=0.05, gt=0, lt=0.5)
    withhold: Bool = Field(default=True, description="A model that is worse beyond chance is not registered.")


class EvaluationPolicy(Part):
    """What every model is asked besides its own test split, and how comparisons are judged."""

    suites: dict[JobType, list[VersionedRef]] = Field(
        default_factory=dict, description="eval_suite datasets, beside those of the training spec."
    )
    gates: list[Gate] = Field(default_factory=list, description="Further gates, on suites: all must be open.")
    forgetting: Forgetting = Field(default_factory=Forgetting)
    regression: Regression = Field(default_factory=Regression)
    judge: JudgeEndpoint | None = None
    latency_items: Int = Field(
        default=16, ge=0, description="Items asked once more, one at a time, to measure latency; 0 for none."
    )


class Limits(Part):
    """The largest that is accepted of each."""

    max_seq_len: dict[JobType, Int] = Field(default_factory=dict)
    max_samples: Int = Field(ge=1)
    max_upload_bytes: Int = Field(ge=1)
    max_decompressed_bytes: Int = Field(ge=1)
    max_line_bytes: Int = Field(ge=1)
    model_versions: Int = Field(ge=1)
    max_gpus: Int = Field(ge=0)
    max_nodes: Int = Field(ge=1)
    max_dropped_rows: Float = Field(
        default=0.2, ge=0, le=1, description="Share of rows that overlong: drop may leave out of a training."
    )
    max_cut_answers: Float = Field(
        default=0.05, ge=0, le=1, description="Share of rows whose answer may be cut, in training or evaluation."
    )


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


class RatingScale(Part):
    """The ratings that users may give: the gateway takes no other, and an A/B test counts no other."""

    low: Int = Field(default=1, ge=1, le=5)
    high: Int = Field(default=5, ge=1, le=5)

    @model_validator(mode="after")
    def _has_two(self) -> "RatingScale":
        if self.low >= self.high:
            raise ValueError(f"low {self.low} should be less than high {self.high}: one rating alone says nothing")
        return self


class Guardrail(Part):
    """How much worse than the control a treatment may be."""

    margin: Float = Field(ge=0, le=1, description="How much worse the treatment may be, as a share of requests.")


class Guardrails(Part):
    """What no experiment may worsen beyond its margin."""

    slow_requests: Guardrail
    failed_requests: Guardrail


class Breaker(Part):
    """When a treatment's last 50 requests end its traffic at once: the gateway gives its users to the control."""

    failed_share: Float = Field(default=0.3, gt=0, le=1, description="Of the requests, and twice the control's share.")
    slow_share: Float = Field(default=0.5, gt=0, le=1, description="Of the requests, and four times the control's.")
    slow_ms: Float = Field(default=4000, gt=0, description="A request that takes longer, or waits so long already.")
    requests: Int = Field(default=20, ge=5, description="Of the treatment, before anything trips.")
    users: Int = Field(default=3, ge=1, description="Whom they failed, or kept waiting.")


class ExperimentPolicy(Part):
    """What every experiment is held to."""

    alpha: Float = Field(gt=0, lt=0.5)
    users_per_arm: Int = Field(ge=2)
    srm_p: Float = Field(gt=0, lt=1)
    latency_threshold_ms: Float = Field(gt=0)
    rating: RatingScale
    guardrails: Guardrails
    breaker: Breaker = Field(default_factory=Breaker)
    max_duration_hours: Float = Field(gt=0)


class InjectionClassifier(Part):
    """A sequence classifier of the user's that tells attempts at injection from other requests."""

    path: Text = Field(description="A local folder: config.json, safetensors, a fast tokenizer.")
    threshold: Float = Field(default=0.9, gt=0, lt=1)
    clean_labels: list[Text] = Field(
        default_factory=lambda: ["safe", "benign", "legit", "clean", "normal", "no_injection", "LABEL_0"],
        description="Labels that mean no attempt.",
    )


class Replay(Part):
    """What a candidate is asked before it gets users: what the endpoint's users asked in the last days."""

    required: Bool = Field(default=False, description="Whether no model gets users that a replay found worse.")
    days: Int = Field(default=7, ge=1, description="Of traffic, compacted by the asset `traffic`.")
    requests: Int = Field(default=200, ge=2, description="At most.")
    token_budget: Int = Field(default=100_000, ge=100, description="Prompts and answers of one replay, at most.")
    max_new_tokens: Int = Field(default=256, ge=1, description="Of each answer.")
    max_personal_share: Float = Field(
        default=0.01, ge=0, le=1, description="Of the answers, with personal data that were not there before."
    )
    fresh_days: Float = Field(default=1, gt=0, description="How long a replay of the same weights is good for.")


class ServingPolicy(Part):
    """What may be served how, and the bounds of a model server."""

    targets: dict[ServeTarget, list[JobType]]
    adapter_environments: list[Environment]
    cb_num_blocks: Int = Field(ge=1)
    cb_block_size: Int = Field(ge=1)
    cb_max_batch_tokens: Int = Field(ge=1)
    start_timeout_seconds: Float = Field(gt=0)
    stop_timeout_seconds: Float = Field(gt=0)
    injection_classifier: InjectionClassifier | None = Field(
        default=None, description="Asked by guards of endpoints that want it, beside the rules."
    )
    drain_seconds: Float = Field(default=30, gt=0, description="How long requests in flight hold up a server's end.")
    replay: Replay = Field(default_factory=Replay)
    max_restarts: Int = Field(
        default=5, ge=0, description="How often in a row a server that keeps ending is started again."
    )


class Compression(Part):
    """What of a model may be lost when its weights are written with fewer bits."""

    schemes: list[Scheme] = Field(
        default_factory=lambda: ["w8a8"], min_length=1, description="Made unless the run says otherwise."
    )
    max_drop: Float = Field(default=0.02, ge=0, le=1, description="Of the headline figure, in points of it.")
    min_top1: Float = Field(default=0.9, ge=0, le=1, description="Share of tokens that both think likeliest.")
    calibration_rows: Int = Field(default=128, ge=1, description="Training rows that the rounding is fitted on.")


class RegistryPolicy(Part):
    """How a model becomes a version, and what it has to show."""

    new_version: Literal["draft", "staging"] = Field(
        default="staging", description="draft: a person approves it; staging: the gate is enough."
    )
    parity_items: Int = Field(default=8, ge=1, description="Evaluation items that a probe server has to repeat.")
    compression: Compression = Field(default_factory=Compression)


class TrafficPolicy(Part):
    """What is kept of what users ask and get, and for how long."""

    retention_days: Int = Field(default=90, ge=1, description="Older requests, answers and ratings are deleted.")
    review_rating: Int = Field(default=2, ge=1, le=5, description="An answer that got it or less waits for a review.")
    review_sample: Float = Field(default=0.0, ge=0, le=1, description="Share of the other answers that wait as well.")
    reviewers: Literal[1, 2] = Field(default=1, description="Who have to agree before an answer is learned from.")
    user_share: Float = Field(default=0.2, gt=0, le=1, description="Of the new rows that one user may give at most.")
    consent: Literal["assumed", "required"] = Field(
        default="assumed",
        description="required: only what a user agreed to (x-llmops-consent: yes) may be reviewed and trained on.",
    )


class DriftRules(Part):
    """When the traffic of an endpoint counts as other than before: smaller differences are no drift."""

    window_days: Int = Field(default=7, ge=1, le=90, description="Of traffic; whole weeks have every weekday.")
    every_requests: Int = Field(default=500, ge=1, description="So many new requests are looked at again.")
    fewest_requests: Int = Field(default=30, ge=10, description="With fewer nothing is compared.")
    requests_per_user: Int = Field(default=10, ge=1, description="Of one user no more count in a window.")
    alpha: Float = Field(default=0.05, gt=0, lt=0.5, description="Chance of a false alarm, all features together.")
    psi: Float = Field(default=0.1, gt=0, description="Population stability index that is of consequence.")
    ks: Float = Field(default=0.1, gt=0, lt=1, description="The same of the Kolmogorov-Smirnov distance.")
    share: Float = Field(default=0.02, gt=0, lt=1, description="The same of a share, as a difference.")
    auc: Float = Field(
        default=0.6, gt=0.5, lt=1, description="The same of how well a classifier tells new questions from old ones."
    )


class Judging(Part):
    """How much of the traffic `evaluation.judge` judges."""

    share: Float = Field(default=0.0, ge=0, le=1, description="Of an endpoint's answers; 0 for none.")
    shares: dict[Text, Float] = Field(default_factory=dict, description="By endpoint, where it is another.")
    most_per_day: Int = Field(default=200, ge=1, description="Of an endpoint.")

    def share_of(self, endpoint: str) -> float:
        """The share of an endpoint's answers that is judged."""
        return self.shares.get(endpoint, self.share)


class Policy(Part):
    """Everything that specs and stages are held to."""

    families: dict[Text, Family] = Field(min_length=1)
    images: Images
    gates: dict[JobType, Gate]
    evaluation: EvaluationPolicy = Field(default_factory=EvaluationPolicy)
    limits: Limits
    datasets: DatasetPolicy
    experiments: ExperimentPolicy
    serving: ServingPolicy
    traffic: TrafficPolicy = Field(default_factory=TrafficPolicy)
    drift: DriftRules = Field(default_factory=DriftRules)
    judging: Judging = Field(default_factory=Judging)
    alerts: AlertPolicy = Field(default_factory=AlertPolicy)
    prices: Prices = Field(default_factory=Prices)
    registry: RegistryPolicy = Field(default_factory=RegistryPolicy)
    kubernetes: Kubernetes = Field(default_factory=Kubernetes)
    access: AccessPolicy = Field(default_factory=AccessPolicy)

    def is_judged(self, endpoint: str) -> bool:
        """Whether a sample of an endpoint's answers is judged."""
        return self.evaluation.judge is not None and self.judging.share_of(endpoint) > 0

    @model_validator(mode="after")
    def _complete(self) -> "Policy":
        for what, given in (("images.train", self.images.train), ("gates", self.gates)):
            if missing := [job for job in JOB_TYPES if job not in given]:
                raise ValueError(f"{what} says nothing about {', '.join(missing)}")
        for what, given in (("images.serve", self.images.serve), ("serving.targets", self.serving.targets)):
            if missing := [target for target in get_args(ServeTarget) if target not in given]:
                raise ValueError(f"{what} says nothing about {', '.join(missing)}")
        return self


def load_policy(path: Path | None = None) -> Policy:
    """Read the policy at `path`, by default the one in the package; raise SpecError with every fault of it."""
    path = Path(path) if path else DEFAULT_POLICY
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SpecError([SpecFault("", f"the policy cannot be read: {error}", file=str(path))]) from error
    try:
        return Policy.model_validate(data)
    except ValidationError as error:
        raise SpecError(faults_of(error, Policy, str(path))) from error


def verify_family(policy: Policy, family: str, config: dict[str, Any], job_type: JobType) -> None:
    """Check by a model's own config.json that it is of `family` and may be used for `job_type`.

    A family with `min_version` wants a version. A model made by a PRETRAIN job states the one whose design it follows
    under ``llmops_family_version``; of any other model the first of the family's `version_signs` that config.json
    fulfils counts. No sign, no version: the model is refused rather than trusted by its name.

    Raises SpecError with every reason.
    """
    rules = policy.families.get(family)
    if rules is None:
        known = ", ".join(policy.families)
        raise SpecError([SpecFault("model_family", f"'{family}' is not a family of the policy", f"Allowed: {known}")])
    faults = []
    if job_type not in rules.job_types:
        faults.append(
            SpecFault("job_type", f"{family} is not allowed for {job_type}", f"It is for {', '.join(rules.job_types)}")
        )
    allowed = rules.architectures + (rules.encoder_architectures if job_type == "EMBEDDING" else [])
    architectures = config.get("architectures")
    named = [architectures] if isinstance(architectures, str) else architectures or []
    if not named or any(name not in allowed for name in named):
        faults.append(
            SpecFault(
                "config.architectures",
                f"{', '.join(map(str, named)) or 'no architecture'} in the model's config.json is not {family}",
                f"{family} means: {rules.rule}",
            )
        )
    elif (model_type := config.get("model_type")) not in rules.model_types:
        faults.append(
            SpecFault(
                "config.model_type",
                f"the model's config.json says {model_type!r} beside {named[0]}",
                f"Expected one of {', '.join(rules.model_types)}: the config is not that of a {family} model",
            )
        )
    elif rules.min_version:
        faults += _version_faults(family, rules, config)
    if faults:
        raise SpecError(faults)


def _version_faults(family: str, rules: Family, config: dict[str, Any]) -> list[SpecFault]:
    version = family_version(rules, config)
    if version is None:
        return [
            SpecFault(
                "config",
                f"nothing in the model's config.json shows {family} {rules.min_version} or later",
                f"{rules.rule} If it is such a model all the same, add "
                f'"{FAMILY_VERSION_KEY}": "{rules.min_version}" to its config.json',
            )
        ]
    if _numbers(version) < _numbers(rules.min_version or "0"):
        return [
            SpecFault(
                "config",
                f"the model is {family} {version}, but the policy wants {rules.min_version} or later",
                "Choose a newer base model",
            )
        ]
    return []


def family_version(rules: Family, config: dict[str, Any]) -> str | None:
    """The version of its family that a model's config.json states or shows, or None when it shows none."""
    stated = config.get(FAMILY_VERSION_KEY)
    if isinstance(stated, (str, int, float)) and _numbers(str(stated)):
        return str(stated)
    # transformers 5 writes `rope_parameters`; the releases before it `rope_theta` and `rope_scaling`.
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = rope.get("rope_theta", config.get("rope_theta")) or 0
    kind = rope.get("rope_type", rope.get("type"))
    for sign in rules.version_signs:
        if (
            (config.get("vocab_size") or 0) >= (sign.vocab_size_at_least or 0)
            and theta >= (sign.rope_theta_at_least or 0)
            and sign.rope_type in (None, kind)
        ):
            return sign.version
    return None


def _numbers(version: str) -> tuple[int, ...]:
    """``"3.1"`` as ``(3, 1, 0)``; empty when it is no version of at most three numbers."""
    parts = version.split(".")
    if len(parts) > 3 or not all(part.isdecimal() for part in parts):
        return ()
    return tuple(map(int, parts)) + (0,) * (3 - len(parts))
