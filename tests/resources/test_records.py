"""Each asset's result is kept as JSON, by partition."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from llmops_assets.records.datasets import SplitsRecord
from resources.records import RecordChanged, Records

SPLITS = SplitsRecord(
    dataset="desk@v1",
    type="sft_pair",
    manifests={"train": "m1"},
    rows={"train": 3},
    stratify_by="category",
    group_by=None,
    seed=0,
    data_hash="abc",
)


def test_a_record_comes_back_as_it_was_saved(tmp_path):
    records = Records(tmp_path)
    records.save("desk@v1", SPLITS)
    assert records.load(SplitsRecord, "desk@v1") == SPLITS
    assert records.all(SplitsRecord) == [SPLITS]


def test_a_missing_record_names_the_asset_and_the_partition(tmp_path):
    records = Records(tmp_path)
    assert records.find(SplitsRecord, "desk@v2") is None
    with pytest.raises(FileNotFoundError, match=r"'splits' has no result for partition 'desk@v2'"):
        records.load(SplitsRecord, "desk@v2")


def test_the_cell_of_a_training_has_a_folder_for_its_dataset(tmp_path):
    path = Records(tmp_path).save("desk@v1|tuned-01234567", SPLITS)
    assert path.relative_to(tmp_path).parts == ("splits", "desk@v1", "tuned-01234567.json")


@pytest.mark.parametrize("partition", ["../x", "a|../b", "", "a||b", "/etc/passwd"])
def test_no_partition_leads_out_of_the_folder(tmp_path, partition):
    with pytest.raises(ValueError, match="cannot be a partition key"):
        Records(tmp_path).save(partition, SPLITS)


def test_a_record_that_was_edited_exchanged_or_put_back_is_noticed_by_whoever_reads_it(catalog, tmp_path):
    records = Records(tmp_path / "records", digests=catalog.record_digests)
    other = SPLITS.model_copy(update={"dataset": "desk@v2"})
    first, second = records.save("desk@v1", SPLITS), records.save("desk@v2", other)
    assert records.load(SplitsRecord, "desk@v1") == SPLITS and len(records.all(SplitsRecord)) == 2
    good = first.read_bytes()
    told = r"the record of splits for desk@v1 is not what was written: .*Materialise splits of it again"
    for spoilt in (good.replace(b'"train": "m1"', b'"train": "m2"'), good + b" ", second.read_bytes()):
        first.write_bytes(spoilt)
        for read in (records.load, records.find, lambda kind, _partition: records.all(kind)):
            with pytest.raises(RecordChanged, match=told):
                read(SplitsRecord, "desk@v1")
    # What it was before the asset was materialised again is no longer what it is.
    records.save("desk@v1", SPLITS.model_copy(update={"seed": 1}))
    first.write_bytes(good)
    with pytest.raises(RecordChanged):
        records.load(SplitsRecord, "desk@v1")
    records.save("desk@v1", SPLITS)
    assert records.load(SplitsRecord, "desk@v1") == SPLITS


def test_a_record_of_an_earlier_release_opens_and_one_whose_writing_was_cut_off_is_either_of_two(catalog, tmp_path):
    Records(tmp_path / "records").save("desk@v1", SPLITS)
    records = Records(tmp_path / "records", digests=catalog.record_digests)
    assert records.load(SplitsRecord, "desk@v1") == SPLITS
    path = records.save("desk@v1", SPLITS)
    before = path.read_bytes()
    after = records.save("desk@v1", SPLITS.model_copy(update={"seed": 7})).read_bytes()
    records.save("desk@v1", SPLITS)
    # Killed before the file was written, and after it: both are known until the writing is done.
    catalog.record_digests.expect("splits/desk@v1", hashlib.sha256(after).hexdigest())
    for data, seed in ((before, 0), (after, 7)):
        path.write_bytes(data)
        assert records.load(SplitsRecord, "desk@v1").seed == seed


def test_records_that_are_written_and_read_at_once_are_never_taken_for_edited(catalog, tmp_path):
    records = Records(tmp_path / "records", digests=catalog.record_digests)
    records.save("desk@v1", SPLITS)

    def work(number: int) -> None:
        for seed in range(10):
            records.save("desk@v1", SPLITS.model_copy(update={"seed": 100 * number + seed}))
            assert records.load(SplitsRecord, "desk@v1").dataset == "desk@v1"

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, range(3)))
    assert len(catalog.record_digests.of("splits/desk@v1")) == 1
