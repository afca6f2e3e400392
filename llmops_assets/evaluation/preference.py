"""Evaluates a model trained from preferences: whether it prefers as people did, and whether it beats its base.

Of dpo and kto the model itself is a reward: the log-likelihood of an answer under it, less that under its reference
(Rafailov et al. 2023, arXiv:2305.18290). Of rloo and grpo the reward model is asked what it makes of the pairs, and
then which of two answers it prefers, the tuned model's or its base's: the first says how far the second can be
believed.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from llmops_assets.evaluation import chat, rated
from llmops_assets.evaluation import metrics as m
from llmops_assets.evaluation.answers import Model, ask, kept
from llmops_assets.evaluation.case import Case, ErrorAnalysis, Evaluated, worker_settings
from llmops_assets.evaluation.differences import paired, versus_base
from llmops_assets.evaluation.suites import NO_CATEGORY, TEST, Answer, Item, as_metric
from llmops_assets.records.conversation import for_template
from llmops_assets.records.evaluation import Difference, EvaluationRecord, Metric
from llmops_assets.records.jobs import PreferJob
from llmops_assets.specs.jobs import OFFLINE

WORST = 20
WIN_RATE = "win_rate"


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt, of which people preferred the first."""

    id: str
    category: str
    prompt: tuple[Mapping[str, str], ...]
    chosen: tuple[Mapping[str, str], ...]
    rejected: tuple[Mapping[str, str], ...]
    tools: str | None = None
    rejected_prompt: tuple[Mapping[str, str], ...] | None = None
    """Of answers that were found good or bad each by itself, the prompt of the bad one."""
    rejected_tools: str | None = None

    @property
    def question(self) -> str:
        return next((x["content"] for x in reversed(self.prompt) if x["role"] == "user"), "")


@dataclass(frozen=True)
class Scores:
    """What a model makes of the two answers of each pair."""

    chosen: list[float]
    rejected: list[float]

    def margins(self) -> list[float]:
        return [a - b for a, b in zip(self.chosen, self.rejected, strict=True)]

    def less(self, other: "Scores") -> "Scores":
        """These scores relative to those of a reference."""
        return Scores(
            [a - b for a, b in zip(self.chosen, other.chosen, strict=True)],
            [a - b for a, b in zip(self.rejected, other.rejected, strict=True)],
        )


def pairs_of(frame: pl.DataFrame) -> list[Pair]:
    """The pairs of a preference split; of rated answers a good and a bad one each."""
    if "label" in frame.columns:
        found = [
            Pair(
                f"{good.id}+{bad.id}",
                good.category or NO_CATEGORY,
                _said(good.prompt),
                _said(good.completion),
                _said(bad.completion),
                good.tools,
                _said(bad.prompt),
                bad.tools,
            )
            for good, bad in rated.matched(rated.rated_of(frame))
        ]
        if not found:
            raise ValueError("the test split has no good and bad answer to compare: register a version with more rows")
        return found
    rows = frame.select("row_id", "category", "prompt", "chosen", "rejected", "tools").iter_rows()
    found = [Pair(i, category or NO_CATEGORY, _said(p), _said(c), _said(r), t) for i, category, p, c, r, t in rows]
    if not found:
        raise ValueError("the test split has no pairs: register a version with more rows")
    return found


