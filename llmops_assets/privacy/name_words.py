"""How much a single word looks like a person's name, whatever stands around it: as features of it, by name."""

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import yaml

from llmops_assets.privacy.kept_counts import kept
from llmops_assets.privacy.lexicon import words
from llmops_assets.privacy.name_context import ENDED
from llmops_assets.privacy.name_dictionary import UNLISTED, Listed, dictionary, listed, nouns
from llmops_assets.privacy.surnames import COMPOUND_SURNAMES, SURNAMES

if TYPE_CHECKING:
    import polars as pl
    from kiwipiepy import Kiwi

Features = dict[str, float]
"""What speaks for or against a name; what is not in it is 0."""

LOCK = threading.Lock()
"""Of the analysers, which are not made for several threads at once."""


@cache
def kiwi() -> "Kiwi":
    """The morphological analyser; its model is in the package, nothing is fetched.

    Without its dictionary of names of several words, which takes 180 MB and most of the time that it takes to load:
    whose names they are is asked of `gazetteer`.
    """
    from kiwipiepy import Kiwi

    return Kiwi(num_workers=1, load_multi_dict=False)


_PEOPLE = ("Q5", "Q15632617", "Q95074")
"""Wikidata's classes of humans and of invented ones, by which kiwi's dictionary marks its entries of several words."""


@dataclass(frozen=True)
class Gazetteer:
    """What kiwi's dictionary of names of several words says of people.

    `people` and `others` are names without their spaces, which writers leave out; `counts` says of a word how many
    (people, others) it is a part of the names of.
    """

    people: frozenset[str]
    others: frozenset[str]
    counts: dict[str, tuple[int, int]]


@cache
def gazetteer() -> Gazetteer:
    """Read from the dictionary that the installed kiwipiepy_model brings (its entries are from Wikidata)."""
    import kiwipiepy_model

    path = Path(kiwipiepy_model.__file__).parent / "multi.dict"
    return kept("gazetteer", path, "1", Gazetteer, lambda: _gazetteer(path))


def _gazetteer(path: Path) -> Gazetteer:
    import polars as pl

    lines = pl.Series("line", path.read_text(encoding="utf-8").split("\n")).to_frame()
    entries = lines.filter(pl.col("line").str.contains("\t")).select(
        form=pl.col("line").str.extract(r"^([^\t]+)"),
        person=pl.col("line").str.extract(r"# (Q\d+)$").is_in(_PEOPLE).fill_null(False),
    )
    if not entries["person"].any():
        raise RuntimeError(f"{path} marks no people any more: pin kiwipiepy_model as constraints.txt has it")
    parts = entries.select("person", pl.col("form").str.split(" ").alias("word")).explode("word")
    counts = parts.group_by("word").agg(
        pl.col("person").sum().alias("people"), (~pl.col("person")).sum().alias("others")
    )
    counts = counts.filter(pl.col("word").str.contains("^[가-힣]+$"), pl.col("people") > 0)
    joined = entries.with_columns(pl.col("form").str.replace_all(" ", ""))
    return Gazetteer(
        people=frozenset(joined.filter("person")["form"]),
        others=frozenset(joined.filter(~pl.col("person"))["form"]),
        counts={word: (a, b) for word, a, b in counts.iter_rows()},
    )


@dataclass(frozen=True)
class Syllables:
    """What the names in mecab-ko-dic are made of, against its other nouns.

    `korean` are log odds of each syllable of a full name by its place, `given` and `surnames` how many full names have
    these two syllables or that one, `pairs` log odds of syllable pairs of all other names, `^` and `$` at the edges.
    """

    korean: tuple[dict[str, float], ...]
    given: dict[str, int]
    surnames: dict[str, int]
    pairs: dict[str, float]


_LONGEST = 12


@cache
def syllables() -> Syllables:
    """Counted in the installed mecab-ko-dic."""
    return kept("syllables", dictionary(), "1", Syllables, _syllables)


def _syllables() -> Syllables:
    import polars as pl

    table = nouns().with_columns(
        full=(pl.col("word").str.len_chars() == 3) & pl.col("word").str.slice(0, 1).is_in(list(SURNAMES))
    )
    full = table.filter("full")
    places = [
        full.group_by(part=pl.col("word").str.slice(at, 1)).agg(
            people=pl.col("person").sum(), others=(~pl.col("person")).sum()
        )
        for at in range(3)
    ]
    people = full.filter("person")
    given = people.group_by(pl.col("word").str.slice(1)).len().rows()
    surnames = people.group_by(pl.col("word").str.slice(0, 1)).len().rows()
    foreign = table.filter(pl.col("word").str.len_chars() > 1, ~(pl.col("person") & pl.col("full"))).select(
        "person", framed=pl.format("^{}$", "word")
    )
    cut = [
        foreign.filter(pl.col("framed").str.len_chars() > at + 1)
        .group_by(part=pl.col("framed").str.slice(at, 2))
        .agg(people=pl.col("person").sum(), others=(~pl.col("person")).sum())
        for at in range(_LONGEST)
    ]
    pairs = pl.concat(cut).group_by("part").sum().filter(pl.col("people") + pl.col("others") > 3)
    return Syllables(
        korean=tuple(_odds(place, 1.0) for place in places),
        given=dict(given),
        surnames=dict(surnames),
        pairs=_odds(pairs, 0.5),
    )


