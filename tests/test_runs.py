"""Run folders: whole files or none, what a hash covers, what a history holds."""

import json
import math
import pickle
from pathlib import Path

import numpy as np
import pytest

from vac_lightning.configurations import config_difference, config_hash
from vac_lightning.runs import Run, find_runs, read_predictions, row_name, run_dir, versions, write_atomically

CONFIG = {
    "lambda": 1.0,
    "seed": 0,
    "backbone": {"name": "resnet50", "weights": None},
    "small_sizes": [192],
    "callbacks": {"checkpoint": {"dirpath": "/runs/demo/R50/seed=0/checkpoints"}, "paths": ["/runs/demo/R50/seed=0"]},
    "run_dir": "/runs/demo/R50/seed=0",
    "runs_dir": "/runs",
    "experiment": "demo",
    "row": "R50",
    "num_workers": 4,
    "logger": {"project": "x"},
}


def test_a_failed_write_leaves_the_old_file_whole(tmp_path: Path):
    path = tmp_path / "deep" / "results.json"
    write_atomically(path, lambda file: file.write(b"old"))

    def fail(file) -> None:
        file.write(b"half of the ne")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_bytes() == b"old"
    assert [file.name for file in path.parent.iterdir()] == ["results.json"]
    write_atomically(path, lambda file: file.write(b"new"))
    assert path.read_bytes() == b"new"


def test_a_half_written_file_is_never_under_its_name(tmp_path: Path):
    path = tmp_path / "results.json"
    write_atomically(
        path, lambda file: (file.write(b"x"), file.flush(), pytest.fail("seen") if path.exists() else None)
    )
    assert path.read_bytes() == b"x"


def test_results_without_a_value_are_null(tmp_path: Path):
    run = Run(tmp_path)
    assert not run.finished
    values = {"mAP": np.float64(71.5), "AP": [math.nan, 3, {"x": math.inf}], 7: "seven"}
    run.write_results(values)
    assert run.finished
    assert run.results() == {"mAP": 71.5, "AP": [None, 3, {"x": None}], "7": "seven"}
    with pytest.raises(TypeError):
        run.write_results({"mAP": object()})
    assert run.results()["mAP"] == 71.5


def test_an_unfinished_run_has_no_results(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        Run(tmp_path).results()


def test_predictions_come_back_as_they_were(tmp_path: Path):
    run = Run(tmp_path)
    arrays = {
        "index": np.arange(3),
        "logits": np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32),
        "targets": np.array([[1, 0], [-1, 1], [0, 0]], np.int8),
    }
    run.write_predictions(**arrays)
    for name, array in run.predictions().items():
        np.testing.assert_array_equal(array, arrays.pop(name), strict=True)
    assert not arrays


ARRAYS = {"index": np.arange(3), "logits": np.zeros((3, 2), np.float32), "targets": np.zeros((3, 2), np.int8)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": None}, "has no logits; expected index, logits, targets"),
        ({"targets": np.zeros((2, 2), np.int8)}, r"targets int8 \(2, 2\): expected numbers"),
        ({"logits": np.zeros(3), "targets": np.zeros(3)}, r"logits float64 \(3,\)"),
        ({"index": np.arange(4)}, r"index int64 \(4,\)"),
        ({"index": np.zeros(3)}, r"index float64 \(3,\)"),
        ({"logits": np.full((3, 2), "high")}, r"logits <U4 \(3, 2\)"),
        ({"index": np.array([4, 7, 4])}, "index 4 comes more than once"),
        ({"targets": np.array([[1, None]] * 3, object)}, "damaged or holds objects"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(tmp_path: Path, change: dict, message: str):
    arrays = {name: array for name, array in {**ARRAYS, **change}.items() if array is not None}
    np.savez_compressed(tmp_path / "p.npz", **arrays)
    with pytest.raises(ValueError, match=message) as error:
        read_predictions(tmp_path / "p.npz")
    assert str(tmp_path / "p.npz") in str(error.value)


class _Taken:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {**ARRAYS, "index": np.array([x, x, x], object)}])
def test_predictions_that_carry_code_are_not_run(tmp_path: Path, wrap):
    content = wrap(_Taken(tmp_path / "taken"))
    path = tmp_path / "p.npz"
    if isinstance(content, dict):
        np.savez(path, **content)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match="and was not loaded"):
        read_predictions(path)
    assert not (tmp_path / "taken").exists()


def test_damaged_predictions_are_refused_or_read_as_they_were(tmp_path: Path):
    path = tmp_path / "p.npz"
    np.savez_compressed(path, **ARRAYS)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [whole[:length] for length in range(0, len(whole), 17)]
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << rng.integers(8)
        damaged.append(bytes(flipped))
    for content in damaged:
        path.write_bytes(content)
        try:
            found = read_predictions(path)
        except ValueError:
            continue
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(found[name], array)
    np.save(tmp_path / "p.npy", ARRAYS["logits"])
    with pytest.raises(ValueError, match="damaged or holds objects"):
        read_predictions(tmp_path / "p.npy")
    with pytest.raises(FileNotFoundError, match=r"none\.npz is missing"):
        read_predictions(tmp_path / "none.npz")


def test_find_runs(tmp_path: Path):
    for name in ("b/seed=1", "a/seed=0", "b/seed=0"):
        Run(tmp_path / name).write_results({})
    (tmp_path / "c" / "seed=0" / "checkpoints").mkdir(parents=True)
    assert find_runs([tmp_path / "b", str(tmp_path), tmp_path / "a" / "seed=0"]) == [
        Run(tmp_path / name) for name in ("a/seed=0", "b/seed=0", "b/seed=1")
    ]
    with pytest.raises(FileNotFoundError, match="c has no finished run"):
        find_runs([tmp_path, tmp_path / "c"])
    with pytest.raises(FileNotFoundError, match="d does not exist"):
        find_runs([tmp_path / "d"])


