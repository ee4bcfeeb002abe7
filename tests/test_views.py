"""Views: which views and pairs a transform word gives, and the authors' terms written out."""

from collections.abc import Mapping
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

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
from vac_lightning.views import Views, labels_at_once

WEIGHTS = {"large": 0.6, "small": 0.7, "scale": 0.8}
LETTERS = {
    "t": lambda generator, grid: Translate(1 / grid[0], 2 / grid[1]),
    "r": lambda generator, grid: Rotate(90),
    "f": lambda generator, grid: Flip(),
}


def grid(size: int) -> tuple[int, int]:
    return size // 32, size // 32


def views(word: str, size: int = 224, small_sizes: tuple[int, ...] = (192,)) -> Views:
    return Views(word, size, small_sizes, LETTERS, WEIGHTS)


def plan(word: str, **options):
    return views(word, **options).plan(Generator().manual_seed(0), grid)


def heatmaps_of(plan, batch: int = 2, labels: int = 3) -> dict[int, Tensor]:
    generator = Generator().manual_seed(1)
    return {
        size: torch.randn(len(moves) * batch, labels, *grid(size), generator=generator)
        for size, moves in plan.groups.items()
    }


MOVE = {size: Translate(32 / size, 64 / size) for size in (224, 192)}
EXPECTED: Mapping[str, tuple[dict, list]] = {
    "none": ({224: []}, []),
    "t": ({224: [MOVE[224]]}, [("t", 224, 224, 1.0, MOVE[224])]),
    "r": ({224: [Rotate(90)]}, [("r", 224, 224, 1.0, Rotate(90))]),
    "f": ({224: [Flip()]}, [("f", 224, 224, 1.0, Flip())]),
    "s": ({224: [], 192: []}, [("s", 224, 192, 1.0, Scale(192))]),
    "tf": (
        {224: [Compose((MOVE[224], Flip()))]},
        [("tf", 224, 224, 1.0, Compose((MOVE[224], Flip())))],
    ),
    "fs": (
        {224: [Flip()], 192: [Flip()]},
        [
            ("f_large", 224, 224, 0.6, Flip()),
            ("f_small", 192, 192, 0.7, Flip()),
            ("s", 224, 192, 0.8, Scale(192)),
        ],
    ),
    "rs": (
        {224: [Rotate(90)], 192: [Rotate(90)]},
        [
            ("r_large", 224, 224, 0.6, Rotate(90)),
            ("r_small", 192, 192, 0.7, Rotate(90)),
            ("s", 224, 192, 0.8, Scale(192)),
        ],
    ),
    "ts": (
        {224: [MOVE[224]], 192: [MOVE[192]]},
        [
            ("t_large", 224, 224, 0.6, MOVE[224]),
            ("t_small", 192, 192, 0.7, MOVE[192]),
            ("s", 224, 192, 0.8, Scale(192)),
        ],
    ),
    "trsf": (
        {size: [Compose((MOVE[size], Rotate(90), Flip()))] for size in (224, 192)},
        [
            ("trf_large", 224, 224, 0.6, Compose((MOVE[224], Rotate(90), Flip()))),
            ("trf_small", 192, 192, 0.7, Compose((MOVE[192], Rotate(90), Flip()))),
            ("s", 224, 192, 0.8, Scale(192)),
        ],
    ),
}


@pytest.mark.parametrize("word", EXPECTED)
def test_views_and_pairs_of_a_word(word):
    groups, pairs = EXPECTED[word]
    drawn = plan(word)
    assert {size: list(moves[1:]) for size, moves in drawn.groups.items()} == groups
    assert all(moves[0] == Compose() for moves in drawn.groups.values())
    assert [(pair.name, pair.a.size, pair.b.size, pair.weight, pair.transform) for pair in drawn.pairs] == pairs
    assert views(word).sizes == tuple(groups)


def test_letters_are_applied_in_their_order():
    images = torch.rand(1, 3, 224, 224)
    turned_first, shifted_first = (plan(word).images(images)[224][1:] for word in ("rt", "tr"))
    shift, turn = MOVE[224], Rotate(90)
    assert torch.equal(turned_first, shift.image(turn.image(images)))
    assert torch.equal(shifted_first, turn.image(shift.image(images)))
    assert not torch.equal(turned_first, shifted_first)


