# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
import json
import logging
import struct

import datasets
import numpy as np
import pytest
from PIL import Image, ImageOps
from pycocotools import mask as coco_mask
from refer_fixture import picture

from remamber_hf.data.folder import load_referring_folder, rows_from_columns
from remamber_hf.data.refer import load_refer
from remamber_hf.data.rows import refer_features, row_mask
from remamber_hf.synthetic.dataset import synthesize


HEIGHT, WIDTH = 30, 40
X_RESOLUTION = 0x011A
TRIANGLE = [4.0, 4.0, 30.0, 6.0, 10.0, 25.0]
MASK = np.zeros((HEIGHT, WIDTH), dtype=bool)
MASK[5:20, 8:30] = True
MASK[10:12, 12:15] = False


def rle_of(mask: np.ndarray) -> dict:
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def polygon_mask(*polygons: list[float]) -> np.ndarray:
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(list(polygons), HEIGHT, WIDTH))).astype(bool)


LINES = [
    {"file_name": "a.jpg", "mask_file_name": "masks/a.png", "expression": "the left one"},
    {"file_name": "a.jpg", "polygon": TRIANGLE, "expression": ["a triangle", "the small one"], "category": "shape"},
    {"file_name": "b.jpg", "rle": rle_of(MASK), "expression": "it", "split": "val"},
]
MASKS = [MASK, polygon_mask(TRIANGLE), MASK]


@pytest.fixture
def folder(tmp_path):
    """A folder with two pictures and a mask, and `write` for its metadata."""
    root = tmp_path / "own"
    (root / "masks").mkdir(parents=True)
    for name in ("a.jpg", "b.jpg"):
        picture(HEIGHT, WIDTH).save(root / name)
    Image.fromarray(MASK).save(root / "masks" / "a.png")
    return root


def write(folder, lines: list[dict]):
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


# A folder


def test_every_way_to_give_a_mask_gives_its_row(folder):
    data = load_referring_folder(write(folder, LINES))
    assert {name: rows.features for name, rows in data.items()} == dict.fromkeys(["train", "val"], refer_features())
    rows = [*data["train"], *data["val"]]
    for row, mask in zip(rows, MASKS, strict=True):
        assert np.array_equal(row_mask(row), mask)
        assert row["image"].size == (WIDTH, HEIGHT)
    for row in rows:
        row.pop("image")
        row.pop("segmentation")
    shared = {"height": HEIGHT, "width": WIDTH}
    assert rows[1] == {
        **shared,
        "sentences": ["a triangle", "the small one"],
        "sentence_ids": [2, 3],
        "ref_id": 2,
        "ann_id": 2,
        "image_id": 1,
        "category": "shape",
        "bbox": coco_mask.toBbox(coco_mask.encode(np.asfortranarray(MASKS[1], dtype=np.uint8))).tolist(),
        "split": "train",
    }
    assert rows[2] == {
        **shared,
        "sentences": ["it"],
        "sentence_ids": [4],
        "ref_id": 3,
        "ann_id": 3,
        "image_id": 2,
        "category": "",
        "bbox": [8.0, 5.0, 22.0, 15.0],
        "split": "val",
    }


def test_a_csv_file_says_the_same_as_json_lines(folder):
    expected = load_referring_folder(write(folder, LINES))
    (folder / "metadata.jsonl").unlink()
    cells = [
        "file_name,mask_file_name,polygon,rle,expression,split,category",
        "a.jpg,masks/a.png,,,the left one,,",
        f'a.jpg,,"{TRIANGLE}",,"[""a triangle"", ""the small one""]",,shape',
        'b.jpg,,,"' + json.dumps(LINES[2]["rle"]).replace('"', '""') + '",it,val,',
    ]
    (folder / "metadata.csv").write_text("\n".join(cells) + "\n")
    data = load_referring_folder(folder)
    for split in ("train", "val"):
        without_pixels = [rows[split].cast_column("image", datasets.Image(decode=False)) for rows in (data, expected)]
        assert without_pixels[0].to_list() == without_pixels[1].to_list()


def test_a_bracket_in_a_csv_expression_is_text(folder):
    (folder / "metadata.csv").write_text("file_name,mask_file_name,expression\na.jpg,masks/a.png,[red] one\n")
    assert load_referring_folder(folder, "train")[0]["sentences"] == ["[red] one"]


