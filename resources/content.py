"""What a folder holds, by the hashes of its files: equal content, equal hash, and what differs by name."""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SEAL = "complete.json"
"""Lists a finished folder's files with their hashes; no part of what the folder holds."""

_NEVER_LOADED = re.compile(r"\..*|README.*|LICEN[SC]E.*|NOTICE.*|.*\.md", re.IGNORECASE)
"""Names that nothing loads: cards, licences, hidden files. All else is part of the content, whatever it is called."""

_OLD_FILES = re.compile(
    r".*\.safetensors|.*\.safetensors\.index\.json|config\.json|tokenizer.*\.json|vocab.*|merges\.txt|.*\.model|"
    r"special_tokens_map\.json|added_tokens\.json|chat_template\.jinja|"
    r"modules\.json|sentence_bert_config\.json|config_sentence_transformers\.json|\d+_\w+/config\.json|rag\.json"
)
"""What earlier releases hashed of a model: their records are compared by these files alone."""

_THREADS = 4


class ContentChanged(RuntimeError):
    """The files of a folder are not what was recorded of them; the message names them and says what to do."""


def file_hash(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def listing(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in `folder` and below by its relative name, but of those that nothing ever loads.

    Each byte is read each time: sizes and times of files are easily as before when the bytes are not. A link counts as
    the file that it leads to, so a hub's cache is read like any folder; one to a folder, or to nothing, is listed as
    such.
    """
    loaded = (path for path in _files(folder) if not _NEVER_LOADED.fullmatch(path.name))
    paths = {path.relative_to(folder).as_posix(): path for path in loaded}
    names = sorted(paths.keys() - {SEAL})
    # Hashing lets go of the interpreter: the shards of a large model are read side by side.
    with ThreadPoolExecutor(_THREADS) as pool:
        return dict(zip(names, pool.map(_entry, [paths[name] for name in names]), strict=True))


def _files(folder: Path) -> Iterable[Path]:
    for where, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        here = Path(where)
        yield from (here / name for name in files)
        yield from (here / name for name in folders if (here / name).is_symlink())


def _entry(path: Path) -> str:
    if path.is_file():
        return file_hash(path)
    return f"link to {os.readlink(path)}" if path.is_symlink() else "no regular file"


def digest_of(files: Mapping[str, str]) -> str:
    """16 hex digits of a listing."""
    lines = "\n".join(f"{name} {files[name]}" for name in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def content_hash(folder: Path) -> str:
    """16 hex digits over all that the model in `folder` consists of: weights, configs, tokenizer, template, the rest.

    Raises FileNotFoundError when there are no safetensors weights; pickled weights are never read.
    """
    return hash_of_model(folder, listing(folder))


def hash_of_model(folder: Path, files: Mapping[str, str]) -> str:
    """As `content_hash`, of the listing of a folder."""
    if not any(name.endswith(".safetensors") and "/" not in name for name in files):
        raise FileNotFoundError(
            f"{folder} has no *.safetensors weights: only safetensors are read, convert other formats first"
        )
    return digest_of(files)


def old_content_hash(files: Mapping[str, str]) -> str:
    """The hash that earlier releases gave to a model of these files."""
    return digest_of({name: digest for name, digest in files.items() if _OLD_FILES.fullmatch(name)})


def sealed_files(folder: Path) -> dict[str, str]:
    """The files of a sealed folder with their hashes as its seal lists them; none where there is no seal to read."""
    try:
        files = json.loads((folder / SEAL).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {name: digest for name, digest in files.items() if not _NEVER_LOADED.fullmatch(name.rpartition("/")[2])}


def changed_files(files: Mapping[str, str], known: Mapping[str, str]) -> dict[str, str]:
    """What is not in `files` as it is in `known`, by name: missing, changed or added."""
    found = {name: "missing" for name in known if name not in files}
    found |= {name: "changed" for name in known if name in files and files[name] != known[name]}
    return found | {name: "added" for name in files if name not in known}


def difference(
    folder: Path, expected: str, known: Mapping[str, str] | None = None, files: Mapping[str, str] | None = None
) -> str | None:
    """How the model in `folder` is not the one of the content hash `expected`, as "NAME … is not"; None where it is.

    `known` is its listing where somebody kept it, else that of the folder's seal is looked at: it names the files, once
    its own hash shows that it is the listing of `expected`. `files` is the listing of now, where it was made already.
    """
    if not folder.is_dir():
        return f"the folder {folder} is gone and is not"
    files = listing(folder) if files is None else files
    found = digest_of(files)
    if found == expected:
        return None
    listings = [was for was in (dict(known or {}), sealed_files(folder)) if was]
    for was in listings:
        # Before the hash of earlier releases is tried: of a folder that has none but their files it is the same, and
        # would not notice what was laid beside them.
        if digest_of(was) == expected:
            return in_words(changed_files(files, was))
    if old_content_hash(files) == expected:
        return None
    for was in listings:
        if old_content_hash(was) == expected:
            # What an earlier release recorded knows nothing of the other files.
            return in_words({n: how for n, how in changed_files(files, was).items() if _OLD_FILES.fullmatch(n)})
    if not any(name.endswith(".safetensors") for name in files):
        return f"a folder without *.safetensors weights ({folder}) is not"
    return f"the content {found} of {folder} is not"


def in_words(changed: Mapping[str, str], most: int = 4) -> str:
    """Changed files as the subject of "… is not what was recorded"."""
    named = ", ".join(f"{name} ({how})" if how != "changed" else name for name, how in list(changed.items())[:most])
    more = f" and {len(changed) - most} more files" if len(changed) > most else ""
    return f"{named}{more} {'is' if len(changed) == 1 else 'are'} not"


def verify(folder: Path | str, expected: str, was: str, advice: str, known: Mapping[str, str] | None = None) -> None:
    """Raise ContentChanged where the model in `folder` is not the one of the content hash `expected`.

    `was` says what the hash was laid down for ("registered as desk@3"), `advice` what to do.
    """
    found = difference(Path(folder), expected, known)
    if found is not None:
        raise ContentChanged(f"{found} what was {was} with the content {expected}: look into {folder}. {advice}")


def verify_files(folder: Path | str, known: Mapping[str, str], was: str, advice: str) -> None:
    """Raise ContentChanged where the files of `folder` are not those of the listing `known`; of none, nothing is asked.

    Records of earlier releases have no listing.
    """
    changed = changed_files(listing(Path(folder)), known) if known else {}
    if changed:
        raise ContentChanged(f"{in_words(changed)} what was {was}: look into {folder}. {advice}")