def test_rows_are_named_as_in_the_paper():
    rows = {
        ("none", 1.0): "R50",
        ("none", 0.0): "R50",
        ("f", 0.0): "R50+f",
        ("f", 1.0): "R50+ACf",
        ("fs", 1): "R50+ACfs",
        ("fs", 0.5): "R50+ACfs_lambda=0.5",
        ("f", 0.0, "a/b"): "R50+f_a-b",
    }
    assert {key: row_name("R50", *key) for key in rows} == rows


def test_a_run_lies_where_its_words_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert run_dir("runs", "table1", "R50+ACfs", 3) == str(tmp_path / "runs" / "table1" / "R50+ACfs" / "seed=3")
    assert run_dir("/elsewhere", "demo", "Tiny", 0) == "/elsewhere/demo/Tiny/seed=0"


def elsewhere(place: str) -> dict:
    return json.loads(json.dumps(CONFIG).replace("/runs/demo/R50/seed=0", place)) | {"runs_dir": "/other"}


def test_the_hash_covers_what_determines_a_result():
    once = config_hash(CONFIG)
    assert len(once) == 16
    same = [
        dict(reversed(CONFIG.items())),
        CONFIG | {"num_workers": 0, "logger": None, "experiment": "x", "row": "y", "variant": "z", "overwrite": True},
        CONFIG | {"attention": {"samples": 500}},
        elsewhere("/elsewhere/one"),
    ]
    different = [
        CONFIG | {"lambda": 0.5},
        CONFIG | {"seed": 1},
        CONFIG | {"backbone": {"name": "resnet50", "weights": "IMAGENET1K_V1"}},
        CONFIG | {"small_sizes": [192, 160]},
        CONFIG | {"callbacks": {}},
    ]
    assert {config_hash(config) for config in same} == {once}
    assert len({config_hash(config) for config in [CONFIG, *different]}) == 6


def test_the_name_of_a_run_folder_stands_for_itself_alone():
    """Not for every text that holds its letters."""
    hashes = set()
    for place in ("a", "b", "/runs/elsewhere"):
        moved = {"dirpath": f"{place}/checkpoints"}
        hashes.add(config_hash(CONFIG | {"run_dir": place, "callbacks": {"checkpoint": moved, "paths": [place]}}))
    assert hashes == {config_hash(CONFIG)}


def test_a_raw_cache_changes_no_number_and_a_jpeg_cache_does():
    plain = CONFIG | {"data": {"root": "/data", "cache": False, "cache_format": "raw", "cache_dir": None}}
    changes = [{"cache": True}, {"cache_dir": "/scratch"}, {"cache_format": "jpeg"}, {"cache": True, "cache_dir": "/x"}]
    assert {config_hash(plain | {"data": plain["data"] | change}) for change in changes} == {config_hash(plain)}
    jpeg = plain | {"data": plain["data"] | {"cache": True, "cache_format": "jpeg"}}
    assert config_hash(jpeg) != config_hash(plain)
    assert config_difference(plain, jpeg) == ["data.cache_format: (not set) -> jpeg"]
    own = CONFIG | {"data": {"root": "/data", "cache": "words of another's data set"}}
    assert config_hash(own) != config_hash(CONFIG | {"data": {"root": "/data"}})


def test_config_difference_names_words_and_both_values():
    new = elsewhere("/elsewhere/one") | {"lambda": 0.5, "backbone": {"name": "resnet18"}, "ema": {"decay": 0.9}}
    assert config_difference(CONFIG, new) == [
        "backbone.name: resnet50 -> resnet18",
        "backbone.weights: None -> (not set)",
        "ema.decay: (not set) -> 0.9",
        "lambda: 1.0 -> 0.5",
    ]
    assert config_difference(CONFIG, elsewhere("/elsewhere/one")) == []


def test_history_gathers_an_epoch_from_its_rows(tmp_path: Path):
    (tmp_path / "metrics.csv").write_text(
        "epoch,step,train/loss,val/mAP,lr-SGD\n"
        "0,1,0.9,,\n"
        ",1,,,0.001\n"
        "0,3,,61.5,\n"
        "0,3,0.8,,\n"
        ",4,,,0.0005\n"
        "1,6,0.7,62.5,\n"
    )
    assert Run(tmp_path).history() == {
        0: {"step": 3, "train/loss": 0.8, "val/mAP": 61.5, "lr-SGD": 0.001},
        1: {"step": 6, "train/loss": 0.7, "val/mAP": 62.5, "lr-SGD": 0.0005},
    }
    assert Run(tmp_path / "none").history() == {}


def test_versions_name_what_is_there():
    found = versions()
    assert found["numpy"] == np.__version__
    assert all(found.values())


def test_one_process_at_a_time_is_let_into_a_run_folder(tmp_path: Path):
    run = Run(tmp_path / "run")
    with run.alone(seconds=0):
        with pytest.raises(BlockingIOError), run.alone(seconds=0):
            pytest.fail("let in")
        with pytest.raises(BlockingIOError), Run(tmp_path / "run").alone(seconds=0.3):
            pytest.fail("let in after a while")
    with run.alone(seconds=0):
        assert [path.name for path in run.path.iterdir()] == [".lock"]
    assert not any(run.path.iterdir())


def test_no_augmentation_is_the_same_said_or_not() -> None:
    silent = {"data": {"root": "a"}}
    none, some = ({"data": {"root": "a", "augmentation": value}} for value in (None, {"p": 1}))
    assert config_hash(silent) == config_hash(none) != config_hash(some)
    assert config_difference(silent, none) == []
