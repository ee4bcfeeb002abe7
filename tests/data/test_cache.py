"""The crop cache: the same pixels, made once by whoever comes first, and kept through kills, full disks and forks."""

import errno
import logging
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
import zlib
from collections import namedtuple
from multiprocessing import get_context
from pathlib import Path

import lmdb
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from vac_lightning.data import reading
from vac_lightning.data.base import DataError, collate
from vac_lightning.data.keeping import cache, store
from vac_lightning.data.keeping.keys import crop_keys
from vac_lightning.data.keeping.store import Store
from vac_lightning.data.reading import Photo, Photos

BOXES = (None, (5, 3, 20, 10), (4.6, 3.4, 60.2, 9.9), (30, 20, 100, 100), (-1, 0, 9, 9), (5, 3, 20, 10))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three photographs and four greys of one size."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        pixels = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize((80, 60), Image.Resampling.BICUBIC)
        pixels.save(folder / f"{number}.jpg", quality=90)
    for stain in "rgby":
        Image.fromarray(rng.integers(0, 256, (30, 40), np.uint8)).save(folder / f"{stain}.png")
    return folder


def photos(root: Path, sizes=(24, 16), count=18, **options) -> Photos:
    """`count` people, six to a photograph, two of them in the same box."""
    people = [Photo(root / f"{i // 6}.jpg", BOXES[i % 6]) for i in range(count)]
    options = {"cache": True, "cache_dir": str(root.parent / "kept"), **options}
    return Photos(people, np.zeros((count, 1), np.int8), ["a"], sizes, root, **options)


def equal(ones: Photos, others: Photos) -> bool:
    return all(
        len(one.images) == len(other.images) and all(map(torch.equal, one.images, other.images))
        for one, other in zip(ones, others, strict=True)
    )


def made(caplog: pytest.LogCaptureFixture) -> list[int]:
    """How many crops each filling made since this was last asked."""
    counts = [int(found[1]) for r in caplog.records if (found := re.search(r"(\d+) of \d+ crops kept", r.getMessage()))]
    caplog.clear()
    return counts


@pytest.fixture(autouse=True)
def _told(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "vac_lightning")


@pytest.mark.parametrize("how", ["paper", "fast"])
def test_what_is_kept_equals_what_is_read(root, how, caplog):
    plain = photos(root, (40, 24, 16), cache=False, reading=how)
    for expected in ([3 * 5 * 3], []):  # of six people in a photograph, two share a box
        kept = photos(root, (40, 24, 16), reading=how)
        assert equal(plain, kept) and made(caplog) == expected
    first = kept[0].images
    assert all(image.is_contiguous() and image.dtype == torch.uint8 for image in first)
    for image in first:
        image.fill_(0)
    assert equal(plain, kept)


@pytest.mark.parametrize(("merge", "format"), [("stack", "raw"), ("rgb", "raw"), ("rgb", "jpeg")])
def test_several_files_an_image(root, merge, format):
    stains = [Photo(tuple(root / f"{stain}.png" for stain in order), (2, 3, 30, 20)) for order in ("rgby", "bgry")]
    options = {"merge": merge, "cache_format": format, "cache_dir": str(root.parent)}
    kept, plain = (
        Photos(stains, np.zeros((2, 1), np.int8), ["a"], [16], root, cache=on, **options) for on in (True, False)
    )
    assert kept[0].images[0].shape == (4 if merge == "stack" else 3, 16, 16)
    assert equal(plain, kept) or format == "jpeg"
    assert not torch.equal(kept[0].images[0], kept[1].images[0])


def test_splits_and_sizes_share_what_they_have_in_common(root, caplog):
    photos(root, (24, 16), count=6)
    photos(root, (24,), role="val")
    photos(root, (40, 24))
    assert made(caplog) == [10, 10, 15]
    assert len(list((root.parent / "kept" / "crops").glob("*/data.mdb"))) == 1


