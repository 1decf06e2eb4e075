# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""
Named cut-outs to compose pictures of: emoji whose licences let a model that is trained on them ship.

    python examples/emoji_cutouts.py cutouts/fluent
    python examples/emoji_cutouts.py cutouts/noto --style noto

fetches one npm package of a pinned version with npm, and writes images/ with a picture per noun, 256 pixels wide or
high, nouns.tsv, which says of each file what it shows, and LICENSE and README.md, which say whose they are. The same
command writes the same bytes again. All styles but fluent are drawings that resvg paints: pip install
resvg-py==0.5.0.

The nouns are those of emoji_nouns.tsv beside this script. What a style draws as another thing than the noun says is
left out of that style: its table's last column names them.
"""

import argparse
import csv
import json
from dataclasses import dataclass
from pathlib import Path

from npm_packages import Package, add_argument, read_package

from remamber_hf.files import check_new_folder, make_whole_folder


HERE = Path(__file__).parent
SIDE = 256  # pixels of the longer side of what is painted here, as of the pictures that are not


@dataclass(frozen=True)
class Style:
    """Where a style's pictures come from; `author` and `licence` are theirs, `licence` as SPDX abbreviates it."""

    package: Package
    author: str
    licence: str
    source: str


FLUENT = ("MIT", "https://github.com/microsoft/fluentui-emoji")
# Twemoji is for measuring: a model that has never seen it is measured on the nouns alone, not on how they are drawn.
STYLES = {
    "fluent": Style(
        Package(
            "@lobehub/fluent-emoji-3d",
            "1.1.0",
            "sha512-Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60lUAG3h7g==",
        ),
        "Microsoft Corporation; (c) 2023 LobeHub",
        *FLUENT,
    ),
    "flat": Style(
        Package(
            "@iconify-json/fluent-emoji-flat",
            "1.2.6",
            "sha512-RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
        ),
        "Microsoft Corporation",
        *FLUENT,
    ),
    "noto": Style(
        Package(
            "@iconify-json/noto",
            "1.2.9",
            "sha512-DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==",
        ),
        "Google Inc",
        "Apache-2.0",
        "https://github.com/googlefonts/noto-emoji",
    ),
    "twemoji": Style(
        Package(
            "@iconify-json/twemoji",
            "1.2.5",
            "sha512-uKpuIEV0v6K5BW3Mjdyl+XKFVAbbcPxAgifKvEMtZoUZB5+YiY5zaMm2uNNCxyXzAWU9yNLlj41WU6/mvgALsw==",
        ),
        "Twitter, Inc and other contributors",
        "CC-BY-4.0",
        "https://github.com/jdecked/twemoji",
    ),
}

MIT = """\
MIT License

Copyright (c) {author}

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""
CC_BY = """\
Creative Commons Attribution 4.0 International

Graphics copyright {author}, licensed under CC BY 4.0: https://creativecommons.org/licenses/by/4.0/legalcode
"""
README = """\
# {number} cut-outs

| | |
|---|---|
| package | [{name}]({homepage}) {version}, from npm |
| pictures | {author}, {source} |
| licence | {licence}: see LICENSE |
| changed | {changed} |

