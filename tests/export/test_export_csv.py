"""What a run says of its rows, as a sheet."""

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
    assert sheet["p_1"].to_pylist() == said["p_1"].to_pylist()
    assert sheet["neighbors"].to_pylist() == ["; ".join(names) for names in said["neighbors"].to_pylist()]
