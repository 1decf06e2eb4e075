# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Which pictures a folder of cut-outs has, what they are called, and which are refused."""

import re

import numpy as np
import pytest
from cutout_fixture import NOUNS, paint_wedge, write_backgrounds, write_cutouts
from PIL import Image

from remamber_hf.synthetic.cutouts import cutout_levels, find_backdrops, find_cutouts, read_backdrop


def test_pictures_are_called_as_their_files_and_numbers_as_their_folders(tmp_path):
    for name in ("dog.png", "red-apple 2.png", "Tree_03.PNG", "cat/001.webp", "cat/12.png", "deep/er/t-rex_1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        paint_wedge((200, 0, 0)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    found = {cutout.path.removeprefix(f"{tmp_path}/"): cutout.noun for cutout in find_cutouts(tmp_path)}
    assert found == {
        "dog.png": "dog",
        "red-apple 2.png": "red apple",
        "Tree_03.PNG": "tree",
        "cat/001.webp": "cat",
        "cat/12.png": "cat",
        "deep/er/t-rex_1.png": "t rex",
    }


def test_a_table_names_pictures_and_their_groups_and_alone_says_which_there_are(tmp_path):
    write_cutouts(tmp_path / "images", ("dog", "cat"))
    paint_wedge((9, 9, 9)).save(tmp_path / "extra.png")
    table = (
        "\ufefffile\tnoun\tgroup\r\ndog.png\tHound  dog\tanimals\r\nextra.png\tt-rex\t\r\ndog.png\tdog\tanimals\r\n"
    )
    (tmp_path / "nouns.tsv").write_text(table, newline="", encoding="utf-8")
    found = [(cutout.noun, cutout.group) for cutout in find_cutouts(tmp_path)]
    assert found == [("hound dog", "animals"), ("t-rex", ""), ("dog", "animals")]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("name\tnoun\ndog.png\tdog\n", "no columns file and noun"),
        ("file\tnoun\ndog.png\t \n", "line 2: 'dog.png' has no noun"),
        ("file\tnoun\ngone.png\tdog\n", "line 2: 'gone.png' is no picture in the folder"),
        ("file\tnoun\n../outside.png\tdog\n", "'../outside.png' is no picture in the folder"),
        ("file\tnoun\nlink.png\tdog\n", "'link.png' is no picture in the folder"),
        ("file\tnoun\ndog\0.png\tdog\n", "is no picture in the folder"),
        ("file\tnoun\nnouns.tsv\tdog\n", "'nouns.tsv' is no picture in the folder; give a file that ends in .png"),
        ("file\tnoun\n", "has no cut-out"),
        ("", "no columns file and noun"),
        ("file\tnoun\ndog.png\td\xe4g\n".encode("latin-1"), "line 2: byte 0xe4 is no UTF-8"),
    ],
)
def test_a_wrong_table_is_one_line(table, message, tmp_path):
    write_cutouts(tmp_path / "cutouts", ("dog",))
    paint_wedge((1, 2, 3)).save(tmp_path / "outside.png")
    (tmp_path / "cutouts/link.png").symlink_to(tmp_path / "outside.png")
    content = table if isinstance(table, bytes) else table.encode()
    (tmp_path / "cutouts/nouns.tsv").write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        find_cutouts(tmp_path / "cutouts")
    assert "\n" not in str(raised.value)


def test_an_absolute_path_in_a_table_is_refused(tmp_path):
    write_cutouts(tmp_path / "cutouts", ("dog",))
    paint_wedge((1, 2, 3)).save(tmp_path / "outside.png")
    (tmp_path / "cutouts/nouns.tsv").write_text(f"file\tnoun\n{tmp_path / 'outside.png'}\tdog\n")
    with pytest.raises(ValueError, match="is no picture in the folder"):
        find_cutouts(tmp_path / "cutouts")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: Image.new("RGB", (30, 30)).save(path), "it has no alpha channel"),
        (lambda path: Image.new("RGBA", (30, 30), (9, 9, 9, 60)).save(path), "all of it is transparent"),
        (lambda path: path.write_bytes(b"no picture"), "cannot be used as a cut-out"),
        (lambda path: path.write_bytes(b""), "cannot be used as a cut-out"),
    ],
)
def test_a_picture_that_is_no_cutout_is_one_line(write, message, tmp_path):
    write(tmp_path / "dog.png")
    with pytest.raises(ValueError, match=message) as raised:
        find_cutouts(tmp_path)
    assert "\n" not in str(raised.value) and "dog.png" in str(raised.value)