def _odds(counts: "pl.DataFrame", more: float) -> dict[str, float]:
    """Log odds of each part among people's names against others; `more` is added to each count."""
    import polars as pl

    people, others = counts["people"].sum() + 500 * more, counts["others"].sum() + 500 * more
    odds = (pl.col("people") + more).log() - (pl.col("others") + more).log() - math.log(people / others)
    return dict(counts.select("part", odds).iter_rows())


def clipped(value: float, low: float, high: float) -> float:
    """`value`, or the bound that it is beyond."""
    return max(low, min(high, value))


def usage(word: str) -> tuple[int, int]:
    """In how many people's names and in how many other names of several words `word` is."""
    return gazetteer().counts.get(word, (0, 0))


def is_full(word: str) -> bool:
    """Whether `word` has three syllables of which the first is a surname."""
    return len(word) == 3 and word[0] in SURNAMES


@lru_cache(1 << 16)
def korean(word: str) -> float:
    """Log odds that a word of three syllables is a Korean full name, by its syllables alone; about ±8."""
    return sum([odds.get(syllable, 0.0) for odds, syllable in zip(syllables().korean, word, strict=True)])


@lru_cache(1 << 16)
def foreign(word: str) -> float:
    """How much a word sounds like another person's name: mean log odds of its syllable pairs, about ±3."""
    framed, pairs = f"^{word}$", syllables().pairs
    return sum([pairs.get(framed[at : at + 2], 0.0) for at in range(len(framed) - 1)]) / (len(framed) - 1)


@lru_cache(1 << 16)
def named_so(word: str) -> float:
    """How much a word is like a part of a foreign person's name, as log odds: by kiwi's dictionary, or by its sound."""
    people, others = usage(word)
    return 0.8 * math.log((people + 0.3) / (others + 0.3)) if people else 1.2 * foreign(word) - 0.3


@cache
def famous() -> frozenset[str]:
    """People whom one word is enough for (`people.yaml`)."""
    lists: Mapping[str, str] = yaml.safe_load(Path(__file__).with_name("people.yaml").read_text(encoding="utf-8"))
    return frozenset(word for text in lists.values() for word in text.split() if len(word) > 1)


@cache
def things() -> frozenset[str]:
    """Well-known places, organisations and brands."""
    lists = ("well_known", "well_known_brands", "not_names", "computing", "hardware", "regions")
    lists += ("languages", "scripts", "currencies")
    return frozenset().union(*map(words, lists))


_FROM_WHERE = 3
"""Syllables of a word of computing with which a longer word may begin: 이스케이프하면, 클래스들은."""


@cache
def _technical() -> frozenset[str]:
    return words("computing") | words("hardware")


@lru_cache(1 << 16)
def is_technical(word: str) -> bool:
    """Whether a word, with whatever hangs on to it, is one of computing or of offices, so that no name is in it."""
    known = _technical()
    if word in known or ((bare := ENDED.match(word)) and bare.group(1) in known):
        return True
    return any(word[:end] in known for end in range(_FROM_WHERE, len(word)))


_AREAS = frozenset("시군구읍면동리도역산강섬호천항로길대")


@lru_cache(1 << 16)
def is_thing(word: str) -> bool:
    """Whether a word is surely no person: a well-known thing, or an area named after a place."""
    known = things()
    return word not in famous() and (word in known or (len(word) > 2 and word[-1] in _AREAS and word[:-1] in known))


@cache
def roles() -> frozenset[str]:
    """What a person is or is called by."""
    return words("roles") | words("relations") | words("titles") | words("honorifics")


_OFTEN = 8
"""Full names in the dictionary from which on two syllables are a given name."""
_DOUBTFUL_NAME, _DOUBTFUL_PART = 3000, 2000
"""How much cheaper than the person a thing may be in mecab's dictionary."""


class WordProfile(NamedTuple):
    """What a word by itself decides about being looked at as a name."""

    thing: bool
    """It is surely none."""
    sure: bool
    """It is worth a look wherever it stands."""
    given: bool
    """It is a common given name, of two syllables."""
    listed: bool
    """A dictionary has people of that name."""
    part: bool
    """It is a part of names of several words."""


