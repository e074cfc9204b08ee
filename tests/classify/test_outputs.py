"""What a run says of each image, as files."""

import numpy as np
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from fewlabels.classify import outputs
from fewlabels.classify.outputs import write_table
from fewlabels.errors import UserError

PARTS = [{"path": [f"{k}.png", "=b"], "p": np.array([k, 0.5], np.float32)} for k in range(5)]


@pytest.mark.parametrize("group", [1, 4, 100])
def test_parts_are_written_as_one_table_in_groups(tmp_path, monkeypatch, group):
    monkeypatch.setattr(outputs, "GROUP", group)
    write_table(tmp_path / "a.parquet", iter(PARTS))
    write_table(tmp_path / "a.csv", iter(PARTS))
    table = pq.read_table(tmp_path / "a.parquet")
    assert table["path"].to_pylist() == [name for part in PARTS for name in part["path"]]
    assert pq.ParquetFile(tmp_path / "a.parquet").num_row_groups == {1: 5, 4: 3, 100: 1}[group]
    text = pa_csv.read_csv(tmp_path / "a.csv")
    assert text["path"].to_pylist()[:3] == ["0.png", "'=b", "1.png"]
    assert text["p"].to_pylist() == table["p"].to_pylist()


def test_what_fails_on_the_way_leaves_no_file(tmp_path):
    def parts():
        yield PARTS[0]
        raise UserError("no more")

    with pytest.raises(UserError, match="no more"):
        write_table(tmp_path / "a.csv", parts())
    assert not list(tmp_path.iterdir())
