# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What the Space does with a visitor's picture, without a browser."""

import os
import struct
import zlib

import analysis
import numpy as np
import pytest
from analysis import (
    MAX_BYTES,
    MAX_EXPRESSIONS,
    MAX_LETTERS,
    MAX_SIDE,
    Analysis,
    analyse,
    draw_cut_outs,
    draw_heat_maps,
    draw_masks,
    draw_overlays,
    find_upload,
    open_upload,
    read_expressions,
    read_threshold,
    tabulate,
)
from PIL import Image
from transformers import pipeline

from remamber_hf.inference.loading import BUNDLED_MODEL, BUNDLED_PICTURES, load_pipeline


EXPRESSIONS = ["the purple star", "the orange square"]


@pytest.fixture(scope="module")
def segmenter():
    return pipeline("referring-image-segmentation", model=str(BUNDLED_MODEL))


@pytest.fixture(scope="module")
def kept(segmenter):
    picture = open_upload(str(BUNDLED_PICTURES / "shapes_3.png"))
    return analyse({"shapes": segmenter}, picture, EXPRESSIONS)


def png_of_size(width: int, height: int) -> bytes:
    """The start of a PNG file: all that is needed to know its size, and far too little to decode it."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"")
    chunks = [
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in (header, data)
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def square_analysis(
    expressions: list[str], models: tuple[str, ...] = ("shapes",), presence: float | None = None
) -> Analysis:
    """A mask in the middle for the first expression, of this presence; none for the others."""
    probabilities = [np.zeros((30, 40), dtype=np.float32) for _ in expressions]
    probabilities[0][10:20, 10:25] = 0.8
    said = [presence, *([None] * (len(expressions) - 1))]
    return Analysis(
        Image.new("RGB", (40, 30), "red"),
        expressions,
        dict.fromkeys(models, probabilities),
        dict.fromkeys(models, said),
    )


def test_expressions_are_the_lines_that_are_not_blank():
    assert read_expressions("  the left dog \n\n \nthe man in red\n") == ["the left dog", "the man in red"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "There is no expression"),
        (" \n ", "There is no expression"),
        ("dog\n" * (MAX_EXPRESSIONS + 1), f"These are 7 expressions. Give at most {MAX_EXPRESSIONS}"),
        ("dog\n" + "a" * (MAX_LETTERS + 1), f"Expression 2 has 201 letters. Use at most {MAX_LETTERS}"),
        ("dog\nhalf \ud83d of one", "Expression 2 has half of a letter"),
        (["dog"], "The expressions are no text"),
        ({"text": "dog"}, "The expressions are no text"),
        (7, "The expressions are no text"),
    ],
)
def test_missing_too_many_and_too_long_expressions_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        read_expressions(text)


def test_an_expression_that_the_model_would_cut_is_refused(segmenter):
    picture = Image.new("RGB", (40, 30))
    with pytest.raises(ValueError, match="Expression 2 is too long for the model. Use at most about 15 words"):
        analyse({"shapes": segmenter}, picture, ["the star", "the star " * 10])


def test_a_large_picture_is_made_smaller_and_set_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.new("RGB", (3000, 1500)).save(tmp_path / "large.jpg", exif=exif)
    assert open_upload(str(tmp_path / "large.jpg")).size == (MAX_SIDE // 2, MAX_SIDE)


@pytest.mark.parametrize("size", [(8000, 8000), (60000, 60000)], ids=["ours", "Pillow's"])
def test_a_picture_with_too_many_pixels_is_refused_by_its_header(tmp_path, size):
    (tmp_path / "bomb.png").write_bytes(png_of_size(*size))
    with pytest.raises(ValueError, match="too many pixels. Use one of at most 50 megapixels"):
        open_upload(str(tmp_path / "bomb.png"))


def test_a_file_with_too_many_bytes_is_refused_unread(tmp_path, monkeypatch):
    (tmp_path / "large.png").write_bytes(bytes(MAX_BYTES + 1))
    monkeypatch.setattr(analysis.Image, "open", lambda *_, **__: pytest.fail("the file was opened"))
    with pytest.raises(ValueError, match="The file is too large. Use a picture of at most 10 MB"):
        open_upload(str(tmp_path / "large.png"))


@pytest.mark.parametrize("threshold", ["x", "0.5", None, True, float("nan"), float("inf"), -1, 2, 10**400, [0.5], {}])
def test_a_threshold_that_is_no_probability_is_refused(threshold):
    with pytest.raises(ValueError, match="The threshold is no number from 0 to 1"):
        read_threshold(threshold)
    assert [read_threshold(value) for value in (0, 0.5, 1)] == [0, 0.5, 1]


def test_no_picture_is_refused():
    with pytest.raises(ValueError, match="There is no picture. Upload one"):
        find_upload(None, "uploads")


def test_only_regular_files_in_the_upload_folder_are_found_and_nothing_is_told_of_others(tmp_path):
    folder, outside = tmp_path / "uploads", tmp_path / "uploads of others"
    for place in (folder, outside):
        place.mkdir()
        (place / "a.png").write_bytes((BUNDLED_PICTURES / "shapes_1.png").read_bytes())
    assert find_upload({"path": str(folder / "a.png")}, folder) == folder / "a.png"
    (folder / "link.png").symlink_to(outside / "a.png")
    (folder / "loop.png").symlink_to("loop.png")
    os.mkfifo(folder / "pipe.png")
    paths = [outside / "a.png", outside / "none.png", folder / "none.png", folder / "../uploads of others/a.png"]
    paths += [folder / "link.png", folder / "loop.png", folder / "pipe.png", folder, "/dev/zero", "/etc/passwd"]
    uploads = [{"path": str(path)} for path in paths]
    uploads += [{"path": path} for path in ("", "a\0b", "x" * 10_000, None, 7, ["a"], {}, True)]
    uploads += [{}, {"url": "file:///etc/passwd"}, [], str(folder / "a.png"), 7, True, "data:image/png;base64,AAAA"]
    told = set()
    for upload in uploads:
        with pytest.raises(FileNotFoundError) as raised:
            find_upload(upload, folder)
        told.add(str(raised.value))
    assert told == {"There is no such upload."}


def test_text_damaged_pictures_and_formats_that_start_other_programs_are_refused(tmp_path):
    whole = (BUNDLED_PICTURES / "shapes_1.png").read_bytes()
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "damaged.png").write_bytes(whole[: len(whole) // 2])
    Image.new("RGB", (4, 4)).save(tmp_path / "program.eps")
    for path in tmp_path.iterdir():
        with pytest.raises(
            ValueError, match="cannot be read as a picture. Use an undamaged JPEG, PNG, WEBP, GIF or BMP"
        ):
            open_upload(str(path))


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.9])
def test_masks_from_kept_probabilities_are_those_of_the_pipeline(segmenter, kept, threshold):
    results = segmenter(kept.picture, EXPRESSIONS, threshold=threshold)
    for result, (mask, expression) in zip(results, draw_masks(kept, "shapes", threshold), strict=True):
        assert expression == result["expression"]
        assert mask.tobytes() == result["mask"].tobytes()
        assert f"<td>{result['score']:.2f}</td>" in tabulate(kept, threshold)


def test_the_overlay_shows_each_expression_in_its_colour(kept):
    overlay = np.asarray(draw_overlays(kept, "shapes", 0.5))
    for index in range(len(EXPRESSIONS)):
        assert (overlay == analysis.colour_of(index)).all(-1).any()


def test_a_cut_out_is_as_small_as_its_object_and_an_empty_one_is_empty():
    (found, _), (empty, _) = draw_cut_outs(square_analysis(["a square", "a star"]), "shapes", 0.5)
    assert found.mode == "RGBA" and found.size == (15, 10)
    assert (np.asarray(found) == (255, 0, 0, 255)).all()
    assert empty.getchannel("A").getextrema() == (0, 0)


@pytest.mark.parametrize(("presence", "is_shown"), [(None, True), (0.5, True), (0.49, False)])
def test_what_the_model_says_is_not_there_has_no_mask_and_is_named(presence, is_shown):
    found = square_analysis(["a square"], presence=presence)
    ((mask, _),) = draw_masks(found, "shapes", 0.5)
    assert (mask.getextrema()[1] > 0) == is_shown
    table = tabulate(found, 0.5)
    assert ("not in the picture (0.49)" in table) != is_shown and ("12.5%" in table) == is_shown
    legends = [np.asarray(draw_overlays(one, "shapes", 0.5)) for one in (found, square_analysis(["a square"]))]
    assert (legends[0].shape == legends[1].shape and np.array_equal(*legends)) == is_shown


def test_the_presence_that_is_kept_is_that_of_the_pipeline():
    pipe = load_pipeline("bundled", "cpu", predicts_presence=True)
    kept = analyse({"shapes": pipe}, Image.new("RGB", (40, 30), "red"), ["the star", "the ring"])
    assert kept.presence == {"shapes": [pytest.approx(0.95), pytest.approx(0.95)]}


def test_a_heat_map_is_light_where_the_probability_is_high():
    ((heat, expression),) = draw_heat_maps(square_analysis(["a square"]), "shapes", 0.9)
    grey = np.asarray(heat.convert("L"), dtype=int)
    assert expression == "a square"
    assert grey[15, 15] > grey[0, 0] + 80


def test_the_table_names_every_model_and_shows_a_visitors_text_as_text():
    table = tabulate(square_analysis(["<b>a square</b>", "a star"], ("conv", "<i>mamba")), 0.5)
    assert "&lt;b&gt;a square&lt;/b&gt;" in table and "&lt;i&gt;mamba" in table
    assert "<b>" not in table and "<i>" not in table
    assert table.count("<td>0.80</td><td>12.5%</td>") == 2
    assert table.count("nothing found") == 2
