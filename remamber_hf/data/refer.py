# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""RefCOCO, RefCOCO+, G-Ref, RefCLEF and gRefCOCO from their published REFER files.

instances.json + refs(split_by).p + pictures → checked rows → Arrow cache; `row_mask` draws a row's mask on demand.

    <data_dir>/<dataset>/instances.json
    <data_dir>/<dataset>/refs(<split_by>).p              grefs(<split_by>).json for gRefCOCO
    <data_dir>/images/mscoco/images/train2014/           LAVT's layout
    <data_dir>/train2014/                                ReMamber's layout
    <data_dir>/images/train2014/                         gRefCOCO's layout
    <data_dir>/images/<dataset>/JPEGImages/              RRSIS-D's layout

`COCO_FOLDERS` has more places for COCO's pictures. RefCLEF's are in `images/saiapr_tc-12/` or `saiapr_tc-12/`. Any
further folder with the first two files is a data set too, whose pictures may be in `images/<dataset>/`.

What is handled by rule:
- The splits are the exact names in the refs file, in the papers' order; nothing is joined to a "test". REFER's own
  reader joins the refs of RefCLEF's testAB to its testA and testB, and likewise for every such name: to have its
  testA, concatenate the splits testA and testAB.
- A picture's name is that of instances.json, and its rows have its size. The name in the refs file is not read.
- A picture with an EXIF rotation is copied into the cache as it is stored, since the annotations are not rotated.
- Python 2 text is read as UTF-8, and as Latin-1 where it is not UTF-8.
- An RLE dict (a crowd) and a list of them (RefCLEF) are masks like polygons, compressed or not.
- In a generalised set crowds (`iscrowd`) are left out, as the published readers of gRefCOCO do, and counted.
- A polygon under 3 points covers nothing: it is left out and counted. (pycocotools would read 4 numbers as a box.)
- What an annotation has outside the picture is cut off.
- A sentence id that came before is counted, and its sentence kept: sentences are read from their refs, never by id.

What is reported, with data set, ref id and file names: a ref or annotation without a needed field, a ref id that came
before, an id that stands twice in images, annotations or categories, an unknown one, an annotation of another picture,
an annotation that has no polygon of 3 points or covers no pixel or reaches further than one picture size outside, an
RLE whose runs do not fill the picture, a ref of crowds only in a generalised set, an empty sentence, one that is not
Unicode text, one of which the file says that it is true of nothing ("exist": false, in R-RefCOCO), a picture that is
missing, unreadable, truncated or of another size, a picture name that leaves the folder. `on_error="raise"` stops
there. `on_error="skip"` logs it and leaves the row out (only the sentence, where a sentence is empty or absent); the
counts are logged at every load and kept in `info.description`. A split of which nothing is left raises.

The files are anybody's: nothing in them is executed, and what a message shows of them is cut and escaped.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import datasets
from PIL import Image
from tqdm import tqdm

from ..messages import describe, shorten
from ..pictures import PILLOW_ERRORS, readable_formats
from .coco import check_segmentation, read_instances
from .picture_files import encode_png, ends_well, is_rotated
from .published import PUBLISHED_SETS, picture_folders
from .reading import (
    PICKLE_ERRORS,
    Defect,
    PlainUnpickler,
    are_within,
    check_tree,
    decode_text,
    integer_of,
    is_integer,
    read_json,
    read_regular_file,
    text_of,
)
from .rows import SPLIT_NAME, is_split_name, one_row_per_sentence, papers_order, refer_features, writable_cache


logger = logging.getLogger(__name__)

# Caches that `load_refer` filled or opened in this process: the paths of pictures in them are those of its `data_dir`.
READ_HERE: set[str] = set()
# Raise it when the rows change: the Arrow cache knows no hash of this file.
VERSION = datasets.Version("1.1.0")
ON_ERROR = ("raise", "skip")
SENTENCES = ("sent", "raw")
NO_TARGET = [-1]
# What is left out, or only noticed, without a row being lost.
SMALL_POLYGON = "polygon under 3 points"
CROWD = "crowd in a generalised ref"
REPEATED_SENTENCE_ID = "repeated sentence id"
MAX_SPLITS = 100


