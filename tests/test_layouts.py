"""Data sets on disc: what is found, what is passed over, what is refused and how; fingerprints and splits."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from draem.config import AnyLayout as Layout
from draem.data.layouts import read_layout
from draem.data.samples import Sample, fingerprint, split_good
from draem.data.truth import Truth
from draem.errors import DataError

MVTEC = (
    "train/good/001.png train/good/000.png test/good/000.png test/crack/000.png test/crack/001.png test/dent/000.jpg "
    "ground_truth/crack/000_mask.png ground_truth/crack/001_mask.png ground_truth/dent/000_mask.png"
)


def _tree(root: Path, names: str) -> Path:
    """Files of one byte each more than the last: layouts look at names and sizes only."""
    for size, name in enumerate(names.split(), start=1):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(bytes(size))
    return root


def _refused(root: Path, *says: str, layout: Layout = "auto") -> str:
    with pytest.raises(DataError) as caught:
        read_layout(root, layout)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(str(root))
    for part in says:
        assert part in text
    return text


def _samples(names: list[str]) -> list[Sample]:
    return [Sample(Path("/data", name), name, "train", "c", "good", "good", None) for name in names]


# ------------------------------------------------------------------------------------------------------------- layouts


def test_plain_folder_is_all_good_to_any_depth(tmp_path: Path) -> None:
    root = _tree(tmp_path / "screws", "b.PNG a.jpg day2/c.jpeg day2/late/d.tiff 10.webp 9.bmp")
    data = read_layout(root)
    assert (data.layout, data.name, data.root) == ("folder", "screws", root)
    assert [sample.name for sample in data.samples] == [
        "10.webp",
        "9.bmp",
        "a.jpg",
        "b.PNG",
        "day2/c.jpeg",
        "day2/late/d.tiff",
    ]
    assert data.train_good == data.samples
    assert data.test == ()
    assert {(sample.split, sample.label, sample.defect, sample.truth) for sample in data.samples} == {
        ("train", "good", "good", None)
    }
    assert all(sample.path == root / sample.name and sample.category == "screws" for sample in data.samples)


def test_what_is_no_image_is_passed_over(tmp_path: Path) -> None:
    _tree(tmp_path, "a.png Thumbs.db ._a.png .hidden.png notes.txt .git/x.png __MACOSX/a.png .DS_Store b.png.part png")
    assert [sample.name for sample in read_layout(tmp_path).samples] == ["a.png"]


def test_mvtec(tmp_path: Path) -> None:
    root = _tree(tmp_path / "bottle", MVTEC + " readme.txt license.txt ground_truth/crack/._000_mask.png")
    data = read_layout(root)
    truth = root / "ground_truth"
    rows = [(s.name, s.split, s.label, s.defect, s.truth and s.truth.files[0]) for s in data.samples]
    assert rows == [
        ("test/crack/000.png", "test", "anomalous", "crack", truth / "crack/000_mask.png"),
        ("test/crack/001.png", "test", "anomalous", "crack", truth / "crack/001_mask.png"),
        ("test/dent/000.jpg", "test", "anomalous", "dent", truth / "dent/000_mask.png"),
        ("test/good/000.png", "test", "good", "good", None),
        ("train/good/000.png", "train", "good", "good", None),
        ("train/good/001.png", "train", "good", "good", None),
    ]
    assert (data.layout, data.name) == ("mvtec", "bottle")
    assert [sample.name for sample in data.train_good] == ["train/good/000.png", "train/good/001.png"]
    assert len(data.test) == 4
    assert read_layout(root, "mvtec") == data


@pytest.mark.parametrize(
    ("masks", "expected"),
    [
        ("crack/7.png", "crack/7.png"),
        ("crack/7_mask.TIF", "crack/7_mask.TIF"),
        ("crack/7_gt.bmp", "crack/7_gt.bmp"),
        ("crack/7_label.png", "crack/7_label.png"),
        ("crack/7.png crack/7_mask.png", "crack/7_mask.png"),
        ("crack/7_mask.txt", None),
        ("crack/17_mask.png crack/70_mask.png crack/7_other.png", None),
        ("dent/7_mask.png", None),
        ("", None),
    ],
)
def test_masks_by_stem(masks: str, expected: str | None, tmp_path: Path) -> None:
    _tree(tmp_path, "train/good/1.png test/crack/7.jpg " + " ".join(f"ground_truth/{name}" for name in masks.split()))
    (sample,) = read_layout(tmp_path).test
    assert sample.truth == (None if expected is None else Truth((tmp_path / "ground_truth" / expected,)))


def test_masks_of_nested_and_dotted_names(tmp_path: Path) -> None:
    names = ("crack/cam1/a.b", "crack/cam2/a.b", "crack/a")
    _tree(tmp_path, " ".join(f"test/{name}.png ground_truth/{name}_mask.png" for name in names))
    for sample in read_layout(tmp_path).test:
        mask = tmp_path / sample.name.replace("test/", "ground_truth/").replace(".png", "_mask.png")
        assert sample.truth == Truth((mask,))


def test_parts_may_be_missing(tmp_path: Path) -> None:
    train_only = read_layout(_tree(tmp_path / "a", "train/good/0.png"))
    assert (train_only.layout, len(train_only.train_good), train_only.test) == ("mvtec", 1, ())
    test_only = read_layout(_tree(tmp_path / "b", "test/good/0.png test/crack/0.png"))
    assert (test_only.layout, test_only.train_good, len(test_only.test)) == ("mvtec", (), 2)


def test_links_are_followed_and_circles_end(tmp_path: Path) -> None:
    target = _tree(tmp_path / "disc", "a.png sub/b.png")
    root = _tree(tmp_path / "set", "c.png")
    (root / "linked").symlink_to(target)
    (target / "sub" / "back").symlink_to(root)
    (root / "broken.png").symlink_to(tmp_path / "gone.png")
    assert [sample.name for sample in read_layout(root).samples] == [
        "broken.png",  # kept, so that reading it can say what is wrong
        "c.png",
        "linked/a.png",
        "linked/sub/b.png",
    ]


def test_a_link_to_itself_hides_nothing(tmp_path: Path) -> None:
    (_tree(tmp_path, "a.png") / "b").symlink_to("b")
    (tmp_path / "c.png").symlink_to("nowhere")
    assert [sample.name for sample in read_layout(tmp_path).samples] == ["a.png", "c.png"]


def test_images_of_one_category_within_a_folder_called_good(tmp_path: Path) -> None:
    """Pointing at train/good itself is a plain folder, whatever lies above it."""
    root = _tree(tmp_path, MVTEC)
    assert [sample.name for sample in read_layout(root / "train" / "good").samples] == ["000.png", "001.png"]


# ------------------------------------------------------------------------------------------------------------- refused


def test_no_folder(tmp_path: Path) -> None:
    _refused(tmp_path / "gone", "no such folder")
    _tree(tmp_path, "file.png")
    _refused(tmp_path / "file.png", "is a file: give the folder")


@pytest.mark.parametrize("layout", ["auto", "folder"])
def test_no_images(layout: Layout, tmp_path: Path) -> None:
    _tree(tmp_path, "a.txt deep/._x.png")
    _refused(tmp_path, "no images in it", ".png", layout=layout)


def test_mvtec_without_images(tmp_path: Path) -> None:
    (tmp_path / "train" / "good").mkdir(parents=True)
    _refused(tmp_path, "no images in train/good nor in test")


@pytest.mark.parametrize("layout", ["auto", "folder", "mvtec"])
def test_several_categories_are_named(layout: Layout, tmp_path: Path) -> None:
    for category in ("cable", "bottle"):
        _tree(tmp_path / category, MVTEC)
    says = "2 MVTec AD categories (bottle, cable)", "add --category NAME, such as --category bottle, or --category all"
    _refused(tmp_path, *says, layout=layout)


def test_what_is_no_category_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for category in ("cable", "bottle", "tile/tile"):
        _tree(tmp_path / category, MVTEC)
    (tmp_path / "empty").mkdir()
    with caplog.at_level(logging.INFO, "draem"):
        assert read_layout(tmp_path, category="all").categories == ("bottle", "cable")
        assert read_layout(tmp_path, category="cable").categories == ("cable",)
    assert caplog.messages == [f"left out: {tmp_path / 'tile'}: has images, but is no MVTec AD category"]


def test_fifteen_categories_stay_one_line(tmp_path: Path) -> None:
    for index in range(15):
        _tree(tmp_path / f"c{index:02}", "train/good/0.png")
    assert "c07 and 7 more" in _refused(tmp_path, "15 MVTec AD categories")


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ("good/1.png good/2.png bad/1.png", "bad/ (1 images), good/ (2 images)"),
        ("OK/1.png NG/1.png", "NG/ (1 images), OK/ (1 images)"),
        ("good/1.png new/2.png new/3.png", "good/ (1 images), new/ (2 images)"),
        ("train/1.png test/2.png", "test/ (1 images), train/ (1 images)"),
        ("train/fine/1.png 0.png", "train/ (1 images), 1 images beside them"),
        ("1.png ground_truth/1.png", "ground_truth/ (1 images), 1 images beside them"),
        ("day1/OK/1.png day1/NG/2.png", "day1/ (2 images); day1/NG/ is below"),
        ("ok_front/1.png def_front/2.png", "def_front/ (1 images), ok_front/ (1 images)"),
        ("sets/bottle/train/good/1.png sets/bottle/test/x/2.png", "sets/ (2 images); sets/bottle/test/ is below"),
    ],
)
def test_unclear_folders_show_what_is_there(names: str, says: str, tmp_path: Path) -> None:
    root = _tree(tmp_path, names)
    _refused(root, "unclear which images are good", says, "train/good, test/<defect>", "--set data.layout=folder")
    assert len(read_layout(root, "folder").samples) == len(names.split())


@pytest.mark.parametrize(
    "names", ["day1/OK/1.png day2/OK/2.png", "good_dark/1.png good_light/2.png", "a/b/1.png c/2.png"]
)
def test_folders_that_speak_of_good_images_only(names: str, tmp_path: Path) -> None:
    assert len(read_layout(_tree(tmp_path, names)).train_good) == 2


def test_mvtec_asked_for_but_not_there(tmp_path: Path) -> None:
    _refused(_tree(tmp_path, "a.png"), "is not MVTec AD (train/good,", "found 1 images beside them", layout="mvtec")


@pytest.mark.parametrize("stray", ["train/0.png", "train/bad/0.png", "test/0.png"])
def test_images_out_of_place_are_not_passed_over(stray: str, tmp_path: Path) -> None:
    _refused(_tree(tmp_path, f"{MVTEC} {stray}"), f"{tmp_path / stray}: out of place")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_folder_that_may_not_be_read(tmp_path: Path) -> None:
    root = _tree(tmp_path, "a.png closed/b.png")
    (root / "closed").chmod(0)
    try:
        _refused(root, "cannot be read")
    finally:
        (root / "closed").chmod(0o755)


# --------------------------------------------------------------------------------------------------------- fingerprint


def test_fingerprint_tells_names_and_sizes_apart(tmp_path: Path) -> None:
    first = read_layout(_tree(tmp_path / "first", MVTEC)).samples
    second = read_layout(_tree(tmp_path / "second", MVTEC)).samples
    known = fingerprint(first)
    assert len(known) == 64
    assert fingerprint(second) == known  # neither the place nor the times of the files count
    assert fingerprint(first[::-1]) == known
    assert fingerprint(first[1:]) != known
    second[0].path.write_bytes(bytes(1000))
    assert fingerprint(second) != known
    second[0].path.unlink()
    with pytest.raises(DataError, match=r"test/crack/000\.png: cannot be read"):
        fingerprint(second)


# --------------------------------------------------------------------------------------------------------------- split


@pytest.mark.parametrize(
    ("images", "shares", "counts"),
    [
        (100, (0.1, 0.1), (80, 10, 10)),
        (209, (0.1, 0.1), (167, 21, 21)),
        (25, (0.1, 0.0), (22, 3, 0)),  # 2.5 is rounded up
        (5, (0.1, 0.1), (3, 1, 1)),
        (5, (0.04, 0.01), (3, 1, 1)),  # rounded it would be none
        (5, (0.0, 0.0), (5, 0, 0)),
        (4, (0.1, 0.1), (4, 0, 0)),
        (1, (0.4, 0.5), (1, 0, 0)),
        (2, (0.49, 0.49), (1, 1, 0)),
        (6, (0.45, 0.5), (1, 3, 2)),
    ],
)
def test_split_counts(images: int, shares: tuple[float, float], counts: tuple[int, int, int]) -> None:
    samples = _samples([f"{index:03}.png" for index in range(images)])
    split = split_good(samples, *shares, seed=3)
    assert (len(split.train), len(split.select), len(split.calibrate)) == counts
    together = [*split.train, *split.select, *split.calibrate]
    assert sorted(sample.name for sample in together) == [sample.name for sample in samples]


def test_split_goes_by_name_not_by_order_or_place() -> None:
    names = [f"{index:03}.png" for index in range(60)]
    split = split_good(_samples(names), 0.2, 0.3, seed=1)
    assert split_good(_samples(names[::-1]), 0.2, 0.3, seed=1) == split
    assert split_good(_samples(names), 0.2, 0.3, seed=2) != split
    assert [s.name for s in split.train] == sorted(s.name for s in split.train)
    # No job gets a run of neighbours: filenames often follow time.
    assert all(
        max(int(s.name[:3]) for s in part) - min(int(s.name[:3]) for s in part) > 30
        for part in (split.select, split.train)
    )


def test_split_is_even_over_many_seeds() -> None:
    """Each image is held out to calibrate as often as its share says: 400 seeds, 4 standard deviations."""
    samples = _samples([f"{index}.png" for index in range(20)])
    held = [sample.name for seed in range(400) for sample in split_good(samples, 0.1, 0.2, seed).calibrate]
    for sample in samples:
        assert abs(held.count(sample.name) - 80) < 4 * 8


def test_split_of_nothing() -> None:
    with pytest.raises(DataError, match="no good images"):
        split_good([], 0.1, 0.1, seed=0)
