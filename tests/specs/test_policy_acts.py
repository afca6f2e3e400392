"""Every field of the policy changes a decision, or a named test proves that it does."""

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from llmops_assets.datasets.alignment import Moved, answers_belong
from llmops_assets.datasets.answer_texts import answers_readable, described
from llmops_assets.datasets.coverage import answer_counts, answers_vary, categories_are_tested
from llmops_assets.evaluation import verdicts
from llmops_assets.evaluation.assets import suites_of
from llmops_assets.evaluation.gate import judge_gate
from llmops_assets.experiments.analysis import plan_of
from llmops_assets.records.evaluation import Difference, EvaluationRecord, Metric
from llmops_assets.specs.base import SpecError
from llmops_assets.specs.deployment import DeploymentSpec
from llmops_assets.specs.experiment import ExperimentSpec
from llmops_assets.specs.families import verify_family
from llmops_assets.specs.policy import Policy, load_policy
from llmops_assets.specs.rules import check_against_policy, image_for
from llmops_assets.specs.training import TrainJobSpec
from tests.specs.builders import DEPLOYMENT, EXPERIMENT, JOBS, changed
from tests.specs.test_settings_act import NOW, leaves

ROOT = Path(__file__).parents[2]
SHIPPED = load_policy().model_dump(mode="json")
SHIPPED["evaluation"]["gates"] = [{"metric": "accuracy", "suite": "free@v1", "at_least": 0.5, "n_at_least": 20}]

LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 128256, "rope_theta": 500000.0}
CONFIGS = [
    ("llama", LLAMA | {"rope_scaling": {"rope_type": "llama3"}}, "SFT"),
    ("llama", LLAMA, "SFT"),
    ("llama", LLAMA | {"vocab_size": 32000}, "SFT"),
    ("llama", LLAMA | {"llmops_family_version": "3.0"}, "EMBEDDING"),
    ("mistral", {"architectures": ["MistralModel"], "model_type": "mistral"}, "EMBEDDING"),
]


def families(policy: Policy) -> list[str]:
    found = []
    for family, config, job in CONFIGS:
        try:
            verify_family(policy.families, family, config, job)
            found.append("is")
        except SpecError as error:
            found.append(str(error))
    return found


def record() -> EvaluationRecord:
    def difference(against: str, suite: str) -> Difference:
        return Difference(
            suite=suite, against=against, ref="desk@1", only_tuned=10, only_other=24, both=60, neither=6, p=0.02,
            test="exact", difference=-0.14, low=-0.25, high=-0.03, changed=34,
        )  # fmt: skip

    figures = [
        Metric(suite=suite, name=name, value=value, low=value - 0.03, high=value + 0.02, n=n)
        for suite, name, value, n in (
            ("test", "accuracy", 0.92, 200), ("test", "macro_f1", 0.5, 200), ("other@v1", "accuracy", 0.2, 200),
            ("free@v1", "accuracy", 0.51, 30), ("free@v1", "macro_f1", 0.2, 30), ("test", "perplexity", 90.0, 50),
        )
    ]  # fmt: skip
    return EvaluationRecord(
        dataset="desk@v1", recipe="r", training_key="k", model_hash="h", metrics=figures, empty_answers=0,
        length_truncated=30, by_category={}, answers="a", seconds=1.0,
        items={"test": 200, "free@v1": 30, "other@v1": 200}, answered={"test": 200, "free@v1": 30, "other@v1": 200},
        differences=[difference("base", "free@v1"), difference("production", "test")], general=["free@v1"],
        judges={"test": "exact", "free@v1": "exact"}, right=100, right_but_cut=30,
        references_too_long={"test": 9}, leaked={"test": 0.005},
    )  # fmt: skip


def gates(policy: Policy) -> list[Any]:
    one = record()
    # One gate of each kind of bound: by the job type it decides about the same model.
    return [judge_gate(one, policy.gates[job]) for job in ("SFT", "PRETRAIN")]


def evaluation(policy: Policy) -> list[Any]:
    rules, one = policy.evaluation, record()
    spec = TrainJobSpec.model_validate(JOBS["SFT"])
    return [
        verdicts.further_gates(one, rules.gates),
        verdicts.forgetting(one, rules.forgetting),
        verdicts.regression(one, rules.regression),
        verdicts.answers_end(one, policy.limits.max_cut_answers),
        verdicts.suites_unseen(one, policy.datasets.max_contaminated_share),
        suites_of(spec, policy),
    ]


