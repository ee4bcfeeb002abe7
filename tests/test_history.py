"""metrics.csv: every row on the disk when it is logged, and an earlier attempt's rows kept where a run goes on."""

import csv
from pathlib import Path

import pytest

from vac_lightning.history import MetricsFile


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]


def test_a_row_is_on_the_disk_when_it_is_logged(tmp_path: Path):
    path = tmp_path / "metrics.csv"
    logger = MetricsFile(path)
    logger.log_metrics({"a": 1.5, "epoch": 0}, step=3)
    assert rows(path) == [{"a": "1.5", "epoch": "0", "step": "3"}]
    logger.log_metrics({'test/AP/a "b", c\nd': 0.1}, step=4)
    logger.log_metrics({"a": 2.0}, step=5)
    assert rows(path)[1:] == [{'test/AP/a "b", c\nd': "0.1", "step": "4"}, {"a": "2.0", "step": "5"}]
    assert logger.rows == 3


def test_numbers_come_back_to_the_last_bit(tmp_path: Path):
    path = tmp_path / "metrics.csv"
    values = [0.1 + 0.2, 1 / 3, 1e-300, 53.92627716064453]
    for number, value in enumerate(values):
        MetricsFile(path, keep=number).log_metrics({"a": value}, step=number)
    assert [float(row["a"]) for row in rows(path)] == values


@pytest.mark.parametrize("torn", ["", "7,0.", "\n", "8"])
def test_a_run_that_goes_on_keeps_the_rows_before_its_checkpoint(tmp_path: Path, torn: str):
    path = tmp_path / "metrics.csv"
    logger = MetricsFile(path)
    for step in range(4):
        logger.log_metrics({"a": step} if step < 3 else {"b": step}, step=step)
    with path.open("a") as file:
        file.write(torn)  # what a process killed while it wrote left of a row
    again = MetricsFile(path, keep=2)
    assert rows(path) == [{"a": "0.0", "step": "0"}, {"a": "1.0", "step": "1"}]
    again.log_metrics({"a": 9.0}, step=2)
    assert [row["step"] for row in rows(path)] == ["0", "1", "2"]


def test_a_run_that_starts_anew_has_none_of_an_earlier_file(tmp_path: Path):
    path = tmp_path / "metrics.csv"
    MetricsFile(path).log_metrics({"a": 1.0}, step=0)
    MetricsFile(path)
    assert not path.exists()


def test_rows_that_are_gone_are_said_to_be(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "metrics.csv"
    MetricsFile(path).log_metrics({"a": 1.0}, step=0)
    assert MetricsFile(path, keep=5).rows == 1
    assert "holds 1 of the 5 rows" in caplog.text
