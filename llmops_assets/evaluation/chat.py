"""Evaluates a model that answers: asks it and its baselines the same items, and makes the record of it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from llmops_assets.evaluation import harness, lengths
from llmops_assets.evaluation.answers import Model, ask, chat_template_of, choose, shows_tools, similarity
from llmops_assets.evaluation.calls import parser_of
from llmops_assets.evaluation.case import Case, Evaluated, Rows, worker_settings
from llmops_assets.evaluation.chat_results import ChatEvaluation
from llmops_assets.evaluation.differences import paired, versus_base
from llmops_assets.evaluation.error_analysis import worst_answers
from llmops_assets.evaluation.figures import figures_of, wanted
from llmops_assets.evaluation.judge_controls import controls
from llmops_assets.evaluation.llm_judge import Verdicts, judge
from llmops_assets.evaluation.one_answer import one_answers
from llmops_assets.evaluation.speed import speed_metrics
from llmops_assets.evaluation.suites import (
    TEST,
    Answer,
    Item,
    Scored,
    accuracy,
    as_metric,
    by_category,
    items_of,
    score,
)
from llmops_assets.records.evaluation import Difference, EvaluationRecord, Metric
from llmops_assets.specs.suite import MetricName, SuiteSpec
from llmops_assets.specs.training import TrainJobSpec
from resources.content import content_hash

CHAT_TYPES = ("sft_pair", "eval_suite")
_CALLED = {"tuned": "The model", "base": "The base", "production": "The model in production"}


def evaluate(case: Case) -> Evaluated:
    """The model's answers to its test split and suites, beside those of its baselines."""
    suites = chat_suites(case.spec, case.test, case.suites)
    result = evaluate_chat(case, suites)
    record = chat_record(case, result)
    return Evaluated(record, chat_rows(result), worst_answers(case, result))


def chat_suites(spec: TrainJobSpec, test: Rows, suites: Mapping[str, Rows]) -> dict[str, list[Item]]:
    """The items of a job's own test split and of its suites.

    A test split that is no conversation is left out where there are suites to ask instead, and refused where not.
    """
    judge = spec.evaluation.judge
    chosen = {}
    if test.type in CHAT_TYPES:
        chosen[TEST] = items_of(test.frame, TEST, judge, cluster_by=test.cluster_by)
    elif not suites:
        raise ValueError(
            f"the test split of {spec.dataset_ref} is of type {test.type}, whose answers no judge here can decide: "
            "name eval_suite datasets under evaluation.suites of the recipe"
        )
    for name, rows in suites.items():
        if rows.type not in CHAT_TYPES:
            raise ValueError(f"suite {name} is of type {rows.type}: register it as an eval_suite")
        if rows.spec is None or rows.spec.harness is None:
            chosen[name] = items_of(rows.frame, name, judge, spec=rows.spec, cluster_by=rows.cluster_by)
    return chosen


def evaluate_chat(case: Case, suites: Mapping[str, Sequence[Item]]) -> ChatEvaluation:
    """Ask the model, and its baselines as far as they can be asked, every item of every suite, and judge them."""
    settings: dict[str, Any] = {}
    seconds = 0.0
    scored: dict[str, dict[str, list[Scored]]] = {}
    verdicts: dict[str, Verdicts] = {}
    notes, latency = [], []
    alone: dict[str, float] = {}
    if case.base is None:
        notes.append("There is no base: the model was made from nothing")
    models = {"tuned": case.tuned} | {baseline.name: baseline.model for baseline in case.baselines}
    for name, model in models.items():
        asked = suites if name == "tuned" else _askable(model, suites)
        if missing := [suite for suite in suites if suite not in asked]:
            notes.append(f"{_CALLED[name]} was not asked {', '.join(missing)}: {_why_not(model)}")
        if asked and name != "tuned":
            notes.append(f"{_CALLED[name]} was asked the same items")
        template = chat_template_of(model.path)
        if any(item.tools for items in asked.values() for item in items) and not shows_tools(template):
            raise ValueError(
                f"the items are to be asked with tools, and the chat template of {model.path} renders none: the model "
                "would not see them. Train with a template that has `tools`, or leave those suites out"
            )
        answers, facts = _answers(case, model, asked, tuned=name == "tuned")
        if facts:
            settings[name] = {"model_hash": model.content_hash} | facts
        seconds += facts.get("seconds", 0.0)
        if name == "tuned":
            latency = settings[name].pop("latency", [])
            alone = {one["id"]: one["gap"] for one in settings[name].pop("alone", [])}
        verdicts[name] = _verdicts(case, asked, answers)
        parser = parser_of(template)
        if any(item.judge.kind == "calls" for items in asked.values() for item in items):
            settings[name]["call_parser"] = parser
        scored[name] = {
            suite: score(items, [answers[i.key] for i in items if i.key in answers], verdicts[name].right, parser)
            for suite, items in asked.items()
        }
        for suite, rows in case.suites.items():
            if rows.spec is not None and rows.spec.harness is not None:
                told_by, scored[name][suite] = harness.run(case, model, suite, rows.spec.harness)
                settings.setdefault(name, {"model_hash": model.content_hash})[suite] = told_by
    if used := [v.settings for v in verdicts.values() if v.settings]:
        settings["judge"] = used[0]
    specs = {suite: rows.spec for suite, rows in case.suites.items() if rows.spec is not None}
    similarities = {name: _similarities(case, group, specs, settings) for name, group in scored.items()}
    longest = case.spec.evaluation.max_new_tokens
    too_long = {suite: lengths.too_long(items, case.tuned.path, longest) for suite, items in suites.items()}
    said = ". ".join(notes)
    return ChatEvaluation(scored, specs, said, settings, seconds, latency, verdicts, similarities, too_long, alone)