def _said(messages: list[dict[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """Messages of a row without the fields that they do not have."""
    return tuple({name: value for name, value in message.items() if value is not None} for message in messages)


def evaluate(case: Case) -> Evaluated:
    """Preference accuracy on the test split, by the implicit reward or the reward model; suites are asked besides."""
    pairs = pairs_of(case.test.frame)
    settings: dict[str, Any] = {}
    if case.spec.rlhf.algorithm in OFFLINE:
        scores, figures, differences, rows = _implicit(case, pairs, settings)
    else:
        scores, figures, differences, rows = _rewarded(case, pairs, settings)
    right = [margin > 0 for margin in scores.margins()]
    figures = [as_metric(m.wilson(sum(right), len(right)), TEST, "preference_accuracy"), *figures]
    groups: dict[str, list[bool]] = defaultdict(list)
    for pair, hit in zip(pairs, right, strict=True):
        groups[pair.category].append(hit)
    seconds = sum(facts.get("seconds", 0.0) for facts in settings.values())
    record = EvaluationRecord(
        dataset=case.identity.dataset,
        recipe=case.identity.recipe,
        training_key=case.identity.training_key,
        model_hash=case.tuned.content_hash,
        metrics=figures,
        empty_answers=0,
        length_truncated=0,
        by_category={
            category: as_metric(m.wilson(sum(hits), len(hits)), TEST, "preference_accuracy")
            for category, hits in sorted(groups.items())
        },
        answers=str(case.answers),
        seconds=seconds,
        items={TEST: len(pairs)},
        answered={TEST: len(scores.chosen)},
        baseline="Chance prefers rightly in half of the pairs. " + _measured_by(case),
        versus_base=versus_base(differences),
        differences=differences,
        settings=settings,
    )
    evaluated = Evaluated(record, rows, _worst(pairs, scores))
    return with_suites(case, evaluated) if case.suites else evaluated


def with_suites(case: Case, evaluated: Evaluated) -> Evaluated:
    """The same with the suites of the recipe asked as of any model that answers."""
    asked = chat.evaluate_chat(case, chat.chat_suites(case.spec, case.test, case.suites))
    also = chat.chat_record(case, asked)
    record = evaluated.record
    record = record.model_copy(
        update={
            "metrics": [*record.metrics, *also.metrics],
            "items": {**record.items, **also.items},
            "answered": {**record.answered, **also.answered},
            "empty_answers": record.empty_answers + also.empty_answers,
            "length_truncated": record.length_truncated + also.length_truncated,
            "refusals": also.refusals,
            "differences": [*record.differences, *also.differences],
            "versus_base": {**also.versus_base, **record.versus_base},
            "general": also.general,
            "judges": also.judges,
            "seconds": record.seconds + also.seconds,
            "settings": {**also.settings, **record.settings},
        }
    )
    return Evaluated(record, [*evaluated.rows, *chat.chat_rows(asked)], evaluated.errors)


def _measured_by(case: Case) -> str:
    if case.spec.rlhf.algorithm == "kto":
        return (
            "A preference is the model's log-likelihood of a good answer less that of its base, above the same of a "
            "bad one, which may belong to another prompt"
        )
    if case.spec.rlhf.algorithm == "dpo":
        return "A preference is the model's log-likelihood of an answer less that of its base"
    return "A preference is the reward model's; win_rate is how often it prefers the tuned model's answer to the base's"


Part = tuple[Scores, list[Metric], list[Difference], list[dict[str, Any]]]


def _implicit(case: Case, pairs: Sequence[Pair], settings: dict[str, Any]) -> Part:
    """Implicit rewards, and besides which answer each model alone finds the likelier, a token."""
    if case.base is None:
        raise ValueError(
            f"{case.spec.rlhf.algorithm} is judged against the model that it started from, but there is none"
        )
    likelihood: dict[str, Scores] = {}
    alone: dict[str, list[bool]] = {}
    for name, model in {"tuned": case.tuned, "base": case.base.model}.items():
        rows, result = _ask_pairs(case, model, pairs, "likelihood")
        settings[name] = worker_settings(result) | {"model_hash": model.content_hash}
        likelihood[name] = Scores([r["chosen"] for r in rows], [r["rejected"] for r in rows])
        alone[name] = [
            r["chosen"] / max(1, r["chosen_tokens"]) > r["rejected"] / max(1, r["rejected_tokens"]) for r in rows
        ]
    scores = likelihood["tuned"].less(likelihood["base"])
    figures = [
        as_metric(m.wilson(sum(hits), len(hits)), TEST, "likelihood_accuracy", name) for name, hits in alone.items()
    ]
    margins = scores.margins()
    figures.append(as_metric(_mean(margins), TEST, "preference_margin"))
    changed = sum(margin != 0 for margin in margins)
    against = paired(TEST, "base", case.base.model.content_hash, alone["tuned"], alone["base"], changed=changed)
    return scores, figures, [against], _rows(pairs, scores)


def _rewarded(case: Case, pairs: Sequence[Pair], settings: dict[str, Any]) -> Part:
    """What the reward model makes of the pairs, and of the answers of the model and its base."""
    judge = case.others.get("reward")
    if judge is None:
        raise ValueError("the reward model of this training is gone: materialise `adapter` again")
    rows, result = _ask_pairs(case, judge, pairs, "reward")
    settings["reward"] = worker_settings(result) | {"model_hash": judge.content_hash}
    scores = Scores([r["chosen"] for r in rows], [r["rejected"] for r in rows])
    answers_file = _rows(pairs, scores)
    figures, differences = [as_metric(_mean(scores.margins()), TEST, "preference_margin")], []
    for baseline in case.baselines:
        by_model = {}
        for name, model in (("tuned", case.tuned), (baseline.name, baseline.model)):
            by_model[name], result = _answers(case, model, pairs)
            settings[name] = worker_settings(result) | {"model_hash": model.content_hash}
        wins = _duel(case, judge, pairs, by_model["tuned"], by_model[baseline.name])
        better, worse = [w > 0 for w in wins], [w < 0 for w in wins]
        half = [0.5 * (1 + a - b) for a, b in zip(better, worse, strict=True)]
        if baseline.name == "base":
            figures.append(as_metric(_mean(half), TEST, WIN_RATE))
            for row, mine, other, won in zip(answers_file, by_model["tuned"], by_model["base"], wins, strict=True):
                row |= {"got": mine.text, "base_got": other.text, "win": won > 0}
        changed = sum(a.text != b.text for a, b in zip(by_model["tuned"], by_model[baseline.name], strict=True))
        differences.append(paired(TEST, baseline.name, baseline.model.content_hash, better, worse, changed=changed))
    return scores, figures, differences, answers_file


def _answers(case: Case, model: Model, pairs: Sequence[Pair]) -> tuple[list[Answer], dict[str, Any]]:
    items = [_item(p) for p in pairs]
    options = case.spec.evaluation
    answers, result = ask(
        case.worker,
        case.context,
        model,
        items,
        case.cache,
        max_new_tokens=options.max_new_tokens,
        batch_size=options.batch_size,
    )
    by_key = {answer.key: answer for answer in answers}
    return [by_key[item.key] for item in items], result


def _item(pair: Pair) -> Item:
    messages, tools = for_template(pair.prompt, pair.tools)
    return Item(pair.id, TEST, pair.category, tuple(messages), ("",), tools=tuple(tools or ()))


def _duel(
    case: Case, judge: Model, pairs: Sequence[Pair], mine: Sequence[Answer], others: Sequence[Answer]
) -> list[float]:
    """Reward of the model's answer less that of the other's, by prompt; equal texts are equal."""
    rows = [
        {
            "id": pair.id,
            "prompt": list(pair.prompt),
            "tools": pair.tools,
            "chosen": [{"role": "assistant", "content": a.text}],
            "rejected": [{"role": "assistant", "content": b.text}],
            "ended": [a.finish_reason == "stop", b.finish_reason == "stop"],
        }
        for pair, a, b in zip(pairs, mine, others, strict=True)
    ]
    found, _ = _prefer(case, judge, rows, "reward")
    return [
        0.0 if row["chosen"] == row["rejected"] and row["ended"][0] == row["ended"][1] else r["chosen"] - r["rejected"]
        for row, r in zip(rows, found, strict=True)
    ]


def _ask_pairs(
    case: Case, model: Model, pairs: Sequence[Pair], kind: str
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    rows = [
        {
            "id": p.id,
            "prompt": list(p.prompt),
            "tools": p.tools,
            "chosen": list(p.chosen),
            "rejected": list(p.rejected),
        }
        for p in pairs
    ]
    if any(p.rejected_prompt is not None for p in pairs):
        others = [
            {"rejected_prompt": list(p.rejected_prompt or p.prompt), "rejected_tools": p.rejected_tools} for p in pairs
        ]
        alone = rated.singly([row | other for row, other in zip(rows, others, strict=True)])
        found, result = _prefer(case, model, alone, kind)
        return rated.together(found), result
    return _prefer(case, model, rows, kind)


def _prefer(
    case: Case, model: Model, rows: list[dict[str, Any]], kind: str
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    digest = hashlib.sha256(json.dumps(rows, ensure_ascii=False, sort_keys=True).encode()).hexdigest()[:16]
    settings = {"kind": kind}
    return kept(case.worker, case.context, model, PreferJob, settings, settings, rows, digest, case.cache)


def _mean(values: Sequence[float]) -> m.Estimate:
    return m.bootstrap(lambda index: float(sum(values[i] for i in index) / len(index)), len(values))


def _rows(pairs: Sequence[Pair], scores: Scores) -> list[dict[str, Any]]:
    """One row a pair, as the answers file has them."""
    return [
        {
            "id": pair.id,
            "suite": TEST,
            "category": pair.category,
            "prompt": pair.question,
            "expected": pair.chosen[-1]["content"],
            "rejected": pair.rejected[-1]["content"],
            "correct": chosen > rejected,
            "state": "right" if chosen > rejected else "wrong",
            "score_chosen": chosen,
            "score_rejected": rejected,
        }
        for pair, chosen, rejected in zip(pairs, scores.chosen, scores.rejected, strict=True)
    ]


def _worst(pairs: Sequence[Pair], scores: Scores, most: int = WORST) -> ErrorAnalysis:
    """The pairs that are preferred the other way round, the surest first."""
    wrong = sorted((x for x in zip(scores.margins(), pairs, strict=True) if x[0] <= 0), key=lambda x: x[0])
    return ErrorAnalysis(
        f"{min(most, len(wrong))} of {len(wrong)} pairs preferred the other way round" if wrong else "None wrong",
        ("category", "prompt", "preferred", "rejected", "margin"),
        [
            (p.category, p.question, p.chosen[-1]["content"], p.rejected[-1]["content"], f"{margin:.3f}")
            for margin, p in wrong[:most]
        ],
    )
