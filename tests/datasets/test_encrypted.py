"""With a key, no row lies readable anywhere below the artifact root, and everything works as without one."""

import gzip
import io
import json
import zlib
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
import zstandard

from llmops_assets.datasets.versions.register import register
from llmops_assets.records.datasets import DatasetRecord, SplitsRecord
from llmops_assets.specs.dataset import DatasetSpec
from llmops_assets.specs.policy import load_policy
from resources import at_rest
from resources.artifacts import Artifacts
from resources.catalog import Catalog
from resources.dataset_store import DatasetStore
from resources.encryption import NO_KEYS, EncryptionError, Keyring, new_key
from resources.records import Records
from tests.datasets.test_graph import materialise, rows

PLANTED = "아무도 읽지 못할 문장 quokka-7731"


def house(root: Path, keys: Keyring) -> dict:
    artifacts = Artifacts(root / "artifacts", keys)
    return {
        "artifacts": artifacts,
        "store": DatasetStore(artifacts.upath("datasets"), keys),
        "records": Records(root / "records", keys),
        "catalog": Catalog(f"sqlite:///{root / 'catalog.db'}"),
        "policy": load_policy(),
    }


def fill(platform: dict, source: Path) -> str:
    made = rows(80)
    made[3]["messages"][1]["content"] += f" {PLANTED}"
    lines = [json.dumps(row, ensure_ascii=False) for row in made]
    lines[7] = lines[7][:40] + PLANTED
    source.write_text("\n".join(lines), encoding="utf-8")
    spec = DatasetSpec.model_validate(
        {"name": "desk", "version": "v1", "type": "sft_pair", "schema_ref": "sft_pair@1", "files": [str(source)],
         "owner": "data", "description": "made for a test"}
    )  # fmt: skip
    handed = {name: platform[name] for name in ("artifacts", "catalog", "policy")}
    register(spec, [source], **handed, actor="test")
    with dg.DagsterInstance.ephemeral() as instance:
        done = materialise(platform, spec.key, instance)
        assert done.success, [e.message for e in done.all_events if e.is_failure]
    return spec.key


@pytest.fixture(scope="module")
def sealed(tmp_path_factory) -> tuple[Path, Keyring, str]:
    root = tmp_path_factory.mktemp("sealed")
    keys = Keyring.parse(new_key())
    return root, keys, fill(house(root, keys), tmp_path_factory.mktemp("source") / "rows.jsonl")


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> tuple[Path, dict]:
    root = tmp_path_factory.mktemp("plain")
    platform = house(root, NO_KEYS)
    fill(platform, tmp_path_factory.mktemp("source") / "rows.jsonl")
    return root, platform


def readings(data: bytes) -> list[bytes]:
    """The bytes as they are, and what the usual readers make of them."""

    def parquet(raw: bytes) -> bytes:
        return json.dumps(pl.read_parquet(io.BytesIO(raw)).to_dicts(), ensure_ascii=False, default=str).encode()

    found = [data]
    for read in (gzip.decompress, zlib.decompress, lambda raw: zstandard.decompress(raw, 2**24), parquet):
        try:
            found.append(read(data))
        except Exception:  # noqa: BLE001  any refusal will do: the file is not of that kind
            continue
    return found


def reveals(root: Path) -> list[str]:
    needles = [PLANTED.encode(), json.dumps(PLANTED)[1:-1].encode(), "통행료 안내입니다".encode()]
    files = [path for part in ("artifacts", "records") for path in (root / part).rglob("*") if path.is_file()]
    assert len(files) > 10
    return [
        str(path.relative_to(root))
        for path in files
        if any(needle in text for text in readings(path.read_bytes()) for needle in needles)
    ]


def test_no_sentence_is_left_readable_from_ingest_to_splits(sealed, plain):
    assert reveals(sealed[0]) == []
    # The same search finds all of it where there is no key, so it would have found it here.
    assert {name.split("/")[1] for name in reveals(plain[0])} >= {"uploads", "datasets"}


def test_a_key_changes_no_version(sealed, plain):
    root, keys, key = sealed
    assert house(root, keys)["records"].load(SplitsRecord, key) == plain[1]["records"].load(SplitsRecord, key)


