"""Metrics against scikit-learn, and the same numbers whatever batches and processes bring them."""

import math
import warnings
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    precision_recall_curve,
    precision_recall_fscore_support,
)
from torch import Tensor

from vac_lightning.evaluation import MultilabelEvaluation
from vac_lightning.metrics import PROTOCOLS, SUMMARY, average_precision, evaluate


def case(seed: int = 0, n: int = 40, labels: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Logits with ties, targets of 1, 0 and -1 with a positive sample of every label."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(-1, 2, (n, labels)).astype(np.int8)
    targets[rng.integers(n, size=labels), np.arange(labels)] = 1
    return rng.normal(size=(n, labels)).round(1).astype(np.float32), targets


def scikit(logits: np.ndarray, targets: np.ndarray, predicted: np.ndarray, protocol: str = "vac") -> dict[str, float]:
    """The same metrics by scikit-learn."""
    truth = targets == 1
    every = range(targets.shape[1])
    ap = {}
    for j in every:
        known = targets[:, j] != -1
        ap[j] = np.nan
        if truth[:, j].any() and protocol != "srn":
            ap[j] = average_precision_score(truth[known, j], logits[known, j])
        elif truth[:, j].any():
            precision, recall, _ = precision_recall_curve(truth[known, j], logits[known, j])
            ap[j] = -np.sum(np.diff(recall) * np.maximum.accumulate(precision)[:-1])
    kept = [j for j in every if truth[:, j].any()]
    counted = every if protocol == "srn" else kept
    none = {"average": "binary", "zero_division": float(protocol == "srn")}
    labels = [precision_recall_fscore_support(truth[:, j], predicted[:, j], **none)[:3] for j in counted]
    macro = dict(zip(("P-C", "R-C", "F1-C"), np.mean(labels, axis=0), strict=True))
    if protocol == "csra":
        macro["F1-C"] = harmonic(macro["P-C"], macro["R-C"])
    micro = precision_recall_fscore_support(truth.ravel(), predicted.ravel(), **none)[:3]
    values = {
        "mAP": np.mean([ap[j] for j in kept]),
        "mA": np.mean([balanced_accuracy_score(truth[:, j], logits[:, j] > 0) for j in kept]),
        **macro,
        **dict(zip(("P-O", "R-O", "F1-O"), micro, strict=True)),
        **{f"AP/{j}": value for j, value in ap.items()},
    }
    return {key: 100 * float(value) for key, value in values.items()}


def harmonic(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def step_wise(scores: Sequence[float], positive: Sequence[bool]) -> float:
    """sum_n (R_n - R_n-1) P_n over the distinct scores, the highest first."""
    total, before = 0.0, 0.0
    for recall, precision in curve(scores, positive):
        total += (recall - before) * precision
        before = recall
    return total


def voc_2012(scores: Sequence[float], positive: Sequence[bool]) -> float:
    """sum_n (R_n - R_n-1) times the highest precision at recall R_n or above."""
    total, before = 0.0, 0.0
    points = curve(scores, positive)
    for recall, _ in points:
        total += (recall - before) * max(precision for at, precision in points if at >= recall)
        before = recall
    return total


def curve(scores: Sequence[float], positive: Sequence[bool]) -> list[tuple[float, float]]:
    """(recall, precision) of the samples that score at least as high, for every distinct score, the highest first."""
    points = []
    for bar in sorted(set(scores), reverse=True):
        found = [p for s, p in zip(scores, positive, strict=True) if s >= bar]
        points.append((sum(found) / sum(positive), sum(found) / len(found)))
    return points


def literal(logits: np.ndarray, targets: np.ndarray, top_k: int | None, protocol: str) -> dict[str, float]:
    """The definitions of docs/method.md written out, number by number, in Python's own floats."""
    eps = 2.0**-52
    n, labels = logits.shape
    claimed = [[x > 0 for x in row] for row in logits.tolist()]
    if top_k is not None:
        for i, row in enumerate(logits.tolist()):
            best = sorted(range(labels), key=lambda j: (-row[j], j))[:top_k]
            claimed[i] = [j in best for j in range(labels)]

    def precision_recall_f1(pairs: list[tuple[int, int]]) -> tuple[float, float, float]:
        hits = sum(targets[i, j] == 1 and claimed[i][j] for i, j in pairs)
        claims = sum(claimed[i][j] for i, j in pairs)
        positives = sum(targets[i, j] == 1 for i, j in pairs)
        if protocol == "srn":  # as its code has it
            precision, recall = (hits + eps) / (claims + eps), (hits + eps) / (positives + eps) + eps
            return precision, recall, 2 * precision * recall / (precision + recall)
        precision = hits / claims if claims else 0.0
        if not positives:
            return precision, math.nan, math.nan
        return precision, hits / positives, harmonic(precision, hits / positives)

    ap, balanced, per_label = [], [], []
    for j in range(labels):
        known = [i for i in range(n) if targets[i, j] != -1]
        positive = [i for i in range(n) if targets[i, j] == 1]
        negative = [i for i in range(n) if targets[i, j] != 1]
        of_label = precision_recall_f1([(i, j) for i in range(n)])
        if protocol == "srn" or positive:
            per_label.append(of_label)
        if not positive:
            ap.append(math.nan)
            continue
        average = voc_2012 if protocol == "srn" else step_wise
        ap.append(average([logits[i, j] for i in known], [targets[i, j] == 1 for i in known]))
        tpr = sum(logits[i, j] > 0 for i in positive) / len(positive)
        tnr = sum(logits[i, j] <= 0 for i in negative) / len(negative) if negative else tpr
        balanced.append((tpr + tnr) / 2)
    p_c, r_c, f1_c = (mean([values[k] for values in per_label]) for k in range(3))
    p_o, r_o, f1_o = precision_recall_f1([(i, j) for i in range(n) for j in range(labels)])
    values = {
        "mAP": mean([value for value in ap if not math.isnan(value)]),
        "mA": mean(balanced),
        "P-C": p_c,
        "R-C": r_c,
        "F1-C": (math.nan if math.isnan(p_c) else harmonic(p_c, r_c)) if protocol == "csra" else f1_c,
        "P-O": p_o,
        "R-O": r_o,
        "F1-O": f1_o,
        **{f"AP/{j}": value for j, value in enumerate(ap)},
    }
    return {key: 100 * value for key, value in values.items()}


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def assert_same(values: dict[str, float], expected: dict[str, float]) -> None:
    assert values.keys() == expected.keys()
    np.testing.assert_allclose([values[key] for key in expected], list(expected.values()), rtol=1e-10, atol=1e-10)


def quietly(*arguments, **options) -> dict[str, float]:
    """`evaluate` where labels without positive samples are meant."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*no positive sample")
        return evaluate(*arguments, **options)


@st.composite
def predictions(draw) -> tuple[np.ndarray, np.ndarray]:
    """Few distinct scores, so many ties; labels without positives, predictions or anything specified."""
    shape = draw(st.tuples(st.integers(1, 12), st.integers(1, 4)))
    logits = draw(arrays(np.float32, shape, elements=st.sampled_from([-2.5, -1, -0.0, 0, 0.5, 1, 7])))
    targets = draw(arrays(np.int8, shape, elements=st.sampled_from([-1, 0, 1])))
    for j in range(shape[1]):
        kind = draw(st.sampled_from(["as drawn", "as drawn", "no positive", "no prediction"]))
        if kind == "no positive":
            targets[:, j] = np.minimum(targets[:, j], 0)
        elif kind == "no prediction":
            logits[:, j] = np.minimum(logits[:, j], 0)
    return logits, targets


every_protocol = pytest.mark.parametrize("protocol", PROTOCOLS)


@every_protocol
@settings(max_examples=120, deadline=None)
@given(predictions())
def test_evaluate_equals_scikit_learn(protocol, prediction):
    logits, targets = prediction
    assume((targets == 1).any())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "y_pred contains classes not in y_true")
        warnings.filterwarnings("ignore", "A single label was found")
        expected = scikit(logits, targets, logits > 0, protocol)
    assert_same(quietly(logits, targets, protocol), expected)


@every_protocol
@settings(max_examples=200, deadline=None)
@given(predictions(), st.booleans(), st.data())
def test_evaluate_equals_its_definition_written_out(protocol, prediction, ranked, data):
    logits, targets = prediction
    top_k = data.draw(st.integers(1, logits.shape[1])) if ranked else None
    assert_same(quietly(logits, targets, protocol, top_k), literal(logits, targets, top_k, protocol))


@every_protocol
@settings(max_examples=60, deadline=None)
@given(predictions(), st.randoms(use_true_random=False), st.sampled_from([None, 1]))
def test_the_order_of_samples_does_not_matter_ties_or_not(protocol, prediction, random, top_k):
    logits, targets = prediction
    order = random.sample(range(len(logits)), len(logits))
    assert_same(
        quietly(logits[order], targets[order], protocol, top_k),
        quietly(logits, targets, protocol, top_k),
    )


def test_average_precision_by_hand():
    """A negative above three positives: precision 1/2, 2/3, 3/4 at the positives; 3/4 is the highest from each on."""
    scores, positive = np.array([4.0, 3, 2, 1]), np.array([False, True, True, True])
    assert average_precision(scores, positive) == pytest.approx((1 / 2 + 2 / 3 + 3 / 4) / 3)
    assert average_precision(scores, positive, interpolated=True) == pytest.approx(3 / 4)
    for interpolated in (False, True):
        assert average_precision(np.zeros(4), positive, interpolated) == 3 / 4  # one step: the share of positives
        assert average_precision(-scores, positive, interpolated) == 1
        assert np.isnan(average_precision(scores, np.zeros(4, bool), interpolated))


UNDEFINED = (
    # label 0: predicted, right and wrong; 1: never predicted; 2: no positive sample, predicted; 3: neither
    np.array([[2.0, -1, 3, -1], [1, -2, -1, -2], [-1, -3, -2, -3]]),
    np.array([[1, 1, 0, 0], [0, 0, -1, 0], [0, 0, 0, -1]]),
)


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        ("vac", {"P-C": 1 / 4, "R-C": 1 / 2, "F1-C": 1 / 3}),  # labels 0 and 1; P 1/2, 0; R 1, 0; F1 2/3, 0
        ("csra", {"P-C": 1 / 4, "R-C": 1 / 2, "F1-C": 1 / 3}),  # 2 (1/4) (1/2) / (3/4)
        ("srn", {"P-C": 5 / 8, "R-C": 3 / 4, "F1-C": 5 / 12}),  # P 1/2, 1, 0, 1; R 1, 0, 1, 1; F1 2/3, 0, 0, 1
    ],
)
def test_labels_without_predictions_or_positives_by_hand(protocol, expected):
    with pytest.warns(UserWarning, match=r"no positive sample: labels \[2, 3\]") as caught:
        values = evaluate(*UNDEFINED, protocol)
    assert ("left out of mAP and mA," in str(caught[0].message)) == (protocol == "srn")
    assert {key: values[key] / 100 for key in expected} == pytest.approx(expected)
    assert values["mAP"] == 100  # labels 0 and 1 rank well; 2 and 3 have no AP
    assert [np.isnan(values[f"AP/{j}"]) for j in range(4)] == [False, False, True, True]
    # Of two positives one is found, by three claims.
    assert (values["P-O"], values["R-O"], values["F1-O"]) == pytest.approx((100 / 3, 50, 40))


def test_csra_differs_from_vac_in_f1_by_label_alone():
    vac, csra = evaluate(*case(), "vac"), evaluate(*case(), "csra")
    assert {key for key in vac if vac[key] != csra[key]} == {"F1-C"}
    assert csra["F1-C"] == pytest.approx(harmonic(csra["P-C"], csra["R-C"]))


@every_protocol
def test_without_any_positive_sample_nothing_becomes_a_silent_zero(protocol):
    for claimed in (False, True):
        values = quietly(np.full((2, 3), 1.0 if claimed else -1.0), np.array([[0, -1, 0], [0, 0, -1]]), protocol)
        undefined = {"mAP", "mA", "AP/0", "AP/1", "AP/2"}
        if protocol == "srn":
            expected = 0 if claimed else 100
            assert [values[key] for key in ("P-C", "P-O", "F1-C", "F1-O")] == [expected] * 4
            assert values["R-C"] == values["R-O"] == 100
        else:
            undefined |= {"P-C", "R-C", "F1-C", "R-O", "F1-O"}
            assert values["P-O"] == 0
        assert {key for key in values if np.isnan(values[key])} == undefined


@every_protocol
def test_a_single_sample(protocol):
    values = quietly([[2.0, -1, 3]], [[1, 1, 0]], protocol)
    assert values["mAP"] == 100
    assert values["mA"] == 50  # TPR alone, 1 and 0: no label has a negative sample beside its positive one
    assert values["P-O"] == values["R-O"] == values["F1-O"] == 50


TABLE1 = {  # P-O, R-O, F1-O of the paper's Table 1
    "R50": (82.3, 76.6, 79.4),
    "R50+t": (80.6, 78.4, 79.5),
    "R50+r": (81.0, 76.1, 78.5),
    "R50+s": (81.3, 77.6, 79.4),
    "R50+f": (82.9, 76.9, 80.0),
    "R50+ACt": (79.7, 78.7, 79.2),
    "R50+ACr": (82.3, 77.9, 80.2),
    "R50+ACs": (84.5, 77.1, 80.6),
    "R50+ACf": (82.6, 79.8, 81.2),
    "R50+ACfs": (84.4, 79.3, 81.8),
    "R101": (83.6, 77.8, 80.6),
    "R101+ACt": (83.1, 77.3, 80.1),
    "R101+ACr": (83.2, 79.4, 81.2),
    "R101+ACs": (85.1, 78.3, 81.6),
    "R101+ACf": (83.8, 80.5, 82.1),
    "R101+ACfs": (84.1, 80.7, 82.4),
}


@every_protocol
@pytest.mark.parametrize("row", TABLE1)
def test_decisions_of_the_papers_precision_and_recall_have_its_f1(row, protocol):
    p, r, f1 = TABLE1[row]
    positives = 10_000
    hits = round(positives * r / 100)
    wrong = round(hits * 100 / p) - hits
    targets = np.repeat([1, 0], [positives, wrong])[:, None]
    logits = np.repeat([1.0, -1.0, 1.0], [hits, positives - hits, wrong])[:, None]
    values = evaluate(logits, targets, protocol)
    assert (values["P-O"], values["R-O"]) == pytest.approx((p, r), abs=0.01)
    # The paper's own numbers of these two rows do not fit each other better.
    assert values["F1-O"] == pytest.approx(f1, abs=0.25 if row in ("R50+f", "R50+ACr") else 0.1)


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


@every_protocol
def test_overall_f1_is_the_harmonic_mean_of_overall_precision_and_recall(protocol):
    values = evaluate(*case(), protocol)
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
        (lambda x, y: (x, y), {"protocol": "all"}, "protocol='all': expected one of vac, srn, csra"),
        (lambda x, y: (x, y), {"top_k": 0}, "top_k=0: expected 1 to 6"),
        (lambda x, y: (x, y), {"top_k": 2.5}, "top_k=2.5: expected 1 to 6"),
        (lambda x, y: (x, y), {"threshold": np.nan}, "threshold=nan: expected a number"),
        (lambda x, y: (x, np.where(y == 1, np.nan, y)), {}, r"targets\[.*\] = nan: expected 1, 0 or -1"),
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


def test_an_unknown_protocol_is_refused_before_anything_is_collected():
    with pytest.raises(ValueError, match="protocol='all': expected one of vac, srn, csra"):
        MultilabelEvaluation("all")


@pytest.mark.parametrize(("protocol", "top_k"), [("vac", None), ("vac", 3), ("srn", None), ("csra", 3)])
def test_shuffled_and_repeated_batches_are_one_evaluation(protocol, top_k):
    index, logits, targets = tensors()
    metric = MultilabelEvaluation(protocol, top_k)
    order = torch.randperm(23, generator=torch.Generator().manual_seed(0))
    for rows in (*order.split(4), order[:3], order[5:6]):
        metric.update(index[rows], logits[rows], targets[rows])
    assert metric.compute() == evaluate(logits, targets, protocol, top_k)
    metric.reset()
    metric.update(index[:9], logits[:9], targets[:9])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert metric.compute() == evaluate(logits[:9], targets[:9], protocol, top_k)


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


@pytest.mark.slow
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