def test_several_polygons_are_one_object(folder):
    square = [30, 20, 38, 20, 38, 28, 30, 28]
    data = load_referring_folder(write(folder, [{**LINES[1], "polygon": [TRIANGLE, square]}]), "train")
    assert np.array_equal(row_mask(data[0]), polygon_mask(TRIANGLE, square))


def test_a_split_is_loaded_alone_and_expanded_like_load_refer(folder):
    write(folder, LINES)
    assert [row["ref_id"] for row in load_referring_folder(folder, "val")] == [3]
    expanded = load_referring_folder(folder, "train", expand_sentences=True)
    assert [row["sentences"] for row in expanded] == [["the left one"], ["a triangle"], ["the small one"]]
    assert expanded.features == refer_features()
    with pytest.raises(ValueError, match="no split 'test'; its splits are train, val"):
        load_referring_folder(folder, "test")


def test_a_colour_mask_of_two_palette_entries_is_read(folder):
    Image.fromarray(np.where(MASK, 7, 0).astype(np.uint8)).convert("P").save(folder / "masks" / "a.png")
    assert np.array_equal(row_mask(load_referring_folder(write(folder, LINES[:1]), "train")[0]), MASK)
    Image.fromarray(np.where(MASK[..., None], [255, 0, 0], 0).astype(np.uint8)).save(folder / "masks" / "a.png")
    assert np.array_equal(row_mask(load_referring_folder(folder, "train")[0]), MASK)


def test_a_rotated_picture_and_its_upright_mask_fit(folder):
    sideways = picture(WIDTH, HEIGHT)
    exif = sideways.getexif()
    exif[0x0112] = 6
    sideways.save(folder / "a.jpg", exif=exif)
    row = load_referring_folder(write(folder, LINES[:1]), "train")[0]
    assert row["image"].size == (WIDTH, HEIGHT) == (row["width"], row["height"])


def test_other_columns_are_ignored_and_named(folder, caplog):
    write(folder, [{**LINES[0], "author": "me", "width": 3}])
    with caplog.at_level(logging.WARNING):
        assert load_referring_folder(folder, "train").features == refer_features()
    assert "the columns author, width are not read" in caplog.text


def test_blank_lines_and_a_byte_order_mark_are_nothing(folder):
    lines = "\n\n".join(json.dumps(line) for line in LINES)
    (folder / "metadata.jsonl").write_text("\ufeff" + lines + "\n\n", encoding="utf-8")
    assert load_referring_folder(folder).num_rows == {"train": 2, "val": 1}


