"""Splits made here: shares kept, labels alike, the same on every machine."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vac_lightning.data.annotations.splitting import stratified


@given(st.integers(0, 200), st.integers(0, 8), st.integers(0, 2**31), st.integers(2, 4))
def test_every_sample_gets_one_part_and_parts_their_share(n, labels, seed, count):
    rng = np.random.default_rng(seed)
    targets = (rng.random((n, labels)) < rng.random(labels)).astype(np.int8)
    shares = rng.integers(1, 9, count) / 10
    parts = stratified(targets, shares, seed)
    assert parts.shape == (n,) and ((parts >= 0) & (parts < count)).all()
    assert np.abs(np.bincount(parts, minlength=count) - n * shares / shares.sum()).max() <= 1 + labels


def test_rare_labels_are_shared_out_where_a_random_split_would_lose_them():
    rng = np.random.default_rng(0)
    ratio = np.geomspace(0.5, 0.005, 20)
    targets = (rng.random((2000, 20)) < ratio).astype(np.int8)
    parts = stratified(targets, (0.8, 0.1, 0.1), 3)
    counts = np.stack([targets[parts == part].sum(0) for part in range(3)])
    expected = np.outer((0.8, 0.1, 0.1), targets.sum(0))
    drawn = rng.choice(3, 2000, p=(0.8, 0.1, 0.1))
    lot = np.stack([targets[drawn == part].sum(0) for part in range(3)])
    assert np.abs(counts - expected).max() <= 3 < np.abs(lot - expected).max()
    assert (counts > 0).all()


def test_the_seed_alone_decides():
    targets = (np.random.default_rng(1).random((50, 3)) < 0.3).astype(np.int8)
    first = stratified(targets, (0.5, 0.5), 7)
    assert (stratified(targets, (1, 1), 7) == first).all() and (stratified(targets, (1, 1), 8) != first).any()
    targets[targets == 0] = -1
    assert (stratified(targets, (1, 1), 7) == first).all()


@pytest.mark.parametrize("shares", [(), (1.0,), (1, 0), (1, -1), (1, float("nan"))])
def test_impossible_shares_are_refused(shares):
    with pytest.raises(ValueError, match="shares="):
        stratified(np.zeros((4, 1), np.int8), shares)