def test_read_fast_the_smaller_crop_depends_on_the_largest_size(root):
    for sizes in ((24, 8), (60, 8), (8,)):
        assert equal(photos(root, sizes, cache=False, reading="fast"), photos(root, sizes, reading="fast"))


def test_a_source_that_changed_is_read_again(root, caplog):
    before = photos(root)
    Image.open(root / "1.jpg").rotate(180).save(root / "1.jpg", quality=90)
    after = photos(root)
    assert made(caplog) == [30, 10]
    assert equal(photos(root, cache=False), after) and not equal(before, after)
    os.utime(root / "2.jpg", ns=(0, 1))
    photos(root)
    assert made(caplog) == [10]


def test_whatever_decides_pixels_decides_the_key(root):
    def key(name="0.jpg", box=(1, 2, 3, 4), size=16, manner=("paper", False)) -> bytes:
        boxes = np.array([box or [np.nan] * 4], float)
        return crop_keys([root / name], np.zeros((1, 1), np.int32), boxes, [size], manner).tobytes()

    others = [key("1.jpg"), key(box=(1, 2, 3, 4.5)), key(box=None), key(size=161), key(manner=("fast", False))]
    assert len({key(), *others, key(manner=("paper", True))}) == 7 and key() == key()
    before = key()
    os.utime(root / "0.jpg", ns=(0, 12345))
    assert key() != before


def test_other_libraries_make_other_keys(root, monkeypatch, caplog):
    def versions(how: str) -> list[int]:
        photos(root, reading=how)
        monkeypatch.setattr("PIL.__version__", "0")
        photos(root, reading=how)
        monkeypatch.setattr("torch.__version__", "0")
        photos(root, reading=how)
        monkeypatch.undo()
        return made(caplog)

    assert versions("paper") == [30, 30]  # torch has no part in it
    assert versions("fast") == [30, 30, 30]


def test_jpeg_is_smaller_and_near(root):
    kept, plain = photos(root, (64,), cache_format="jpeg"), photos(root, (64,), cache=False)
    gaps = torch.stack([(a.images[0].int() - b.images[0].int()).abs() for a, b in zip(kept, plain, strict=True)])
    assert 0 < gaps.float().mean() < 2
    assert sum(len(value) for value in kept.cache.store.get(bytes(key) for key in kept.cache.keys[:, 0])) < 18 * 4000


def test_jpeg_of_four_channels_is_refused(root):
    stains = [Photo(tuple(root / f"{stain}.png" for stain in "rgby"))]
    with pytest.raises(ValueError, match=r"data\.cache_format=jpeg .* have 4: take raw"):
        Photos(stains, np.zeros((1, 1), np.int8), ["a"], [8], root, cache=True, cache_format="jpeg")


@pytest.mark.parametrize("format", ["raw", "jpeg"])
def test_a_lost_cache_is_said_once_and_the_files_give_the_same(root, format, caplog):
    kept = photos(root, cache_format=format)
    before = [sample.images for sample in kept]
    kept.cache.store.close()
    shutil.rmtree(kept.cache.store.folder)
    cache._told_lost.clear()
    assert all(all(map(torch.equal, old, new.images)) for old, new in zip(before, kept, strict=True))
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1 and str(kept.cache.store.folder) in warnings[0]
    made(caplog)
    photos(root, cache_format=format)
    assert made(caplog) == [30]


def test_a_store_deleted_under_an_open_one_is_made_again(root, caplog):
    kept = photos(root)
    kept.images(0)
    shutil.rmtree(kept.cache.store.folder)
    other = photos(root, count=6, cache_dir=str(root.parent / "other")).cache.store
    other.close()
    shutil.copytree(other.folder, kept.cache.store.folder)
    assert equal(photos(root), photos(root, cache=False)) and made(caplog) == [30, 10, 20]
    shutil.rmtree(kept.cache.store.folder)
    assert equal(photos(root), photos(root, cache=False)) and made(caplog) == [30]


