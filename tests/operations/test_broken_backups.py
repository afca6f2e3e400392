"""A backup that was broken, however, is named by what is wrong with it, and nothing of it is taken for whole."""

import json
import os
import random
import resource
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from llmops_assets.operations.backups import back_up, faults_of_backup, list_backups, restore
from llmops_assets.operations.errors import Failed, Refused, Unavailable
from llmops_assets.operations.verification import verify
from resources import files
from resources.backup import snapshot
from resources.backup.objects import Objects
from resources.backup.snapshot import Snapshot
from tests.operations.test_backups import KEY, filled, wiring
from tests.serving.stand_in import in_a_process

BACKUP, KEYS = "backup", "keys"


def entry_of(place: Path, end: str) -> Path:
    """The file in the backup of an installation's file."""
    made = snapshot.read(place / BACKUP)
    return Objects(place / BACKUP).path(next(one.sha256 for one in made.files if one.path.endswith(end)))


def listing(place: Path) -> Path:
    path = max((place / BACKUP / "snapshots").iterdir())
    path.chmod(0o600)
    return path


def rewritten(place: Path, change: Callable[[dict], object]) -> None:
    """Change the newest list, digest and all, as whoever writes one of their own would."""
    path = listing(place)
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values | {"digest": snapshot._digest(values)}))


def flipped(path: Path) -> None:
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def missing(place: Path) -> None:
    entry_of(place, "quality.html").unlink()


def changed(place: Path) -> None:
    flipped(entry_of(place, "quality.html"))


def shortened(place: Path) -> None:
    path = entry_of(place, "quality.html")
    path.chmod(0o600)
    os.truncate(path, 3)


def another_file(place: Path) -> None:
    path = entry_of(place, "quality.html")
    path.unlink()
    path.symlink_to("/etc/hostname")


def a_folder(place: Path) -> None:
    path = entry_of(place, "quality.html")
    path.unlink()
    path.mkdir()


def changed_database(place: Path) -> None:
    flipped(Objects(place / BACKUP).path(snapshot.read(place / BACKUP).databases["catalog"].sha256))


def half_a_list(place: Path) -> None:
    path = listing(place)
    os.truncate(path, path.stat().st_size // 2)


def shorter_list(place: Path) -> None:
    path = listing(place)
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"files": values["files"][1:]}))


def flipped_list(place: Path) -> None:
    path = listing(place)
    text = path.read_text()
    path.write_text(text.replace('"mode": 384', '"mode": 420', 1))


def renamed_list(place: Path) -> None:
    path = listing(place)
    path.rename(path.with_name("20990101T000000.000000-beef.json"))


def later_list(place: Path) -> None:
    rewritten(place, lambda values: values.update(format=9, platform="9.9"))


def strange_list(place: Path) -> None:
    rewritten(place, lambda values: values.update(more="of it"))


def list_without_rights(place: Path) -> None:
    path = listing(place)
    path.unlink()
    path.mkdir()


def far_out(place: Path) -> None:
    rewritten(place, lambda values: values["files"][0].update(path="../" * 60 + "etc/evil"))


def link_out(place: Path) -> None:
    rewritten(place, lambda values: values["links"].append({"root": "home", "path": "out", "target": "/etc"}))


def link_up(place: Path) -> None:
    rewritten(place, lambda values: values["links"].append({"root": "home", "path": "a/out", "target": "../../.."}))


def no_backup(place: Path) -> None:
    shutil.rmtree(place / BACKUP / "snapshots")


def other_key_files(place: Path) -> None:
    (place / KEYS / "erasure.key").write_bytes(b"j" * 32)


