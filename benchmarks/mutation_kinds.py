"""What a mutation does to a home: spoils bytes of an artifact, a field or a cell of a table, or exchanges two files."""

import json
import os
import random
import sqlite3
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class NothingThere(LookupError):
    """The home has nothing yet that this kind of mutation could spoil."""


@dataclass(frozen=True)
class Mutation:
    """What was spoiled: the kind, the place in the home, and in words what was done to it."""

    kind: str
    place: str
    what: str
    days_back: int = 0
    kill_after: float | None = None

    def names(self) -> set[str]:
        """Words of which one has to stand in a message that names what was spoiled."""
        path = Path(self.place.partition(":")[0])
        parts = {path.name, path.stem, path.parent.name}
        return {part for part in parts if len(part) > 3} | {self.place.rpartition(":")[2]}


GROUPS = {
    "uploads": ("artifacts/uploads/**/*",),
    "manifests": ("artifacts/datasets/manifests/*", "artifacts/datasets/configs/*"),
    "chunks": ("artifacts/datasets/chunks/*/*",),
    "plans": ("artifacts/models/*/*/*/plan/**/*",),
    "adapters": ("artifacts/models/*/*/*/adapter/*",),
    "merged": ("artifacts/models/*/*/*/merged-*/*",),
    "checkpoints": ("artifacts/models/*/*/*/checkpoints/*/*",),
    "work": ("artifacts/models/*/*/*/work/*.json", "artifacts/models/*/*/*/work/*.result"),
    "answers": ("artifacts/answers/*/*", "artifacts/models/*/*/*/evaluation/*/*"),
    "records": ("records/**/*.json",),
}
"""Files that a step reads or a decision rests on, by what they are; a group is drawn first, and a file of it then."""

_DATA = ("artifacts/datasets/manifests/*", "artifacts/datasets/chunks/*/*", "records/*/desk@v1.json")
_BASE = ("artifacts/models/pretrain/tiny-base/*/merged-*/*", "records/*/corpus@v1/*.json")
_TUNED = "artifacts/models/sft/tiny-desk/*"
_SERVED = (f"{_TUNED}/merged-*/*", "records/*/desk@v1/*.json", "records/deployment/*.json")
LIVE = {
    "dataset": ("artifacts/uploads/desk@v1/*", *_BASE),
    "quality_report": (*_DATA, *_BASE),
    "clean_dataset": (*_DATA, *_BASE),
    "splits": (*_DATA, *_BASE),
    "training_plan": (*_DATA, *_BASE),
    "adapter": (*_BASE, f"{_TUNED}/plan/**/*", *_SERVED),
    "merged_model": (*_BASE, f"{_TUNED}/adapter/*", f"{_TUNED}/plan/tokenizer/*", *_SERVED),
    "evaluation": (*_DATA, *_SERVED),
    "registered_model": (*_SERVED, f"{_TUNED}/evaluation/*/*", "artifacts/answers/*/*"),
    "deployment": (*_SERVED, f"{_TUNED}/evaluation/*/*"),
    "restart": _SERVED,
}
"""Files that steps after a point do read. Two of three draws are of these: most of a home nobody reads again."""

LEFT_OUT = (".lock", ".log", ".output", ".html", ".png", ".md", ".live", ".metrics")
"""What nobody but a person reads."""

TABLES = {
    "catalog.db": ("backends", "datasets", "recipes", "endpoints", "phases", "training_requests", "intents"),
    "mlflow.db": ("model_version_tags", "registered_model_aliases", "model_versions", "params", "tags"),
}
ACTING = {"backends", "recipes", "endpoints", "model_version_tags", "registered_model_aliases", "model_versions"}
"""Tables that later steps read most: two of three draws are of these."""
WISHES = {("endpoints", "spec"), ("datasets", "spec")}
"""What a user asked for. Whoever changes it in the catalog asks for something else: that is no fault to be noticed."""