def specs(policy: Policy) -> list[Any]:
    job = changed(JOBS["RLHF"], hyperparams__max_seq_len=4000, resources={"gpus": 8, "nodes": 4})
    training = TrainJobSpec.model_validate(job)
    deployment = DeploymentSpec.model_validate(
        changed(DEPLOYMENT, load_mode="base+adapter", environment="dev", engine="vllm")
    )
    own = training.model_copy(update={"image": "registry/other:1"})
    experiment = ExperimentSpec.model_validate(EXPERIMENT)
    return [
        [check_against_policy(one, policy) for one in (training, deployment, experiment)],
        check_against_policy(own, policy, role="admin"),
        image_for(policy, training),
        image_for(policy, deployment),
        plan_of(experiment, policy.experiments, NOW),
    ]


def rows(policy: Policy) -> list[Any]:
    answers = pl.DataFrame({"answer": ["네"] * 87 + [f"답 {n}" for n in range(13)]})
    by_split = {"train": pl.Series(["a"] * 95 + ["b"] * 2), "test": pl.Series(["a"] * 10)}
    missing = pl.DataFrame(
        {"answer": ["nan"] * 2 + [f"답 {n}" for n in range(98)], "echo": [False] * 100, "begun": [False] * 100}
    )
    return [
        answers_vary(answer_counts([answers], "rag_qa"), policy.datasets.max_same_answer_share),
        answers_readable(described(missing), policy.datasets.max_unreadable_answer_share),
        answers_belong([Moved(0, 1, 30, 0)], 4, policy.datasets.max_moved_answers_share),
        categories_are_tested("category", by_split, policy.datasets.max_untested_share),
    ]


EFFECTS: list[tuple[Callable[[Policy], Any], dict[str, Any]]] = [
    (
        families,
        {
            "families.llama.architectures": ["OtherForCausalLM"],
            "families.llama.model_types": ["other"],
            "families.llama.job_types": ["SFT", "EMBEDDING"],
            "families.llama.min_version": "3.1",
            "families.llama.rule": "another rule",
            "families.llama.version_signs.1.version": "2.0",
            "families.llama.version_signs.1.vocab_size_at_least": 200000,
            "families.llama.version_signs.1.rope_theta_at_least": 900000,
            "families.llama.version_signs.1.rope_type": "yarn",
            "families.mistral.encoder_architectures": ["OtherModel"],
        },
    ),
    (
        gates,
        {
            "gates.SFT.metric": "macro_f1",
            "gates.SFT.suite": "other@v1",
            "gates.SFT.judge": "contains",
            "gates.SFT.at_least": 0.95,
            "gates.SFT.n_at_least": 201,
            "gates.SFT.decided_by": "interval",
            "gates.PRETRAIN.at_most": 80,
        },
    ),
    (
        evaluation,
        {
            "evaluation.gates.0.metric": "macro_f1",
            "evaluation.gates.0.suite": "other@v1",
            "evaluation.gates.0.judge": "contains",
            "evaluation.gates.0.at_least": 0.9,
            "evaluation.gates.0.n_at_least": 31,
            "evaluation.gates.0.decided_by": "interval",
            "evaluation.forgetting.max_fall": 0.01,
            "evaluation.forgetting.decided_by": "point",
            "evaluation.regression.alpha": 0.01,
            "evaluation.regression.withhold": False,
            "evaluation.suites": {"SFT": ["free@v1"]},
            "limits.max_cut_answers": 0.01,
            "datasets.max_contaminated_share": 0.001,
        },
    ),
    (
        specs,
        {
            "limits.max_seq_len": {"RLHF": 2000},
            "limits.max_gpus": 4,
            "limits.max_nodes": 2,
            "images.train.RLHF": "other:1",
            "images.serve.GENERATION": "other:1",
            "images.override_roles": ["nobody"],
            "serving.targets.GENERATION": ["PRETRAIN"],
            "serving.adapter_environments": [],
            "experiments.alpha": 0.01,
            "experiments.users_per_arm": 100000,
            "experiments.srm_p": 0.01,
            "experiments.latency_threshold_ms": 10,
            "experiments.guardrails.slow_requests.margin": 0.2,
            "experiments.guardrails.failed_requests.margin": 0.2,
            "experiments.max_duration_hours": 1,
        },
    ),
    (
        rows,
        {
            "datasets.max_same_answer_share": 0.8,
            "datasets.max_untested_share": 0.5,
            "datasets.max_unreadable_answer_share": 0.5,
            "datasets.max_moved_answers_share": 0.5,
        },
    ),
]


