"""Metrics against scikit-learn, and the same numbers whatever batches and processes bring them."""

import warnings
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import average_precision_score, balanced_accuracy_score, precision_recall_fscore_support
from torch import Tensor

from vac_lightning.metrics import SUMMARY, MultilabelEvaluation, evaluate


def case(seed: int = 0, n: int = 40, labels: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Logits with ties, targets of 1, 0 and -1 with a positive sample of every label."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(-1, 2, (n, labels)).astype(np.int8)
    targets[rng.integers(n, size=labels), np.arange(labels)] = 1
    return rng.normal(size=(n, labels)).round(1).astype(np.float32), targets


def binary(truth: np.ndarray, predicted: np.ndarray) -> tuple[float, ...]:
    """Precision, recall and F1 of one set of decisions."""
    return precision_recall_fscore_support(truth, predicted, average="binary", zero_division=0)[:3]


def scikit(logits: np.ndarray, targets: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """The same metrics by scikit-learn, over the labels that have a positive sample."""
    truth = targets == 1
    kept = [j for j in range(targets.shape[1]) if truth[:, j].any()]
    ap = {}
    for j in range(targets.shape[1]):
        known = targets[:, j] != -1
        ap[j] = average_precision_score(truth[known, j], logits[known, j]) if j in kept else np.nan
    macro = np.mean([binary(truth[:, j], predicted[:, j]) for j in kept], axis=0)
    micro = binary(truth.ravel(), predicted.ravel())
    values = {
        "mAP": np.mean([ap[j] for j in kept]),
        "mA": np.mean([balanced_accuracy_score(truth[:, j], logits[:, j] > 0) for j in kept]),
        **dict(zip(("P-C", "R-C", "F1-C"), macro, strict=True)),
        **dict(zip(("P-O", "R-O", "F1-O"), micro, strict=True)),
        **{f"AP/{j}": value for j, value in ap.items()},
    }
    return {key: 100 * float(value) for key, value in values.items()}


def assert_same(values: dict[str, float], expected: dict[str, float]) -> None:
    assert values.keys() == expected.keys()
    np.testing.assert_allclose([values[key] for key in expected], list(expected.values()), rtol=1e-10)


@st.composite
def predictions(draw) -> tuple[np.ndarray, np.ndarray]:
    shape = draw(st.tuples(st.integers(1, 12), st.integers(1, 4)))
    logits = draw(arrays(np.float32, shape, elements=st.sampled_from([-2.5, -1, -0.0, 0, 0.5, 1, 7])))
    targets = draw(arrays(np.int8, shape, elements=st.sampled_from([-1, 0, 1])))
    targets[draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))] = 1
    return logits, targets


@settings(max_examples=120, deadline=None)
@given(predictions())
def test_evaluate_equals_scikit_learn(prediction):
    logits, targets = prediction
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_same(evaluate(logits, targets), scikit(logits, targets, logits > 0))


@pytest.mark.parametrize("top_k", [1, 3, 6])
def test_top_k_predicts_the_highest_labels_of_each_sample(top_k):
    logits, targets = case()
    predicted = np.zeros(logits.shape, bool)
    for i, row in enumerate(logits):
        for j in sorted(range(len(row)), key=lambda j: (-row[j], j))[:top_k]:
            predicted[i, j] = True
    assert_same(evaluate(logits, targets, top_k=top_k), scikit(logits, targets, predicted))


def test_threshold_moves_the_decisions_but_not_the_ranking():
    logits, targets = case()
    values, at_one = evaluate(logits, targets), evaluate(logits, targets, threshold=1.0)
    expected = scikit(logits, targets, logits > 1)
    for key in ("P-C", "R-C", "F1-C", "P-O", "R-O", "F1-O", "mAP"):
        assert at_one[key] == pytest.approx(expected[key])
    assert at_one["mAP"] == values["mAP"]
    assert at_one["mA"] != values["mA"]


def test_arrays_and_tensors_alike():
    logits, targets = case()
    logits = logits.round()
    expected = evaluate(logits, targets)
    assert evaluate(torch.tensor(logits, requires_grad=True), torch.tensor(targets)) == expected
    assert evaluate(torch.tensor(logits).bfloat16(), torch.tensor(targets).long()) == expected
    assert evaluate((logits - logits.min()).astype(np.uint8), targets, threshold=float(-logits.min())) == expected


