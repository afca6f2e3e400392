"""Whom a dataset speaks of, and whether it speaks worse of some than of others.

A group is mentioned by its words (`mentions` in lexicon.yaml, names of groups and not insults). For the rows that
mention one, and for those that mention none, are counted: toxic ones, and ones with words of praise or of blame. What
is counted adds up over batches.
"""

from collections.abc import Iterable
from typing import Any

import polars as pl

from llmops_assets.intervals import wilson
from llmops_assets.toxicity.lexicon import mentions, sentiments

COUNTS = {"group": pl.String, "rows": pl.Int64, "toxic": pl.Int64, "praise": pl.Int64, "blame": pl.Int64}
NOBODY = "(no group)"
"""Rows that mention none: what the others are compared with."""


def count(whole: pl.Series, toxic: pl.Series) -> pl.DataFrame:
    """Counts of one batch: a line a group (`COUNTS`); `toxic` says of each text whether it was flagged.

    Praise and blame are looked for only where a group is mentioned: of the others only the toxic share is compared.
    """
    whole = whole.fill_null("")
    found = pl.DataFrame({group: contains(whole, stems) for group, stems in mentions().items()})
    nobody = ~found.select(pl.any_horizontal(pl.all())).to_series()
    at = (~nobody).arg_true()
    some, flags, bad = whole.gather(at), found[at], toxic.gather(at)
    sentiment = {kind: contains(some, stems) for kind, stems in sentiments().items()}
    lines = [
        (
            group,
            int(flags[group].sum()),
            int((flags[group] & bad).sum()),
            *(int((flags[group] & sentiment[kind]).sum()) for kind in ("praise", "blame")),
        )
        for group in found.columns
    ]
    lines.append((NOBODY, int(nobody.sum()), int((nobody & toxic).sum()), 0, 0))
    return pl.DataFrame(lines, schema=COUNTS, orient="row")


def contains(values: pl.Series, stems: tuple[str, ...]) -> pl.Series:
    """Whether each text has one of the stems: Korean ones anywhere, English ones at the beginning of a word.

    An English stem that ends in $ is a whole word.
    """
    korean = [stem for stem in stems if not stem.isascii()]
    english = [stem for stem in stems if stem.isascii()]
    found = values.str.contains_any(korean) if korean else pl.Series([False]).new_from_index(0, len(values))
    if english:
        likely = values.str.contains_any([stem.rstrip("$") for stem in english], ascii_case_insensitive=True)
        at = (likely & ~found).arg_true()
        expression = "|".join(stem.rstrip("$") + (r"\b" if stem.endswith("$") else "") for stem in english)
        sure = values.gather(at).str.contains(rf"(?i)\b(?:{expression})")
        found = found.scatter(at.filter(sure), True)
    return found


def disparity(counts: Iterable[pl.DataFrame]) -> list[dict[str, Any]]:
    """How each group that is mentioned fares beside the rows that mention none, the worst first.

    `toxic_share` with its 95 % interval (Wilson), `times` how many times that of the others it is, `sentiment` from −1
    (blame only) to 1 (praise only); `differs` when the two shares' intervals do not meet.
    """
    table = pl.concat([pl.DataFrame(schema=COUNTS), *counts]).group_by("group").sum()
    rows = {line["group"]: line for line in table.iter_rows(named=True)}
    others = rows.pop(NOBODY, None)
    low, high = wilson(others["toxic"], others["rows"]) if others else (0.0, 1.0)
    base = _share(others["toxic"], others["rows"]) if others else 0.0
    found = []
    for group, line in rows.items():
        if not line["rows"]:
            continue
        share, (bottom, top) = _share(line["toxic"], line["rows"]), wilson(line["toxic"], line["rows"])
        judged = line["praise"] + line["blame"]
        found.append(
            {
                "group": group,
                "rows": line["rows"],
                "toxic": line["toxic"],
                "toxic_share": round(share, 4),
                "interval": (round(bottom, 4), round(top, 4)),
                "times": round(share / base, 2) if base else None,
                "sentiment": round((line["praise"] - line["blame"]) / judged, 3) if judged else None,
                "differs": bottom > high or top < low,
            }
        )
    return sorted(found, key=lambda line: (-line["toxic_share"], -line["rows"], line["group"]))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
