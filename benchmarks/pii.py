"""Patterns beside presidio with the same ones, and toxicity: `python -m benchmarks.pii [toxicity]`.

Made rows, one in twenty with personal data and as many with look-alikes. Prints texts per CPU-second of each way,
whether the spans are the same, and what presidio's own recognizers make of the same rows. `toxicity` prints what the
word list, and a model trained on four fifths of public data (UnSmile, not shipped), reach on it.
"""

import argparse
import csv
import logging
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.datasets import sentence
from llmops_assets.privacy import masking, pii, recognizers


def personal(rng: random.Random) -> str:
    """Something of each kind of personal data, with a particle behind it as people write."""
    digits = "".join(str(rng.randrange(10)) for _ in range(16))
    return rng.choice(
        (
            f"연락처는 010-{digits[:4]}-{digits[4:8]}입니다.",
            f"메일은 user{digits[:4]}@example.com으로 주세요.",
            f"주민등록번호는 {rng.randrange(60, 99)}0{rng.randrange(1, 9)}15-1{digits[:6]}입니다.",
            f"제 차는 {rng.randrange(100, 699)}가 {digits[:4]}예요.",
            f"국민은행 {digits[:6]}-{digits[6:8]}-{digits[8:14]}로 보내 주세요.",
            f"여권번호는 M{digits[:8]}입니다.",
            f"서울 강남구 테헤란로 {rng.randrange(1, 400)} 4층에 삽니다.",
            f"면허는 11-{digits[:2]}-{digits[2:8]}-{digits[8:10]}예요.",
        )
    )


def look_alike(rng: random.Random) -> str:
    """Figures that are nobody's."""
    digits = "".join(str(rng.randrange(10)) for _ in range(16))
    return rng.choice(
        (
            f"주문번호는 010-{digits[:4]}-{digits[4:8]}입니다.",
            f"승인 시각 2026{rng.randrange(10, 13)}15{rng.randrange(10, 24)}{rng.randrange(10, 60)}01에 통과했어요.",
            f"통행료 {rng.randrange(1, 90)},{digits[:3]}원이 나왔어요.",
            f"경부선 {rng.randrange(10, 400)}km 지점입니다.",
        )
    )


def rows(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    made = []
    for number in range(count):
        more = personal(rng) if number % 20 == 3 else look_alike(rng) if number % 20 == 11 else ""
        made.append(f"{sentence(rng, 25)} {more}".rstrip())
    return made


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.process_time()
    return work(), time.process_time() - started


def plain_presidio() -> Callable[[str], list[Any]]:
    """presidio with its own recognizers for Korea and its general ones, and no language model."""
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
    from presidio_analyzer import predefined_recognizers as own
    from presidio_analyzer.nlp_engine.no_op_nlp_engine import NoOpNlpEngine

    # The e-mail recognizer asks the network for a list of domains, and says so at length where there is none.
    logging.getLogger("tldextract").setLevel(logging.CRITICAL)
    kinds = [own.KrRrnRecognizer, own.KrBrnRecognizer, own.KrDriverLicenseRecognizer, own.KrPassportRecognizer]
    kinds += [own.EmailRecognizer, own.CreditCardRecognizer, own.IbanRecognizer, own.IpRecognizer]
    found = [kind(supported_language="ko") for kind in kinds]
    found.append(own.PhoneRecognizer(supported_language="ko", supported_regions=("KR",)))
    engine = NoOpNlpEngine([{"lang_code": "ko", "model_name": ""}])
    engine.load()
    analyzer = AnalyzerEngine(RecognizerRegistry(found, supported_languages=["ko"]), engine, supported_languages=["ko"])
    return lambda text: analyzer.analyze(text, language="ko")


def bench_patterns(count: int) -> None:
    values = rows(count)
    few = values[: max(200, count // 20)]
    engine = recognizers.analyzer(with_names=False)
    pii.find(pl.Series(values[:1000]))
    for text in few[:50]:
        recognizers.find(engine, text)
    spans, ours = timed(lambda: pii.find(pl.Series(values)))
    alone, single = timed(lambda: [masking.find(text) for text in values])
    same, theirs = timed(lambda: [recognizers.find(engine, text) for text in few])
    presidio = plain_presidio()
    plain, plainly = timed(lambda: [presidio(text) for text in few])
    lines = [
        ("pii.find: prefilter, then re", count / ours),
        ("the same patterns, text by text", count / single),
        ("the same patterns in presidio", len(few) / theirs),
        ("presidio's own recognizers", len(few) / plainly),
    ]
    for name, rate in lines:
        print(f"{name:34} {rate:12,.0f} texts/CPU-s   {lines[0][1] / rate:6.1f}×")
    by_column = list(spans.filter(pl.col("text") < len(few)).select("text", "start", "end", "type").iter_rows())
    by_presidio = [(n, s.start, s.end, s.type) for n, found in enumerate(same) for s in found]
    by_text = [(n, s.start, s.end, s.type) for n, found in enumerate(alone) for s in found]
    everywhere = list(spans.select("text", "start", "end", "type").iter_rows())
    print(f"spans: {spans.height:,}; the same text by text: {everywhere == by_text}", end="")
    print(f", in presidio: {by_column == by_presidio}")
    with_data = [n for n in range(len(few)) if n % 20 == 3]
    alike = [n for n in range(len(few)) if n % 20 == 11]
    for name, found in (("ours", same), ("presidio's own", plain)):
        hits, wrong = sum(bool(found[n]) for n in with_data), sum(bool(found[n]) for n in alike)
        print(f"{name:15} personal data found in {hits:,} of {len(with_data):,} rows, in look-alikes {wrong:,}")


def bench_toxicity(data: Path) -> None:
    from llmops_assets.toxicity.linear import train
    from llmops_assets.toxicity.scorers import Lexicon

    with (data / "unsmile" / "unsmile_train_v1.0.tsv").open(encoding="utf-8") as file:
        table = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    texts = [row["문장"] for row in table]
    toxic = [row["clean"] == "0" for row in table]
    flagged, listed = timed(lambda: (Lexicon().groups(pl.Series(texts)).list.len() > 0).to_list())
    right = sum(a and b for a, b in zip(flagged, toxic, strict=True))
    rate = len(texts) / listed
    print(f"lexicon: precision {right / sum(flagged):.3f}, recall {right / sum(toxic):.3f}, {rate:,.0f} texts/CPU-s")
    (model, judged), spent = timed(lambda: train(texts, toxic, threshold=0.5))
    print(f"linear, {judged.texts:,} held out: {judged}; trained in {spent:.1f} CPU-s")
    _, spent = timed(lambda: model.groups(pl.Series(texts)))
    print(f"linear judges {len(texts) / spent:,.0f} texts/CPU-s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="?", choices=["patterns", "toxicity"], default="patterns")
    parser.add_argument("--texts", type=int, default=40_000)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("LLMOPS_TEST_DATA", "../shared/data")))
    options = parser.parse_args()
    if options.what == "toxicity":
        bench_toxicity(options.data)
    else:
        bench_patterns(options.texts)


if __name__ == "__main__":
    main()