@pytest.mark.parametrize("sizes", [(224, 192), (288, 256)])
def test_fs_is_the_terms_of_the_authors(sizes):
    large, small = sizes
    drawn = plan("fs", size=large, small_sizes=(small,))
    heatmaps = heatmaps_of(drawn)
    terms = drawn.consistency(heatmaps)
    (large_original, large_flipped), (small_original, small_flipped) = (heatmaps[size].chunk(2) for size in sizes)
    common = (large // 32) * (small // 32)
    up_large, up_small = (F.interpolate(heatmaps[size], size=(common, common), mode="nearest") for size in sizes)
    expected = {
        "f_large": F.mse_loss(large_original.flip(-1), large_flipped),
        "f_small": F.mse_loss(small_original.flip(-1), small_flipped),
        "s": F.mse_loss(up_large, up_small),
    }
    torch.testing.assert_close(terms, expected)


def test_l2_reaches_every_pair():
    drawn = plan("fs")
    heatmaps = heatmaps_of(drawn)
    original, flipped = heatmaps[224].chunk(2)
    expected = (original.flip(-1) - flipped).flatten(2).norm(dim=-1).mean() / 49
    torch.testing.assert_close(drawn.consistency(heatmaps, "l2")["f_large"], expected)


def test_shifted_views_of_two_grids_are_not_compared():
    """One cell of 7 is no whole number of cells of 6: the pair "s" takes the originals alone."""
    drawn = plan("ts")
    heatmaps = heatmaps_of(drawn)
    before = drawn.consistency(heatmaps)
    for size in (224, 192):
        heatmaps[size][2:] += 1
    after = drawn.consistency(heatmaps)
    assert after["s"] == before["s"]
    assert after["t_large"] != before["t_large"]
    aligned, answer = drawn.aligned(drawn.pairs[2], heatmaps)
    assert torch.equal(aligned, heatmaps[224][:2])
    assert torch.equal(answer, heatmaps[192][:2])


def test_turns_and_free_shifts_are_drawn_alike_at_both_sizes():
    free = {"r": random_quarter_turn, "t": partial(random_translate, whole_cells=False), "f": random_flip}
    turns = set()
    for seed in range(20):
        made = Views("rtfs", 224, (192,), free, WEIGHTS).plan(Generator().manual_seed(seed), grid)
        assert made.groups[224] == made.groups[192]
        assert made.pairs[-1].a.stop == 2
        turns.add(made.groups[224][1].transforms[0])
    assert turns == {Rotate(90), Rotate(180), Rotate(270)}


def test_views_are_stacked_view_by_view():
    images = torch.rand(3, 3, 224, 224)
    shown = plan("fs").images(images)
    assert {size: tuple(x.shape) for size, x in shown.items()} == {224: (6, 3, 224, 224), 192: (6, 3, 192, 192)}
    assert torch.equal(shown[224], torch.cat([images, images.flip(-1)]))
    assert torch.equal(shown[192][3:], shown[192][:3].flip(-1))


def test_a_native_source_is_used_and_the_largest_is_resized_where_there_is_none():
    large, native = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 48, 48)
    drawn = plan("s", size=64, small_sizes=(48,))
    for sources in ([large, native], [native, large]):
        shown = drawn.images(sources)
        assert shown[64] is large
        assert shown[48] is native
    resized = F.interpolate(large, size=(48, 48), mode="bilinear", antialias=True)
    assert torch.equal(drawn.images(large)[48], resized)
    assert torch.equal(drawn.images([torch.rand(2, 3, 40, 40), large])[48], resized)


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_views_of_any_number_of_channels_are_those_of_each(channels):
    sources = [torch.rand(2, channels, size, size, generator=Generator().manual_seed(size)) for size in (224, 192)]
    for word in ("trfs", "rs", "t"):
        for size, images in plan(word).images(sources).items():
            alone = [plan(word).images([source[:, [c]] for source in sources])[size] for c in range(channels)]
            torch.testing.assert_close(images, torch.cat(alone, 1), rtol=0, atol=1e-6)


def test_every_small_size_is_drawn():
    drawing = views("fs", 224, (128, 192, 160))
    assert drawing.sizes == (224, 192, 160, 128)
    generator = Generator().manual_seed(0)
    assert {max(set(drawing.plan(generator, grid).groups) - {224}) for _ in range(40)} == {128, 160, 192}


@pytest.mark.parametrize("word", ["", "x", "ff", "fsx", "None", "f s", "fssf"])
def test_unknown_words_are_refused(word):
    with pytest.raises(ValueError, match=r"transform='.*': expected none, or distinct letters out of f, r, s, t"):
        views(word)


@pytest.mark.parametrize("small_sizes", [(), (224,), (0,), (192, 256)])
def test_small_sizes_are_smaller(small_sizes):
    with pytest.raises(ValueError, match="below 224 pixels"):
        views("fs", 224, small_sizes)
    assert views("f", 224, small_sizes).sizes == (224,)


@pytest.mark.parametrize("word", ["t", "r", "s", "f", "trfs"])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_views_keep_the_memory_layout_of_their_source(word, layout):
    """A turned image has its strides turned too, and convolutions on it would take the slow way."""
    images = torch.rand(2, 3, 224, 224).contiguous(memory_format=layout)
    assert all(view.is_contiguous(memory_format=layout) for view in plan(word).images(images).values())