def test_a_folder_without_pictures_or_that_is_none_is_one_line(tmp_path):
    with pytest.raises(ValueError, match="has no cut-out; give a folder"):
        find_cutouts(tmp_path)
    with pytest.raises(ValueError, match="is no folder"):
        find_cutouts(tmp_path / "gone")
    with pytest.raises(ValueError, match="has no picture; give a folder of photographs"):
        find_backdrops(tmp_path)


def test_a_palette_picture_with_a_transparent_colour_is_a_cutout(tmp_path):
    picture = Image.new("P", (40, 40), 0)
    picture.putpalette([0, 0, 0, 250, 10, 10])
    picture.paste(1, (10, 10, 30, 20))
    picture.save(tmp_path / "dog.png", transparency=0)
    (cutout,) = find_cutouts(tmp_path)
    whole = cutout_levels(cutout.path)[0]
    assert whole.size == (20, 10)
    assert np.unique(np.asarray(whole).reshape(-1, 4), axis=0).tolist() == [[250, 10, 10, 255]]


def test_what_is_transparent_gives_no_level_a_dark_edge(tmp_path):
    """Its colour is black; halved with it, a white wedge would have a grey edge."""
    paint_wedge((255, 255, 255), side=250).save(tmp_path / "kite.png")
    levels = cutout_levels(str(tmp_path / "kite.png"))
    assert len(levels) > 2 and max(levels[0].size) <= 256
    for level in levels:
        pixels = np.asarray(level)
        assert pixels[pixels[..., 3] > 32][:, :3].min() > 245


def test_a_cutout_of_which_nothing_is_opaque_when_it_is_made_smaller_is_refused(tmp_path):
    pixels = np.zeros((2000, 2000, 4), np.uint8)
    pixels[:, ::8] = 255
    Image.fromarray(pixels).save(tmp_path / "comb.png")
    with pytest.raises(ValueError, match=r"comb.png cannot be used as a cut-out: hardly anything of it is opaque"):
        find_cutouts(tmp_path)


@pytest.mark.parametrize(
    ("size", "expected"), [((4000, 10), (384, 96)), ((10, 4000), (96, 384)), ((30, 20), (144, 96))]
)
def test_the_middle_of_a_long_background_is_kept(size, expected, tmp_path):
    """A strip, red in the middle: as high as a picture must be, all of it would have millions of pixels."""
    picture = Image.new("RGB", size, "blue")
    width, height = size
    picture.paste("red", (width // 2 - 2, height // 2 - 2, width // 2 + 2, height // 2 + 2))
    picture.save(tmp_path / "strip.png")
    read = read_backdrop(str(tmp_path / "strip.png"), 64)
    assert read.size == expected and read.getpixel((expected[0] // 2, expected[1] // 2)) == (255, 0, 0)


def test_backgrounds_know_what_they_show(tmp_path):
    write_backgrounds(tmp_path / "some", {"a.png": ("Dog", "cat"), "b.jpg": ()})
    assert [backdrop.nouns for backdrop in find_backdrops(tmp_path / "some")] == [("dog", "cat"), ()]
    assert min(read_backdrop(str(tmp_path / "some/a.png"), 64).size) == 96


def test_every_noun_of_the_fixture_is_painted_in_its_colour(tmp_path):
    for cutout in find_cutouts(write_cutouts(tmp_path / "cutouts")):
        pixels = np.asarray(cutout_levels(cutout.path)[0])
        assert (pixels[pixels[..., 3] == 255][:, :3] == NOUNS[cutout.noun]).all()
