# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""
Cut-outs of the objects in photographs that have masks, to compose more pictures of.

    python examples/photo_cutouts.py instances.json images cutouts
    remamber data compose more --cutouts cutouts --backgrounds landscapes --images 2000

takes a file of COCO's form and the folder of its pictures, and writes a PNG with an alpha channel for each object, and
nouns.tsv, which calls it as its category. Crowds, objects that the picture's edge cuts off and small ones are left
out. Where a photograph's licence forbids changes or commercial use, it forbids it of the cut-outs too.
"""

import argparse
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("instances", type=Path, help="file of COCO's form")
    parser.add_argument("images", type=Path, help="folder of its pictures")
    parser.add_argument("output_dir", type=Path, help="folder to make")
    parser.add_argument("--min_side", type=int, default=48, help="pixels that an object is wide and high at least")
    parser.add_argument("--subset", help="only pictures whose entry says so under subset, such as train")
    arguments = parser.parse_args()
    check_new_folder(arguments.output_dir)
    coco = COCO(str(arguments.instances))
    lines = ["file\tnoun\tgroup"]
    with make_whole_folder(arguments.output_dir) as unfinished:
        (unfinished / "images").mkdir()
        for image_id in sorted(coco.imgs):
            entry = coco.imgs[image_id]
            if arguments.subset is not None and entry.get("subset") != arguments.subset:
                continue
            with Image.open(arguments.images / Path(entry["file_name"]).name) as picture:
                picture.load()
            for annotation in coco.loadAnns(coco.getAnnIds(image_id, iscrowd=False)):
                mask = coco.annToMask(annotation).astype(bool)
                is_cut_off = mask[[0, -1]].any() or mask[:, [0, -1]].any()
                if is_cut_off or min(mask.any(axis=0).sum(), mask.any(axis=1).sum()) < arguments.min_side:
                    continue
                name = f"{annotation['id']}.png"
                cut_out(picture, mask).save(unfinished / "images" / name)
                category = coco.cats[annotation["category_id"]]
                lines.append(f"{name}\t{category['name']}\t{category.get('supercategory', '')}")
        if len(lines) == 1:
            raise SystemExit(f"{arguments.instances} has no object that is whole and large enough; lower --min_side.")
        (unfinished / "nouns.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print({"cutouts": len(lines) - 1})


if __name__ == "__main__":
    main()