def with_field(path: str, value: Any) -> Policy:
    data = copy.deepcopy(SHIPPED)
    part, names = data, path.split(".")
    for name in names[:-1]:
        part = part[int(name)] if name.isdigit() else part[name]
    part[names[-1]] = value
    return Policy.model_validate(data)


@pytest.mark.parametrize(
    ("effects", "path", "value"),
    [pytest.param(effects, path, value, id=path) for effects, cases in EFFECTS for path, value in cases.items()],
)
def test_a_field_of_the_policy_decides_something(effects: Callable[[Policy], Any], path: str, value: Any) -> None:
    before = effects(Policy.model_validate(copy.deepcopy(SHIPPED)))
    assert effects(with_field(path, value)) != before, path


PROVEN_BY = {
    "evaluation.judge": "evaluation/test_llm_judge.py",
    "evaluation.gates.at_most": "specs/test_policy.py",
    "evaluation.latency_items": "evaluation/test_generate.py",
    "limits.max_samples": "datasets/test_graph.py",
    "limits.max_upload_bytes": "datasets/test_register.py",
    "limits.max_decompressed_bytes": "datasets/test_ingest.py",
    "limits.max_line_bytes": "datasets/test_ingest.py",
    "limits.model_versions": "specs/test_settings_act.py",
    "limits.max_dropped_rows": "training/test_plan.py",
    "datasets.max_quarantined_share": "datasets/test_graph.py",
    "datasets.require_category": "datasets/test_ingest.py",
    "datasets.min_quality_score": "datasets/test_quality.py",
    "datasets.min_generated_score": "documents/test_graph.py",
    "datasets.max_duplicate_share": "datasets/test_distinct_rows.py",
    "datasets.control_tokens": "datasets/test_control_token_findings.py",
    "datasets.minhash": "datasets/test_duplicates.py",
    "datasets.pii": "datasets/test_own_privacy.py",
    "datasets.toxicity": "datasets/test_toxicity.py",
    "experiments.rating": "experiments/test_analysis.py",
    "drift": "drift/test_drift.py",
    "experiments.breaker": "serving/test_arms.py",
    "serving.replay": "replay/test_replay.py",
    "serving": "serving/test_model_server.py",
    "registry.new_version": "registry/test_lifecycle.py",
    "registry.parity_items": "registry/test_parity.py",
    "registry.compression": "registry/test_compression.py",
    "kubernetes": "training/test_kubernetes.py",
    "traffic": "traffic/test_traffic.py",
    "judging": "traffic/test_judged.py",
    "alerts": "operations/test_alerts.py",
    "prices": "operations/test_spending.py",
    "access.roles": "operations/test_access.py",
    "access.sessions": "console/test_login.py",
    "access.four_eyes": "operations/test_four_eyes.py",
    "access.claims": "gateway/test_tokens.py",
    "access.limits": "gateway/test_access.py",
}
"""Fields, or whole blocks, whose effect takes a graph, a server or a cluster to show: the file of tests that does."""


def test_every_other_field_is_proven_by_a_test_that_is_there() -> None:
    shown = {re.sub(r"\.\d+", "", path) for _, cases in EFFECTS for path in cases}
    shown = {
        re.sub(r"^(families|gates|images\.train|images\.serve|serving\.targets)\.[A-Za-z_]+", r"\1", p) for p in shown
    }
    for path in leaves(Policy):
        if path in shown or any(path == block or path.startswith(f"{block}.") for block in shown):
            continue
        named = [file for block, file in PROVEN_BY.items() if path == block or path.startswith(f"{block}.")]
        assert named, f"{path}: change it in EFFECTS and see something change, or name the tests that prove it"
        assert (ROOT / "tests" / named[0]).exists(), named[0]
