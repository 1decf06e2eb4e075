# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The scripts in examples/ run from the command line and say what they reached."""

import ast
import base64
import csv
import hashlib
import importlib
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


EXAMPLES = Path(__file__).parents[1] / "examples"
REAL_CUTOUTS = EXAMPLES.parents[1] / "shared" / "real" / "cutouts"


def run(name: str, folder: Path, *options: str) -> dict:
    """The dict that a script prints at its end."""
    command = [sys.executable, str(EXAMPLES / name), "--output_dir", "out", *options]
    result = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(EXAMPLES.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return ast.literal_eval(result.stdout.strip().splitlines()[-1])


def test_the_pyramid_trains_and_draws_what_it_sees(tmp_path):
    figures = run("vim_pyramid.py", tmp_path, "--max_steps", "2", "--side", "64", "--eval_scenes", "4")
    classes = ("background", "circle", "square", "triangle", "star")
    assert figures.keys() == {"eval_mean_iou", *(f"eval_iou_{name}" for name in classes)}
    drawn = np.asarray(Image.open(tmp_path / "out" / "predictions.png"))
    assert drawn.shape == (3 * (64 + 4), 4 * (64 + 4), 3)


@pytest.mark.slow
def test_the_pyramid_learns_the_shapes_in_minutes(tmp_path):
    figures = run("vim_pyramid.py", tmp_path)
    assert figures["eval_mean_iou"] > 0.85


@pytest.fixture
def cutouts(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module("emoji_cutouts")


@pytest.fixture
def backgrounds(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module("backgrounds")


def table(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


NOUNS = table(EXAMPLES / "emoji_nouns.tsv")


def emoji_package() -> dict[str, bytes]:
    """A package of pictures by codepoints, and some that have no noun; a picture's bytes are its codepoints."""
    pictures = {f"assets/{row['codepoints']}.webp": row["codepoints"].encode() for row in NOUNS}
    return {"package.json": b'{"homepage": "https://example.org"}', "assets/1f600.webp": b"a face", **pictures}


def drawn_package(leave_out: str = "") -> dict[str, bytes]:
    """A package of drawings in the form of Iconify, one of them low."""
    codepoints = [row["codepoints"].replace("-fe0f", "") for row in NOUNS]
    icons = {f"icon-{point}": {"body": f"<path id='{point}'/>"} for point in codepoints if point != leave_out}
    icons["icon-1f412"]["height"] = 16
    collection = {"width": 32, "height": 32, "icons": icons, "aliases": {"a-face": {"parent": "icon-1f412"}}}
    chars = {"1f600": "a-face", **{point: f"icon-{point}" for point in codepoints}}
    files = {"package.json": {"homepage": "https://example.org"}, "icons.json": collection, "chars.json": chars}
    return {name: json.dumps(value).encode() for name, value in files.items()}


def test_cutouts_have_the_nouns_of_the_table_and_the_pictures_of_the_package(cutouts, tmp_path):
    number = cutouts.write_cutouts(tmp_path / "out", "fluent", cutouts.STYLES["fluent"], emoji_package())
    rows = table(tmp_path / "out" / "nouns.tsv")
    assert number == len(rows) == len(NOUNS) == 572
    assert [(row["noun"], row["group"], row["subgroup"]) for row in rows] == [
        (row["noun"], row["group"], row["subgroup"]) for row in NOUNS
    ]
    pictures = {path.name: path.read_bytes() for path in (tmp_path / "out" / "images").iterdir()}
    assert pictures == {row["file"]: row["file"].removesuffix(".webp").encode() for row in rows}
    assert "Microsoft" in (tmp_path / "out" / "LICENSE").read_text(encoding="utf-8")
    readme = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "# 572 cut-outs" in readme and "[@lobehub/fluent-emoji-3d](https://example.org) 1.1.0" in readme


def test_cutouts_are_painted_at_their_shape_and_without_what_a_style_draws_otherwise(cutouts, tmp_path, monkeypatch):
    monkeypatch.setattr(cutouts, "paint", str.encode)
    cutouts.write_cutouts(tmp_path / "out", "twemoji", cutouts.STYLES["twemoji"], drawn_package())
    rows = {row["noun"]: row["file"] for row in table(tmp_path / "out" / "nouns.tsv")}
    others = {row["noun"] for row in NOUNS if row["another_thing_in"] == "twemoji"}
    assert others == {"rooster", "ewe", "tennis racket", "bookmark", "bowling pins"}
    assert rows.keys() == {row["noun"] for row in NOUNS} - others
    assert len(list((tmp_path / "out" / "images").iterdir())) == len(rows)
    monkey = (tmp_path / "out" / "images" / rows["monkey"]).read_text(encoding="utf-8")
    assert 'width="256" height="128" viewBox="0 0 32 16"' in monkey and "<path id='1f412'/>" in monkey
    thermometer = (tmp_path / "out" / "images" / "1f321-fe0f.png").read_text(encoding="utf-8")
    assert "<path id='1f321'/>" in thermometer and 'height="256"' in thermometer
    assert "CC BY 4.0" in (tmp_path / "out" / "LICENSE").read_text(encoding="utf-8")


def test_a_drawing_is_painted_with_alpha(cutouts):
    pytest.importorskip("resvg_py", reason="resvg-py is not installed: pip install resvg-py==0.5.0")
    files = drawn_package()
    collection = json.loads(files["icons.json"])
    collection["icons"]["icon-1f412"]["body"] = '<path fill="#f00" d="M0 0h16v16H0z"/>'
    drawing = cutouts.find_drawings({**files, "icons.json": json.dumps(collection).encode()})["1f412"]
    painted = np.asarray(Image.open(io.BytesIO(cutouts.paint(drawing))))
    assert painted.shape == (128, 256, 4)
    assert (painted[:, :128] == (255, 0, 0, 255)).all() and (painted[:, 128:, 3] == 0).all()


def test_a_package_that_lacks_a_picture_leaves_no_folder(cutouts, tmp_path, monkeypatch):
    monkeypatch.setattr(cutouts, "paint", str.encode)
    with pytest.raises(ValueError, match=r"@iconify-json/noto@1\.2\.9 has no picture of 1f5ff, the moai\."):
        cutouts.write_cutouts(tmp_path / "out", "noto", cutouts.STYLES["noto"], drawn_package(leave_out="1f5ff"))
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not REAL_CUTOUTS.is_dir(), reason="shared/real/cutouts is not beside the checkout")
def test_the_table_is_that_of_the_real_cutouts():
    real = table(REAL_CUTOUTS / "nouns.tsv")
    ours = [{"file": row["codepoints"] + ".webp", **row} for row in NOUNS]
    assert [{name: row[name] for name in real[0]} for row in ours] == real


def make_archive(path: Path, files: dict[str, bytes]) -> str:
    """Write an archive as npm packs it, and say its integrity."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return "sha512-" + base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()


def install_npm(folder: Path, script: str, monkeypatch) -> None:
    """A program called npm, and no other."""
    npm = folder / "npm"
    npm.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin")


@pytest.mark.skipif(os.name == "nt", reason="the stand-in for npm is a shell script")
def test_a_package_is_taken_from_npm_or_a_file_if_it_is_the_one_that_is_meant(cutouts, tmp_path, monkeypatch):
    packages = importlib.import_module("npm_packages")
    integrity = make_archive(tmp_path / "a.tgz", {"assets/1.webp": b"one"})
    # $1 $2 $3 are: pack NAME@VERSION --pack-destination
    install_npm(tmp_path, f'[ "$1 $2" = "pack a@1" ] && cp {tmp_path}/a.tgz "$4/a-1.tgz"', monkeypatch)
    for path in (None, tmp_path / "a.tgz"):
        assert packages.read_package(packages.Package("a", "1", integrity), path) == {"assets/1.webp": b"one"}
        with pytest.raises(ValueError, match=r"is sha512-.+, that of a@1 is sha512-no; give --package"):
            packages.read_package(packages.Package("a", "1", "sha512-no"), path)
    install_npm(tmp_path, "echo 'E404 not found' >&2; exit 1", monkeypatch)
    with pytest.raises(ValueError, match=r"npm pack a@2 brought no archive and said: 'E404 not found'"):
        packages.fetch(packages.Package("a", "2", integrity))
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(ValueError, match=r"npm is not on the PATH; install Node\.js"):
        packages.fetch(packages.Package("a", "1", integrity))


@pytest.mark.parametrize("name", ["emoji_cutouts", "backgrounds"])
def test_another_archive_is_one_line_and_leaves_nothing(name, tmp_path):
    make_archive(tmp_path / "a.tgz", {})
    result = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), "out", "--package", "a.tgz"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1 and not result.stdout
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"{name}: The integrity of a.tgz is sha512-")
    assert [path.name for path in tmp_path.iterdir()] == ["a.tgz"]


def test_backgrounds_are_views_around_their_panoramas(backgrounds, tmp_path, monkeypatch):
    column = np.arange(512)
    panorama = np.broadcast_to(np.stack([column % 256, column // 256, 0 * column], -1), (256, 512, 3)).astype(np.uint8)
    monkeypatch.setattr(backgrounds, "read_panorama", lambda module: panorama)
    monkeypatch.setattr(backgrounds, "expose", lambda light: light)
    files = {f"hdri/{name}.exr.js": b"" for name in backgrounds.VIEWS}
    number = backgrounds.write_backgrounds(tmp_path / "out", {**files, "LICENSE": b"CC0"})
    rows = table(tmp_path / "out" / "ATTRIBUTION.tsv")
    assert number == len(rows) == 21 and {row["licence"] for row in rows} == {"CC0-1.0"}
    for row in rows:
        view = np.asarray(Image.open(tmp_path / "out" / row["file"])).astype(int)
        first = int(row["file"].removesuffix(".png").split("_")[1])
        assert view.shape == (192, 256, 3)
        assert (view[..., 0] + 256 * view[..., 1] == (first + np.arange(256)) % 512).all()
    assert (tmp_path / "out" / "LICENSE").read_bytes() == b"CC0"


def test_light_is_exposed_for_its_mean_and_brighter_light_is_shown_brighter(backgrounds):
    # a mean of 0.18 is 118 of 255 in sRGB, however bright the light
    for brightness in (0.1, 1.0, 500.0):
        assert (backgrounds.expose(np.full((4, 4, 3), brightness)) == 118).all()
    ramp = backgrounds.expose(np.repeat(np.geomspace(0.01, 1000, 64)[None, :, None], 3, axis=-1)).astype(int)
    assert (np.diff(ramp[0, :, 0]) >= 0).all() and ramp.max() == 255


def test_a_panorama_is_read_as_light(backgrounds, tmp_path):
    exr = pytest.importorskip("OpenEXR", reason="OpenEXR is not installed: pip install OpenEXR")
    light = np.random.default_rng(0).uniform(0, 4, (8, 16, 3)).astype(np.float16)
    light[0, 0] = np.inf
    with exr.File({"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage}, {"RGB": light}) as file:
        file.write(str(tmp_path / "a.exr"))
    encoded = base64.b64encode((tmp_path / "a.exr").read_bytes())
    read = backgrounds.read_panorama(b"export default 'data:application/exr;base64," + encoded + b"';")
    np.testing.assert_array_equal(read, np.nan_to_num(light.astype(np.float64), posinf=65504))


def test_objects_of_photographs_are_cut_out_by_their_masks(tmp_path):
    """Two boxes, red and green, in a grey picture; another is cut off by its edge, one is small, one a crowd."""
    pixels = np.full((120, 200, 3), 128, np.uint8)
    boxes = {7: (20, 30, 60, 50), 3: (110, 20, 55, 80), 4: (150, 60, 50, 50), 5: (100, 5, 20, 60), 6: (5, 5, 90, 100)}
    annotations = []
    for number, (left, top, width, height) in boxes.items():
        outline = [left, top, left + width, top, left + width, top + height, left, top + height]
        annotations.append({"id": number, "image_id": 1, "category_id": 2 + number % 2, "segmentation": [outline]})
        annotations[-1] |= {"bbox": [left, top, width, height], "area": width * height, "iscrowd": int(number == 6)}
    for number, colour in {7: (220, 0, 0), 3: (0, 200, 0)}.items():
        left, top, width, height = boxes[number]
        pixels[top : top + height, left : left + width] = colour
    Image.fromarray(pixels).save(tmp_path / "a.png")
    categories = [{"id": 2, "name": "kite"}, {"id": 3, "name": "teddy bear", "supercategory": "toy"}]
    images = [{"id": 1, "file_name": "a.png", "height": 120, "width": 200}]
    instances = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "instances.json").write_text(json.dumps(instances))
    script = [sys.executable, str(EXAMPLES / "photo_cutouts.py"), "instances.json", ".", "cut"]
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
    subprocess.run(script, cwd=tmp_path, check=True, capture_output=True, env=environment)
    lines = (tmp_path / "cut/cutouts/nouns.tsv").read_text().splitlines()
    assert lines == ["file\tnoun\tgroup", "7.png\tteddy bear\ttoy", "3.png\tteddy bear\ttoy"]
    for number, colour in {7: (220, 0, 0), 3: (0, 200, 0)}.items():
        crop = Image.open(tmp_path / "cut/cutouts/images" / f"{number}.png")
        assert crop.mode == "RGBA" and crop.size == boxes[number][2:]
        assert crop.getpixel((crop.width // 2, crop.height // 2)) == (*colour, 255)
    shown = (tmp_path / "cut/backgrounds/nouns.tsv").read_text().splitlines()
    assert shown == ["file\tnoun", "a.png\tkite", "a.png\tteddy bear"]
    assert (tmp_path / "cut/backgrounds/a.png").read_bytes() == (tmp_path / "a.png").read_bytes()
    again = subprocess.run(script, cwd=tmp_path, check=False, capture_output=True, text=True, env=environment)
    assert again.returncode != 0 and "is not an empty folder" in again.stderr
    (tmp_path / "a.png").unlink()
    lost = subprocess.run(
        [*script[:-1], "more"], cwd=tmp_path, check=False, capture_output=True, text=True, env=environment
    )
    assert lost.returncode != 0 and not (tmp_path / "more").exists()
    assert lost.stderr.startswith("photo_cutouts: ") and "a.png" in lost.stderr and lost.stderr.count("\n") == 1
