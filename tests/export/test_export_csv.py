"""What a run says of its rows, as a sheet."""

import numpy as np
import pyarrow.csv
import pyarrow.parquet

from fewlabels.cli import main


def test_the_sheet_says_what_the_parquet_file_says(run, tmp_path, capsys):
    path = tmp_path / "said.csv"
    assert main(["export", str(run), "--csv", str(path)]) == 0
    assert "150 rows" in capsys.readouterr().out
    sheet, said = pyarrow.csv.read_csv(path), pyarrow.parquet.read_table(run / "predictions.parquet")
    assert sheet.column_names == said.column_names and len(sheet) == 150
    for name in ("path", "split", "source", "decision", "unknown"):
        assert list(map(str, sheet[name].to_pylist())) == list(map(str, said[name].to_pylist()))
    assert np.array_equal(sheet["p_1"].to_numpy().astype(np.float32), said["p_1"].to_numpy())
    numbers = [cell for cell in path.read_text().splitlines()[1].split(",") if cell.startswith("0.")]
    assert numbers and max(map(len, numbers)) < 16  # no float32 is written as a longer number
    assert sheet["neighbors"].to_pylist() == ["; ".join(names) for names in said["neighbors"].to_pylist()]
