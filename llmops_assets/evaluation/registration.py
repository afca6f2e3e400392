"""What is wrong with a suite, found when it is registered and not after a training: every fault, with file and line."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from upath import UPath

from llmops_assets.datasets.reading.ingest import ingest
from llmops_assets.datasets.reading.raw import Limits
from llmops_assets.evaluation import calls, letters
from llmops_assets.evaluation.judge import normalise
from llmops_assets.evaluation.published import has_no_header
from llmops_assets.evaluation.suites import Fault, Item, Located, items_and_faults
from llmops_assets.specs.dataset import DatasetSpec
from llmops_assets.specs.policy import Policy
from llmops_assets.specs.suite import JudgeKind, SuiteSpec

SHOWN = 50
"""Faults that the message names; of the others the number."""

_MARKED = re.compile(r"####\s*\S+\s*\Z")


class SuiteFaults(ValueError):
    """A suite that cannot be asked or judged; `faults` has every reason."""

    def __init__(self, key: str, faults: Sequence[str]) -> None:
        self.faults = list(faults)
        more = [f"… and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
        what = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        super().__init__("\n".join([f"{key} is not registered, for {what}:", *self.faults[:SHOWN], *more]))


@dataclass(frozen=True)
class Checked:
    """A suite that can be asked: how it is judged, and what should be known of it."""

    suite: SuiteSpec | None
    notes: tuple[str, ...] = ()


def checked(
    spec: DatasetSpec, files: Iterable[tuple[str, Path | UPath]], policy: Policy, *, judge_given: bool
) -> Checked:
    """The suite of `spec`, whose rows are in `files`, where every item can be asked and judged; else SuiteFaults.

    Where no judge is given (`judge_given`) and every item has choices, it is judged by multiple choice; where every
    answer ends in ``#### number``, by number.
    """
    found = [(name, UPath(path)) for name, path in files]
    if bare := [name for name, path in found if "://" not in str(path) and has_no_header(Path(str(path)))]:
        raise SuiteFaults(
            spec.key,
            [
                f"{name}:1: a CSV without a header, of question, four options and a letter: register it by "
                "`llmops suite add … --format mmlu`"
                for name in bare
            ],
        )
    frames, refused = [], []
    limits = Limits(line=policy.limits.max_line_bytes, file=policy.limits.max_decompressed_bytes)
    for batch in ingest(found, "eval_suite", spec.mapping or None, limits=limits):
        frames.append(batch.rows)
        refused += [
            f"{row['file']}:{row['line']}: {row['field'] + ': ' if row['field'] else ''}{row['reason']}"
            for row in batch.quarantine.iter_rows(named=True)
        ]
    frame = pl.concat(frames)
    suite = spec.suite or SuiteSpec()
    notes: list[str] = []
    if not judge_given and suite.harness is None and (kind := _judge_of(frame)) is not None:
        suite = suite.model_copy(update={"judge": kind})
        why = "every item has choices" if kind == "multiple_choice" else "every answer ends in #### and a number"
        notes.append(f"judged by {kind}, since {why}; --judge names another")
    faults = [*_setting_faults(suite, frame, policy), *refused]
    if not frame.height and not refused:
        faults.append("there is no item in it")
    if suite.harness is None and frame.height:
        items, broken = items_and_faults(frame, spec.name, spec=suite)
        faults += [_named(fault) for fault in broken]
        faults += _item_faults(items, frame, suite, policy)
        contradictions = list(_contradictions(items))
        # What a benchmark's authors published is asked as it is, and said.
        (notes if suite.as_published else faults).extend(contradictions)
    if faults:
        raise SuiteFaults(spec.key, faults)
    return Checked(suite if spec.suite is not None or notes else None, tuple(notes))


def _judge_of(frame: pl.DataFrame) -> JudgeKind | None:
    if not frame.height or frame["extra"].str.contains('"judge"', literal=True).any():
        return None
    if frame["extra"].str.contains('"choices"', literal=True).all():
        return "multiple_choice"
    answers = [messages[-1]["content"] for messages in frame["messages"].to_list() if messages]
    return "number" if answers and all(_MARKED.search(answer) for answer in answers) else None


def _setting_faults(suite: SuiteSpec, frame: pl.DataFrame, policy: Policy) -> list[str]:
    """Settings that do nothing, or that something is missing for."""
    faults = []
    if suite.judge == "llm" and policy.evaluation.judge is None:
        faults.append(_NO_JUDGE)
    if "bertscore" in suite.metrics and not suite.encoder:
        faults.append("bertscore needs `encoder`, the folder of a local encoder: give --encoder")
    if suite.encoder and "bertscore" not in suite.metrics:
        faults.append("an encoder without bertscore does nothing: add --metric bertscore, or leave it out")
    if suite.encoder and not (Path(suite.encoder) / "config.json").is_file():
        faults.append(f"the encoder {suite.encoder} is no model folder: it has no config.json")
    if suite.cluster_by and frame.height:
        named = frame["extra"].str.contains(f'"{suite.cluster_by}"', literal=True)
        if not named.any():
            faults.append(f"no row has {suite.cluster_by!r} in its metadata, by which items are to be clustered")
    return faults


_NO_JUDGE = (
    "an LLM judge is asked for, but the policy names none: give evaluation.judge a base_url and a model, "
    "or take another judge"
)


def _named(fault: Fault) -> str:
    asked = " ".join(fault.question.split())
    shown = asked if len(asked) <= 60 else asked[:59] + "…"
    return f"{fault.file}:{fault.line}: {fault.reason}" + (f" (asked: {shown})" if shown else "")


def _item_faults(items: Sequence[Located], frame: pl.DataFrame, suite: SuiteSpec, policy: Policy) -> list[str]:
    faults = []
    if suite.length_norm != "none" and not any(item.judge.kind == "multiple_choice" for item, _ in items):
        faults.append("length_norm does nothing without multiple_choice: leave it out, or give the items choices")
    with_choices = set(frame.filter(pl.col("extra").str.contains('"choices"', literal=True))["row_id"])
    for item, (file, line) in items:
        reasons = list(_reasons(item, policy, suite))
        if item.id in with_choices and item.judge.kind not in ("multiple_choice", "letter"):
            reasons.append(
                f"it has choices, which judge {item.judge.kind} does not ask by: judge it by multiple_choice or "
                "letter, or leave them out"
            )
        faults += [_named(Fault(file, line, item.question, reason)) for reason in reasons]
    return faults


def _reasons(item: Item, policy: Policy, suite: SuiteSpec) -> Iterable[str]:
    if not item.question.strip():
        yield "there is no question: no turn of the user's has any text"
    if item.judge.kind == "llm" and policy.evaluation.judge is None and suite.judge != "llm":
        yield _NO_JUDGE
    named = item.choices or tuple(r for r in item.references if item.judge.kind == "letter")
    if named and set(named) <= set(letters.LETTERS) and not _stand(named, item):
        yield f"the answer is one of the letters {', '.join(named)}, and the question shows no options behind them"
    if item.judge.kind == "calls":
        wanted = calls.references_of(item.references[0])
        if wanted and not item.tools:
            yield "calls are wanted, and the row has no `tools` that the model could be shown"
        elif faults := calls.undeclared(wanted, item.tools):
            yield f"the call that is wanted is none that the tools allow: {'; '.join(faults)}"


def _stand(named: Sequence[str], item: Item) -> bool:
    """Whether each of the letters stands somewhere in what is asked, as a word of its own."""
    asked = "\n".join(str(message.get("content", "")) for message in item.messages)
    return all(re.search(rf"(?<![A-Za-z]){letter}(?![A-Za-z])", asked) for letter in named)


def _contradictions(items: Sequence[Located]) -> Iterable[str]:
    """Items that ask the same and want something else."""
    asked: dict[str, list[Located]] = defaultdict(list)
    for item, place in items:
        turns = [(m["role"], normalise(str(m.get("content", "")))) for m in item.messages]
        asked[repr([turns, item.choices, item.options, item.tools, item.judge.kind])].append((item, place))
    for group in asked.values():
        first, (file, line) = group[0]
        for item, (other_file, other_line) in group[1:]:
            if set(item.references) != set(first.references):
                yield _named(
                    Fault(
                        other_file,
                        other_line,
                        item.question,
                        f"the same is asked at {file}:{line}, with another answer ({first.references[0][:40]!r} there, "
                        f"{item.references[0][:40]!r} here): put what is right into `references` of one of them",
                    )
                )