@dataclass
class ReferConfig(datasets.BuilderConfig):
    """One data set and the way it is split.

    Args:
        dataset (`str`): name of the folder with the annotations.
        split_by (`str`): who split it: the name in the parentheses of the refs file.
        generalized (`bool`): read grefs(split_by).json, in which a sentence may mean several objects or none.
        on_error (`str`): "raise" or "skip", see the top of the file.
        sentences (`str`): "sent", the text as it was cleaned, or "raw", as it was written.
    """

    version: datasets.Version = VERSION
    dataset: str = ""
    split_by: str = ""
    generalized: bool = False
    on_error: str = "raise"
    sentences: str = "sent"

    def __post_init__(self):
        self.name = f"{self.dataset}_{self.split_by}"
        super().__post_init__()

    @property
    def root(self) -> Path:
        return Path(os.path.abspath(os.path.expanduser(self.data_dir)))

    @property
    def instances_path(self) -> Path:
        return self.root / self.dataset / "instances.json"

    @property
    def refs_path(self) -> Path:
        name = f"grefs({self.split_by}).json" if self.generalized else f"refs({self.split_by}).p"
        return self.root / self.dataset / name

    @property
    def image_folders(self) -> list[Path]:
        """The folders of pictures that are there."""
        return [folder for folder in self.image_places if folder.is_dir()]

    @property
    def image_places(self) -> list[Path]:
        """Where the pictures are looked for."""
        return [self.root / folder for folder in picture_folders(self.dataset)]

    def create_config_id(self, config_kwargs: dict, custom_features: datasets.Features | None = None) -> str:
        """Return the name of the cache folder: it changes with the arguments and with the files they point to."""
        self._check()
        return super().create_config_id({**config_kwargs, "fingerprint": self._fingerprint()}, custom_features)

    def _check(self) -> None:
        for name, choices in (("on_error", ON_ERROR), ("sentences", SENTENCES)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {describe(getattr(self, name))}; choose one of {', '.join(choices)}.")
        if self.data_dir is None:
            raise ValueError(f"data_dir is missing; give the folder that holds {self.dataset}/ and the pictures.")
        for path in (self.instances_path, self.refs_path):
            if not path.is_file():
                raise FileNotFoundError(
                    f"{path} is missing; data_dir must hold {self.dataset}/{self.instances_path.name} and "
                    f"{self.dataset}/{self.refs_path.name}."
                )
        if not self.image_folders:
            wanted = " or ".join(picture_folders(self.dataset))
            raise FileNotFoundError(f"{self.root} holds no folder of pictures; put them into {wanted}.")

    def _fingerprint(self) -> str:
        digest = hashlib.sha256(os.fsencode(self.root))
        for path in (self.instances_path, self.refs_path):
            digest.update(hashlib.sha256(read_regular_file(path)).digest())
        if self.on_error == "skip":
            # A picture that was missing may have come since.
            for folder in self.image_folders:
                for parent, _, names in sorted(os.walk(folder)):
                    for name in sorted(names):
                        size = os.stat(os.path.join(parent, name)).st_size
                        digest.update(os.fsencode(f"{parent}/{name}\0{size}\0"))
        return digest.hexdigest()


class ReferBuilder(datasets.GeneratorBasedBuilder):
    """refs file → `RowReader` → one Arrow file per split, with pictures by path and masks as polygons or RLE."""

    BUILDER_CONFIG_CLASS = ReferConfig
    BUILDER_CONFIGS = [
        ReferConfig(dataset=dataset, split_by=split_by, generalized=dataset == "grefcoco")
        for dataset, all_split_by in PUBLISHED_SETS.items()
        for split_by in all_split_by
    ]

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            features=refer_features(self.config.generalized), homepage="https://github.com/lichengunc/refer"
        )

    def _split_generators(self, dl_manager) -> list[datasets.SplitGenerator]:
        reader = RowReader(self.config)
        self._rows = reader.rows_by_split()
        self.info.description = reader.summary()
        for split, rows in self._rows.items():
            if not rows:
                raise ValueError(f"All of split {split} is left out; mend the files. {self.info.description}")
        return [datasets.SplitGenerator(name=split, gen_kwargs={"split": split}) for split in self._rows]

    def _generate_examples(self, split: str):
        yield from enumerate(self._rows[split])