@pytest.mark.parametrize("word", ["fs", "t", "ts"])
@pytest.mark.parametrize("norm", ["mse", "l2"])
def test_labels_compared_in_chunks_have_the_loss_and_the_gradient_of_all(word, norm, monkeypatch):
    views_of = plan(word)
    heatmaps = {size: x.requires_grad_() for size, x in heatmaps_of(views_of, labels=7).items()}
    weights = {pair.name: 0.5 + number for number, pair in enumerate(views_of.pairs)}

    def found() -> tuple[list[Tensor], int]:
        """The terms and the gradients, and the bytes that are kept for the backward pass."""
        kept = 0

        def count(x: Tensor) -> Tensor:
            nonlocal kept
            kept += 0 if x.untyped_storage().data_ptr() in own else x.nbytes
            return x

        own = {x.untyped_storage().data_ptr() for x in heatmaps.values()}
        with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
            terms = views_of.consistency(heatmaps, norm)
            most = kept
        loss = sum(weights[name] * term for name, term in terms.items())
        return [*terms.values(), *torch.autograd.grad(loss, list(heatmaps.values()))], most

    whole, kept = found()
    monkeypatch.setattr("vac_lightning.views.MAX_ELEMENTS", 2 * 2 * 49)  # at most two labels, and a short rest
    chunked, kept_of_chunks = found()
    assert kept_of_chunks < 0.2 * kept
    for a, b in zip(whole, chunked, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-6, atol=1e-9)


def test_the_labels_of_published_data_sets_are_compared_at_once():
    """80 labels, 64 samples, two views of each, 448 and 384 pixels: their numbers do not depend on the bound."""
    assert labels_at_once(rows=2 * 64, cells=(14 + 12 - 2) ** 2) >= 80


UP, DOWN, LEFT, RIGHT = Translate(-1 / 7, 0), Translate(1 / 7, 0), Translate(0, -1 / 7), Translate(0, 1 / 7)
DRAWN = random_rotate(Generator().manual_seed(0), (7, 7))
TURNS = [Rotate(90), Rotate(180), Rotate(270)]


@pytest.mark.parametrize(
    ("word", "groups"),
    [
        ("f", {224: [Flip()]}),
        ("r", {224: TURNS}),
        ("t", {224: [UP, DOWN, LEFT, RIGHT]}),
        ("s", {224: [], 192: [], 128: []}),
        ("fs", {size: [Flip()] for size in (224, 192, 128)}),
        ("rf", {224: [Flip(), *(move for turn in TURNS for move in (turn, Compose((turn, Flip()))))]}),
        ("u", {224: [DRAWN]}),
    ],
)
def test_test_views_are_every_choice_of_letters_at_every_size(word, groups):
    made = Views(word, 224, (128, 192), {**LETTERS, "u": random_rotate}, WEIGHTS).test_plan(grid)
    assert {size: list(moves[1:]) for size, moves in made.groups.items()} == groups
    assert all(moves[0] == Compose() for moves in made.groups.values())
    assert made.pairs == ()


@pytest.mark.parametrize("word", ["f", "s", "fs", "r", "rtf", "ts"])
def test_means_are_those_of_loops_over_views_and_cells(word):
    """Small heatmaps, where a cell's place on the larger grid is interpolated by hand."""
    made = views(word).test_plan(grid)
    batch, labels = 2, 3
    heatmaps = heatmaps_of(made, batch, labels)
    cells = grid(224)[0]
    total, count = torch.zeros(batch, labels, cells, cells), torch.zeros(cells, cells)
    for size, moves in made.groups.items():
        side = grid(size)[0]
        numbers = torch.arange(float(side * side)).reshape(1, 1, side, side) + 1
        for view, move in enumerate(moves):
            came_from = move.heatmap(numbers)[0, 0]  # the image's cell that each cell of the view shows, 0 for none
            back, seen = torch.zeros(batch, labels, side, side), torch.zeros(side, side)
            for row in range(side):
                for column in range(side):
                    if number := int(came_from[row, column]):
                        at = divmod(number - 1, side)
                        back[:, :, at[0], at[1]] = heatmaps[size][view * batch : (view + 1) * batch, :, row, column]
                        seen[at] = 1
            weights = torch.zeros(cells, side)
            for cell in range(cells):
                place = min(max((cell + 0.5) * side / cells - 0.5, 0), side - 1)
                weights[cell, int(place)] += 1 - place % 1
                weights[cell, min(int(place) + 1, side - 1)] += place % 1
            whole = (weights @ seen @ weights.T) > 0.999
            total += torch.einsum("ar,blrc,dc->blad", weights, back, weights) * whole
            count += whole
    torch.testing.assert_close(made.mean_heatmaps(heatmaps), total / count)
    logits = {size: torch.randn(len(moves) * batch, labels) for size, moves in made.groups.items()}
    by_hand = [
        sum(logits[size][view * batch + i] for size, moves in made.groups.items() for view in range(len(moves)))
        for i in range(batch)
    ]
    number = sum(map(len, made.groups.values()))
    torch.testing.assert_close(made.mean_logits(logits), torch.stack(by_hand) / number)


def test_means_are_not_rounded_to_half_precision():
    made = views("f").test_plan(grid)
    logits = torch.tensor([[1.0], [1.0078125]]).bfloat16()
    assert made.mean_logits({224: logits}).tolist() == [[1.00390625]]
    heatmaps = torch.ones(2, 1, 7, 7).bfloat16() * logits[..., None, None]
    assert made.mean_heatmaps({224: heatmaps}).unique().tolist() == [1.00390625]


def test_a_grid_of_one_cell_has_no_shifted_test_view():
    with pytest.raises(ValueError, match=r"1 x 1.*larger images"):
        views("t", size=32).test_plan(grid)
