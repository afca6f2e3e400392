"""When an asset is due by itself: it was requested or its inputs changed, none is missing, and what must hold holds."""

import dagster as dg

C = dg.AutomationCondition

# A parent that is requested in the same tick comes in the same run, where a blocking check that fails stops its
# children; one that was materialised before must have passed them. Dagster's own `all_deps_blocking_checks_passed` asks
# the checks of the former too, which have not run yet, and so makes a run of every asset.
_HELD = C.all_deps_match(C.will_be_requested() | C.all_checks_match(C.check_passed(), blocking_only=True)).with_label(
    "blocking_checks_hold"
)

_ELSEWHERE = C.newly_updated() & ~C.executed_with_root_target()
"""A parent was materialised, by a run that does not make its children too."""

# `eager` takes every materialisation of a parent for news. Here a parent that comes out as it was, as in a backfill, is
# none: a model is trained again when its rows are others, or when somebody asks for it, and not because rows were
# looked at again. A request is news each time.
_CHANGED = (
    C.any_deps_match((_ELSEWHERE & C.data_version_changed()) | C.will_be_requested())
    | C.any_deps_match(_ELSEWHERE).allow(dg.AssetSelection.assets("training_request"))
).with_label("inputs_changed")

RUN_WHEN_READY = (
    C.in_latest_time_window()
    & (C.newly_missing() | _CHANGED).since_last_handled()
    & ~C.any_deps_missing()
    & ~C.any_deps_in_progress()
    & ~C.in_progress()
    & _HELD
).with_label("due")
