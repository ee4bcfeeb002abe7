"""Losses against literal transcriptions of their formulas, and at the edges of floating point."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from vac_lightning.losses import asymmetric, attention_consistency, bce, focal, weighted_bce

CLASSIFICATION = {
    "weighted_bce": weighted_bce,
    "bce": bce,
    "focal": focal,
    "focal_alpha": partial(focal, alpha=0.25, gamma=1.5),
    "asymmetric": asymmetric,
    "asymmetric_both": partial(asymmetric, gamma_positive=1.0, gamma_negative=2.0, margin=0.1),
    "asymmetric_without": partial(asymmetric, gamma_positive=0.0, gamma_negative=0.0, margin=0.0),
}
every_loss = pytest.mark.parametrize("loss", CLASSIFICATION.values(), ids=CLASSIFICATION)


def case(seed: int = 0, n: int = 6, labels: int = 5, scale: float = 3.0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(n, labels, generator=generator, dtype=torch.float64)
    targets = torch.randint(-1, 2, (n, labels), generator=generator).to(torch.int8)
    return logits, targets, torch.rand(labels, generator=generator, dtype=torch.float64)


def literal(term, logits: Tensor, targets: Tensor, ratio: Tensor, ignore: bool) -> float:
    """-(1/N) sum over samples and labels of term(probability, positive?, p_j)."""
    total = 0.0
    for i in range(len(logits)):
        for j in range(logits.shape[1]):
            y = int(targets[i, j])
            if y == -1 and ignore:
                continue
            total -= term(1 / (1 + math.exp(-float(logits[i, j]))), y == 1, float(ratio[j]))
    return total / len(logits)


def weighted_term(q: float, positive: bool, p: float) -> float:
    return math.exp(1 - p) * math.log(q) if positive else math.exp(p) * math.log(1 - q)


def bce_term(q: float, positive: bool, p: float) -> float:
    return math.log(q) if positive else math.log(1 - q)


def focal_term(q: float, positive: bool, p: float, gamma: float = 2.0) -> float:
    return (1 - q) ** gamma * math.log(q) if positive else q**gamma * math.log(1 - q)


def focal_alpha_term(q: float, positive: bool, p: float) -> float:
    return (0.25 if positive else 0.75) * focal_term(q, positive, p, 1.5)


def asymmetric_term(q: float, positive: bool, p: float, up: float = 0.0, down: float = 4.0, m: float = 0.05) -> float:
    shifted = max(q - m, 0)
    return (1 - q) ** up * math.log(q) if positive else shifted**down * math.log(1 - shifted)


def asymmetric_both_term(q: float, positive: bool, p: float) -> float:
    return asymmetric_term(q, positive, p, 1.0, 2.0, 0.1)


TERMS = {
    "weighted_bce": weighted_term,
    "bce": bce_term,
    "focal": focal_term,
    "focal_alpha": focal_alpha_term,
    "asymmetric": asymmetric_term,
    "asymmetric_both": asymmetric_both_term,
    "asymmetric_without": bce_term,
}


@pytest.mark.parametrize("name", CLASSIFICATION)
@pytest.mark.parametrize("unspecified", ["negative", "ignore"])
@pytest.mark.parametrize("seed", range(3))
def test_classification_losses_equal_their_formulas(name, unspecified, seed):
    logits, targets, ratio = case(seed)
    expected = literal(TERMS[name], logits, targets, ratio, unspecified == "ignore")
    loss = partial(CLASSIFICATION[name], unspecified=unspecified)
    assert float(loss(logits, targets, ratio)) == pytest.approx(expected, rel=1e-12)
    assert float(loss(logits.float(), targets, ratio.float())) == pytest.approx(expected, rel=1e-5)
    assert float(loss(logits.numpy(), targets.numpy(), ratio.numpy())) == pytest.approx(expected, rel=1e-12)


@every_loss
def test_lambda_means_the_same_under_every_loss(loss):
    """Summed over labels, averaged over samples: twice the labels double it, twice the samples do not change it."""
    logits, targets, ratio = case(1)
    once = float(loss(logits, targets, ratio))
    assert float(loss(logits.repeat(1, 2), targets.repeat(1, 2), ratio.repeat(2))) == pytest.approx(2 * once)
    assert float(loss(logits.repeat(2, 1), targets.repeat(2, 1), ratio)) == pytest.approx(once)


@every_loss
@pytest.mark.parametrize("size", [100.0, 1e4])
def test_losses_and_gradients_stay_finite(loss, size):
    logits = torch.tensor([[size, -size, size, -size, 0.0]], requires_grad=True)
    value = loss(logits, torch.tensor([[1, 1, 0, 0, -1]]), torch.full((5,), 0.3))
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()
    assert logits.grad[0, 1] < 0
    assert logits.grad[0, 2] >= 0


@pytest.mark.parametrize("name", ["weighted_bce", "bce", "asymmetric_without"])
@pytest.mark.parametrize(("logit", "target"), [(-100.0, 1), (100.0, 0)])
def test_a_wrong_logit_of_100_costs_100(name, logit, target):
    value = CLASSIFICATION[name](torch.tensor([[logit]]), torch.tensor([[target]]), torch.tensor([float(target)]))
    assert float(value) == pytest.approx(100)


@every_loss
def test_an_ignored_label_pushes_nothing(loss):
    logits, targets, ratio = case(2)
    logits.requires_grad_()
    loss(logits, targets, ratio, unspecified="ignore").backward()
    assert (logits.grad[targets == -1] == 0).all()
    assert (logits.grad[targets == 1] != 0).all()


@every_loss
def test_half_precision_logits_are_summed_in_single_precision(loss):
    logits, targets, ratio = case(3, n=64, labels=80)
    rounded = logits.bfloat16()
    value = loss(rounded, targets, ratio)
    assert value.dtype == torch.float32
    assert float(value) == pytest.approx(float(loss(rounded.double(), targets, ratio)), rel=1e-5)


@every_loss
def test_classification_arguments_are_checked(loss):
    logits, targets, ratio = case()
    with pytest.raises(ValueError, match=r"logits of shape \(6, 5\) and targets of shape \(6, 4\)"):
        loss(logits, targets[:, :4], ratio)
    with pytest.raises(ValueError, match="unspecified='skip'"):
        loss(logits, targets, ratio, unspecified="skip")


@pytest.mark.parametrize("ratio", [torch.rand(4), torch.rand(()), torch.rand(1, 5)])
def test_one_positive_ratio_per_label(ratio):
    logits, targets, _ = case()
    with pytest.raises(ValueError, match="positive_ratio has shape"):
        weighted_bce(logits, targets, ratio)


def maps(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def literal_consistency(a: Tensor, b: Tensor, norm: str, visible: Tensor | None = None) -> float:
    n, labels, h, w = a.shape
    total, count = 0.0, 0
    seen = [(y, x) for y in range(h) for x in range(w) if visible is None or visible[y, x]]
    for i in range(n):
        for j in range(labels):
            squares = [float(a[i, j, y, x] - b[i, j, y, x]) ** 2 for y, x in seen]
            total += sum(squares) if norm == "mse" else math.sqrt(sum(squares))
            count += len(squares)
    return total / count


def raised(m: Tensor, side: int) -> Tensor:
    """Nearest-neighbour up-sampling as it is said: every cell becomes side / h by side / w equal ones."""
    return m.repeat_interleave(side // m.shape[-2], -2).repeat_interleave(side // m.shape[-1], -1)


@pytest.mark.parametrize("norm", ["mse", "l2"])
@pytest.mark.parametrize("masked", [False, True])
def test_consistency_equals_literal_loops(norm, masked):
    a, b = maps(0, 3, 4, 5, 6), maps(1, 3, 4, 5, 6)
    visible = maps(2, 5, 6) > 0 if masked else None
    expected = literal_consistency(a, b, norm, visible)
    assert float(attention_consistency(a, b, norm, visible)) == pytest.approx(expected, rel=1e-12)
    as_numpy = attention_consistency(a.numpy(), b.numpy(), norm, None if visible is None else visible.numpy())
    assert float(as_numpy) == pytest.approx(expected, rel=1e-12)


def test_mse_is_that_of_the_authors():
    a, b = maps(0, 3, 4, 7, 7), maps(1, 3, 4, 7, 7)
    torch.testing.assert_close(attention_consistency(a, b), torch.nn.functional.mse_loss(a, b))


@pytest.mark.parametrize("norm", ["mse", "l2"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("large", "small"), [(7, 6), (9, 8), (8, 6), (6, 7), (8, 4), (5, 1)])
def test_grids_meet_on_their_least_common_multiple(norm, masked, large, small):
    a, b = (maps(seed, 2, 3, side, side).requires_grad_() for seed, side in enumerate((large, small)))
    visible = maps(2, large, large) > 0 if masked else None
    common = math.lcm(large, small)
    up_visible = None if visible is None else raised(visible, common)
    value = attention_consistency(a, b, norm, visible)
    gradients = torch.autograd.grad(value, (a, b))
    built = attention_consistency(raised(a, common), raised(b, common), norm, up_visible)
    with torch.no_grad():
        expected = literal_consistency(raised(a, common), raised(b, common), norm, up_visible)
    assert value.item() == pytest.approx(expected, rel=1e-10)
    for ours, theirs in zip(gradients, torch.autograd.grad(built, (a, b)), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("norm", ["mse", "l2"])
def test_equal_maps_push_nothing(norm):
    a = maps(0, 2, 3, 4, 4).requires_grad_()
    b = a.detach().clone()
    b[1] += 1
    attention_consistency(a, b, norm).backward()
    assert (a.grad[0] == 0).all()
    assert (a.grad[1] < 0).all()


@pytest.mark.parametrize("norm", ["mse", "l2"])
def test_nothing_in_sight_costs_nothing(norm):
    a = maps(0, 2, 3, 4, 4).requires_grad_()
    value = attention_consistency(a, maps(1, 2, 3, 4, 4), norm, torch.zeros(4, 4, dtype=torch.bool))
    value.backward()
    assert value == 0
    assert (a.grad == 0).all()


def test_half_precision_maps_are_compared_in_single_precision():
    a, b = maps(0, 8, 14, 7, 7).bfloat16(), maps(1, 8, 14, 7, 7).bfloat16()
    value = attention_consistency(a, b)
    assert value.dtype == torch.float32
    assert float(value) == pytest.approx(float(attention_consistency(a.double(), b.double())), rel=1e-6)


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        (((2, 3, 4, 4), (2, 3, 4, 4)), {"norm": "l1"}, "norm='l1'"),
        (((2, 3, 4, 4), (2, 4, 4, 4)), {}, r"\(2, 3, 4, 4\) and \(2, 4, 4, 4\)"),
        (((2, 3, 4, 4), (1, 3, 4, 4)), {}, "same N and L"),
        (((2, 3, 4), (2, 3, 4)), {}, r"expected \(N, L, h, w\)"),
        (((2, 3, 4, 4), (2, 3, 4, 4)), {"visible": np.ones((1, 4), bool)}, r"visible has shape \(1, 4\).*\(4, 4\)"),
        (((2, 3, 6, 6), (2, 3, 4, 4)), {"visible": np.ones((4, 4), bool)}, r"visible has shape \(4, 4\).*\(6, 6\)"),
    ],
)
def test_consistency_arguments_are_checked(shapes, options, message):
    a, b = (torch.zeros(shape) for shape in shapes)
    with pytest.raises(ValueError, match=message):
        attention_consistency(a, b, **options)
