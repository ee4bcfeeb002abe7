"""Transforms: T(g(I)) = g(T(I)) for a g that commutes by construction, directions, visible cells, random draws."""

import math
from dataclasses import replace
from functools import partial
from itertools import permutations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vac_lightning.losses import attention_consistency
from vac_lightning.transforms import (
    Compose,
    Flip,
    Rotate,
    Scale,
    Translate,
    random_flip,
    random_quarter_turn,
    random_rotate,
    random_translate,
)
from vac_lightning.views import Views

LETTERS = {"t": random_translate, "r": random_quarter_turn, "f": random_flip}
WEIGHTS = {"large": 1.0, "small": 1.0, "scale": 1.0}
WORDS = ["".join(word) for n in (1, 2, 3) for word in permutations("trf", n)]
seeds = st.integers(0, 2**32)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def integers(seed: int, *shape: int) -> Tensor:
    """Small whole numbers, whose sums are exact in any order."""
    return torch.randint(-50, 50, shape, generator=generator(seed)).float()


def pooled(images: Tensor, grid: int) -> Tensor:
    """g: two labels mixed from three channels, then cell means; a blank image answers 3 and -5, not 0."""
    mixed = images[:, :2] - 2 * images[:, 1:] + torch.tensor([3.0, -5.0])[:, None, None]
    return F.avg_pool2d(mixed, images.shape[-1] // grid)


def planned(word: str, seed: int, size: int, grid: int):
    """A plan of views, and the heatmaps that `pooled` answers them with."""
    plan = Views(word, size, (), LETTERS, WEIGHTS).plan(generator(seed), lambda _: (grid, grid))
    images = plan.images(integers(seed, 2, 3, size, size))
    return plan, {size: pooled(x, grid) for size, x in images.items()}


@pytest.mark.parametrize("word", WORDS)
@settings(max_examples=12, deadline=None)
@given(seed=seeds, grid=st.integers(3, 9), cell=st.integers(1, 5))
def test_attention_follows_every_composition_exactly(word, seed, grid, cell):
    plan, heatmaps = planned(word, seed, grid * cell, grid)
    assert {name: float(x) for name, x in plan.consistency(heatmaps).items()} == {word: 0.0}
    assert plan.pairs[0].transform.visible((grid, grid)).any()


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("seed", range(3))
def test_a_missing_transform_or_mask_is_seen(word, seed):
    plan, heatmaps = planned(word, seed, 28, 7)
    (pair,) = plan.pairs
    still = replace(plan, pairs=(replace(pair, transform=Compose()),))
    assert still.consistency(heatmaps)[word] > 1
    if "t" in word:
        assert attention_consistency(*plan.aligned(pair, heatmaps)) > 0.1


@pytest.mark.parametrize(
    ("right", "opposite"), [(Translate(2 / 7, -1 / 7), Translate(-2 / 7, 1 / 7)), (Rotate(90), Rotate(-90))]
)
def test_the_opposite_direction_is_seen(right, opposite):
    images = integers(0, 2, 3, 28, 28)
    answer = pooled(right.image(images), 7)
    for transform, least, most in ((right, 0, 0), (opposite, 1, math.inf)):
        visible = transform.visible((7, 7)) & right.visible((7, 7))
        distance = attention_consistency(transform.heatmap(pooled(images, 7)), answer, visible=visible)
        assert least <= distance <= most


continuous = st.one_of(
    st.builds(Translate, st.floats(-0.4, 0.4), st.floats(-0.4, 0.4)),
    st.builds(Rotate, st.floats(-180, 180)),
)


@settings(max_examples=60, deadline=None)
@given(
    seed=seeds,
    side=st.integers(5, 24),
    transforms=st.lists(st.one_of(continuous, st.just(Flip())), min_size=1, max_size=2),
)
def test_attention_follows_any_shift_and_angle_on_one_grid(seed, side, transforms):
    transform = Compose(tuple(transforms))
    images = integers(seed, 2, 3, side, side).double()
    aligned, answer = transform.heatmap(pooled(images, side)), pooled(transform.image(images), side)
    visible = transform.visible((side, side))
    assert attention_consistency(aligned, answer, visible=visible) < 1e-5  # cells may be seen to 1e-4 short of whole


@pytest.mark.parametrize("transform", [Translate(0.13, -0.2), Rotate(17), Compose((Rotate(-40), Translate(0, 0.3)))])
def test_without_its_mask_a_continuous_transform_is_not_followed(transform):
    images = integers(0, 2, 3, 16, 16).double()
    aligned, answer = transform.heatmap(pooled(images, 16)), pooled(transform.image(images), 16)
    assert transform.visible((16, 16)).any()
    assert attention_consistency(aligned, answer, visible=transform.visible((16, 16))) < 1e-6
    assert attention_consistency(aligned, answer) > 0.1


@pytest.mark.parametrize("word", WORDS)
@settings(max_examples=12, deadline=None)
@given(seed=seeds, grid=st.integers(2, 9))
def test_the_inverse_brings_heatmaps_back_exactly(word, seed, grid):
    (pair,) = Views(word, grid, (), LETTERS, WEIGHTS).plan(generator(seed), lambda _: (grid, grid)).pairs
    heatmaps, back = integers(seed, 2, 3, grid, grid), pair.transform.inverse()
    moved = pair.transform.heatmap(heatmaps)
    again = back.heatmap(moved)
    kept = back.visible((grid, grid))
    assert torch.equal(again[..., kept], heatmaps[..., kept])
    assert kept.sum() == pair.transform.visible((grid, grid)).sum()
    if word == "t" or torch.equal(moved, heatmaps):
        assert not again[..., ~kept].any()


@settings(max_examples=60, deadline=None)
@given(
    slope=st.tuples(st.floats(-2, 2), st.floats(-2, 2)),
    side=st.integers(5, 24),
    transforms=st.lists(st.one_of(continuous, st.just(Flip()), st.just(Scale(9))), min_size=1, max_size=3),
)
def test_the_inverse_brings_ramps_back_from_any_shift_and_angle(slope, side, transforms):
    """Bilinear interpolation of a ramp is the ramp, up to 1e-4 that each sampling of a cell may miss."""
    transform = Compose(tuple(transforms))
    rows, columns = torch.meshgrid(*2 * [torch.arange(side, dtype=torch.double)], indexing="ij")
    ramp = (5 + slope[0] * rows + slope[1] * columns)[None, None]
    back = transform.inverse()
    kept = Compose((transform, back)).visible((side, side))
    again = back.heatmap(transform.heatmap(ramp))
    missing = 4e-4 * len(transforms) * float(ramp.abs().max())
    torch.testing.assert_close(again[..., kept], ramp[..., kept], rtol=0, atol=missing)


@pytest.mark.parametrize("word", ["s", "fs", "rs", "ts", "trsf", "sf"])
@pytest.mark.parametrize("sizes", [(64, 48), (72, 48), (40, 16)])
@pytest.mark.parametrize("seed", range(4))
def test_attention_follows_scale_with_native_sources(word, sizes, seed):
    """Grids of 8-pixel cells; the pattern is constant on the cells of their greatest common divisor."""
    common = math.gcd(*(size // 8 for size in sizes))
    pattern = integers(seed, 2, 3, common, common)
    sources = [pattern.repeat_interleave(size // common, -1).repeat_interleave(size // common, -2) for size in sizes]
    plan = Views(word, sizes[0], sizes[1:], LETTERS, WEIGHTS).plan(generator(seed), lambda size: (size // 8, size // 8))
    images = plan.images(sources)
    heatmaps = {size: pooled(x, size // 8) for size, x in images.items()}
    assert all(float(x) == 0 for x in plan.consistency(heatmaps).values())
    heatmaps[sizes[1]] = heatmaps[sizes[1]].flip(-1, -2)
    if common > 1:
        assert plan.consistency(heatmaps)["s"] > 1


@pytest.mark.parametrize("degrees", [-90, 0, 90, 180, 270, 360])
def test_quarter_turns_are_those_of_numpy(degrees):
    image = integers(0, 1, 1, 5, 5)
    expected = np.rot90(image[0, 0].numpy(), degrees // 90)
    np.testing.assert_array_equal(Rotate(degrees).image(image)[0, 0].numpy(), expected)
    nearly = Rotate(degrees + 1e-3).image(image.double())[0, 0].numpy()
    np.testing.assert_allclose(nearly[1:-1, 1:-1], expected[1:-1, 1:-1], atol=0.05)


def test_a_shift_is_positive_down_and_right():
    image = torch.zeros(1, 1, 8, 8)
    image[0, 0, 1, 2] = 1
    assert Translate(1 / 8, 3 / 8).image(image)[0, 0].nonzero().tolist() == [[2, 5]]
    assert Translate(-1 / 8, -2 / 8).image(image)[0, 0].nonzero().tolist() == [[0, 0]]
    half = Translate(0, 0.5 / 8).image(image)[0, 0]
    torch.testing.assert_close(half[1], torch.tensor([0, 0, 0.5, 0.5, 0, 0, 0, 0]), atol=1e-6, rtol=0)
    assert half.sum() == pytest.approx(1)


def test_visible_cells():
    rows, columns = torch.meshgrid(torch.arange(7), torch.arange(7), indexing="ij")
    shift = Translate(2 / 7, -1 / 7)
    assert torch.equal(shift.visible((7, 7)), (rows >= 2) & (columns < 6))
    assert torch.equal(Translate(0.5 / 7, 0).visible((7, 7)), rows >= 1)
    assert torch.equal(Compose((shift, Rotate(90))).visible((7, 7)), torch.rot90(shift.visible((7, 7))))
    back_again = Compose((shift, Translate(-2 / 7, 1 / 7)))
    assert torch.equal(back_again.visible((7, 7)), (rows < 5) & (columns >= 1))
    corner = Rotate(45).visible((7, 7))
    assert corner[3, 3]
    assert not corner[0, 0]
    for whole in (Flip(), Scale(48), Rotate(270), Compose()):
        assert whole.visible((7, 7)).all()


def test_a_composition_keeps_out_what_its_parts_keep_out():
    class Roll:
        """A shift that brings back on one side what left on the other."""

        def image(self, x: Tensor) -> Tensor:
            return x.roll(1, -1)

        heatmap = image

        def visible(self, size: tuple[int, int]) -> Tensor:
            return torch.arange(size[1]).expand(size) > 0

    visible = Compose((Roll(), Flip())).visible((3, 3))
    assert visible.tolist() == [[True, True, False]] * 3


def test_half_precision_training_places_samples_as_single_precision_does():
    image = integers(0, 2, 3, 64, 64)
    for transform in (Rotate(13.0), Translate(0.123, -0.2)):
        expected = transform.image(image.double()).float()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(transform.image(image), expected, atol=1e-3, rtol=0)
        half = transform.image(image.bfloat16())
        assert half.dtype == torch.bfloat16
        torch.testing.assert_close(half.float(), expected, atol=0.25, rtol=0.01)


def test_half_precision_by_default_changes_neither_masks_nor_draws():
    """As under Lightning's precision=bf16-true."""
    transforms = (Rotate(90), Rotate(20), Translate(2 / 7, 0), Translate(0.1, 0.2), Compose((Rotate(9), Flip())))
    samplers = (random_translate, partial(random_translate, whole_cells=False), random_rotate)

    def answers() -> list:
        draws = [sampler(generator(0), (7, 7)) for sampler in samplers]
        return draws + [transform.visible((7, 7)).tolist() for transform in transforms]

    expected = answers()
    torch.set_default_dtype(torch.bfloat16)
    try:
        assert answers() == expected
    finally:
        torch.set_default_dtype(torch.float32)


def test_scale_leaves_an_image_of_its_size_alone():
    image = integers(0, 1, 3, 8, 8)
    assert Scale(8).image(image) is image
    assert Scale(4).image(image).shape == (1, 3, 4, 4)
    constant = torch.full((1, 3, 9, 9), 2.5)
    torch.testing.assert_close(Scale(4).image(constant), torch.full((1, 3, 4, 4), 2.5))


@pytest.mark.parametrize(("grid", "max_shift", "reach"), [(7, 0.3, 2), (6, 0.3, 1), (10, 0.3, 3), (4, 0.1, 1)])
def test_every_whole_cell_shift_but_none_is_drawn(grid, max_shift, reach):
    draw = generator(0)
    shifts = [random_translate(draw, (grid, grid), max_shift) for _ in range(40 * (2 * reach + 1) ** 2)]
    cells = {(round(shift.dy * grid), round(shift.dx * grid)) for shift in shifts}
    span = range(-reach, reach + 1)
    assert cells == {(dy, dx) for dy in span for dx in span} - {(0, 0)}
    assert all(abs(shift.dy * grid - round(shift.dy * grid)) < 1e-9 for shift in shifts)
    image = integers(0, 1, 1, 8 * grid, 8 * grid)
    assert all(set(shift.image(image).unique().tolist()) <= {0, *image.unique().tolist()} for shift in shifts[:20])


@settings(max_examples=50, deadline=None)
@given(seed=seeds, limit=st.floats(0.01, 0.9))
def test_continuous_draws_keep_their_limits(seed, limit):
    shift = random_translate(generator(seed), (7, 7), limit, whole_cells=False)
    assert 0 < max(abs(shift.dy), abs(shift.dx)) <= limit
    assert abs(random_rotate(generator(seed), (7, 7), 100 * limit).degrees) <= 100 * limit


def test_draws_use_their_range_and_their_generator_alone():
    draw = generator(0)
    assert {random_quarter_turn(draw, (7, 7)).degrees for _ in range(40)} == {90, 180, 270}
    angles = [random_rotate(draw, (7, 7), 30).degrees for _ in range(100)]
    assert min(angles) < -25
    assert max(angles) > 25
    torch.manual_seed(1)
    for sampler in (random_translate, partial(random_translate, whole_cells=False), random_quarter_turn, random_rotate):
        assert sampler(generator(3), (7, 7)) == sampler(generator(3), (7, 7))
    assert torch.rand(()) == torch.rand((), generator=generator(1))


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        (partial(random_translate, max_shift=0), "max_shift=0"),
        (partial(random_translate, max_shift=1), "max_shift=1"),
        (partial(random_rotate, max_degrees=0), "max_degrees=0"),
        (partial(random_rotate, max_degrees=181), "max_degrees=181"),
    ],
)
def test_impossible_ranges_are_refused(sampler, message):
    with pytest.raises(ValueError, match=message):
        sampler(generator(0), (7, 7))


def test_a_grid_of_one_cell_has_no_shift():
    with pytest.raises(ValueError, match=r"1 x 1.*larger images"):
        random_translate(generator(0), (1, 1))