def load_refer(
    dataset: str,
    split_by: str,
    split: str | None = None,
    *,
    data_dir: str | os.PathLike,
    generalized: bool | None = None,
    expand_sentences: bool = False,
    on_error: str = "raise",
    sentences: str = "sent",
    cache_dir: str | os.PathLike | None = None,
) -> datasets.Dataset | datasets.DatasetDict:
    """Load a REFER data set from files on disk, without the network.

    Args:
        dataset: "refcoco", "refcoco+", "refcocog", "refclef", "grefcoco", or any further folder of `data_dir`.
        split_by: "unc", "google", "umd" or "berkeley", as the data set has it.
        split: exact name of a split; None gives all of them.
        data_dir: folder of one of the layouts at the top of this file.
        generalized: read grefs(split_by).json instead of refs(split_by).p; by default only for "grefcoco".
        expand_sentences: one row per sentence (evaluation) instead of one row per object (training).
        on_error: "raise" or "skip", see the top of this file.
        sentences: "sent", the text as it was cleaned, or "raw", as it was written, which LAVT and ReLA read.
        cache_dir: folder of the Arrow cache; by default that of `datasets`.

    Returns a data set, or one per split if `split` is None. A row has `image` (decoded when it is read), `sentences`,
    `ref_id`, `ann_id`, `image_id`, `category`, `bbox` (x, y, width, height in pixels), `height`, `width`, `split` and
    `segmentation` (one entry per object; see `row_mask`). In a generalised set `ann_id`, `category` and `bbox` are
    lists with one entry per object, and empty if the sentence means nothing in the picture.

    Raises ValueError for an unknown name or a defect in the files, FileNotFoundError for a missing file, and OSError
    where the cache cannot be written.
    """
    if dataset in PUBLISHED_SETS and split_by not in PUBLISHED_SETS[dataset]:
        raise ValueError(
            f"{dataset} is not split by {describe(split_by)}; choose one of {', '.join(PUBLISHED_SETS[dataset])}."
        )
    with writable_cache(cache_dir):
        data = _load(dataset, split_by, split, data_dir, generalized, on_error, sentences, cache_dir)
        return one_row_per_sentence(data) if expand_sentences else data


def _load(dataset, split_by, split, data_dir, generalized, on_error, sentences, cache_dir):
    builder = ReferBuilder(
        cache_dir=None if cache_dir is None else os.fspath(cache_dir),
        data_dir=os.path.abspath(os.path.expanduser(data_dir)),
        dataset=dataset,
        split_by=split_by,
        generalized=dataset == "grefcoco" if generalized is None else generalized,
        on_error=on_error,
        sentences=sentences,
    )
    builder.download_and_prepare()
    READ_HERE.add(builder.cache_dir)
    if "Left out" in builder.info.description or "Noticed" in builder.info.description:
        logger.warning(builder.info.description)
    if split is not None and split not in builder.info.splits:
        names = ", ".join(builder.info.splits)
        raise ValueError(f"{dataset} ({split_by}) has no split {describe(split)}; its splits are {names}.")
    return builder.as_dataset(split=split)


def read_refs(path: str | os.PathLike) -> list[dict]:
    """Read a refs file, `.p` or `.json`: a list of dicts, whose text still has to go through `text_of`.

    Raises ValueError if the file holds something else, a class or function of Python for one.
    """
    path = Path(path)
    content = read_regular_file(path)
    try:
        if path.suffix == ".json":
            refs = read_json(content)
        else:
            refs = PlainUnpickler(io.BytesIO(content)).load()
            check_tree(refs, 10 * len(content))
    except UnicodeDecodeError:
        decode_text(content, path)  # raises, with the line
        raise
    except PICKLE_ERRORS as error:
        raise ValueError(
            f"{shorten(str(path))} is not read: {type(error).__name__}: {shorten(str(error))}. Get the file from "
            "its publisher again."
        ) from error
    if not isinstance(refs, list) or not all(isinstance(ref, dict) for ref in refs):
        raise ValueError(
            f"{shorten(str(path))} holds {type(refs).__name__}, a list of dicts is needed. Get the file again."
        )
    return refs


