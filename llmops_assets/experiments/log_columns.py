"""Which column of a log is the user, the variant, the value: as named, or as such columns are usually called."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ROLES: Mapping[str, tuple[str, ...]] = {
    "user": (
        "user", "user_id", "userid", "uid", "customer", "customer_id", "visitor", "visitor_id", "subject", "subject_id",
        "member", "member_id", "client_id", "account_id", "participant", "participant_id", "unit", "device_id",
        "사용자", "사용자id", "유저", "유저id", "회원", "회원id", "고객", "고객id",
    ),
    "variant": (
        "variant", "variation", "arm", "group", "test_group", "ab_group", "experiment_group", "bucket", "cell",
        "condition", "treatment_group", "variant_id", "variation_id", "model", "model_ref", "treatment",
        "그룹", "변형", "실험군", "집단", "모델",
    ),
    "value": (
        "value", "rating", "score", "stars", "metric", "outcome", "y", "response", "revenue", "converted", "conversion",
        "reward", "평점", "별점", "점수", "값",
    ),
    "timestamp": (
        "timestamp", "at", "time", "ts", "datetime", "event_time", "exposed_at", "created_at", "date", "day",
        "시각", "시간", "일시", "날짜",
    ),
    "phase": ("phase", "ramp", "단계"),
    "pre": (
        "pre", "pre_value", "pre_period", "pre_rating", "pre_metric", "pre_experiment", "value_pre", "before",
        "covariate", "baseline", "사전", "사전값",
    ),
    "request": ("request_id", "request", "event_id", "trace_id", "요청id"),
    "status": ("status", "http_status", "status_code", "상태"),
    "error": ("error", "error_message", "오류"),
    "failed": ("failed", "failure", "is_failed", "is_error", "실패"),
    "latency": (
        "latency_ms", "latency", "response_ms", "duration_ms", "elapsed_ms", "response_time_ms", "latency_s",
        "latency_sec", "latency_seconds", "response_time", "response_time_s", "duration_s", "elapsed_s",
        "지연", "지연시간", "응답시간",
    ),
    "category": ("category", "segment", "intent", "분류", "카테고리"),
}  # fmt: skip
REQUIRED = ("user", "variant", "value")


class LogError(ValueError):
    """A log that cannot be analysed: what is wrong with it, and what to do."""


@dataclass(frozen=True)
class Columns:
    """The column of each role that was found, and the roles that were guessed and not named."""

    names: Mapping[str, str]
    guessed: tuple[str, ...]

    def __getitem__(self, role: str) -> str:
        return self.names[role]

    def get(self, role: str) -> str | None:
        """The column of a role, None where the log has none."""
        return self.names.get(role)


def columns_of(found: Sequence[str], named: Mapping[str, str | None]) -> Columns:
    """The columns of a log by role: those that are named, and of the others the first usual name that is there; none
    for a role that is named "".

    Names are compared without case, spaces and dashes. Raises LogError for a named column that is not there, and where
    user, variant or value cannot be told.
    """
    plain = {_plain(name): name for name in reversed(found)}
    names: dict[str, str] = {}
    for role, name in named.items():
        if not name:
            continue
        if name not in found and _plain(name) not in plain:
            raise LogError(f"the log has no column {name!r} (for the {role}); it has {_listed(found)}")
        names[role] = name if name in found else plain[_plain(name)]
    guessed, named_roles = [], set(names)
    for role, usual in ROLES.items():
        # A column that is named empty is left out; and what is named tells of failures alone.
        if role in names or named.get(role) == "" or (role in ("status", "error") and "failed" in named_roles):
            continue
        free = (plain[key] for key in map(_plain, usual) if key in plain and plain[key] not in names.values())
        if (name := next(free, None)) is not None:
            names[role] = name
            guessed.append(role)
    if missing := [role for role in REQUIRED if role not in names]:
        options = ", ".join(f"--{role} COLUMN" for role in missing)
        raise LogError(
            f"which column is the {' and which the '.join(missing)}? The log has {_listed(found)}: "
            f"name it with {options}"
        )
    return Columns(names, tuple(guessed))


def _plain(name: str) -> str:
    return re.sub(r"[\s_\-.]+", "", name).casefold()


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:20])
    return f"{shown} and {len(names) - 20} more" if len(names) > 20 else shown or "no columns"