@lru_cache(1 << 16)
def profile(word: str) -> WordProfile:
    """Of a word in Hangul."""
    entry, (people, others) = listed(word), usage(word)
    person = entry.person < UNLISTED
    return WordProfile(
        thing=is_thing(word),
        sure=word in famous()
        or word in gazetteer().people
        or (is_full(word) and korean(word) > 0)
        or (len(word) > 2 and word[:2] in COMPOUND_SURNAMES),
        given=len(word) == 2 and syllables().given.get(word, 0) >= _OFTEN,
        listed=(person and entry.person < entry.thing + _DOUBTFUL_NAME) or people > others,
        part=bool(people and people * 3 >= others) or (person and entry.person < entry.thing + _DOUBTFUL_PART),
    )


def sounds_like_part(word: str) -> float:
    """As `foreign` has it, where a word may count for a part of a name; very low where it may not."""
    return foreign(word) if len(word) > 1 and word not in roles() else -math.inf


_DETERMINERS = frozenset("이그저전현여남구신한첫고최총각본")
_SURE_PLACE, _SURE_NOUN, _NOUN = 4500, 3500, 5500
"""Costs in mecab's dictionary below which a word is that in most sentences."""


def _commonness(cost: int) -> float:
    return clipped((UNLISTED - cost) / 1000, 0.0, 10.0)


@lru_cache(1 << 16)
def form(word: str) -> Features:
    """Features of a word in Hangul."""
    entry, found = listed(word), Features()
    found[f"length {min(len(word), 6)}"] = 1.0
    _by_dictionary(word, entry, found)
    if word in gazetteer().people:
        found["known without spaces"] = 1.0
    elif word in gazetteer().others:
        found["a thing without spaces"] = 1.0
    if word in famous():
        found["famous" + (", a noun" if entry.common < UNLISTED else "") + (", short" if len(word) == 2 else "")] = 1.0
    if word in roles():
        found["a role"] = 1.0
    if len(word) > 1 and word[0] in _DETERMINERS:
        found["determiner"] = 1.0
        found["determiner and noun"] = _commonness(listed(word[1:]).common)
    if word[:2] in COMPOUND_SURNAMES and len(word) in (3, 4):
        found["compound surname"] = 1.0
    _by_syllables(word, entry, found)
    return found


def _by_dictionary(word: str, entry: Listed, found: Features) -> None:
    """As what mecab's dictionary lists a word, and how sure that is."""
    kinds = ("person", "place", "proper", "common", "other")
    found["listed: " + "+".join(kind for kind in kinds if getattr(entry, kind) < UNLISTED)] = 1.0
    person, thing = entry.person < UNLISTED, entry.thing < UNLISTED
    if person:
        found["listed: person's cost"] = clipped((4111 - entry.person) / 1000, -3.0, 3.0)
        if thing:
            found["listed: person rather"] = clipped((entry.thing - entry.person) / 1000, -5.0, 5.0)
        return
    if thing:
        found["listed: thing's cost"] = clipped((entry.thing - 4000) / 1000, -4.0, 4.0)
    if word in famous():
        return
    for cut in (1, 2):
        if len(word) > 2 and len(word) - cut > 1:
            head, tail = listed(word[:-cut]), listed(word[-cut:])
            if head.place < _SURE_PLACE:
                found[f"place and {cut}"] = 1.0
            if head.common < _SURE_NOUN and tail.common < _NOUN:
                found[f"noun and {cut}"] = 1.0


def _by_syllables(word: str, entry: Listed, found: Features) -> None:
    """How a word is built, as a Korean name or as another."""
    known = syllables()
    if is_full(word):
        found["full"] = 1.0
        found["full: odds"] = clipped(korean(word), -6.0, 6.0)
        found["full: given"] = min(math.log1p(known.given.get(word[1:], 0)), 5.0)
        found["full: surname"] = min(math.log1p(known.surnames.get(word[0], 0)), 9.0)
        found["full: rest is a thing"] = _commonness(listed(word[1:]).thing)
        found["full: head is a thing"] = _commonness(listed(word[:2]).thing)
        return
    sound = clipped(foreign(word), -3.0, 3.0)
    found["sound"] = sound
    found["sound by length"] = sound * min(len(word), 6) / 3
    if entry.person == UNLISTED:
        found["sound, unlisted"] = sound
    if len(word) == 3 and word[2] == "이":
        found["…이"] = 1.0
        found["…이: given"] = min(math.log1p(known.given.get(word[:2], 0)), 5.0)
    if len(word) == 2:
        found["two: given"] = min(math.log1p(known.given.get(word, 0)), 5.0)
    if len(word) < 3 and word[0] in SURNAMES:
        found[f"{len(word)}: surname"] = min(math.log1p(known.surnames.get(word[0], 0)), 9.0)