def no_key_files(place: Path) -> None:
    (place / KEYS / "erasure.key").unlink()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a backup, and one with the keys to it."""
    place = tmp_path_factory.mktemp("made")
    back_up(filled(place / "home", encryption_key=KEY), "kim", place / BACKUP, keys=place / KEYS)
    return place


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    """A copy of it, to break."""
    for name in (BACKUP, KEYS):
        shutil.copytree(made / name, tmp_path / name)
    return tmp_path


CASES = [
    (missing, r"is missing: it was to become .*quality\.html", "No such file"),
    (changed, r"was changed since: it was to become .*quality\.html", r"was changed .*quality\.html"),
    (shortened, r"was changed since: it was to become .*quality\.html", r"was changed .*quality\.html"),
    (another_file, r"was changed since: it was to become .*quality\.html", r"was changed .*quality\.html"),
    (a_folder, r"Is a directory .*", "Is a directory"),
    (changed_database, r"was changed since: it was to become .*catalog\.db", "the database of catalog"),
    (half_a_list, "is no list of a backup that this version knows", None),
    (shorter_list, "was changed since it was written: take an earlier", None),
    (flipped_list, "was changed since it was written: take an earlier", None),
    (renamed_list, "was changed since it was written: take an earlier", None),
    (later_list, r"is of a later version of the platform \(9\.9\)", None),
    (strange_list, "is no list of a backup that this version knows: Extra inputs", None),
    (list_without_rights, "cannot be read: Is a directory", None),
    (far_out, r"etc/evil' leads out of", ""),
    (link_out, r"leads out of", ""),
    (link_up, r"leads out of", ""),
    (no_backup, "holds no backup", None),
    (other_key_files, r"erasure\.key is another than the one that belongs to this backup", ""),
    (no_key_files, r"erasure\.key belong to this backup and are kept apart", ""),
]


@pytest.mark.parametrize(("breaks", "restoring", "verifying"), CASES, ids=lambda one: getattr(one, "__name__", ""))
def test_what_is_wrong_is_named_and_nothing_is_taken_for_whole(
    place: Path, breaks: Callable[[Path], None], restoring: str, verifying: str | None
):
    breaks(place)
    new = wiring(place / "new", encryption_key=KEY)
    with pytest.raises((Refused, Failed), match=restoring):
        restore(new, "kim", place / BACKUP, keys=place / KEYS)
    if verifying is None:
        with pytest.raises(Refused, match=restoring):
            faults_of_backup(place / BACKUP)
    elif verifying:
        import re

        (fault,) = faults_of_backup(place / BACKUP)[1]
        assert re.search(verifying, fault), fault
    # What was begun says that it is not whole; what was refused at once left nothing.
    if (place / "new").exists():
        assert [fault.what for fault in verify(new, "kim").faults] == ["it was being restored, and that was cut off"]


def test_a_backup_beside_a_broken_one_is_whole_and_removes_nothing_that_might_be_needed(made: Path, tmp_path: Path):
    home, place = tmp_path / "home", tmp_path
    w = filled(home)
    back_up(w, "kim", place / BACKUP, keys=place / KEYS)
    flipped(entry_of(place, "quality.html"))
    half_a_list(place)
    said: list[str] = []
    back_up(w, "kim", place / BACKUP, say=said.append)
    # All was read anew, and what was damaged is whole again.
    assert any("All files are read anew" in line for line in said)
    assert faults_of_backup(place / BACKUP)[1] == []
    found, faults = list_backups(place / BACKUP)
    assert len(found) == 1 and len(faults) == 1
    with pytest.raises(Failed, match=r"was made, and no older one was removed: .* is no list of a backup"):
        back_up(w, "kim", place / BACKUP, keep=3)
    assert back_up(w, "kim", place / BACKUP, keep=2).pruned >= 0
    assert list_backups(place / BACKUP)[1] == []


def test_a_file_that_was_cut_short_in_the_backup_is_copied_again(tmp_path: Path):
    w = filled(tmp_path / "home")
    back_up(w, "kim", tmp_path / BACKUP, keys=tmp_path / KEYS)
    shortened(tmp_path)
    back_up(w, "kim", tmp_path / BACKUP)
    assert faults_of_backup(tmp_path / BACKUP)[1] == []


def test_two_never_write_to_one_backup_at_once(tmp_path: Path):
    w = filled(tmp_path / "home")
    (tmp_path / BACKUP).mkdir()
    with (
        files.locked(tmp_path / BACKUP / ".lock"),
        pytest.raises(Unavailable, match="another process is making a backup"),
    ):
        back_up(w, "kim", tmp_path / BACKUP)
    assert back_up(w, "kim", tmp_path / BACKUP, keep=1).made.copied


def test_a_disk_without_room_makes_no_backup_and_no_half_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    w = filled(tmp_path / "home")
    w.artifacts.write_bytes(os.urandom(3_000_000), "models", "weights")

    def limited(body: Callable[[], object], words: str, size: int = 2_000_000) -> None:
        # As a full disk does, writing stops with an error; a limit needs no disk of its own.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        try:
            body()
        except Failed as error:
            assert words in str(error), error
            return
        raise AssertionError("it was taken for whole")

    back = partial(back_up, w, "kim", tmp_path / BACKUP, keys=tmp_path / KEYS)
    assert in_a_process(lambda: limited(back, "no backup was made: File too large")) == 0
    # Of a database it is SQLite that says so, in its own words.
    assert in_a_process(lambda: limited(back, "no backup was made: d", 20_000)) == 0
    assert list_backups(tmp_path / BACKUP) == ([], [])
    back()
    assert [path.name for path in (tmp_path / BACKUP / "objects").glob(".*")] == []
    again = partial(restore, wiring(tmp_path / "new"), "kim", tmp_path / BACKUP, keys=tmp_path / KEYS)
    assert in_a_process(lambda: limited(again, "the restore broke off: File too large")) == 0
    again()
    assert verify(wiring(tmp_path / "new"), "kim").faults == []
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(Refused, match=r"bytes are to be written below .* and 1,000 are free"):
        restore(wiring(tmp_path / "third"), "kim", tmp_path / BACKUP, keys=tmp_path / KEYS)


def test_killed_anywhere_a_backup_leaves_the_earlier_ones_whole_and_a_restore_goes_on(tmp_path: Path):
    w = filled(tmp_path / "home")
    back_up(w, "kim", tmp_path / BACKUP, keys=tmp_path / KEYS)
    where = ("backup/make.py", "backup/objects.py", "backup/restore.py", "resources/files.py", "backup/sqlite.py")
    # Killed by lines that the draw names; another draw is another test.
    draw = random.Random(7)
    for number in range(6):
        w.artifacts.write_text(f"another {number}", "reports", f"new{number}")
        before = [one.id for one in list_backups(tmp_path / BACKUP)[0]]
        code = in_a_process(lambda: back_up(w, "kim", tmp_path / BACKUP), draw.randint(1, 900), *where)
        assert code in (0, 9)
        assert {one.id for one in list_backups(tmp_path / BACKUP)[0]} >= set(before)
        for one in before:
            assert faults_of_backup(tmp_path / BACKUP, one)[1] == []
    done = back_up(w, "kim", tmp_path / BACKUP, keys=tmp_path / KEYS)
    assert [path.name for path in (tmp_path / BACKUP).glob(".copy-*")] == []
    new = tmp_path / "new"
    again = partial(restore, wiring(new), "kim", tmp_path / BACKUP, keys=tmp_path / KEYS)
    killed = 0
    for _ in range(6):
        code = in_a_process(lambda: restore(wiring(new), "kim", tmp_path / BACKUP, keys=tmp_path / KEYS),
                            draw.randint(1, 700), *where)  # fmt: skip
        killed += code == 9
        if code == 0:
            break
    else:
        again()
    assert killed >= 1 and verify(wiring(new), "kim").faults == []
    assert {one.path for one in done.made.snapshot.files} >= {f"reports/new{number}" for number in range(6)}


def test_a_name_that_is_no_utf8_is_backed_up_and_restored_as_it_is(tmp_path: Path):
    w = filled(tmp_path / "home")
    name = os.fsdecode("영수증".encode("cp949"))
    place = tmp_path / "home" / "artifacts" / "uploads"
    place.mkdir(parents=True, exist_ok=True)
    (place / name).write_text("rows")
    made = back_up(w, "kim", tmp_path / BACKUP, keys=tmp_path / KEYS).made.snapshot
    assert isinstance(made, Snapshot) and made.model_dump_json()
    assert back_up(w, "kim", tmp_path / BACKUP).made.copied < len(made.files), "it is known again"
    restore(wiring(tmp_path / "new"), "kim", tmp_path / BACKUP, keys=tmp_path / KEYS)
    assert (tmp_path / "new" / "artifacts" / "uploads" / name).read_text() == "rows"


def test_a_fresh_file_system_is_an_empty_place(place: Path):
    (place / "new" / "lost+found").mkdir(parents=True)
    restore(wiring(place / "new", encryption_key=KEY), "kim", place / BACKUP, keys=place / KEYS)
    assert verify(wiring(place / "new", encryption_key=KEY), "kim").faults == []