def files(home: Path) -> dict[str, list[Path]]:
    """Files of the home by group; what nobody but a person reads is left out."""
    found: dict[str, list[Path]] = {}
    for group, patterns in GROUPS.items():
        paths = sorted(
            path
            for pattern in patterns
            for path in home.glob(pattern)
            if path.is_file() and path.suffix not in LEFT_OUT and path.name != ".lock" and path.stat().st_size
        )
        if paths:
            found[group] = paths
    return found


def _live(home: Path, point: str) -> list[Path]:
    found = {path for pattern in LIVE[point] for path in home.glob(pattern)}
    return sorted(path for path in found if path.is_file() and path.suffix not in LEFT_OUT and path.stat().st_size)


def _drawn(home: Path, point: str, rng: random.Random, fits: Callable[[Path], bool] = lambda _: True) -> Path:
    if rng.random() < 2 / 3 and (live := [path for path in _live(home, point) if fits(path)]):
        folders = defaultdict(list)
        for path in live:
            folders[path.parent].append(path)
        return rng.choice(folders[rng.choice(sorted(folders))])
    groups = {group: [p for p in paths if fits(p)] for group, paths in files(home).items()}
    groups = {group: paths for group, paths in groups.items() if paths}
    if not groups:
        raise NothingThere("no such file")
    paths = groups[rng.choice(sorted(groups))]
    concerned = [path for path in paths if "other" not in str(path.relative_to(home))]
    return rng.choice(concerned or paths)


def spoil_bytes(home: Path, point: str, rng: random.Random) -> Mutation:
    """Flip, cut, blank, swap, add or delete bytes of a file."""
    path = _drawn(home, point, rng)
    data = bytearray(path.read_bytes())
    size = len(data)
    way = rng.choice(("flip", "flip", "cut", "blank", "swap", "append", "delete"))
    if way == "flip":
        places = sorted(rng.randrange(size) for _ in range(rng.choice((1, 1, 4, 64))))
        for place in places:
            data[place] ^= 1 << rng.randrange(8)
        what = f"a bit flipped in each of {len(places)} bytes, the first at {places[0]}"
    elif way == "cut":
        left = rng.randrange(size)
        del data[left:]
        what = f"cut from {size} to {left} bytes"
    elif way == "blank":
        start = rng.randrange(size)
        end = min(size, start + rng.choice((1, 64, 4096)))
        data[start:end] = bytes(end - start)
        what = f"bytes {start} to {end} set to zero"
    elif way == "swap":
        length = rng.choice((1, 16, 512))
        first, second = sorted((rng.randrange(size), rng.randrange(size)))
        length = min(length, second - first, size - second)
        data[first : first + length], data[second : second + length] = (
            data[second : second + length],
            data[first : first + length],
        )
        what = f"{length} bytes at {first} and {second} swapped"
    elif way == "append":
        data += rng.randbytes(rng.choice((1, 100)))
        what = f"{len(data) - size} bytes appended"
    else:
        path.unlink()
        return Mutation("bytes", str(path.relative_to(home)), "deleted")
    _write(path, bytes(data), rng)
    return Mutation("bytes", str(path.relative_to(home)), what)