def _verdicts(case: Case, suites: Mapping[str, Sequence[Item]], answers: Mapping[str, Answer]) -> Verdicts:
    """What an LLM judge says, where a suite wants one."""
    items = [item for suite in suites.values() for item in suite if item.judge.kind == "llm" and item.key in answers]
    if not items:
        return Verdicts()
    if case.policy.judge is None:
        raise ValueError(
            f"suite {items[0].suite} asks for an LLM judge, but the policy names none: give evaluation.judge a "
            "base_url and a model"
        )
    found = judge(case.policy.judge, items, [answers[item.key] for item in items], case.cache)
    return replace(found, controls=controls(case.policy.judge, items, case.cache))


def _similarities(
    case: Case, scored: Mapping[str, Sequence[Scored]], specs: Mapping[str, SuiteSpec], settings: dict[str, Any]
) -> dict[str, float]:
    """BERTScore by key of the items, where a suite wants it."""
    found: dict[str, float] = {}
    for suite, group in scored.items():
        if "bertscore" not in wanted(group, _named(case.spec, specs, suite)):
            continue
        folder = case.spec.evaluation.encoder if suite == TEST else specs[suite].encoder
        if not folder:
            raise ValueError(f"bertscore of {suite} needs `encoder`, the folder of a local encoder")
        encoder = Model(folder, content_hash(Path(folder)), gpus=case.tuned.gpus)
        texts = {s.item.key: s.text for s in group}
        references = {s.item.key: s.item.references for s in group}
        f1, result = similarity(case.worker, case.context, encoder, texts, references, case.cache)
        found |= f1
        settings["bertscore"] = {"encoder": folder, "encoder_hash": encoder.content_hash, **result["settings"]}
    return found


def _named(spec: TrainJobSpec, specs: Mapping[str, SuiteSpec], suite: str) -> list[MetricName]:
    if suite == TEST:
        return spec.evaluation.metrics or []
    return specs[suite].metrics if suite in specs else []


def _askable(model: Model, suites: Mapping[str, Sequence[Item]]) -> dict[str, Sequence[Item]]:
    """The suites that `model` can be asked: without a chat template only choices, whose likelihood needs none, and
    without tools in it none that have some."""
    template = chat_template_of(model.path)
    if not template:
        return {suite: items for suite, items in suites.items() if all(item.choices for item in items)}
    if shows_tools(template):
        return dict(suites)
    return {suite: items for suite, items in suites.items() if not any(item.tools for item in items)}


def _why_not(model: Model) -> str:
    return "its chat template shows no tools" if chat_template_of(model.path) else "its tokenizer has no chat template"


def _answers(
    case: Case, model: Model, suites: Mapping[str, Sequence[Item]], *, tuned: bool
) -> tuple[dict[str, Answer], dict[str, Any]]:
    """Answers by key, and what they depend on."""
    items = [item for suite in suites.values() for item in suite]
    options = case.spec.evaluation
    answers: list[Answer] = []
    facts: dict[str, Any] = {}
    if open_ended := [item for item in items if not item.choices]:
        generated, result = ask(
            case.worker,
            case.context,
            model,
            open_ended,
            case.cache,
            max_new_tokens=options.max_new_tokens,
            batch_size=options.batch_size,
            latency_items=case.policy.latency_items if tuned else 0,
            asks_alone=tuned,
        )
        answers += generated
        facts = worker_settings(result) | {"batch_size": options.batch_size}
        if tuned:
            facts |= {name: result.get(name, []) for name in ("latency", "alone")}
    if chosen := [item for item in items if item.choices]:
        generated, result = choose(case.worker, case.context, model, chosen, case.cache, batch_size=options.batch_size)
        answers += generated
        choice_facts = worker_settings(result)
        seconds = facts.get("seconds", 0.0) + choice_facts.pop("seconds")
        choice_facts.pop("tokens_per_second")
        facts = {"max_new_tokens": options.max_new_tokens} | choice_facts | facts | {"seconds": seconds}
        facts["choices"] = choice_facts["choices"]
    return {answer.key: answer for answer in answers}, facts