def test_a_folder_without_metadata_or_with_two_is_refused(folder):
    with pytest.raises(FileNotFoundError, match="holds no metadata.jsonl or metadata.csv"):
        load_referring_folder(folder)
    write(folder, LINES)
    (folder / "metadata.csv").write_text("file_name,mask_file_name,expression\n")
    with pytest.raises(ValueError, match="metadata.jsonl and metadata.csv; keep one"):
        load_referring_folder(folder)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"file_name": "c.jpg"}, "line 2: missing file: there is no .*c.jpg"),
        ({"file_name": "../own/a.jpg"}, "line 2: file outside the folder"),
        ({"file_name": ""}, "line 2: malformed entry: file_name is None"),
        ({"file_name": "masks/none.png"}, "line 2: unreadable picture"),
        ({"mask_file_name": "masks/c.png"}, "line 2: missing file: there is no .*c.png"),
        ({"mask_file_name": "masks/none.png"}, "line 2: unreadable mask"),
        ({"mask_file_name": "masks/small.png"}, "line 2: mask of another size: the mask is 15×20, its .* 30×40"),
        ({"mask_file_name": "masks/empty.png"}, "line 2: empty mask: no pixel"),
        ({"mask_file_name": "b.jpg"}, "line 2: lossy mask: a mask is a JPEG"),
        (
            {"expression": "half \ud83d"},
            "line 2: malformed entry: expression is .* not Unicode text",
        ),
        ({"expression": ["it", "\udcff"]}, "line 2: malformed entry: expression is .* not Unicode text"),
        ({"category": "\ud83d"}, "line 2: malformed entry: category is .* not Unicode text"),
        ({"file_name": "\ud83d.jpg"}, "line 2: malformed entry: file_name is .* not Unicode text"),
        ({"split": "s" * 51}, "line 2: malformed entry: split is .* a word of at most 50 letters"),
        ({"mask_file_name": "masks/alpha.png"}, "line 2: transparent mask"),
        ({"mask_file_name": "masks/codes.png"}, "line 2: mask of several values: .* 2 values besides 0, .* 1 and 255"),
        ({"mask_file_name": None}, "line 2: no mask: give one of mask_file_name, polygon, rle"),
        ({"polygon": TRIANGLE}, "line 2: several masks: mask_file_name and polygon are given; keep one"),
        (
            {"mask_file_name": None, "polygon": [1, 2, 3, 4]},
            "line 2: no polygon of 3 points: .* have 4 numbers, 3 points are 6",
        ),
        ({"mask_file_name": None, "polygon": [TRIANGLE, [1, 2, 3, 4]]}, "line 2: polygon under 3 points: 1 of 2"),
        (
            {"mask_file_name": None, "polygon": "triangle"},
            "line 2: malformed entry: the mask is 'triangle'; a polygon is",
        ),
        (
            {"mask_file_name": None, "polygon": [[4, 4], [30, 6], [10, 25]]},
            "a polygon is one flat list .x1, y1, x2, y2",
        ),
        ({"mask_file_name": None, "polygon": [[[4, 4], [30, 6], [10, 25]]]}, "a polygon is one flat list"),
        ({"mask_file_name": None, "polygon": ["a", 4, 30, 6, 10, 25]}, "a polygon is one flat list"),
        ({"mask_file_name": None, "polygon": [90, 90, 99, 90, 99, 99]}, "line 2: annotation off the picture"),
        (
            {"mask_file_name": None, "rle": {"size": [40, 30], "counts": [1200]}},
            r"picture is \[30, 40\], height first",
        ),
        ({"mask_file_name": None, "rle": {"size": [30, 40], "counts": [9]}}, "the runs add up to 9, .* 1200 pixels"),
        (
            {"mask_file_name": None, "rle": {"size": [30, 40], "counts": "¹"}},
            "counts are '¹', which are no run lengths",
        ),
        ({"mask_file_name": None, "rle": {"size": [30, 40]}}, "the counts are None, which are no run lengths"),
        ({"expression": " "}, "line 2: empty expression"),
        ({"expression": []}, "line 2: empty expression"),
        ({"expression": ["a", 3]}, "line 2: empty expression"),
        ({"split": "my split"}, "line 2: malformed entry: split"),
        ({"category": 3}, "line 2: malformed entry: category"),
    ],
)
def test_what_is_wrong_with_a_line_is_said_with_its_number(folder, change, message):
    (folder / "masks" / "none.png").write_bytes(b"nothing")
    Image.fromarray(MASK[:15, :20]).save(folder / "masks" / "small.png")
    Image.fromarray(np.zeros_like(MASK)).save(folder / "masks" / "empty.png")
    Image.new("RGBA", (WIDTH, HEIGHT)).save(folder / "masks" / "alpha.png")
    Image.fromarray(np.where(MASK, 1, 255).astype(np.uint8)).save(folder / "masks" / "codes.png")
    with pytest.raises(ValueError, match=message):
        load_referring_folder(write(folder, [LINES[0], {**LINES[0], **change}]))


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "is empty; write one line"),
        ("[1]\n", "line 1 is .*a JSON object is needed"),
        ('{"a": 1}\n{"a": \n', "line 2 is no JSON"),
        ('{"image": "a.jpg"}', "has no column file_name; its columns are image"),
        ('{"file_name": "a.jpg", "mask_file_name": "a.png"}', "has no column expression"),
        ('{"file_name": "a.jpg", "expression": "it"}', "has no column mask_file_name or polygon or rle"),
    ],
)
def test_metadata_of_another_form_is_refused(folder, content, message):
    (folder / "metadata.jsonl").write_text(content)
    with pytest.raises(ValueError, match=message):
        load_referring_folder(folder)


@pytest.mark.parametrize(
    "line, message",
    [
        ("a.jpg,masks/a.png,,one, two", "line 2 has more cells than the first"),
        ("a.jpg,,[1,it", "line 2: polygon is no JSON"),
    ],
)
def test_a_broken_csv_line_is_refused(folder, line, message):
    (folder / "metadata.csv").write_text(f"file_name,mask_file_name,polygon,expression\n{line}\n")
    with pytest.raises(ValueError, match=message):
        load_referring_folder(folder)