def _write(path: Path, data: bytes, rng: random.Random) -> None:
    """Write what was spoiled, half of the times with the file's old time of change: tools restore it."""
    status = path.stat()
    path.chmod(0o644)
    path.write_bytes(data)
    if rng.random() < 0.5:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def spoil_field(home: Path, point: str, rng: random.Random) -> Mutation:
    """Change, drop or null a field of a JSON document, or a word of a chat template."""
    path = _drawn(home, point, rng, lambda p: p.suffix in (".json", ".jsonl", ".jinja", ".result"))
    place = str(path.relative_to(home))
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".jinja":
        changed, what = _template(text, rng)
        _write(path, changed.encode(), rng)
        return Mutation("field", place, what)
    lines = text.splitlines() if path.suffix == ".jsonl" else [text]
    number = rng.randrange(len(lines))
    try:
        document = json.loads(lines[number])
    except ValueError:
        raise NothingThere(f"{place} is no JSON") from None
    leaves = list(_leaves(document))
    if not leaves:
        raise NothingThere(f"{place} is empty")
    # A tokenizer has thousands of tokens and a dozen settings: a path's head is drawn first, so that both are spoiled.
    heads: dict[Any, list[Any]] = defaultdict(list)
    for leaf in leaves:
        heads[leaf[0]].append(leaf)
    keys = rng.choice(heads[rng.choice(list(heads))])
    holder = document
    for key in keys[:-1]:
        holder = holder[key]
    before = holder[keys[-1]]
    if rng.random() < 0.15:
        del holder[keys[-1]]
        what = f"{_path(keys)}: removed"
    else:
        after = _other(before, rng)
        if after == before and type(after) is type(before):
            raise NothingThere("it stays what it was")
        holder[keys[-1]] = after
        what = f"{_path(keys)}: {_short(before)} → {_short(after)}"
    lines[number] = json.dumps(document, ensure_ascii=False, indent=None if path.suffix == ".jsonl" else 2)
    _write(path, ("\n".join(lines) + ("\n" if path.suffix == ".jsonl" else "")).encode(), rng)
    return Mutation("field", f"{place}:{keys[-1]}", what)


def _template(text: str, rng: random.Random) -> tuple[str, str]:
    words = text.split(" ")
    at = rng.randrange(len(words))
    way = rng.choice(("drop", "double", "swap"))
    if way == "drop":
        return " ".join(words[:at] + words[at + 1 :]), f"the word {words[at]!r} removed"
    if way == "double":
        return " ".join(words[: at + 1] + words[at:]), f"the word {words[at]!r} doubled"
    other = rng.randrange(len(words))
    words[at], words[other] = words[other], words[at]
    return " ".join(words), f"the words {at} and {other} swapped"


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict):
        items: Any = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    else:
        if path:
            yield path
        return
    for key, item in items:
        yield from _leaves(item, (*path, key))


def _path(keys: tuple[Any, ...]) -> str:
    return ".".join(map(str, keys))[-60:]


def _short(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)[:40]


def _other(value: Any, rng: random.Random) -> Any:
    """Another value of the same type, now and then of another one."""
    if rng.random() < 0.1:
        return rng.choice([None, "", 0, [], {}])
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice([value + 1, value - 1, -value, 0, value * 2, value * 1000])
    if isinstance(value, float):
        return rng.choice([value * 1.01, value / 2, -value, 0.0, 1.0, value + 1])
    if isinstance(value, str) and value:
        at = rng.randrange(len(value))
        other = "나" if value[at] == "가" else "가"
        return rng.choice([value[:at] + other + value[at + 1 :], value[:at], f"{value}x", "다른 것"])
    return rng.choice(["x", 1, True])


def spoil_row(home: Path, point: str, rng: random.Random) -> Mutation:
    """Change a cell of the catalog or of MLflow's registry behind the platform's back, or delete a row."""
    base = rng.choice(sorted(TABLES))
    with closing(sqlite3.connect(home / base)) as connection, connection:
        connection.execute("pragma foreign_keys = off")
        filled = [
            table for table in TABLES[base] if connection.execute(f'select count(*) from "{table}"').fetchone()[0]
        ]
        if not filled:
            raise NothingThere(f"{base} is empty")
        acting = [table for table in filled if table in ACTING]
        table = rng.choice(acting if acting and rng.random() < 2 / 3 else filled)
        # `rowid` is each row's in both: no table of theirs is without.
        rows = [row for (row,) in connection.execute(f'select rowid from "{table}"')]
        row = rng.choice(rows)
        if rng.random() < 0.1:
            connection.execute(f'delete from "{table}" where rowid = ?', (row,))
            return Mutation("row", f"{base}:{table}", f"row {row} deleted")
        names = [r[1] for r in connection.execute(f'pragma table_info("{table}")') if (table, r[1]) not in WISHES]
        column = rng.choice(names)
        before = connection.execute(f'select "{column}" from "{table}" where rowid = ?', (row,)).fetchone()[0]
        after = _cell(before, rng)
        if after == before:
            raise NothingThere("it stays what it was")
        try:
            connection.execute(f'update "{table}" set "{column}" = ? where rowid = ?', (after, row))
        except sqlite3.IntegrityError:
            raise NothingThere("the table itself refuses it") from None
    return Mutation("row", f"{base}:{table}.{column}", f"row {row}: {_short(before)} → {_short(after)}")


