"""Takes a person's passages out of indexes: at once out of what is served, and out of every version on disk."""

import shutil
from collections.abc import Callable, Mapping

from llmops_assets.documents.work import read_all
from llmops_assets.erasure.plan import Found, Platform, raw_files
from llmops_assets.erasure.search import Wanted
from resources.catalog.erasures import Erasure
from resources.retrieval import files as index_files
from resources.retrieval.bm25 import sparse_rows
from resources.retrieval.files import IndexCorrupt, PassageIndex, contents
from resources.retrieval.indexes import Indexes


def clear(
    platform: Platform,
    indexes: Indexes,
    versions: Mapping[str, Found],
    wanted: Wanted,
    erasure: Erasure,
    say: Callable[[str], None],
) -> int:
    """Take the person's passages out of every index of these dataset versions; how many there were.

    Theirs is a passage that holds what is looked for, before it was masked too, or that comes from their rows alone.
    Those of the first kind are buried: they are found by nobody from then on, and come back in no later version. Each
    index is followed by one without them, which its names stand for from then on, and is deleted. An index that cannot
    be read goes as a whole. To be called before the versions themselves are deleted, and again where it was cut off.
    """
    aliases = indexes.aliases()
    cleared = 0
    # Texts of builds that were cut off.
    shutil.rmtree(indexes.root / "work", ignore_errors=True)
    for version in indexes.versions():
        names = [name for name, other in aliases.items() if other == version]
        try:
            index = indexes.read(version)
        except IndexCorrupt as error:
            if names or _is_of(indexes, version, versions):
                say(f"index {version} ({', '.join(names) or 'no name'}) cannot be read, and is deleted: {error}")
                for name in names:
                    indexes.remove_name(name)
                indexes.drop(version)
            continue
        found = versions.get(index.facts.dataset)
        if found is None:
            continue
        said, alone = _theirs(platform, index, found, wanted)
        if not said and not alone:
            continue
        # First: from here on they are found by nobody, whatever becomes of the rest.
        indexes.bury(said, erasure.id)
        cleared += len(said | alone)
        follower = _without(indexes, index, said | alone, erasure.id)
        for name in names:
            if follower is None:
                indexes.remove_name(name)
            else:
                indexes.point(name, follower)
        indexes.drop(version)
        say(f"index {version} ({', '.join(names) or 'no name'}): {len(said | alone)} passages are gone")
    return cleared


def _is_of(indexes: Indexes, version: str, versions: Mapping[str, Found]) -> bool:
    try:
        return indexes.facts(version).dataset in versions
    except IndexCorrupt:
        return True


def _theirs(platform: Platform, index: PassageIndex, found: Found, wanted: Wanted) -> tuple[set[str], set[str]]:
    """Passages that say what is looked for, and those that come from the person's rows and from no others."""
    sources = set(found.passages) | _raw_passages(platform, found, wanted)
    said, alone = set(), set()
    columns = index.passages.select("id", "text", "heading", "rows", "sources").iter_rows()
    for id, text, heading, rows, hashes in columns:
        if wanted.in_text(text) or wanted.in_text(heading or "") or (hashes and sources.issuperset(hashes)):
            said.add(id)
        elif rows and found.row_ids.issuperset(rows):
            alone.add(id)
    return said, alone


def _raw_passages(platform: Platform, found: Found, wanted: Wanted) -> set[str]:
    """Hashes of the passages of registered documents that hold what is looked for; in the index they are masked."""
    how = platform.catalog.dataset(found.key).generation
    if how is None:
        return set()
    files = raw_files(platform, found.key)
    read = read_all([(name, platform.keys.open(path.read_bytes(), path)) for name, path in files], how)
    return {passage.sha256[:16] for passage in read.passages if wanted.in_text(passage.text)}


def _without(indexes: Indexes, index: PassageIndex, ids: set[str], erasure: int) -> str | None:
    """Write the index without some passages, by the vectors that it has; its version, or None where nothing is left."""
    left, vectors = index_files.without(index, ids)
    if not left.height:
        return None
    facts = index.facts
    version = index_files.version_of(left, facts.dataset, facts.encoder, index_files.description())
    if not indexes.is_whole(version):
        index_files.write(
            indexes.folder(version),
            left,
            vectors,
            sparse_rows(contents(left)),
            dataset=facts.dataset,
            recipe=facts.recipe,
            encoder=facts.encoder,
            keys=indexes.keys,
            paths=indexes.paths,
            reduced_by=erasure,
        )
    indexes.stage(indexes.read(version))
    return version