`nouns.tsv` says what each file of `images/` shows. `examples/emoji_cutouts.py` of remamber_hf wrote this folder.
"""


def find_rasters(files: dict[str, bytes]) -> dict[str, bytes]:
    """WebP pictures of a package of LobeHub, by codepoints such as "1f336-fe0f"."""
    pictures = {Path(name) for name in files if name.startswith("assets/") and name.endswith(".webp")}
    return {path.stem: files[path.as_posix()] for path in pictures}


def find_drawings(files: dict[str, bytes]) -> dict[str, str]:
    """SVG drawings of a package of Iconify, by codepoints, which Iconify writes without the fe0f in them."""
    collection, names = json.loads(files["icons.json"]), json.loads(files["chars.json"])
    drawings = {}
    for codepoints, name in names.items():
        icon = collection["icons"].get(name)
        if icon is not None:  # else an alias, of a face or a flag
            box = {"left": 0, "top": 0, "width": collection["width"], "height": collection["height"], **icon}
            scale = SIDE / max(box["width"], box["height"])
            drawings[codepoints] = (
                '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
                f'width="{box["width"] * scale:g}" height="{box["height"] * scale:g}" '
                f'viewBox="{box["left"]} {box["top"]} {box["width"]} {box["height"]}">{icon["body"]}</svg>'
            )
    return drawings


def paint(drawing: str) -> bytes:
    """The PNG of an SVG, with alpha."""
    try:
        import resvg_py
    except ImportError:
        raise ValueError("this style is drawn by resvg; pip install resvg-py==0.5.0.") from None
    return bytes(resvg_py.svg_to_bytes(svg_string=drawing, skip_system_fonts=True))


def write_cutouts(folder: Path, name: str, style: Style, files: dict[str, bytes]) -> int:
    """
    Fill `folder`, which is new or empty, with the cut-outs of the style `name`, and say how many there are.

    `files` are its package's, by their paths in it.

    Raises:
        FileExistsError: if something is there.
        ValueError: if the package lacks a picture that the table has.
    """
    rasters = find_rasters(files)
    drawings = {} if rasters else find_drawings(files)
    suffix = ".webp" if rasters else ".png"
    with open(HERE / "emoji_nouns.tsv", encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table, delimiter="\t", quoting=csv.QUOTE_NONE))
    rows = [row for row in rows if name not in row["another_thing_in"].split()]
    with make_whole_folder(folder) as unfinished:
        (unfinished / "images").mkdir()
        lines = ["file\tnoun\tgroup\tsubgroup"]
        for row in rows:
            codepoints = row["codepoints"] if rasters else row["codepoints"].replace("-fe0f", "")
            picture = rasters.get(codepoints) or drawings.get(codepoints)
            if picture is None:
                raise ValueError(f"{style.package} has no picture of {row['codepoints']}, the {row['noun']}.")
            file = row["codepoints"] + suffix
            (unfinished / "images" / file).write_bytes(picture if isinstance(picture, bytes) else paint(picture))
            lines.append("\t".join((file, row["noun"], row["group"], row["subgroup"])))
        (unfinished / "nouns.tsv").write_bytes("".join(line + "\n" for line in lines).encode())
        write_licence(unfinished, style, files, len(rows), "nothing" if rasters else f"painted at {SIDE} pixels")
    return len(rows)


def write_licence(folder: Path, style: Style, files: dict[str, bytes], number: int, changed: str) -> None:
    """LICENSE, the package's own where it has one, and README.md."""
    texts = {"MIT": MIT.format(author=style.author), "CC-BY-4.0": CC_BY.format(author=style.author)}
    if "LICENSE" in files:
        licence = files["LICENSE"]
    elif style.licence in texts:
        licence = texts[style.licence].encode()
    else:  # Apache-2.0: ours too
        licence = (HERE.parent / "LICENSE").read_bytes()
    (folder / "LICENSE").write_bytes(licence)
    homepage = json.loads(files["package.json"])["homepage"]
    facts = {**vars(style.package), **vars(style), "number": number, "homepage": homepage, "changed": changed}
    (folder / "README.md").write_bytes(README.format(**facts).encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="to write; new or empty")
    parser.add_argument("--style", choices=STYLES, default="fluent")
    add_argument(parser)
    options = parser.parse_args()
    style = STYLES[options.style]
    try:
        check_new_folder(options.folder)
        files = read_package(style.package, options.package)
        number = write_cutouts(options.folder, options.style, style, files)
    except (OSError, ValueError) as error:
        raise SystemExit(f"emoji_cutouts: {error}") from None
    print({"folder": str(options.folder), "style": options.style, "cutouts": number})


if __name__ == "__main__":
    main()
