"""What several workers say of themselves, as one."""

import re
from collections.abc import Sequence
from typing import Any

_SAMPLE = re.compile(r"(?P<key>(?P<name>[a-zA-Z_:][\w:]*)(?:\{.*\})?) (?P<value>\S+)(?: \S+)?")
_SUMMED_GAUGES = ("_in_flight", "_queued", "_waiting", "_bytes", "_rows")


def merged_state(states: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """`/admin/routes` of all workers: of an endpoint the phase that all of them have reached, and requests added up.

    An endpoint that one of them does not serve yet is left out: who waits for it waits for the last.
    """
    if not states:
        return {"endpoints": {}, "in_flight": {}, "queued": 0, "faults": {}}
    merged: dict[str, Any] = {key: value for state in states for key, value in state.items()}
    endpoints: dict[str, Any] = {}
    for name in set.intersection(*(set(state["endpoints"]) for state in states)):
        entries = [state["endpoints"][name] for state in states]
        slowest = min(entries, key=lambda entry: entry["phase"])
        endpoints[name] = {**slowest, "in_flight": sum(entry["in_flight"] for entry in entries)}
    in_flight: dict[str, int] = {}
    for state in states:
        for backend, count in state["in_flight"].items():
            in_flight[backend] = in_flight.get(backend, 0) + count
    for key, value in merged.items():
        if isinstance(value, int) and not isinstance(value, bool):
            merged[key] = sum(state.get(key, 0) for state in states)
    faults = {name: fault for state in states for name, fault in state["faults"].items()}
    return {**merged, "endpoints": endpoints, "in_flight": in_flight, "faults": faults}


def merged_metrics(pages: Sequence[str]) -> str:
    """Metrics of all workers in Prometheus' text format: counts are added up; of a state the worst is told."""
    comments: dict[str, list[str]] = {}
    kinds: dict[str, str] = {}
    samples: dict[str, dict[str, float]] = {}
    for page in pages:
        family = ""
        for line in page.splitlines():
            if line.startswith("#"):
                _, what, family, *rest = line.split(" ", 3)
                known = comments.setdefault(family, [])
                if line not in known:
                    known.append(line)
                if what == "TYPE":
                    kinds[family] = rest[0]
                continue
            found = _SAMPLE.fullmatch(line.strip())
            if found is None:
                continue
            values, key, value = samples.setdefault(family, {}), found["key"], float(found["value"])
            is_worst = kinds.get(family) == "gauge" and not family.endswith(_SUMMED_GAUGES)
            is_worst = is_worst or found["name"].endswith("_created")
            values[key] = max(values.get(key, value), value) if is_worst else values.get(key, 0.0) + value
    lines = []
    for family, about in comments.items():
        lines += about + [f"{key} {value!r}" for key, value in samples.get(family, {}).items()]
    return "\n".join(lines) + "\n"