def chat_record(case: Case, evaluation: ChatEvaluation) -> EvaluationRecord:
    """What the evaluation says, in figures."""
    identity = case.identity
    figures: list[Metric] = []
    for name, group in evaluation.scored.items():
        for suite, scored in group.items():
            named = _named(case.spec, evaluation.specs, suite)
            figures += figures_of(scored, suite, name, named, evaluation.similarities.get(name))
    figures += speed_metrics(evaluation.latency)
    headline = evaluation.headline
    suite_of_categories = headline[0].item.suite
    every = [s for scored in evaluation.tuned.values() for s in scored]
    differences = [
        compare(suite, baseline.name, baseline.ref, scored, evaluation.scored[baseline.name][suite])
        for baseline in case.baselines
        for suite, scored in evaluation.tuned.items()
        if suite in evaluation.scored[baseline.name]
    ]
    return EvaluationRecord(
        dataset=identity.dataset,
        recipe=identity.recipe,
        training_key=identity.training_key,
        model_hash=case.tuned.content_hash,
        metrics=figures,
        empty_answers=sum(s.empty for s in every),
        length_truncated=sum(s.truncated for s in every),
        refusals=sum(s.refused for s in every),
        right=sum(s.right for s in every),
        right_but_cut=sum(s.right and s.truncated for s in every),
        asked_alone=evaluation.alone,
        one_answer=one_answers(evaluation.tuned),
        references_too_long={suite: count for suite, count in evaluation.too_long.items() if count},
        by_category={
            category: as_metric(accuracy(group), suite_of_categories, "accuracy")
            for category, group in by_category(headline).items()
        },
        answers=str(case.answers),
        seconds=evaluation.seconds,
        items={suite: len(scored) for suite, scored in evaluation.tuned.items()},
        answered={suite: sum(s.answer is not None for s in scored) for suite, scored in evaluation.tuned.items()},
        baseline=evaluation.baseline,
        versus_base=versus_base(differences),
        differences=differences,
        general=[suite for suite, spec in evaluation.specs.items() if spec.general],
        judges={
            suite: ", ".join(sorted({s.item.judge.kind for s in group})) for suite, group in evaluation.tuned.items()
        },
        position_flips=evaluation.verdicts["tuned"].flips,
        unjudged=evaluation.verdicts["tuned"].unjudged,
        judge_controls=evaluation.verdicts["tuned"].controls,
        settings=evaluation.settings,
    )


def compare(suite: str, against: str, ref: str, tuned: Sequence[Scored], other: Sequence[Scored]) -> Difference:
    """The model against another on the same items of a suite."""
    return paired(
        suite,
        against,
        ref,
        [s.right for s in tuned],
        [s.right for s in other],
        changed=sum(a.text != b.text for a, b in zip(tuned, other, strict=True)),
    )


def chat_rows(evaluation: ChatEvaluation) -> list[dict[str, Any]]:
    """One row an item, as the answers file has them."""
    rows = []
    baselines = [name for name in evaluation.scored if name != "tuned"]
    for suite, scored in evaluation.tuned.items():
        for number, s in enumerate(scored):
            row = {
                "id": s.item.id,
                "suite": suite,
                "category": s.item.category,
                "prompt": s.item.question,
                "expected": s.item.references[0],
                "got": s.text,
                "correct": s.right,
                "state": s.state,
                "tokens": s.answer.tokens if s.answer else None,
                "finish_reason": s.answer.finish_reason if s.answer else None,
                # What a server that runs the same model has to see and say too.
                "token_ids": list(s.answer.token_ids) if s.answer else [],
                "prompt_ids": list(s.answer.prompt_ids) if s.answer else [],
            }
            for name in baselines:
                if suite in evaluation.scored[name]:
                    other = evaluation.scored[name][suite][number]
                    row |= {f"{name}_got": other.text, f"{name}_correct": other.right}
            rows.append(row)
    return rows