SAVED_MASKS = {
    "png": ({"format": "PNG"}, None),
    "palette png": ({"format": "PNG", "mode": "P"}, None),
    "bmp": ({"format": "BMP"}, None),
    "gif": ({"format": "GIF"}, None),
    "pgm": ({"format": "PPM"}, None),
    "lossless webp": ({"format": "WEBP", "lossless": True}, None),
    "lossless webp of frames": ({"format": "WEBP", "lossless": True, "save_all": True, "append_images": 1}, None),
    "tiff": ({"format": "TIFF"}, None),
    "tiff by LZW": ({"format": "TIFF", "compression": "tiff_lzw"}, None),
    "tiff by deflate": ({"format": "TIFF", "compression": "tiff_adobe_deflate"}, None),
    "tga": ({"format": "TGA"}, None),
    "pcx": ({"format": "PCX"}, None),
    "sgi": ({"format": "SGI"}, None),
    "tiff of a bit": ({"format": "TIFF", "mode": "1", "compression": "group4"}, None),
    "jpeg": ({"format": "JPEG", "quality": 100}, "JPEG"),
    "lossy webp": ({"format": "WEBP", "quality": 100}, "lossy WebP"),
    "lossy webp with metadata": ({"format": "WEBP", "quality": 80, "exif": b"Exif\0\0II*\0\0\0\0\0"}, "lossy WebP"),
    "lossy webp of frames": ({"format": "WEBP", "quality": 80, "save_all": True, "append_images": 1}, "lossy WebP"),
    "jpeg 2000": ({"format": "JPEG2000", "irreversible": True}, "JPEG2000"),
    "tiff by jpeg": ({"format": "TIFF", "compression": "jpeg"}, "TIFF with jpeg compression"),
    "avif": ({"format": "AVIF", "quality": 90}, "AVIF"),
}


def save_mask(path, form: dict):
    form = dict(form)
    image = Image.fromarray(MASK).convert(form.pop("mode", "L"))
    if form.get("append_images"):
        form["append_images"] = [Image.fromarray(~MASK).convert("L")]
    image.save(path, **form)


@pytest.mark.parametrize("kind", SAVED_MASKS)
def test_a_mask_is_read_from_each_lossless_format_and_refused_in_each_lossy_one(folder, kind):
    form, reason = SAVED_MASKS[kind]
    Image.init()
    if form["format"] not in Image.SAVE:
        pytest.skip(f"this Pillow writes no {form['format']}")
    save_mask(folder / "masks" / "a.png", form)
    write(folder, LINES[:1])
    if reason is None:
        assert np.array_equal(row_mask(load_referring_folder(folder, "train")[0]), MASK)
        return
    with pytest.raises(ValueError, match=f"line 1: lossy mask: a mask is a {reason}, .* save it as PNG"):
        load_referring_folder(folder)


def test_a_mask_whose_zeros_are_not_black_or_no_numbers_is_refused(folder):
    write(folder, LINES[:1])
    Image.fromarray(MASK).convert("RGB").convert("CMYK").save(folder / "masks" / "a.png", "TIFF")
    with pytest.raises(ValueError, match="line 1: mask of other colours: a mask is in CMYK, where 0 is not black"):
        load_referring_folder(folder)
    Image.fromarray(np.where(MASK, np.nan, 0).astype(np.float32)).save(folder / "masks" / "a.png", "TIFF")
    with pytest.raises(ValueError, match="line 1: mask of several values: the mask has pixels that are no finite"):
        load_referring_folder(folder)


def test_a_name_that_stands_twice_in_a_line_is_refused(folder):
    write(folder, LINES[:1])
    path = folder / "metadata.jsonl"
    path.write_text(path.read_text().replace("{", '{"expression": "that", ', 1))
    with pytest.raises(ValueError, match="line 1 is no JSON .'expression' stands twice in one object"):
        load_referring_folder(folder)