def test_overall_f1_is_the_harmonic_mean_of_overall_precision_and_recall():
    values = evaluate(*case())
    p, r = values["P-O"], values["R-O"]
    assert values["F1-O"] == pytest.approx(2 * p * r / (p + r))


def test_a_label_without_positives_is_left_out_and_named():
    logits, targets = case()
    kept = evaluate(np.delete(logits, 2, 1), np.delete(targets, 2, 1))
    targets[:, 2] = np.minimum(targets[:, 2], 0)
    with pytest.warns(UserWarning, match=r"no positive sample: labels \[2\]"):
        values = evaluate(logits, targets)
    assert np.isnan(values["AP/2"])
    for key in ("mAP", "mA", "F1-C", "P-C", "R-C"):
        assert values[key] == pytest.approx(kept[key])


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda x, y: (np.where(x == x[1, 2], np.nan, x), y), {}, r"logits\[.*\] = nan: metrics need finite"),
        (lambda x, y: (x * np.inf, y), {}, "metrics need finite"),
        (lambda x, y: (x, y + 1), {}, r"targets\[.*\] = 2: expected 1, 0 or -1"),
        (lambda x, y: (x[:0], y[:0]), {}, r"shape \(0, 6\)"),
        (lambda x, y: (x[:, 1:], y), {}, r"\(40, 5\) and targets of shape \(40, 6\)"),
        (lambda x, y: (x[0], y[0]), {}, r"expected \(N, L\) both"),
        (lambda x, y: (x, y), {"protocol": "voc"}, "protocol='voc': expected one of vac"),
        (lambda x, y: (x, y), {"top_k": 7}, "top_k=7: expected 1 to 6"),
        (lambda x, y: (x, y), {"top_k": 0}, "top_k=0: expected 1 to 6"),
    ],
)
def test_arguments_are_checked(change, options, message):
    with (
        np.errstate(invalid="ignore"),
        pytest.raises(ValueError, match=message),
    ):
        evaluate(*change(*case()), **options)


def tensors(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    logits, targets = case(seed, n=23)
    return torch.arange(23), torch.tensor(logits), torch.tensor(targets)


@pytest.mark.parametrize("top_k", [None, 3])
def test_shuffled_and_repeated_batches_are_one_evaluation(top_k):
    index, logits, targets = tensors()
    metric = MultilabelEvaluation(top_k=top_k)
    order = torch.randperm(23, generator=torch.Generator().manual_seed(0))
    for rows in (*order.split(4), order[:3], order[5:6]):
        metric.update(index[rows], logits[rows], targets[rows])
    assert metric.compute() == evaluate(logits, targets, top_k=top_k)
    metric.reset()
    metric.update(index[:9], logits[:9], targets[:9])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert metric.compute() == evaluate(logits[:9], targets[:9], top_k=top_k)


def _one_of_two(rank: int, folder: str) -> None:
    patience = timedelta(seconds=120)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2, timeout=patience)
    index, logits, targets = tensors()
    shards = {
        "padded": [*range(rank, 23, 2), *([0] if rank else [])],
        "overlapping": [*range(15)] if rank else [*range(22, 8, -1)],
        "uneven": [*range(3)] if rank else [*range(3, 23)],
    }
    metric = MultilabelEvaluation()
    results = {}
    for name, shard in shards.items():
        for rows in torch.tensor(shard).split(4):
            metric.update(index[rows], logits[rows], targets[rows])
        results[name] = metric.compute()
        with metric.sync_context():
            results[f"{name}_order"] = metric.predictions()[0].tolist()
        metric.reset()
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_give_the_numbers_of_one(tmp_path: Path):
    other = mp.spawn(_one_of_two, (str(tmp_path),), nprocs=1, join=False)
    _one_of_two(1, str(tmp_path))
    other.join()
    _, logits, targets = tensors()
    expected = evaluate(logits, targets)
    assert set(SUMMARY) < expected.keys()
    for rank in range(2):
        results = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name in ("padded", "overlapping", "uneven"):
            assert results[name] == expected
            assert results[f"{name}_order"] == list(range(23))
