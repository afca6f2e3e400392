"""A writer and a collector never meet: whatever the moment, a version that was written can be read whole."""

import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from resources import dataset_gc, dataset_lease, dataset_store
from resources.dataset_store import DatasetStore

TABLE = pl.DataFrame({"row_id": [f"{number:04x}" for number in range(900)], "text": ["가나다라"] * 900})
MODULES = {dataset_gc.__file__, dataset_lease.__file__, dataset_store.__file__}


def writer(store: DatasetStore, name: str):
    return store.writer(kind="rows", dataset=name, step="dataset", config_hash="0")


def write(store: DatasetStore, name: str) -> str:
    return store.write(TABLE, kind="rows", dataset=name, step="dataset", config_hash="0")


def chunks(store: DatasetStore) -> list[str]:
    folders = [Path(store.root) / "chunks", Path(store.root) / "removed"]
    return sorted(path.name for folder in folders for path in folder.rglob("*.parquet"))


def interleaved(work, actions) -> int:
    """Run `work`, and each action just before the line of the store that is its number; how many lines there were.

    An action whose line does not come is run at the end.
    """
    waiting, lines = dict(actions), 0

    def trace(frame, event, _):
        nonlocal lines
        if frame.f_code.co_filename not in MODULES:
            return None
        if event == "line":
            lines += 1
            if action := waiting.pop(lines, None):
                sys.settrace(None)
                action()
                sys.settrace(trace)
        return trace

    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(None)
    for action in waiting.values():
        action()
    return lines


def erased_and_shared(folder: Path):
    """A store with one version, and a writer of the same rows under another name."""
    store = DatasetStore(folder)
    return store, write(store, "old@v1"), writer(store, "new@v1")


def test_a_version_that_shares_chunks_survives_the_erasure_of_the_other_at_every_line(tmp_path):
    """The fault: the chunk was there when the writer looked, and gone when it wrote its manifest."""
    store, old, _ = erased_and_shared(tmp_path / "count")
    lines = interleaved(lambda: dataset_gc.delete_versions(store, [old], "because"), {})
    assert lines > 50
    moments = [(add, finish) for add in range(1, lines + 2) for finish in {add, add + 2, lines + 1}]
    moments = [(add, max(finish, add)) for add, finish in moments]
    for number, (add, finish) in enumerate(moments):
        store, old, new = erased_and_shared(tmp_path / str(number))
        written = []

        def both(new=new, written=written):
            new.add(TABLE)
            written.append(new.finish())

        def begin(new=new):
            new.add(TABLE)

        def end(new=new, written=written):
            written.append(new.finish())

        actions = {add: both} if add == finish else {add: begin, finish: end}
        interleaved(lambda store=store, old=old: dataset_gc.delete_versions(store, [old], "because"), actions)
        assert store.read(written[0]).equals(TABLE), (add, finish)
        dataset_gc.collect(store)
        assert store.read(written[0]).equals(TABLE), (add, finish)
        assert not list((tmp_path / str(number) / "leases").rglob("*"))


def test_a_version_survives_an_erasure_at_every_line_of_its_writing(tmp_path):
    store, old, new = erased_and_shared(tmp_path / "count")
    lines = interleaved(lambda: (new.add(TABLE), new.finish()), {})
    for line in range(1, lines + 1):
        store, old, new = erased_and_shared(tmp_path / str(line))
        written = []

        def work(new=new, written=written):
            new.add(TABLE)
            written.append(new.finish())

        interleaved(work, {line: lambda store=store, old=old: dataset_gc.delete_versions(store, [old], "because")})
        assert store.read(written[0]).equals(TABLE), line
        dataset_gc.delete_versions(store, written, "that too")
        dataset_gc.collect(store)
        assert chunks(store) == [], line


def test_an_erased_chunk_that_a_writer_holds_goes_when_nobody_names_it_in_the_end(tmp_path):
    store, old, new = erased_and_shared(tmp_path)
    new.add(TABLE)
    freed = dataset_gc.delete_versions(store, [old], "because")
    assert freed.kept >= 1 and len(chunks(store)) == freed.kept
    new._lease.release()
    assert dataset_gc.collect(store).chunks >= 1
    assert chunks(store) == []


def test_a_collector_that_was_killed_leaves_nothing_that_cannot_be_read(tmp_path):
    """At every line: what is live is read, and the next collection puts it back or completes the deletion."""

    class Killed(BaseException):
        pass

    def kill():
        raise Killed

    store, old, new = erased_and_shared(tmp_path / "count")
    lines = interleaved(lambda: dataset_gc.delete_versions(store, [old], "because"), {})
    for line in range(1, lines + 1):
        store, old, new = erased_and_shared(tmp_path / str(line))
        with pytest.raises(Killed):
            interleaved(lambda store=store, old=old: dataset_gc.delete_versions(store, [old], "because"), {line: kill})
        new.add(TABLE)
        version = new.finish()
        assert store.read(version).equals(TABLE), line
        dataset_gc.delete_versions(store, [old], "because")
        assert store.read(version).equals(TABLE), line
        dataset_gc.delete_versions(store, [version], "because")
        assert chunks(store) == [], line


WRITER = """
import sys
import polars as pl
from resources.dataset_store import DatasetStore
table = pl.DataFrame({"row_id": [f"{n:04x}" for n in range(900)], "text": [sys.argv[2]] * 900})
one = DatasetStore(sys.argv[1]).writer(kind="rows", dataset="new@v1", step="dataset", config_hash="0")
one.add(table)
print("added", flush=True)
sys.stdin.readline()
print(one.finish(), flush=True)
"""


def started(store: DatasetStore, text: str) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(store.root), text], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "added\n"
    return process


def test_what_another_process_holds_is_kept_until_it_has_finished(tmp_path):
    store = DatasetStore(tmp_path)
    old = write(store, "old@v1")
    with started(store, "가나다라") as process:
        assert dataset_gc.delete_versions(store, [old], "because").kept
        written, _ = process.communicate("go on\n")
    assert store.read(written.strip()).equals(TABLE)


def test_what_a_killed_writer_left_is_collected_at_once_and_what_is_unknown_after_the_grace_period(tmp_path):
    store = DatasetStore(tmp_path)
    kept = write(store, "old@v1")
    with started(store, "someone's row") as process:
        before = chunks(store)
        assert len(before) > len({chunk.sha256 for chunk in store.manifest(kept).chunks})
        dataset_gc.collect(store, timedelta(0))
        assert chunks(store) == before, "its writer runs"
        process.send_signal(signal.SIGKILL)
    dataset_gc.collect(store)
    assert store.read(kept).equals(TABLE)
    assert len(chunks(store)) == len({chunk.sha256 for chunk in store.manifest(kept).chunks})
    assert not list((tmp_path / "leases").rglob("*"))
    # A lease of another machine, and a chunk that nobody leased: only their age tells.
    unknown = tmp_path / "chunks" / "ff" / f"{'f' * 64}.parquet"
    unknown.parent.mkdir(parents=True, exist_ok=True)
    unknown.write_bytes(b"x")
    lease = tmp_path / "leases" / "000000000000-7-7.abc" / ("e" * 64)
    lease.parent.mkdir(parents=True)
    lease.touch()
    dataset_gc.collect(store)
    assert unknown.exists() and lease.exists()
    for path in (unknown, lease):
        os.utime(path, (1, 1))
    assert dataset_gc.collect(store).chunks == 1
    assert not unknown.exists() and not lease.exists()
    assert store.read(kept).equals(TABLE)