@pytest.mark.parametrize("kind", ["png", "lossy webp"])
def test_a_mask_in_a_column_is_told_lossy_by_its_bytes(folder, kind):
    save_mask(folder / "mask", SAVED_MASKS[kind][0])
    data = columns().map(lambda row: {"mask": {"bytes": (folder / "mask").read_bytes()}}, features=columns().features)
    if kind == "png":
        assert np.array_equal(row_mask(rows_from_columns(data)[0]), MASK)
    else:
        with pytest.raises(ValueError, match="Row 0 of split train: lossy mask: a mask is a lossy WebP"):
            rows_from_columns(data)


HEADER = "file_name,mask_file_name,expression\n"


@pytest.mark.parametrize(
    "name, text, encoding, place",
    [
        ("metadata.csv", HEADER + "a.jpg,masks/a.png,café\n", "latin-1", "line 2: byte 0xe9 is no UTF-8, as Latin-1"),
        (
            "metadata.csv",
            HEADER + "a.jpg,masks/a.png,it\na.jpg,masks/a.png,\u201cit\u201d\n",
            "cp1252",
            "line 3: byte 0x93",
        ),
        ("metadata.csv", HEADER + "a.jpg,masks/a.png,it\n", "utf-16", "line 1: it looks like UTF-16"),
        ("metadata.csv", HEADER + "a.jpg,masks/a.png,it\n", "utf-16-le", "line 1: it looks like UTF-16"),
        ("metadata.csv", HEADER + "a.jpg,masks/a.png,it\n", "utf-16-be", "line 1: it looks like UTF-16"),
        ("metadata.jsonl", json.dumps(LINES[0]) + '\n{"expression": "é"}', "latin-1", "line 2: byte 0xe9"),
        ("metadata.jsonl", json.dumps(LINES[0]), "utf-16", "line 1: it looks like UTF-16"),
    ],
)
def test_text_that_is_no_utf_8_is_refused_with_file_line_and_advice(folder, name, text, encoding, place):
    (folder / name).write_bytes(text.encode(encoding))
    with pytest.raises(ValueError, match=f"{name}, {place}.*; save the file as UTF-8") as raised:
        load_referring_folder(folder)
    assert str(folder) in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv_is_read_with_and_without_a_byte_order_mark(folder, encoding, end):
    text = (HEADER + "a.jpg,masks/a.png,das grüne 左\n").replace("\n", end)
    (folder / "metadata.csv").write_bytes(text.encode(encoding))
    assert load_referring_folder(folder, "train")[0]["sentences"] == ["das grüne 左"]


def test_a_csv_column_that_is_there_twice_is_refused(folder):
    (folder / "metadata.csv").write_text("file_name,mask_file_name,expression,expression\na.jpg,masks/a.png,it,that\n")
    with pytest.raises(ValueError, match="the column 'expression' is there twice"):
        load_referring_folder(folder)


def test_splits_of_a_folder_come_in_the_order_of_the_papers(folder):
    write(folder, [{**LINES[0], "split": split} for split in ("test", "val", "train")])
    assert list(load_referring_folder(folder)) == ["train", "val", "test"]


def rotated_that_cannot_be_written_anew(path):
    """A JPEG with orientation 6, and a resolution whose sign Pillow reads and no version of it writes."""
    exif = b"Exif\0\0II*\0" + struct.pack("<I", 8)
    entries = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0) + struct.pack("<HHII", X_RESOLUTION, 10, 1, 8 + 2 + 24 + 4)
    exif += struct.pack("<H", 2) + entries + struct.pack("<I", 0) + struct.pack("<ii", -1, 0)
    picture(WIDTH, HEIGHT).save(path, exif=exif, quality=95)


def test_a_photograph_whose_exif_values_cannot_be_written_is_turned_all_the_same(folder):
    rotated_that_cannot_be_written_anew(folder / "a.jpg")
    with pytest.raises(struct.error):  # else it would be another photograph
        ImageOps.exif_transpose(Image.open(folder / "a.jpg"))
    upright = np.asarray(Image.open(folder / "a.jpg").transpose(Image.Transpose.ROTATE_270))
    row = load_referring_folder(write(folder, LINES[:1]), "train")[0]
    assert np.array_equal(np.asarray(row["image"]), upright)
    image = {"bytes": (folder / "a.jpg").read_bytes(), "path": None}
    data = columns().map(lambda row: {"image": image}, features=columns().features)
    assert np.array_equal(np.asarray(rows_from_columns(data)[0]["image"]), upright)