@pytest.mark.parametrize("damage", ["other bytes", "cut short"])
def test_a_damaged_store_is_named_with_the_remedy(root, damage):
    kept = photos(root, (640,))
    kept.cache.store.close()
    file = kept.cache.store.folder / "data.mdb"
    with file.open("r+b") as opened:
        opened.write(bytes(10_000)) if damage == "other bytes" else opened.truncate(file.stat().st_size // 2)
    with pytest.raises(DataError, match=rf"{kept.cache.store.folder} cannot be used .*delete that folder"):
        photos(root, (640,))
    cache._told_lost.clear()
    assert torch.equal(kept.images(0)[0], photos(root, (640,), cache=False).images(0)[0])


def test_too_little_room_is_refused_before_anything_is_written(root, monkeypatch):
    usage = namedtuple("usage", "total used free")(10**9, 10**9 - 100_000, 100_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    needed = 15 * (4 * 4096 + 4096 + 2 * 160)  # 64 and 24 squared, times 3, in pages
    with pytest.raises(DataError) as refused:
        photos(root, (64, 24))
    for part in (f"312.0 kB ({needed} bytes)", "100.0 kB (100000 bytes)", str(root.parent / "kept"), "30 crops"):
        assert part in str(refused.value)
    for remedy in ("data.cache_dir=", "data.cache_format=jpeg", "small_sizes", "data.cache=false"):
        assert remedy in str(refused.value)
    assert not list((root.parent / "kept").rglob("data.mdb"))


def test_a_disk_that_fills_up_keeps_what_is_there(root, tmp_path, monkeypatch, caplog):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("no right to mount a small disk")
    try:
        monkeypatch.setattr(cache, "TRANSACTION", 1)
        monkeypatch.setattr(cache.CropCache, "_check_room", lambda *_: None)  # as if others took the room meanwhile
        with pytest.raises(
            DataError, match=rf"no room for the crop cache in {disk}.* what was made is kept: make room"
        ):
            photos(root, (160, 16), cache_dir=str(disk))
        assert made(caplog) == [20]  # two photographs found room, a transaction each
        photos(root, (160, 16), count=6, cache_dir=str(disk))
        assert made(caplog) == []
        subprocess.run(["mount", "-o", "remount,size=4m", disk], check=True)
        full = photos(root, (160, 16), cache_dir=str(disk))
        assert made(caplog) == [10] and equal(full, photos(root, (160, 16), cache=False))
        full.cache.store.close()
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_folder_that_cannot_be_made_is_an_error(root):
    (root.parent / "kept").write_text("a file")
    with pytest.raises(DataError, match=r"no crop cache can be kept in .*data\.cache_dir=FOLDER, or data\.cache=false"):
        photos(root)


def test_a_photograph_that_breaks_leaves_what_was_made(root, caplog):
    whole = (root / "2.jpg").read_bytes()
    (root / "2.jpg").write_bytes(whole[:500])
    with pytest.raises(DataError, match=r"sample 12: cannot read .*2\.jpg.*fetch the file again"):
        photos(root)
    assert made(caplog) == [20]
    (root / "2.jpg").write_bytes(whole)
    assert equal(photos(root), photos(root, cache=False)) and made(caplog) == [10]
    (root / "1.jpg").unlink()
    with pytest.raises(DataError, match=r"cannot read .*1\.jpg \(No such file.*check data\.root"):
        photos(root)


def test_what_took_long_is_kept_before_there_is_much_of_it(root, monkeypatch):
    puts, put = [], Store.put
    monkeypatch.setattr(Store, "put", lambda self, items: puts.append(len(items)) or put(self, items))
    monkeypatch.setattr(cache, "SECONDS", 0.0)
    photos(root)
    assert puts == [10, 10, 10, 0]


def test_each_photograph_is_decoded_once(root, monkeypatch):
    opened = []
    monkeypatch.setattr(reading, "ImageFile", lambda *a: opened.append(a[0].name) or ImageFile(*a))
    ImageFile = sys.modules["vac_lightning.data.images.decoding"].ImageFile
    photos(root, (40, 24, 16))
    assert sorted(opened) == ["0.jpg", "1.jpg", "2.jpg"]


def test_augmentation_and_the_cache_exclude_each_other_in_training_alone(root):
    def changing(image):
        raise AssertionError

    with pytest.raises(ValueError, match=r"data\.cache=true .* augmentation=none, or data\.cache=false"):
        photos(root, augmentation=changing, on_bad_image="skip")
    assert not (root.parent / "kept").exists()  # and no photograph was inspected before
    assert equal(photos(root, augmentation=changing, role="val"), photos(root, cache=False))
    with pytest.raises(ValueError, match=r"data\.cache_format=png: choose raw or jpeg"):
        photos(root, cache_format="png")


def test_a_reader_follows_a_store_that_another_process_makes_larger(tmp_path):
    kept = Store(tmp_path / "store")
    kept.put([(b"first", np.zeros(10, np.uint8))])
    kept.close()
    assert kept.missing([b"first", b"last", b"last"]) == [1]
    program = (
        "import sys, numpy as np; from pathlib import Path; from vac_lightning.data.keeping.store import Store\n"
        "Store(Path(sys.argv[1])).put([(b'%d' % i, np.full(10**6, i, np.uint8)) for i in range(20)])"
    )
    subprocess.run([sys.executable, "-c", program, kept.folder], check=True)
    first, last, none = kept.get([b"first", b"19", b"20"])
    assert first.tolist() == [0] * 10 and (last == 19).all() and len(last) == 10**6 and none is None
    kept.put([(b"20", np.zeros(3, np.uint8))])  # opened to read until now
    assert len(kept.get([b"20"])[0]) == 3
    kept.close()


def test_a_file_that_was_made_and_not_yet_written_is_no_damage(tmp_path):
    kept = Store(tmp_path / "store")
    kept.folder.mkdir()
    (kept.folder / "data.mdb").touch()
    assert kept.missing([b"first"]) == [0]
    kept.put([(b"first", np.ones(3, np.uint8))])
    assert kept.get([b"first"])[0].tolist() == [1, 1, 1]
    kept.close()


def test_a_map_without_addresses_is_not_taken_for_damage(root):
    kept = photos(root, (640,))
    program = (
        "import resource, sys; from pathlib import Path; from vac_lightning.data.keeping.store import Store\n"
        "pages = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (pages + 2**20,) * 2)\n"
        "try: Store(Path(sys.argv[1])).missing([b'a'])\n"
        "except OSError as error: print(error.errno)"
    )
    done = subprocess.run([sys.executable, "-c", program, kept.cache.store.folder], capture_output=True, text=True)
    assert done.stdout == f"{errno.ENOMEM}\n", done.stderr
    explained = kept.cache._explained(OSError(errno.ENOMEM, "no memory", "kept"))
    assert "raise ulimit -v" in explained and "delete" not in explained


def test_small_values_find_room_too(tmp_path):
    kept, rng = Store(tmp_path / "store"), np.random.default_rng(0)
    for _ in range(3):
        kept.put([(rng.bytes(16), np.zeros(700, np.uint8)) for _ in range(3000)])
    kept.close()


def test_a_forked_process_reads_by_itself(root):
    kept = photos(root)
    kept.images(0)  # opened here, before the fork
    with get_context("fork").Pool(1) as pool:
        assert pool.apply(opened_stores) == []
    for file in root.iterdir():
        file.write_bytes(b"")  # nothing but the cache is left to read
    loader = DataLoader(kept, batch_size=9, num_workers=2, collate_fn=collate, multiprocessing_context="fork")
    images = torch.cat([batch.images[0] for batch in loader])
    assert torch.equal(images, torch.stack([sample.images[0] for sample in kept]))


def test_a_pickle_holds_no_open_file(root):
    kept = photos(root)
    kept.images(0)
    assert equal(pickle.loads(pickle.dumps(kept)), kept)


@pytest.mark.slow
def test_a_loading_process_reads_what_was_made_here(root, monkeypatch):
    kept = photos(root)
    for file in root.iterdir():
        file.write_bytes(b"")  # nothing but the cache is left to read
    context = get_context("forkserver")
    loader = DataLoader(kept, batch_size=9, num_workers=1, collate_fn=collate, multiprocessing_context=context)
    images = torch.cat([batch.images[1] for batch in loader])
    assert torch.equal(images, torch.stack([sample.images[1] for sample in kept]))


@pytest.mark.slow
def test_a_killed_filling_goes_on_where_it_was(root, monkeypatch):
    folder, process = root.parent / "kept" / "crops", filling(root)
    deadline = time.monotonic() + 60
    while entries(folder) < 20 and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = entries(folder)
    assert 20 <= kept < 150 and kept % 10 == 0  # whole transactions, here of a photograph each
    read = []
    monkeypatch.setattr(reading, "squashed", lambda *a: read.append(a[1]) or squashed(*a))
    squashed = sys.modules["vac_lightning.data.images.cropping"].squashed
    began = time.monotonic()
    full = many(root)
    assert len(read) == 150 - kept == 150 - entries(folder) + len(read)  # what was kept is not made again
    assert time.monotonic() - began < 5  # the lock went with the process
    assert equal(full, many(root, cache=False))


@pytest.mark.slow
def test_processes_that_start_at_once_make_each_crop_once(root):
    processes = [filling(root, wait=True) for _ in range(3)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    (root / "go").touch()
    said = [process.communicate(timeout=60) for process in processes]
    results = [re.search(r"read (\d+) (\w+)", out).groups() for out, _ in said]
    assert sorted(int(count) for count, _ in results) == [0, 0, 150]
    assert len({digest for _, digest in results}) == 1
    assert sorted(err.count("waiting for another process") for _, err in said) == [0, 1, 1]


def opened_stores() -> list[str]:
    return list(store._environments)


def many(root: Path, **options) -> Photos:
    """Fifteen photographs, by hard links."""
    for number in range(3, 15):
        if not (root / f"{number}.jpg").exists():
            shutil.copy2(root / f"{number % 3}.jpg", root / f"{number}.jpg")
    return photos(root, count=90, **options)


def filling(root: Path, wait: bool = False) -> subprocess.Popen:
    """A process that fills the cache, slowly, a transaction for each photograph."""
    many(root, cache=False)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path[1:]])}
    program = "import test_cache; test_cache.slowly(*__import__('sys').argv[1:])"
    arguments = [sys.executable, "-c", program, str(root), "wait" if wait else ""]
    return subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=root
    )


def slowly(folder: str, wait: str) -> None:
    """What such a process does: print how many crops it made, and a digest of all it reads afterwards."""
    logging.basicConfig(level=logging.INFO)
    root, read, squashed = Path(folder), [], reading.squashed

    def slow(*arguments):
        time.sleep(0.02)
        read.append(arguments[1])
        return squashed(*arguments)

    cache.TRANSACTION, reading.squashed = 1, slow
    print("ready", flush=True)
    while wait and not (root / "go").exists():
        time.sleep(0.01)
    images = [image for sample in many(root) for image in sample.images]
    digest = zlib.crc32(b"".join(image.numpy().tobytes() for image in images))
    print(f"read {len(read)} {digest}")


def entries(folder: Path) -> int:
    """How many crops are kept in the one store there, as another process sees it."""
    try:
        with lmdb.open(str(next(folder.glob("*-raw"))), readonly=True, create=False) as environment:
            return environment.stat()["entries"]
    except (StopIteration, lmdb.Error):
        return 0
