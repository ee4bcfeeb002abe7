"""One image file to pixels: against Pillow bit for bit, orientation, scale, modes, damage."""

import io
import warnings
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from vac_lightning.data.base import DataError
from vac_lightning.data.images.decoding import ImageFile, decode, grey


def noise(height: int = 30, width: int = 40, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(height: int, width: int) -> Image.Image:
    return Image.fromarray(noise(max(2, height // 8), max(2, width // 8))).resize((width, height))


def by_pillow(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_a_jpeg_is_pillows_bit_for_bit(tmp_path):
    """Sides that do not fill blocks, every subsampling, baseline and progressive, grey, restart markers."""
    path = tmp_path / "a.jpg"
    sides, samplings = ((1, 1), (2, 3), (17, 33), (64, 64), (101, 67)), (0, 1, 2, "4:1:1")
    for (height, width), sampling, quality, progressive in product(sides, samplings, (40, 90, 100), (False, True)):
        smooth(height, width).save(path, quality=quality, subsampling=sampling, progressive=progressive)
        np.testing.assert_array_equal(decode(path), by_pillow(path))
    smooth(50, 70).convert("L").save(path)
    np.testing.assert_array_equal(decode(path), by_pillow(path))
    smooth(50, 70).save(path, restart_marker_blocks=2)
    np.testing.assert_array_equal(decode(path), by_pillow(path))


@pytest.mark.slow
def test_real_photographs_are_pillows_bit_for_bit(coco_tiny):
    files = sorted(coco_tiny.rglob("*.jpg"))
    assert len(files) == 160
    for path in files:
        np.testing.assert_array_equal(decode(path), by_pillow(path))


def test_stray_bytes_that_pillow_reads_over_are_read_over_alike(tmp_path):
    buffer = io.BytesIO()
    smooth(64, 64).save(buffer, "JPEG")
    whole = buffer.getvalue()
    path = tmp_path / "stray.jpg"
    for data in (whole + b"more", whole[:-2] + b"\x00\x01\x02" + whole[-2:]):
        path.write_bytes(data)
        np.testing.assert_array_equal(decode(path), by_pillow(path))


@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff", "webp"])
def test_upright_follows_every_exif_orientation(tmp_path, suffix):
    path = tmp_path / f"turned.{suffix}"
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        smooth(24, 40).save(path, exif=exif)
        with Image.open(path) as image:
            expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        file = ImageFile(path, upright=True)
        np.testing.assert_array_equal(file.pixels(), expected)
        assert (file.height, file.width) == expected.shape[:2]
        np.testing.assert_array_equal(decode(path), by_pillow(path))  # which turns a TIFF in any case


@pytest.mark.parametrize("turn", [1, 6])
def test_a_scaled_jpeg_is_as_small_as_will_do_and_is_not_slower_than_the_whole(tmp_path, turn):
    path = tmp_path / "large.jpg"
    exif = Image.Exif()
    exif[0x0112] = turn
    smooth(26, 42).resize((331, 203)).save(path, exif=exif, quality=95)
    file = ImageFile(path, upright=True)
    whole = Image.fromarray(file.pixels())
    for scale, eighths in ((0.01, 1), (0.25, 2), (0.26, 3), (0.5, 4), (0.51, 8), (0.8, 8), (1.0, 8), (3.0, 8)):
        pixels = file.pixels(scale)
        assert pixels.shape == (-(-file.height * eighths // 8), -(-file.width * eighths // 8), 3)
        expected = np.asarray(whole.resize(pixels.shape[1::-1], Image.Resampling.BOX), int)
        assert np.abs(pixels - expected).mean() < 4  # the same picture, not a corner of it


def test_what_is_no_jpeg_has_one_size(tmp_path):
    Image.fromarray(noise()).save(tmp_path / "a.png")
    np.testing.assert_array_equal(ImageFile(tmp_path / "a.png").pixels(scale=0.1, quick=True), noise())


def test_format_and_mode_are_the_contents(tmp_path):
    for name, image, expected in (
        ("rgb.jpg", smooth(9, 9), ("JPEG", "RGB")),
        ("grey.jpg", smooth(9, 9).convert("L"), ("JPEG", "L")),
        ("print.jpg", smooth(9, 9).convert("CMYK"), ("JPEG", "CMYK")),
        ("palette.png", smooth(9, 9).convert("P"), ("PNG", "P")),
    ):
        image.save(tmp_path / name)
        file = ImageFile(tmp_path / name)
        assert (file.format, file.mode) == expected and (file.width, file.height) == (9, 9)
    (tmp_path / "rgb.jpg").rename(tmp_path / "rgb.png")
    assert ImageFile(tmp_path / "rgb.png").format == "JPEG"


def test_a_cameras_previews_beside_the_photograph_are_no_animation(tmp_path):
    smooth(40, 40).save(tmp_path / "camera.mpo", save_all=True, append_images=[smooth(8, 8)])
    np.testing.assert_array_equal(decode(tmp_path / "camera.mpo"), by_pillow(tmp_path / "camera.mpo"))


def test_a_stain_in_any_colour_keeps_its_strength():
    strength = noise()[..., 0]
    for channel in range(3):
        coloured = np.zeros((30, 40, 3), np.uint8)
        coloured[..., channel] = strength
        np.testing.assert_array_equal(grey(coloured), strength)
    np.testing.assert_array_equal(grey(np.stack([strength] * 3, -1)), strength)


def test_grey_is_three_equal_channels(tmp_path):
    grey = noise()[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(decode(tmp_path / "grey.png"), np.stack([grey] * 3, -1))


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_16_bit_grey_keeps_its_high_byte(tmp_path, suffix):
    values = np.arange(1200, dtype=np.uint16).reshape(30, 40) * 54
    Image.fromarray(values).save(tmp_path / f"deep.{suffix}")
    pixels = decode(tmp_path / f"deep.{suffix}")
    np.testing.assert_array_equal(pixels, np.stack([(values // 256).astype(np.uint8)] * 3, -1))


def test_alpha_is_dropped(tmp_path):
    rgba = np.dstack([noise(), noise(seed=1)[..., :1]])
    Image.fromarray(rgba).save(tmp_path / "alpha.png")
    np.testing.assert_array_equal(decode(tmp_path / "alpha.png"), noise())


@pytest.mark.parametrize("transparency", [None, 0, bytes(range(0, 256, 32))])
def test_palette_gives_its_colours_without_a_warning(tmp_path, transparency):
    index, colours = noise()[..., 0] % 8, noise(1, 8, seed=2)[0]
    image = Image.fromarray(index)
    image.putpalette(colours.tobytes())
    options = {} if transparency is None else {"transparency": transparency}
    image.save(tmp_path / "palette.png", **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels = decode(tmp_path / "palette.png")
    np.testing.assert_array_equal(pixels, colours[index])


def test_cmyk_has_the_colours_it_was_made_of(tmp_path):
    colour = (200, 40, 90)
    Image.new("RGB", (32, 32), colour).convert("CMYK").save(tmp_path / "print.jpg", quality=100)
    assert Image.open(tmp_path / "print.jpg").mode == "CMYK"
    pixels = np.asarray(decode(tmp_path / "print.jpg"), dtype=int)
    assert pixels.shape == (32, 32, 3) and np.abs(pixels - colour).max() <= 4


def test_missing_empty_and_float_files_are_data_errors(tmp_path):
    (tmp_path / "empty.jpg").touch()
    Image.fromarray(np.zeros((8, 8), np.float32)).save(tmp_path / "float.tiff")
    for name, reason in (("none.jpg", "data.root"), ("empty.jpg", "empty"), ("float.tiff", "8 bits")):
        with pytest.raises(DataError, match=rf"{name}.*{reason}"):
            decode(tmp_path / name)
