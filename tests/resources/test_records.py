"""Each asset's result is kept as JSON, by partition."""

import pytest

from llmops_assets.records.datasets import SplitsRecord
from resources.records import Records

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
