# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""
Photographs to compose pictures on, whose licence (CC0) lets a model that is trained on them ship.

    pip install OpenEXR
    python examples/backgrounds.py backgrounds

fetches one npm package of a pinned version with npm: 18 panoramas of Poly Haven, 512 x 256 pixels, in light. Of the 11
that show open land, water, sky, streets and empty rooms, and none of the things that emoji_cutouts.py names but far
away, it writes 21 views, 256 x 192 pixels: half of the way round, and 67 degrees up and down. ATTRIBUTION.tsv says
whose they are. The same command writes the same bytes again.
"""

import argparse
import base64
import re
import tempfile
from pathlib import Path

import numpy as np
from npm_packages import Package, add_argument, read_package
from PIL import Image

from remamber_hf.files import check_new_folder, make_whole_folder


PACKAGE = Package(
    "@pmndrs/assets",
    "1.7.0",
    "sha512-zHmKNS+3Jvu9K3zJBQfYQKT9Pn9IQt8s0q/eJC3CXKpWpyg6IBa+ivN9NgDn+fDT2AVjUh2YRZ//GXUueuAdCg==",
)
# The first column of each view, in pixels. Views look away from the sun where it is a hole in the package's picture.
VIEWS = {
    "apartment": (256,),
    "bridge": (0, 256),
    "city": (384,),
    "dawn": (0, 170, 340),
    "night": (0, 170, 340),
    "park": (44, 316),
    "sky": (44, 316),
    "sunrise": (44, 316),
    "sunset": (256,),
    "venice": (0, 256),
    "warehouse": (128, 384),
}
ROWS = slice(24, 216)
WIDTH = 256
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])  # of linear sRGB, ITU-R BT.709


def read_panorama(module: bytes) -> np.ndarray:
    """The light, (height, width, 3) float64, linear sRGB, of an EXR file in a JavaScript module."""
    try:
        import OpenEXR
    except ImportError:
        raise ValueError("the panoramas are OpenEXR files; pip install OpenEXR.") from None
    encoded = re.search(rb"base64,([A-Za-z0-9+/=]+)", module)
    if encoded is None:
        raise ValueError(f"a panorama of {PACKAGE} is no base64.")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "panorama.exr")
        path.write_bytes(base64.b64decode(encoded[1]))
        with OpenEXR.File(str(path)) as file:
            light = file.channels()["RGB"].pixels.astype(np.float64)
    return np.nan_to_num(light).clip(0, 65504)  # 65504: the most that a half is


def expose(light: np.ndarray) -> np.ndarray:
    """
    Light as a camera would show it, uint8 sRGB of the same shape.

    Reinhard et al., Photographic Tone Reproduction for Digital Images, SIGGRAPH 2002, equations 1, 2 and 4; white is
    the 99th percentile.
    """
    scaled = light * (0.18 / np.exp(np.log(light @ LUMINANCE + 1e-4).mean()))
    white = max(np.percentile(scaled, 99), 1.0)
    shown = (scaled * (1 + scaled / white**2) / (1 + scaled)).clip(0, 1)
    encoded = np.where(shown <= 0.0031308, 12.92 * shown, 1.055 * shown ** (1 / 2.4) - 0.055)
    return (encoded * 255).round().astype(np.uint8)


def write_backgrounds(folder: Path, files: dict[str, bytes]) -> int:
    """
    Fill `folder`, which is new or empty, with the views, and say how many there are.

    Raises:
        FileExistsError: if something is there.
        ValueError: if OpenEXR is not installed.
    """
    lines = ["file\ttitle\tauthor\tlicence\tpackage"]
    with make_whole_folder(folder) as unfinished:
        for name, columns in VIEWS.items():
            panorama = expose(read_panorama(files[f"hdri/{name}.exr.js"]))
            for column in columns:
                view = np.roll(panorama, -column, axis=1)[ROWS, :WIDTH]
                file = f"{name}_{column:03}.png"
                Image.fromarray(view).save(unfinished / file)
                lines.append(f"{file}\t{name}\tPoly Haven, https://polyhaven.com/hdris\tCC0-1.0\t{PACKAGE}")
        (unfinished / "ATTRIBUTION.tsv").write_bytes("".join(line + "\n" for line in lines).encode())
        (unfinished / "LICENSE").write_bytes(files["LICENSE"])
    return len(lines) - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="to write; new or empty")
    add_argument(parser)
    options = parser.parse_args()
    try:
        check_new_folder(options.folder)
        number = write_backgrounds(options.folder, read_package(PACKAGE, options.package))
    except (OSError, ValueError) as error:
        raise SystemExit(f"backgrounds: {error}") from None
    print({"folder": str(options.folder), "backgrounds": number})


if __name__ == "__main__":
    main()
