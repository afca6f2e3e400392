"""Files are whole or as they were, and a process that is killed leaves no plain text behind."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from resources import files

CANARY = b"aquila-4711 goes to the river"


def python(code: str, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)


def until(happens, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def holding(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.is_file() and CANARY in p.read_bytes())


def test_a_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "rows.jsonl"
    files.write_text(target, "one")
    with pytest.raises(RuntimeError), files.replacing(target) as stream:
        stream.write(b"half")
        raise RuntimeError
    assert target.read_text() == "one" and [p.name for p in target.parent.iterdir()] == [target.name]
    files.write_bytes(target, b"two", mode=0o600)
    assert target.read_bytes() == b"two" and target.stat().st_mode & 0o777 == 0o600


def test_a_file_system_without_nameless_files_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "O_TMPFILE")
    files.write_text(tmp_path / "a", "one")
    with pytest.raises(RuntimeError), files.replacing(tmp_path / "a") as stream:
        stream.write(b"half")
        raise RuntimeError
    assert (tmp_path / "a").read_text() == "one" and len(list(tmp_path.iterdir())) == 1


def test_what_a_killed_process_was_writing_is_not_left(tmp_path: Path) -> None:
    """Killed at a random point of writing file after file: each is whole, and nothing lies beside them."""
    rng = random.Random(7)
    for attempt in range(6):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        writer = python(
            """
            import sys
            from resources import files
            from resources.files import Spool
            folder, text = sys.argv[1], sys.argv[2].encode()
            spool = Spool()
            print("begins", flush=True)
            for number in range(10**6):
                spool.add(text)
                with files.replacing(f"{folder}/{number % 5}.txt", durable=False) as stream:
                    for _ in range(200):
                        stream.write(b"begin " + text + b" end\\n")
                        stream.flush()
            """,
            str(folder),
            CANARY.decode(),
        )
        assert writer.stdout.readline() == "begins\n"
        until(lambda folder=folder: any(folder.iterdir()))
        time.sleep(rng.random() * 0.05)
        os.killpg(writer.pid, signal.SIGKILL)
        writer.wait()
        for path in folder.iterdir():
            # A name that was given to whole content, an instant before it was to take its place, is the only remain.
            assert path.read_bytes().count(CANARY) == 200, path


def test_plain_text_for_a_program_of_others_is_gone_with_its_process(tmp_path: Path) -> None:
    holder = python(
        """
        import sys, time
        from pathlib import Path
        from resources import files
        with files.plain_folder(Path(sys.argv[1])) as folder:
            (folder / "deep").mkdir()
            (folder / "deep" / "rows.txt").write_text(sys.argv[2])
            print("there", flush=True)
            time.sleep(60)
        """,
        str(tmp_path),
        CANARY.decode(),
    )
    assert holder.stdout.readline() == "there\n" and holding(tmp_path) == ["rows.txt"]
    # Whoever sweeps meanwhile leaves it alone: its process is there.
    assert files.sweep(tmp_path) == []
    # The whole process group, as a terminal or a supervisor does it.
    os.killpg(holder.pid, signal.SIGKILL)
    holder.wait()
    until(lambda: not list(tmp_path.iterdir()))


def test_what_a_machine_that_went_left_is_removed_at_the_next_start(tmp_path: Path) -> None:
    left = tmp_path / f"{files.PLAIN}0123"
    left.mkdir()
    (left / "rows.txt").write_bytes(CANARY)
    with files.plain_folder(tmp_path) as folder:
        assert not left.exists() and folder.is_dir() and folder.stat().st_mode & 0o77 == 0
    assert list(tmp_path.iterdir()) == []


def test_a_lock_is_held_waited_for_and_given_up(tmp_path: Path) -> None:
    lock, waits = tmp_path / "x.lock", []
    with files.locked(lock):
        with pytest.raises(files.Locked), files.locked(lock, timeout=0.1, waiting=lambda: waits.append(1)):
            raise AssertionError
        assert waits == [1]
    with files.locked(lock, timeout=0):
        pass
    holder = python(
        """
        import sys, time
        from resources import files
        with files.locked(sys.argv[1]):
            print("held", flush=True)
            time.sleep(60)
        """,
        str(lock),
    )
    assert holder.stdout.readline() == "held\n"
    holder.kill()
    holder.wait()
    with files.locked(lock, timeout=5):
        pass


def test_a_spool_gives_back_what_it_was_given_and_has_no_name() -> None:
    before = set(os.listdir("/tmp"))
    spool = files.Spool()
    for blob in (b"", b"one", bytes(3_000_000)):
        spool.add(blob)
    assert [spool.read(n) for n in (2, 0, 1)] == [bytes(3_000_000), b"", b"one"] and len(spool) == 3
    assert not [name for name in set(os.listdir("/tmp")) - before if name.startswith("llmops-")]
    spool.close()
