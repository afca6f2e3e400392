"""Measures the datasets stage against what one would use otherwise, on made rows: `python -m benchmarks.datasets WHAT`.

WHAT is `ingest`, `edit` or `pii`; near duplicates are in `benchmarks.duplicates`. Figures are CPU time of this process:
compare those of one run only.
"""

import argparse
import json
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
from upath import UPath

from llmops_assets.datasets.quality import personal_data
from llmops_assets.datasets.reading.ingest import ingest
from llmops_assets.privacy import masking, pii
from resources.dataset_store import DatasetStore

WORDS_TEXT = """
통행료 고속도로 영업소 휴게소 하이패스 단말기 카드 환불 납부 고지서 미납 정산 구간 요금 할인 감면 등록 변경 해지
확인 조회 안내 문의 접수 처리 기간 서류 신청 방문 전화 누리집 결제 차량 차로 진입 진출 나들목 분기점 터널 교량
사고 정체 우회 견인 갓길 속도 단속 과태료 분실물 보관 주유소 충전소 화장실 식당 주차 노선 지점 방향 시간 주말
평일 오전 오후 the toll road card refund office please check with your receipt and the number of lane at service
area before noon we will answer within three days
"""
WORDS = WORDS_TEXT.split()


def sentence(rng: random.Random, length: int) -> str:
    return " ".join(rng.choices(WORDS, k=length)) + "."


def personal(rng: random.Random) -> str:
    return rng.choice(
        (
            f"연락처는 010-{rng.randrange(1000, 9999)}-{rng.randrange(1000, 9999)}입니다.",
            f"메일은 user{rng.randrange(9999)}@example.com입니다.",
            f"주민등록번호는 {rng.randrange(60, 99)}0{rng.randrange(1, 9)}15-1{rng.randrange(10**5, 10**6)}입니다.",
            f"차량은 {rng.randrange(100, 699)}가 {rng.randrange(1000, 9999)}입니다.",
        )
    )


def write_chats(path: Path, size: int, seed: int = 0) -> int:
    """Chat rows of about 1.2 kB as JSON lines until the file has `size` bytes; how many there are."""
    rng, rows, written = random.Random(seed), 0, 0
    with path.open("w", encoding="utf-8") as file:
        while written < size:
            asked = sentence(rng, 25) + (" " + personal(rng) if rng.random() < 0.05 else "")
            row = {
                "messages": [
                    {"role": "user", "content": asked},
                    {"role": "assistant", "content": " ".join(sentence(rng, 20) for _ in range(4))},
                ],
                "metadata": {"category": rng.choice("abcdefg"), "source": "made", "id": rows},
            }
            written += file.write(json.dumps(row, ensure_ascii=False) + "\n") * 2
            rows += 1
    return rows


class Clock:
    """Prints CPU seconds since it was made or last asked."""

    def __init__(self) -> None:
        self.at = time.process_time()

    def __call__(self, label: str, count: int | None = None) -> float:
        spent = time.process_time() - self.at
        rate = f"  {count / spent:12,.0f}/s" if count else ""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{label:<58} {spent:8.2f} CPU-s{rate}  peak {peak:,.0f} MB", flush=True)
        self.at = time.process_time()
        return spent


def bench_ingest(folder: Path, megabytes: int) -> None:
    """Decode, check, mask by pattern and store a JSONL file; the asset `dataset` and the pattern part of cleaning."""
    path = folder / "chats.jsonl"
    rows = write_chats(path, megabytes * 10**6)
    print(f"{rows:,} rows, {path.stat().st_size / 1e6:,.0f} MB")
    clock = Clock()
    batches = [batch.rows for batch in ingest([("chats.jsonl", UPath(path))], "sft_pair")]
    clock("ingest: strict decode, rules, row ids", rows)
    masked = [personal_data.mask_rows(batch, "sft_pair", pii.PATTERNS_ONLY) for batch in batches]
    clock("mask by pattern", rows)
    store = DatasetStore(folder / "store")
    identity = {"kind": "rows", "dataset": "bench@v1", "step": "dataset", "config_hash": "0"}
    version = store.write((batch.frame for batch in masked), **identity)
    clock("store", rows)
    store.read(version)
    clock("read back, verified", rows)


def bench_edit(folder: Path, megabytes: int) -> None:
    """New bytes that one changed row costs."""
    path = folder / "chats.jsonl"
    write_chats(path, megabytes * 10**6)
    frame = pl.concat([batch.rows for batch in ingest([("chats.jsonl", UPath(path))], "sft_pair")])
    store = DatasetStore(folder / "store")
    identity = {"kind": "rows", "dataset": "bench@v1", "step": "dataset", "config_hash": "0"}
    before = store.manifest(store.write(frame, **identity))
    at = frame.height // 2
    changed = frame[at].with_columns(row_id=pl.lit("0123456789abcdef"))
    after = store.manifest(store.write(pl.concat([frame[:at], changed, frame[at + 1 :]]), **identity))
    known = {chunk.sha256 for chunk in before.chunks}
    new = sum(chunk.bytes for chunk in after.chunks if chunk.sha256 not in known)
    total = sum(chunk.bytes for chunk in after.chunks)
    print(
        f"{len(after.chunks)} chunks, {total / 1e6:.1f} MB; one row changed: {new / 1e6:.2f} MB new ({new / total:.2%})"
    )


def families(count: int, seed: int = 0) -> Iterator[str]:
    """Documents of about 1 kB, a fifth of them edited copies of the one before."""
    rng, last = random.Random(seed), ""
    for number in range(count):
        if number % 5 == 4:
            text = list(last)
            for _ in range(rng.randrange(1, 14)):
                text[rng.randrange(len(text))] = rng.choice("가나다라마")
            yield "".join(text)
        else:
            last = " ".join(sentence(rng, 20) for _ in range(5))
            yield last


def bench_pii(count: int) -> None:
    """Patterns over a column, against the same patterns on every text, and in presidio."""
    from llmops_assets.privacy import recognizers

    rng = random.Random(0)
    values = [sentence(rng, 25) + (" " + personal(rng) if rng.random() < 0.05 else "") for _ in range(count)]
    engine = recognizers.analyzer(with_names=False)
    clock = Clock()
    spans = pii.find(pl.Series(values))
    ours = clock("pii.find (prefilter, then re)", count)
    alone = [masking.find(text) for text in values]
    clock("masking.find, text by text", count)
    few = values[: max(1, count // 20)]
    for text in few:
        recognizers.find(engine, text)
    theirs = clock("presidio with the same patterns (a twentieth)", len(few)) * count / len(few)
    print(f"spans: {spans.height:,} and {sum(map(len, alone)):,}; ratio to presidio: {theirs / ours:.0f}×")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["ingest", "edit", "pii"])
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--documents", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.what == "ingest":
            bench_ingest(folder, options.megabytes)
        elif options.what == "edit":
            bench_edit(folder, options.megabytes)
        else:
            bench_pii(options.documents)


if __name__ == "__main__":
    main()
