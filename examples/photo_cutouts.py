# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""
Cut-outs of the objects in photographs that have masks, and the photographs to paste them on: more pictures of them.

    python examples/photo_cutouts.py instances.json images parts
    remamber data compose more --cutouts parts/cutouts --backgrounds parts/backgrounds --images 2000

takes a file of COCO's form and the folder of its pictures. It writes a PNG with an alpha channel for each object,
called as its category, and the photographs, each with the categories of all that is on it, crowds too. Crowds, objects
that the picture's edge cuts off and small ones are not cut out. Where a photograph's licence forbids changes or
commercial use, it forbids it of the cut-outs too.
"""

import argparse
import io
import shutil
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter
from pycocotools.coco import COCO

from remamber_hf.files import check_new_folder, make_whole_folder


SIDE = 256  # most pixels of the longer side
HARD_EDGE = 0.6  # of a pixel: masks of people are steps, which would be seen


def cut_out(picture: Image.Image, mask: np.ndarray) -> Image.Image:
    """Crop an object, by its mask, bool (height, width): RGBA, transparent around it."""
    alpha = Image.fromarray(255 * mask.astype(np.uint8)).filter(ImageFilter.GaussianBlur(HARD_EDGE))
    whole = picture.convert("RGB")
    whole.putalpha(alpha)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    crop = whole.crop((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    crop.thumbnail((SIDE, SIDE))
    return crop


def write_parts(arguments: argparse.Namespace) -> int:
    """Write the folder, and say how many cut-outs it has; OSError or ValueError for what cannot be read."""
    check_new_folder(arguments.output_dir)
    with redirect_stdout(io.StringIO()):  # pycocotools says how long it took
        coco = COCO(str(arguments.instances))
    cut, shown = ["file\tnoun\tgroup"], ["file\tnoun"]
    with make_whole_folder(arguments.output_dir) as unfinished:
        cutouts, backgrounds = unfinished / "cutouts", unfinished / "backgrounds"
        (cutouts / "images").mkdir(parents=True)
        backgrounds.mkdir()
        for image_id in sorted(coco.imgs):
            entry = coco.imgs[image_id]
            if arguments.subset is not None and entry.get("subset") != arguments.subset:
                continue
            path = arguments.images / Path(entry["file_name"]).name
            shutil.copyfile(path, backgrounds / path.name)
            with Image.open(path) as picture:
                picture.load()
            annotations = coco.loadAnns(coco.getAnnIds(image_id))
            names = {coco.cats[annotation["category_id"]]["name"] for annotation in annotations}
            shown += [f"{path.name}\t{name}" for name in sorted(names)]
            for annotation in annotations:
                mask = coco.annToMask(annotation).astype(bool)
                is_cut_off = mask[[0, -1]].any() or mask[:, [0, -1]].any()
                sides = [int(mask.any(axis=axis).sum()) for axis in (0, 1)]
                if annotation["iscrowd"] or is_cut_off or min(sides) < arguments.min_side:
                    continue
                name = f"{annotation['id']}.png"
                cut_out(picture, mask).save(cutouts / "images" / name)
                category = coco.cats[annotation["category_id"]]
                cut.append(f"{name}\t{category['name']}\t{category.get('supercategory', '')}")
        if len(cut) == 1:
            raise ValueError(f"{arguments.instances} has no object that is whole and large enough; lower --min_side.")
        (cutouts / "nouns.tsv").write_text("\n".join(cut) + "\n", encoding="utf-8")
        (backgrounds / "nouns.tsv").write_text("\n".join(shown) + "\n", encoding="utf-8")
    return len(cut) - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("instances", type=Path, help="file of COCO's form")
    parser.add_argument("images", type=Path, help="folder of its pictures")
    parser.add_argument("output_dir", type=Path, help="folder to make")
    parser.add_argument("--min_side", type=int, default=48, help="pixels that an object is wide and high at least")
    parser.add_argument("--subset", help="only pictures whose entry says so under subset, such as train")
    arguments = parser.parse_args()
    try:
        number = write_parts(arguments)
    except (OSError, ValueError) as error:
        raise SystemExit(f"photo_cutouts: {error}") from None
    print({"cutouts": number})


if __name__ == "__main__":
    main()