def test_another_key_or_none_is_told_and_a_flipped_byte_is_found(sealed):
    root, keys, key = sealed
    for other in (NO_KEYS, Keyring.parse(new_key())):
        with pytest.raises(EncryptionError, match=f"sealed with key {keys.ids[0]}"):
            house(root, other)["records"].load(DatasetRecord, key)
    platform = house(root, keys)
    manifest = platform["records"].load(DatasetRecord, key).manifest
    for other in (NO_KEYS, Keyring.parse(new_key())):
        with pytest.raises(EncryptionError, match="sealed with key"):
            DatasetStore(platform["store"].root, other).read(manifest)
    chunk = root / "artifacts/datasets/chunks"
    path = next(p for p in chunk.rglob("*.parquet") if platform["store"].manifest(manifest).chunks[0].sha256 in p.name)
    good = path.read_bytes()
    path.write_bytes(good[:90] + bytes([good[90] ^ 4]) + good[91:])
    with pytest.raises(EncryptionError, match="altered"):
        platform["store"].read(manifest)
    path.write_bytes(good)


def test_a_store_that_was_plain_is_sealed_and_changes_keys_also_when_cut_off(tmp_path, monkeypatch):
    first, second = Keyring.parse(new_key()), Keyring.parse(new_key())
    both = Keyring.parse(",".join(k.environment()["LLMOPS_ENCRYPTION_KEY"] for k in (second, first)))
    frame = pl.DataFrame({"row_id": [f"{i:016x}" for i in range(40)], "text": [PLANTED] * 40})

    def write(keys: Keyring, version: str) -> str:
        platform = house(tmp_path, keys)
        platform["artifacts"].write_text(f"<p>{PLANTED}</p>", "reports", version, "quality.html")
        names = {"kind": "rows", "dataset": f"desk@{version}", "step": "dataset", "config_hash": "0"}
        return platform["store"].write(frame.with_columns(pl.col("row_id") + version), **names)

    versions = [write(NO_KEYS, "v1"), write(first, "v2")]
    (tmp_path / "artifacts" / "models" / "sft" / "a" / "b" / "adapter").mkdir(parents=True)
    weights = tmp_path / "artifacts" / "models" / "sft" / "a" / "b" / "adapter" / "x.safetensors"
    weights.write_bytes(b"weights")

    def counts(keys: Keyring) -> dict[str, int]:
        platform = house(tmp_path, keys)
        return at_rest.status(platform["artifacts"], platform["records"])

    def change(keys: Keyring) -> at_rest.Resealed:
        platform = house(tmp_path, keys)
        return at_rest.reseal(platform["artifacts"], platform["records"], keys)

    assert counts(first) == {"plain": 2, first.ids[0]: 2}
    # Old rows that were never sealed are read beside sealed ones.
    assert [house(tmp_path, first)["store"].read(v).height for v in versions] == [40, 40]
    with pytest.raises(EncryptionError, match="not here: give it behind the new one"):
        change(second)
    with pytest.raises(EncryptionError, match="no key to seal with"):
        change(NO_KEYS)

    real, calls = at_rest._change, []

    def dies(path, keys):
        calls.append(path)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(path, keys)

    monkeypatch.setattr(at_rest, "_change", dies)
    with pytest.raises(KeyboardInterrupt):
        change(both)
    monkeypatch.undo()
    # Between the two keys everything is read with both.
    assert [house(tmp_path, both)["store"].read(v).height for v in versions] == [40, 40]
    done = change(both)
    assert done.kept == 2 and done.sealed + done.changed == 2
    assert counts(second) == {second.ids[0]: 4}
    assert [house(tmp_path, second)["store"].read(v).height for v in versions] == [40, 40]
    assert house(tmp_path, second)["artifacts"].read_text("reports", "v1", "quality.html") == f"<p>{PLANTED}</p>"
    assert not any(PLANTED.encode() in p.read_bytes() for p in (tmp_path / "artifacts").rglob("*") if p.is_file())
    assert weights.read_bytes() == b"weights"
