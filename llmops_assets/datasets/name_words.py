"""How much a single word looks like a person's name: by kiwi's own dictionaries, syllables and lists of ours."""

import math
import threading
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from llmops_assets.datasets.lexicon import words
from llmops_assets.datasets.patterns import COMPOUND_SURNAMES, SURNAMES

if TYPE_CHECKING:
    from kiwipiepy import Kiwi

LOCK = threading.Lock()
"""Of the analyser, which is not made for several threads at once."""


@cache
def kiwi() -> "Kiwi":
    """The morphological analyser; its model is in the package, nothing is fetched."""
    from kiwipiepy import Kiwi

    return Kiwi(num_workers=1)


@lru_cache(1 << 16)
def is_noun(word: str) -> bool:
    """Whether the analyser knows `word` as a common noun. Call it with the lock held."""
    tokens = kiwi().tokenize(word)
    return len(tokens) == 1 and tokens[0].tag == "NNG" and not tokens[0].oov


_PEOPLE = ("Q5", "Q15632617", "Q95074")
"""Wikidata's classes of humans and of invented ones, by which kiwi's dictionary marks its entries of several words."""


@dataclass(frozen=True)
class Gazetteer:
    """What kiwi's dictionaries say of people: `full` names of several words, and for each word how many `counts`.

    `counts` are (people, others): entries that the word is a part of. `grams` are log odds of syllable pairs, how
    much likelier they are in words of people's names than in other names.
    """

    full: frozenset[str]
    counts: dict[str, tuple[int, int]]
    grams: dict[str, float]


def _pairs(values: pl.Series) -> pl.DataFrame:
    """Syllable pairs of words, the edges included, and how often they occur."""
    framed = values.to_frame("word").select(pl.format("^{}$", "word").alias("word"))
    longest = 12
    cut = [
        framed.filter(pl.col("word").str.len_chars() > at + 1).select(gram=pl.col("word").str.slice(at, 2))
        for at in range(longest)
    ]
    return pl.concat(cut).group_by("gram").len()


@cache
def gazetteer() -> Gazetteer:
    """Read from the dictionaries that the installed kiwipiepy_model brings (their entries are from Wikidata)."""
    import kiwipiepy_model

    folder = Path(kiwipiepy_model.__file__).parent
    lines = pl.Series("line", (folder / "multi.dict").read_text(encoding="utf-8").split("\n")).to_frame()
    entries = lines.filter(pl.col("line").str.contains("\t")).select(
        form=pl.col("line").str.extract(r"^([^\t]+)"),
        person=pl.col("line").str.extract(r"# (Q\d+)$").is_in(_PEOPLE).fill_null(False),
    )
    if not entries["person"].any():
        raise RuntimeError(
            f"{folder / 'multi.dict'} marks no people any more: pin kiwipiepy_model as constraints.txt has it"
        )
    parts = entries.select("person", pl.col("form").str.split(" ").alias("word")).explode("word")
    counts = parts.group_by("word").agg(
        pl.col("person").sum().alias("people"), (~pl.col("person")).sum().alias("others")
    )
    counts = counts.filter(pl.col("word").str.contains("^[가-힣]+$"))
    single = pl.Series("line", (folder / "default.dict").read_text(encoding="utf-8").split("\n")).to_frame()
    names = single.select(word=pl.col("line").str.extract(r"^([가-힣]{2,})\tNNP")).drop_nulls()
    long = counts.filter(pl.col("word").str.len_chars() > 1)
    people = _pairs(long.filter(pl.col("people") > pl.col("others"))["word"])
    known = counts.filter(pl.col("people") > 0)
    others = _pairs(
        pl.concat(
            [
                long.filter(pl.col("people") <= pl.col("others"))["word"],
                names.join(known, on="word", how="anti")["word"],
            ]
        )
    )
    both = people.join(others, on="gram", how="full", coalesce=True, suffix="_others").fill_null(0)
    p, o, kinds = both["len"].sum(), both["len_others"].sum(), both.height
    odds = (pl.col("len") + 0.5).log() - (pl.col("len_others") + 0.5).log()
    base = math.log((p + 0.5 * kinds) / (o + 0.5 * kinds))
    grams = dict(both.select("gram", odds - base).iter_rows())
    return Gazetteer(
        full=frozenset(entries.filter("person")["form"]),
        counts={word: (a, b) for word, a, b in counts.iter_rows()},
        grams=grams,
    )