class RowReader:
    """refs file → rows, by the rules at the top of this file; counts what is left out."""

    def __init__(self, config: ReferConfig):
        self.config = config
        self.instances, self.repeated = read_instances(config.instances_path)
        self.refs = read_refs(config.refs_path)
        if not self.refs:
            raise ValueError(f"{shorten(str(config.refs_path))} holds no ref. Get the file again.")
        if len({split for ref in self.refs if isinstance(split := ref.get("split"), str)}) > MAX_SPLITS:
            raise ValueError(
                f"{shorten(str(config.refs_path))} names more than {MAX_SPLITS} splits. Get the file again."
            )
        self.left_out: Counter[str] = Counter()
        self.noticed: Counter[str] = Counter()
        self.ref_ids: set[int] = set()
        self.sentence_ids: set[int] = set()
        self.pictures: dict[int, dict | Defect] = {}
        self.segmentations: dict[int, dict] = {}

    def rows_by_split(self) -> dict[str, list[dict]]:
        """Return the rows of every split that the refs file names, in the papers' order."""
        rows: dict[str, list[dict]] = {}
        for ref in tqdm(self.refs, desc=f"Checking {self.config.name}", disable=None):
            try:
                rows_of_split = rows.setdefault(_split(ref), [])
                row = self._row(ref)
            except Defect as defect:
                self._report(defect, ref)
                continue
            rows_of_split.append(row)
        return {split: rows[split] for split in papers_order(rows)}

    def summary(self) -> str:
        """Say in one line what was read and what was left out."""
        summary = f"{self.config.dataset} ({self.config.split_by}) from {len(self.refs)} refs."
        if self.left_out:
            kinds = ", ".join(f"{count} × {kind}" for kind, count in sorted(self.left_out.items()))
            summary += f" Left out: {kinds}."
        if self.noticed:
            kinds = ", ".join(f"{count} × {kind}" for kind, count in sorted(self.noticed.items()))
            summary += f" Noticed: {kinds}."
        return summary

    def _report(self, defect: Defect, ref: dict) -> None:
        image = self.instances["images"].get(_hashable(ref.get("image_id")), {})
        message = (
            f"{self.config.dataset} ({self.config.split_by}), ref {describe(ref.get('ref_id'))} of "
            f"{self.config.refs_path.name}, picture {describe(image.get('file_name'))}: {defect}"
        )
        if self.config.on_error == "raise":
            raise ValueError(
                f'{message}. Mend the files, or leave out and count what is wrong: on_error="skip", --on_error skip.'
            ) from None
        logger.warning("%s; left out.", message)
        self.left_out[defect.kind] += 1

    def _row(self, ref: dict) -> dict:
        ref_id = integer_of(ref, "ref_id")
        if ref_id in self.ref_ids:
            raise Defect("repeated ref id", "another ref has this id")
        self.ref_ids.add(ref_id)
        image_id = integer_of(ref, "image_id")
        image = self._entry("images", image_id)
        height, width = integer_of(image, "height"), integer_of(image, "width")
        # Before the masks: the size of the picture itself bounds what is drawn.
        picture = self._picture(image_id)
        annotations = [self._entry("annotations", ann_id) for ann_id in self._annotation_ids(ref)]
        annotations = self._without_crowds(annotations)
        objects = [self._object(annotation, image_id, height, width) for annotation in annotations]
        one_or_all = list if self.config.generalized else next
        return {
            "image": picture,
            "sentences": self._sentences(ref),
            "ref_id": ref_id,
            "ann_id": one_or_all(annotation["id"] for annotation in annotations),
            "image_id": image_id,
            "category": one_or_all(each["category"] for each in objects),
            "bbox": one_or_all(each["bbox"] for each in objects),
            "height": height,
            "width": width,
            "split": _split(ref),
            "segmentation": [each["segmentation"] for each in objects],
        }

    def _entry(self, key: str, entry_id: int) -> dict:
        if entry_id not in self.instances[key]:
            raise Defect(f"unknown id in {key}", f"instances.json has no {entry_id} in {key}")
        if entry_id in self.repeated[key]:
            times = self.repeated[key][entry_id]
            raise Defect(f"repeated id in {key}", f"instances.json has {entry_id} {times} times in {key}")
        return self.instances[key][entry_id]

    def _without_crowds(self, annotations: list[dict]) -> list[dict]:
        """Leave out what the readers of gRefCOCO leave out, in a generalised set only."""
        if not self.config.generalized:
            return annotations
        kept = [annotation for annotation in annotations if not annotation.get("iscrowd")]
        if annotations and not kept:
            raise Defect("only crowds", "each of its annotations has iscrowd, which readers of gRefCOCO leave out")
        if len(kept) < len(annotations):
            self.left_out[CROWD] += len(annotations) - len(kept)
        return kept

    def _annotation_ids(self, ref: dict) -> list[int]:
        if not self.config.generalized:
            return [integer_of(ref, "ann_id")]
        ann_ids = ref.get("ann_id")
        if ann_ids == NO_TARGET:
            return []
        if not isinstance(ann_ids, list) or not ann_ids or not all(is_integer(ann_id) for ann_id in ann_ids):
            raise Defect("malformed entry", f"ann_id is {describe(ann_ids)}, a list of integers is needed")
        return ann_ids

    def _sentences(self, ref: dict) -> list[str]:
        entries = ref.get("sentences")
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise Defect("malformed entry", f"sentences is {describe(entries)}, a list of dicts is needed")
        sentences = []
        for entry in entries:
            sentence, where = text_of(entry, self.config.sentences), f"sentence {describe(entry.get('sent_id'))}"
            if entry.get("exist", True) is False or entry.get("exist") == 0:
                reason = f'{where} has "exist": false, so it means nothing in the picture, which is not read yet'
                self._report(Defect("absent object", reason), ref)
            elif sentence.strip():
                sentences.append(sentence)
                self._notice_id(entry)
            else:
                self._report(Defect("empty sentence", where), ref)
        if not sentences:
            raise Defect("no sentence", "none of its sentences has text")
        return sentences

    def _notice_id(self, entry: dict) -> None:
        sentence_id = _hashable(entry.get("sent_id"))
        if sentence_id is not None and sentence_id in self.sentence_ids:
            self.noticed[REPEATED_SENTENCE_ID] += 1
        self.sentence_ids.add(sentence_id)

    def _object(self, annotation: dict, image_id: int, height: int, width: int) -> dict:
        if annotation.get("image_id") != image_id:
            raise Defect(
                "annotation of another picture",
                f"annotation {annotation['id']} is of image {describe(annotation.get('image_id'))}",
            )
        bbox = annotation.get("bbox")
        if not isinstance(bbox, list) or len(bbox) != 4 or not are_within(bbox, -1e6, 1e6):
            raise Defect("malformed entry", f"bbox is {describe(bbox)}, four numbers are needed")
        if annotation["id"] not in self.segmentations:
            self.segmentations[annotation["id"]] = self._segmentation(annotation, height, width)
        return {
            "category": text_of(self._entry("categories", integer_of(annotation, "category_id")), "name"),
            "bbox": bbox,
            "segmentation": self.segmentations[annotation["id"]],
        }

    def _segmentation(self, annotation: dict, height: int, width: int) -> dict:
        where = f"annotation {annotation['id']}"
        segmentation, num_small = check_segmentation(annotation.get("segmentation"), height, width, where)
        if num_small:
            self.left_out[SMALL_POLYGON] += num_small
        return segmentation

    def _picture(self, image_id: int) -> dict:
        """Return the picture as `datasets.Image` stores it; each is looked at once."""
        if image_id not in self.pictures:
            try:
                self.pictures[image_id] = self._check_picture(self.instances["images"][image_id])
            except Defect as defect:
                self.pictures[image_id] = defect
        picture = self.pictures[image_id]
        if isinstance(picture, Defect):
            raise picture
        return picture

    def _check_picture(self, image: dict) -> dict:
        name = text_of(image, "file_name")
        if not name or "\0" in name or "\\" in name or name.startswith("/") or ".." in PurePosixPath(name).parts:
            raise Defect("picture name leaves the folder", f"file_name is {describe(name)}")
        path = next((path for folder in self.config.image_folders if os.path.isfile(path := folder / name)), None)
        if path is None:
            places = self.config.image_folders or self.config.image_places
            raise Defect("missing picture", f"there is no {describe(name)} in {' or '.join(map(str, places))}")
        wanted = f"{describe(image.get('height'))}×{describe(image.get('width'))}"
        try:
            with Image.open(path, formats=readable_formats()) as picture:
                size = (picture.height, picture.width)
                if size != (image.get("height"), image.get("width")):
                    came = f"{shorten(str(path))} is {size[0]}×{size[1]}"
                    raise Defect("picture of another size", f"{came}, instances.json has {wanted}")
                if Image.MAX_IMAGE_PIXELS is not None and size[0] * size[1] > Image.MAX_IMAGE_PIXELS:
                    raise ValueError(f"it has {size[0] * size[1]} pixels, at most {Image.MAX_IMAGE_PIXELS} are read")
                is_turned = is_rotated(picture)
                if is_turned or not ends_well(path, picture.format):
                    picture.load()
                content = encode_png(picture) if is_turned else None
        except Defect:
            raise
        except PILLOW_ERRORS as error:
            raise Defect("unreadable picture", f"{shorten(str(path))}: {shorten(str(error))}") from None
        return {"path": None if is_turned else str(path), "bytes": content}


def _split(ref: dict) -> str:
    split = text_of(ref, "split")
    if not is_split_name(split):
        raise Defect("malformed entry", f"split is {describe(split)}, {SPLIT_NAME} is needed")
    return split


def _hashable(value):
    return value if isinstance(value, (int, str)) else None
