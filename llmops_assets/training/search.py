"""The search for better hyperparameters: what Optuna proposes, what came of it, and how the study looks."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmops_assets import plots
from llmops_assets.specs.canonical import canonical_json
from llmops_assets.specs.search import SearchRange
from llmops_assets.specs.training import Hyperparams, TrainJobSpec
from llmops_assets.training.progress import Evaluation
from resources import files

if TYPE_CHECKING:
    import optuna

WHOLE = ("batch_size", "max_steps", "gradient_accumulation_steps", "warmup_steps", "lora_rank")
PARTITION = "partition"
"""Attribute of a trial: the cell of the graph that it trains."""
STARTUP_TRIALS = 5
"""Trials that are drawn at random before TPE has something to go by, and before any is cut off."""


@dataclass(frozen=True)
class TrialOutcome:
    """One trial; `state` is running, complete, pruned or failed, `value` the validation loss."""

    number: int
    state: str
    partition: str | None
    params: dict[str, Any]
    value: float | None
    last_step: int | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def study_key(spec: TrainJobSpec) -> str:
    """Name of the study of a spec: the same spec, dataset and ranges are the same study, which is gone on with."""
    ranges = spec.model_dump(mode="json")["search"]
    text = canonical_json([spec.dataset_ref, spec.recipe(), ranges])
    return f"{spec.output.artifact_name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def open_study(spec: TrainJobSpec, storage: str) -> "optuna.Study":
    """The study of a spec in `storage` (an SQLAlchemy URL), made when it is new.

    TPE proposes (Bergstra et al. 2011), and a trial whose validation loss is above the median of the earlier ones at
    the same evaluation is cut off.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=storage,
        study_name=study_key(spec),
        load_if_exists=True,
        direction="minimize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_min_trials=2),
    )
    # With the bare seed, a study that is gone on with would draw its first trials again.
    seed = spec.hyperparams.seed + len(study.get_trials(deepcopy=False))
    study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS)
    return study


def which_evaluation(hyper: Hyperparams, done: Evaluation) -> int:
    """How many validations come before this one in a training that nothing disturbs: where trials are compared, since
    those with other batch sizes have other numbers of steps.

    It is told by the place and not by counting: one that was taken up again has begun its metrics anew, repeats some
    and may have missed the one at which it was stopped.
    """
    if hyper.eval_steps is not None:
        return done.step // hyper.eval_steps - 1
    # An epoch that `max_steps` cuts short is validated at its end all the same; fractions of floats are not exact.
    return max(0, math.ceil(round(done.epoch, 3)) - 1)


def propose(trial: "optuna.Trial", search: Mapping[str, SearchRange]) -> dict[str, Any]:
    """The hyperparameters that Optuna would try next."""
    return {name: _value(trial, name, part) for name, part in search.items()}


def _value(trial: "optuna.Trial", name: str, part: SearchRange) -> Any:
    if part.choices is not None:
        # Lists are no categories to Optuna, so all of them are given to it as text.
        texts = [json.dumps(choice, ensure_ascii=False) for choice in part.choices]
        return json.loads(trial.suggest_categorical(name, texts))
    if name in WHOLE:
        return trial.suggest_int(name, int(part.low), int(part.high), step=int(part.step or 1), log=part.log)
    step = None if part.step is None else float(part.step)
    return trial.suggest_float(name, float(part.low), float(part.high), step=step, log=part.log)


def spec_of(spec: TrainJobSpec, params: Mapping[str, Any]) -> TrainJobSpec:
    """`spec` with other hyperparameters and without its ranges: what one trial trains.

    Where the rank is varied and lora_alpha is not, alpha / rank stays as it is, so that the rank alone is compared.
    """
    data = spec.model_dump(mode="json", exclude={"search"}, exclude_none=True)
    hyper = data["hyperparams"]
    if "lora_rank" in params and "lora_alpha" not in params:
        hyper["lora_alpha"] = hyper["lora_alpha"] / hyper["lora_rank"] * params["lora_rank"]
    if "warmup_steps" in params:
        hyper.pop("warmup_ratio", None)
    if "warmup_ratio" in params:
        hyper.pop("warmup_steps", None)
    data["hyperparams"] = {**hyper, **params}
    return TrainJobSpec.model_validate(data)


def outcomes(study: "optuna.Study") -> list[TrialOutcome]:
    """Every trial so far, in the order of their numbers."""
    names = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
    return [
        TrialOutcome(
            number=t.number,
            state=names.get(t.state.name, "running"),
            partition=t.user_attrs.get(PARTITION),
            params={name: _plain(value) for name, value in t.params.items()},
            value=t.value if t.state.name == "COMPLETE" else t.intermediate_values.get(t.last_step),
            last_step=t.last_step,
        )
        for t in study.get_trials(deepcopy=False)
    ]