@lru_cache(1 << 16)
def transliterated(word: str) -> float:
    """How much `word` sounds like part of a foreign person's name: mean log odds of its syllable pairs, about ±3."""
    framed, grams = f"^{word}$", gazetteer().grams
    pairs = [framed[at : at + 2] for at in range(len(framed) - 1)]
    return sum(grams.get(pair, 0.0) for pair in pairs) / len(pairs)


def usage(word: str) -> tuple[int, int]:
    """In how many people's names and in how many other names of several words `word` is."""
    return gazetteer().counts.get(word, (0, 0))


@lru_cache(1 << 16)
def foreign(word: str) -> float:
    """How much `word` is like a word of a foreign person's name, as log odds between −3 and 3."""
    if word in words("known_people"):
        return 2.0
    people, others = usage(word)
    if people + others:
        odds = 0.8 * math.log((people + 0.3) / (others + 0.3))
        return max(-3.0, min(3.0, odds)) + 0.3 * max(-1.0, min(1.0, transliterated(word)))
    return max(-3.0, min(2.5, 1.6 * transliterated(word) - 0.5))


_SUFFIXES_TEXT = """
대학교 대학 대병원 대교 고교 중학교 초등학교 고등학교 유치원 병원 의원 은행 그룹 전자 항공 신문 일보 뉴스 방송
방송국 위원회 협회 재단 공사 공단 산업 건설 증권 카드 보험 생명 화재 화학 제철 중공업 자동차 통신 텔레콤 물산 제약
식품 유업 제과 주류 호텔 리조트 법원 지법 지검 고검 고법 검찰 경찰 경찰서 소방서 시청 구청 군청 도청 백화점 마트
공항 터미널 교회 성당 공원 해수욕장 해변 광장 시장 아파트 빌딩 타워 센터 회관 미술관 박물관 도서관 영화관 극장
경기장 운동장 체육관 학원 학교 연구소 연구원 연합 연맹 연대 노조 협동조합 반도 고원 평야 분지 산맥 해협 호수 폭포
제도 군도 고속도로 나들목 분기점 휴게소 전철 지하철 선수단 대표팀 구단 리그 컵 축제 영화제 어워드 차트 앨범 시리즈
전쟁 사건 참사 혁명 조약 협정 법 론 주의 사상 당 족 인 어 교 스키 스탄 월드 랜드 코리아 재팬 닷컴 넷 미디어
엔터테인먼트 픽처스 스튜디오 위키 게이트 공화국 왕국 제국 연방 특별시 광역시 자치도 자치구 특별자치시
"""
_SUFFIXES = tuple(_SUFFIXES_TEXT.split())
_AREA = "시군구읍면동리도역산강섬호천항만로길대당청부처원사교촌궁사릉각문탑"


_OTHERS = ("not_names", "well_known", "well_known_brands", "roles", "relations", "honorifics", "titles")


@lru_cache(1 << 16)
def elsewhere(word: str) -> bool:
    """Whether `word` is surely not a person: a known place, organisation or thing, or built like one."""
    if word in words("known_people"):
        return False
    if any(word in words(name) for name in _OTHERS):
        return True
    if len(word) > 2 and word[-1] in _AREA and (word[:-1] in words("well_known") or word[:-1] in words("not_names")):
        return True
    return len(word) > 3 and word.endswith(_SUFFIXES) and usage(word)[0] == 0


_COMMONEST = frozenset("김이박최정강조윤장임한오서신권황안송홍유고문양손배백허심노하곽성차주우전류")


def common(word: str) -> bool:
    return word in words("common_surnames")


@lru_cache(1 << 16)
def given(word: str) -> bool:
    """Whether two syllables are such as Korean given names are made of."""
    return len(word) == 2 and word[0] in words("first_syllables") and word[1] in words("second_syllables")


@lru_cache(1 << 16)
def korean(word: str) -> float:
    """How much `word` is built like a Korean full name: 2 like 홍길동, about 0 by its surname alone, −3 not at all."""
    if word[:2] in COMPOUND_SURNAMES and len(word) in (3, 4):
        fits = len(word) == 3 or given(word[2:])
        return 1.8 if fits and (len(word) == 4 or word[2] in words("second_syllables")) else 0.5
    if len(word) == 3 and word[0] in SURNAMES:
        fits = given(word[1:])
        if common(word[0]):
            return 2.0 if fits else 0.7 if word[0] in _COMMONEST else 0.2
        return 0.8 if fits else -0.3
    if len(word) == 2 and common(word[0]):
        return 0.3 if word[0] in _COMMONEST else -0.4
    return -3.0