def _cell(value: Any, rng: random.Random) -> Any:
    if isinstance(value, str) and value[:1] in "{[":
        try:
            document = json.loads(value)
        except ValueError:
            # A text may begin so too.
            document = None
        leaves = list(_leaves(document))
        if leaves:
            keys = rng.choice(leaves)
            holder = document
            for key in keys[:-1]:
                holder = holder[key]
            holder[keys[-1]] = _other(holder[keys[-1]], rng)
            return json.dumps(document, ensure_ascii=False)
    after = _other(value, rng)
    return after if isinstance(after, str | int | float | None) else json.dumps(after)


def exchange(home: Path, point: str, rng: random.Random) -> Mutation:
    """Exchange the files of two partitions that have the same name, or whole folders of them."""
    by_name: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for group, paths in files(home).items():
        for path in paths:
            name = path.parent.name.split("-")[0] if group in ("records",) else path.name
            by_name[group, "*" if group in ("records", "uploads", "manifests", "chunks") else name].append(path)
    folders: dict[str, list[Path]] = {
        name: sorted(p for p in home.glob(f"artifacts/models/*/*/*/{name}") if p.is_dir())
        for name in ("plan", "adapter", "merged-*", "checkpoints", "evaluation")
    }
    pairs = [paths for paths in by_name.values() if len(paths) > 1]
    pairs += [paths for paths in folders.values() if len(paths) > 1] * 2
    if not pairs:
        raise NothingThere("no two files of a kind")
    first, second = rng.sample(rng.choice(pairs), 2)
    spare = home / "spare"
    first.rename(spare)
    second.rename(first)
    spare.rename(second)
    return Mutation("exchange", str(first.relative_to(home)), f"exchanged with {second.relative_to(home)}")


def kill(home: Path, point: str, rng: random.Random) -> Mutation:
    """Kill the step under way and all that it started, at some moment."""
    after = rng.uniform(0.1, 12)
    return Mutation("kill", "", f"killed after {after:.1f} s", kill_after=after)


def clock(home: Path, point: str, rng: random.Random) -> Mutation:
    """Set the clock back, or the times of files."""
    days = rng.choice((1, 30, 400))
    if rng.random() < 0.5:
        return Mutation("clock", "", f"the clock is set back by {days} days", days_back=days)
    then = time.time() - 86400 * days
    count = 0
    for path in home.rglob("*"):
        if path.is_file() and rng.random() < 0.5:
            os.utime(path, (then, then))
            count += 1
    return Mutation("clock", "", f"{count} files were last changed {days} days ago")


KINDS: dict[str, Callable[[Path, str, random.Random], Mutation]] = {
    "bytes": spoil_bytes,
    "field": spoil_field,
    "row": spoil_row,
    "exchange": exchange,
    "kill": kill,
    "clock": clock,
}
WEIGHTS = {"bytes": 30, "field": 30, "row": 15, "exchange": 15, "kill": 7, "clock": 3}


def spoil(home: Path, point: str, rng: random.Random, only: str | None = None) -> Mutation:
    """Spoil one thing in `home`, which stands before the step `point`, drawn by `rng`; of the kind `only`, if given."""
    while True:
        kind = only or rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        try:
            return KINDS[kind](home, point, rng)
        except NothingThere:
            continue