# Columns


def columns(**extra) -> datasets.Dataset:
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "mask": datasets.Image(),
            "expression": datasets.Value("string"),
            **{name: datasets.Value("string") for name in extra},
        }
    )
    values = {"image": [picture(HEIGHT, WIDTH)], "mask": [Image.fromarray(MASK)], "expression": ["it"], **extra}
    return datasets.Dataset.from_dict(values, features)


def test_columns_of_pictures_and_masks_become_rows(caplog):
    with caplog.at_level(logging.WARNING):
        data = rows_from_columns(datasets.DatasetDict({"validation": columns(note=["hm"])}))
    assert "the columns note are not read" in caplog.text
    row = data["validation"][0]
    assert data["validation"].features == refer_features()
    assert np.array_equal(row_mask(row), MASK)
    assert np.array_equal(np.asarray(row["image"]), np.asarray(picture(HEIGHT, WIDTH)))
    assert (row["sentences"], row["split"], row["ref_id"]) == (["it"], "validation", 1)


def test_pictures_are_carried_over_without_encoding_them_anew():
    data = columns()
    content = data.cast_column("image", datasets.Image(decode=False))[0]["image"]["bytes"]
    converted = rows_from_columns(data).cast_column("image", datasets.Image(decode=False))
    assert converted[0]["image"]["bytes"] == content


def test_columns_may_hold_lists_of_sentences_polygons_and_bytes_of_rles(tmp_path):
    values = {"image": [picture(HEIGHT, WIDTH)] * 2, "sentences": [["a", "b"], ["c"]]}
    features = {"image": datasets.Image(), "sentences": [datasets.Value("string")]}
    polygons = datasets.Dataset.from_dict(
        {**values, "polygon": [TRIANGLE, TRIANGLE]},
        datasets.Features({**features, "polygon": [datasets.Value("float32")]}),
    )
    rle = {**rle_of(MASK), "counts": rle_of(MASK)["counts"].encode()}
    rle_features = {"size": [datasets.Value("int32")], "counts": datasets.Value("binary")}
    rles = datasets.Dataset.from_dict(
        {**values, "rle": [rle, rle]}, datasets.Features({**features, "rle": rle_features})
    )
    rles.to_parquet(tmp_path / "rles.parquet")
    rles = datasets.Dataset.from_parquet(str(tmp_path / "rles.parquet"), cache_dir=str(tmp_path / "cache"))
    assert np.array_equal(row_mask(rows_from_columns(polygons)[0]), MASKS[1])
    assert np.array_equal(row_mask(rows_from_columns(rles)[1]), MASK)
    assert rows_from_columns(rles)["sentences"] == [["a", "b"], ["c"]]


@pytest.mark.parametrize("generalized", [False, True])
def test_rows_of_load_refer_pass_through_unchanged(tmp_path, generalized):
    synthesize(tmp_path / "data", 8, 0, image_size=64, num_workers=1, no_target=True, progress=False)
    data = load_refer(
        "shapes", "unc", data_dir=tmp_path / "data", cache_dir=tmp_path / "cache", generalized=generalized
    )
    passed = rows_from_columns(data)
    assert passed["train"].features == data["train"].features
    assert passed["val"].to_dict() == data["val"].to_dict()


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda data: data.rename_column("image", "picture"), "has no column image; its columns are picture"),
        (lambda data: data.rename_column("expression", "caption"), "has no column expression or sentences"),
        (lambda data: data.remove_columns("mask"), "has no column mask or polygon or rle"),
        (lambda data: data.map(lambda row: {"expression": ""}), "Row 0 of split train: empty expression"),
        (
            lambda data: data.remove_columns("mask").add_column("mask", ["a.png"]),
            "The column mask of split train is .*cast it to datasets.Image",
        ),
        (
            lambda data: data.map(lambda row: {"mask": Image.fromarray(MASK[1:])}, features=data.features),
            "Row 0 of split train: mask of another size",
        ),
        (lambda data: data.to_iterable_dataset(), "IterableDataset came; give a Dataset"),
    ],
)
def test_what_is_wrong_with_columns_is_said(change, message):
    with pytest.raises(ValueError, match=message):
        rows_from_columns(change(columns()))