def _plain(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def best(found: list[TrialOutcome]) -> TrialOutcome | None:
    """The completed trial with the lowest validation loss."""
    complete = [t for t in found if t.state == "complete" and t.value is not None]
    return min(complete, key=lambda t: (t.value, t.number)) if complete else None


def importances(study: "optuna.Study") -> tuple[dict[str, float], str]:
    """Share of each hyperparameter in what made trials good (PED-ANOVA, Watanabe 2023), or why there are none."""
    import optuna

    complete = [t for t in study.get_trials(deepcopy=False) if t.state is optuna.trial.TrialState.COMPLETE]
    if len(complete) < STARTUP_TRIALS:
        return {}, f"{len(complete)} of the {STARTUP_TRIALS} trials that it takes have come to their end"
    if len({t.value for t in complete}) < 2:
        return {}, "all trials have the same validation loss"
    return {name: float(share) for name, share in optuna.importance.get_param_importances(study).items()}, ""


def facts(
    spec: TrainJobSpec, found: list[TrialOutcome], shares: Mapping[str, float], no_shares: str = ""
) -> dict[str, Any]:
    """What is worth seeing of a study, by name, as Markdown. Without `shares`, `no_shares` says why."""
    top = best(found)
    counts = {state: sum(t.state == state for t in found) for state in ("complete", "pruned", "failed", "running")}
    shown: dict[str, Any] = {
        "dataset": spec.dataset_ref,
        "trials": len(found),
        **{name: count for name, count in counts.items() if count},
    }
    if top is not None:
        shown |= {"best validation loss": top.value, "best trial": top.number, "best training": top.partition}
        shown["best hyperparameters"] = json.dumps(top.params, ensure_ascii=False)
    shown["history"] = plots.png_markdown(_history(found), "validation loss by trial")
    if shares:
        shown["importance"] = plots.png_markdown(_importance(shares), "importance of each hyperparameter")
    elif no_shares:
        shown["importance"] = f"not known yet: {no_shares}"
    shown["trials by number"] = table(found)
    return shown


def table(found: list[TrialOutcome]) -> str:
    """Trials as a Markdown table."""
    names = sorted({name for t in found for name in t.params})
    lines = [
        "| trial | " + " | ".join(names) + " | validation loss | state | training |",
        "|---" * (len(names) + 4) + "|",
    ]
    for t in found:
        values = [_short(t.params.get(name)) for name in names]
        loss = "" if t.value is None else f"{t.value:.4f}"
        cell = (t.partition or "").replace("|", "\\|")
        lines.append(f"| {t.number} | {' | '.join(values)} | {loss} | {t.state} | {cell} |")
    return "\n".join(lines)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)


def _history(found: list[TrialOutcome]) -> Any:
    fig, ax = plots.figure()
    marks = {"complete": ("o", plots.PALETTE[0]), "pruned": ("x", plots.PALETTE[3])}
    for state, (mark, color) in marks.items():
        points = [(t.number, t.value) for t in found if t.state == state and t.value is not None]
        if points:
            ax.plot(*zip(*points, strict=True), mark, color=color, markersize=5, label=state)
    running, lowest = [], float("inf")
    for t in found:
        if t.state == "complete" and t.value is not None:
            lowest = min(lowest, t.value)
            running.append((t.number, lowest))
    if running:
        ax.step(*zip(*running, strict=True), where="post", color=plots.PALETTE[1], linewidth=1, label="best so far")
        ax.legend(frameon=False)
    ax.set_title("Validation loss by trial")
    ax.set_xlabel("trial")
    ax.xaxis.get_major_locator().set_params(integer=True)
    return fig


def _importance(shares: Mapping[str, float]) -> Any:
    fig, ax = plots.figure(height=0.8 + 0.35 * len(shares))
    names = sorted(shares, key=shares.get)
    ax.barh(names, [shares[name] for name in names], color=plots.PALETTE[0], height=0.6)
    ax.set_title("Share in what made trials good")
    ax.set_xlim(0, 1)
    return fig


def spec_text(spec: TrainJobSpec, top: TrialOutcome, study: str) -> str:
    """The best trial as a spec file: the very recipe that it trained, so training it again trains nothing."""
    import yaml

    head = f"# Trial {top.number} of study {study}: validation loss {top.value:.6f}, the lowest of all that ended.\n"
    chosen = spec_of(spec, top.params)
    data = chosen.model_dump(mode="json", exclude_none=True)
    return head + yaml.safe_dump(data, allow_unicode=True, sort_keys=False)


def write_spec(path: Path, text: str) -> None:
    """Put the file in its place whole."""
    files.write_text(path, text)
