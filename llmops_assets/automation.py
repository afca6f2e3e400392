"""When an asset is due by itself: its inputs are new, none is missing, and what must hold of them holds."""

import dagster as dg

C = dg.AutomationCondition

# A parent that is requested in the same tick comes in the same run, where a blocking check that fails stops its
# children; one that was materialised before must have passed them. Dagster's own `all_deps_blocking_checks_passed` asks
# the checks of the former too, which have not run yet, and so makes a run of every asset.
_HELD = C.all_deps_match(C.will_be_requested() | C.all_checks_match(C.check_passed(), blocking_only=True)).with_label(
    "blocking_checks_hold"
)

RUN_WHEN_READY = (C.eager() & _HELD).with_label("due")
