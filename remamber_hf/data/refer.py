"""RefCOCO, RefCOCO+, G-Ref, RefCLEF and gRefCOCO from their published REFER files.

instances.json + refs(split_by).p + pictures → checked rows → Arrow cache; `row_mask` draws a row's mask on demand.

    <data_dir>/<dataset>/instances.json
    <data_dir>/<dataset>/refs(<split_by>).p              grefs(<split_by>).json for gRefCOCO
    <data_dir>/images/mscoco/images/train2014/           LAVT's layout
    <data_dir>/train2014/                                ReMamber's layout
    <data_dir>/images/train2014/                         gRefCOCO's layout

RefCLEF's pictures are in `images/saiapr_tc-12/` or `saiapr_tc-12/`. Any further folder with the first two files is a
data set too. This file stands alone: datasets < 4 loads it as a script, newer versions go through `load_refer`.

What is handled by rule:
- The splits are the exact names in the refs file; nothing is joined to a "test".
- A picture's name is that of instances.json, and its rows have its size. The name in the refs file is not read.
- A picture with an EXIF rotation is copied into the cache as it is stored, since the annotations are not rotated.
- Python 2 text is read as UTF-8, and as Latin-1 where it is not UTF-8.
- An RLE dict (a crowd) and a list of them (RefCLEF) are masks like polygons, compressed or not.
- A polygon under 3 points covers nothing: it is left out and counted. (pycocotools would read 4 numbers as a box.)
- What an annotation has outside the picture is cut off.

What is reported, with data set, ref id and file names: a ref or annotation without a needed field, a ref id that came
before, an unknown annotation, picture or category, an annotation of another picture, an annotation that has no polygon
of 3 points or covers no pixel or reaches further than one picture size outside, an RLE whose runs do not fill the
picture, an empty sentence, a picture that is missing, unreadable, truncated or of another size, a picture name that
leaves the folder. `on_error="raise"` stops there. `on_error="skip"` logs it and leaves the row out (only the sentence,
where a sentence is empty); the counts are logged at every load and kept in `info.description`. A split of which
nothing is left raises.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import pickle
import re
import struct
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import datasets
import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask
from tqdm import tqdm


logger = logging.getLogger(__name__)

# Raise it when the rows change: the Arrow cache knows no hash of this file.
VERSION = datasets.Version("1.0.0")
PUBLISHED_SETS = {
    "refcoco": ("unc", "google"),
    "refcoco+": ("unc",),
    "refcocog": ("umd", "google"),
    "refclef": ("unc", "berkeley"),
    "grefcoco": ("unc",),
}
COCO_FOLDERS = ("images/mscoco/images/train2014", "train2014", "images/train2014")
IMAGE_FOLDERS = {"refclef": ("images/saiapr_tc-12", "saiapr_tc-12")}
ON_ERROR = ("raise", "skip")
MASK_OVERLAPS = ("published", "union")
NO_TARGET = [-1]
SMALL_POLYGON = "polygon under 3 points"
EXIF_ORIENTATION = 0x0112
# The last bytes of a whole file. A file that ends otherwise is decoded to know.
FILE_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
PICTURE_ERRORS = (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError)
PICKLE_ERRORS = (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)


@dataclass
class ReferConfig(datasets.BuilderConfig):
    """One data set and the way it is split.

    Args:
        dataset (`str`): name of the folder with the annotations.
        split_by (`str`): who split it: the name in the parentheses of the refs file.
        generalized (`bool`): read grefs(split_by).json, in which a sentence may mean several objects or none.
        on_error (`str`): "raise" or "skip", see the top of the file.
    """

    version: datasets.Version = VERSION
    dataset: str = ""
    split_by: str = ""
    generalized: bool = False
    on_error: str = "raise"

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
        candidates = [self.root / folder for folder in IMAGE_FOLDERS.get(self.dataset, COCO_FOLDERS)]
        return [folder for folder in candidates if folder.is_dir()]

    def create_config_id(self, config_kwargs: dict, custom_features: datasets.Features | None = None) -> str:
        """Return the name of the cache folder: it changes with the arguments and with the files they point to."""
        self._check()
        return super().create_config_id({**config_kwargs, "fingerprint": self._fingerprint()}, custom_features)

    def _check(self) -> None:
        if self.on_error not in ON_ERROR:
            raise ValueError(f"on_error is {self.on_error!r}; choose one of {', '.join(ON_ERROR)}.")
        if self.data_dir is None:
            raise ValueError(f"data_dir is missing; give the folder that holds {self.dataset}/ and the pictures.")
        for path in (self.instances_path, self.refs_path):
            if not path.is_file():
                raise FileNotFoundError(
                    f"{path} is missing; data_dir must hold {self.dataset}/{self.instances_path.name} and "
                    f"{self.dataset}/{self.refs_path.name}."
                )
        if not self.image_folders:
            wanted = " or ".join(IMAGE_FOLDERS.get(self.dataset, COCO_FOLDERS))
            raise FileNotFoundError(f"{self.root} holds no folder of pictures; put them into {wanted}.")

    def _fingerprint(self) -> str:
        digest = hashlib.sha256(os.fsencode(self.root))
        for path in (self.instances_path, self.refs_path):
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        if self.on_error == "skip":
            # A picture that was missing may have come since.
            for folder in self.image_folders:
                for parent, _, names in sorted(os.walk(folder)):
                    for name in sorted(names):
                        size = os.stat(os.path.join(parent, name)).st_size
                        digest.update(os.fsencode(f"{parent}/{name}\0{size}\0"))
        return digest.hexdigest()


def refer_features(generalized: bool = False) -> datasets.Features:
    """Return the columns of a row; in a generalised set `ann_id`, `category` and `bbox` are lists, one per object."""
    integer, text, number = (datasets.Value(name) for name in ("int64", "string", "float64"))
    return datasets.Features(
        {
            "image": datasets.Image(),
            "sentences": [text],
            "ref_id": integer,
            "ann_id": [integer] if generalized else integer,
            "image_id": integer,
            "category": [text] if generalized else text,
            "bbox": [[number]] if generalized else [number],
            "height": datasets.Value("int32"),
            "width": datasets.Value("int32"),
            "split": text,
            # float64: pycocotools rounds coordinates, and float32 would move some pixels of the border.
            "segmentation": [{"polygons": [[number]], "rles": [text]}],
        }
    )


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
        cache_dir: folder of the Arrow cache; by default that of `datasets`.

    Returns a data set, or one per split if `split` is None. A row has `image` (decoded when it is read), `sentences`,
    `ref_id`, `ann_id`, `image_id`, `category`, `bbox` (x, y, width, height in pixels), `height`, `width`, `split` and
    `segmentation` (one entry per object; see `row_mask`). In a generalised set `ann_id`, `category` and `bbox` are
    lists with one entry per object, and empty if the sentence means nothing in the picture.

    Raises ValueError for an unknown name or a defect in the files, and FileNotFoundError for a missing file.
    """
    if dataset in PUBLISHED_SETS and split_by not in PUBLISHED_SETS[dataset]:
        raise ValueError(
            f"{dataset} is not split by {split_by!r}; choose one of {', '.join(PUBLISHED_SETS[dataset])}."
        )
    builder = ReferBuilder(
        cache_dir=None if cache_dir is None else os.fspath(cache_dir),
        data_dir=os.path.abspath(os.path.expanduser(data_dir)),
        dataset=dataset,
        split_by=split_by,
        generalized=dataset == "grefcoco" if generalized is None else generalized,
        on_error=on_error,
    )
    builder.download_and_prepare()
    if "Left out" in builder.info.description:
        logger.warning(builder.info.description)
    if split is not None and split not in builder.info.splits:
        names = ", ".join(builder.info.splits)
        raise ValueError(f"{dataset} ({split_by}) has no split {split!r}; its splits are {names}.")
    data = builder.as_dataset(split=split)
    return one_row_per_sentence(data) if expand_sentences else data


def one_row_per_sentence(data: datasets.Dataset | datasets.DatasetDict) -> datasets.Dataset | datasets.DatasetDict:
    """Repeat each row for its sentences; only the splits that are asked for are written to the cache a second time."""
    if isinstance(data, datasets.DatasetDict):
        return datasets.DatasetDict({split: one_row_per_sentence(rows) for split, rows in data.items()})
    plain = data.with_format(None).cast_column("image", datasets.Image(decode=False))  # a transform comes afterwards
    expanded = plain.map(_repeat_for_sentences, batched=True).cast_column("image", datasets.Image())
    expanded.set_format(**data.format)
    return expanded


def _repeat_for_sentences(rows: dict[str, list]) -> dict[str, list]:
    repeated = {
        name: [value for value, sentences in zip(column, rows["sentences"]) for _ in sentences]
        for name, column in rows.items()
    }
    return {**repeated, "sentences": [[sentence] for sentences in rows["sentences"] for sentence in sentences]}


def row_mask(row: dict, mask_overlap: str = "published") -> np.ndarray:
    """Draw the mask of a row: all parts of all its objects.

    Args:
        row: a row of `load_refer`.
        mask_overlap: what becomes of pixels that two parts of an object cover. "published": background, as in the
            evaluation of LAVT and ReMamber, which adds up the parts and keeps what equals 1; the evaluation of
            gRefCOCO (a row whose `ann_id` is a list) takes the union. "union": the object.

    Returns the mask, bool (height, width), in memory column by column, as pycocotools decodes and encodes; all False
    if the sentence means nothing in the picture.
    """
    if mask_overlap not in MASK_OVERLAPS:
        raise ValueError(f"mask_overlap is {mask_overlap!r}; choose one of {', '.join(MASK_OVERLAPS)}.")
    height, width = int(row["height"]), int(row["width"])
    parts = [part for segmentation in row["segmentation"] for part in encode_parts(segmentation, height, width)]
    if not parts:
        return np.zeros((height, width), dtype=bool, order="F")
    union = coco_mask.merge(parts)
    mask = coco_mask.decode(union).view(bool)
    is_generalized = np.ndim(row["ann_id"]) == 1
    # The areas of parts add up to that of their union just where none overlap.
    if mask_overlap == "published" and not is_generalized and coco_mask.area(parts).sum() != coco_mask.area(union):
        num_covering = np.zeros(mask.shape, dtype=np.int32, order="F")
        for part in parts:
            num_covering += coco_mask.decode(part)
        mask = num_covering == 1
    return mask


def encode_parts(segmentation: dict, height: int, width: int) -> list[dict]:
    """Return an object's polygons and RLEs as the RLE dicts of pycocotools."""
    polygons = [[float(number) for number in polygon] for polygon in segmentation["polygons"]]
    parts = coco_mask.frPyObjects(polygons, height, width) if polygons else []
    return parts + [{"size": [height, width], "counts": rle.encode("ascii")} for rle in segmentation["rles"]]


class PlainUnpickler(pickle._Unpickler):
    """An unpickler that knows containers, strings and numbers, and refuses every class and function by name.

    Built on the one in pure Python: the one in C makes room for any memo index that a file names.
    """

    def find_class(self, module: str, name: str):
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, and only containers, strings and numbers are read")

    def persistent_load(self, pid):
        raise pickle.UnpicklingError("it asks for a persistent object, and only containers, strings, numbers are read")


def read_refs(path: str | os.PathLike) -> list[dict]:
    """Read a refs file, `.p` or `.json`: a list of dicts, whose text still has to go through `_text`.

    Raises ValueError if the file holds something else, a class or function of Python for one.
    """
    path = Path(path)
    try:
        if path.suffix == ".json":
            refs = json.loads(path.read_bytes())
        else:
            content = io.BytesIO(path.read_bytes())
            refs = PlainUnpickler(content, encoding="utf-8", errors="surrogateescape").load()
    except PICKLE_ERRORS as error:
        raise ValueError(
            f"{path} is not read: {type(error).__name__}: {error}. Get the file from its publisher again."
        ) from error
    if not isinstance(refs, list) or not all(isinstance(ref, dict) for ref in refs):
        raise ValueError(f"{path} holds {type(refs).__name__}, a list of dicts is needed. Get the file again.")
    return refs


def _read_instances(path: Path) -> dict[str, dict[int, dict]]:
    """Read instances.json: {"images": {id: image}, "annotations": {id: annotation}, "categories": {id: category}}."""
    try:
        instances = json.loads(path.read_bytes())
        return {
            key: {entry["id"]: entry for entry in instances[key]} for key in ("images", "annotations", "categories")
        }
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is not read: {type(error).__name__}: {error}. It needs the lists images, annotations and "
            "categories, with an id in every entry; get the file again."
        ) from error


class Defect(ValueError):
    """What is wrong with a ref: its kind, by which it is counted, and the particulars."""

    def __init__(self, kind: str, particulars: str):
        super().__init__(f"{kind}: {particulars}")
        self.kind = kind


class RowReader:
    """refs file → rows, by the rules at the top of this file; counts what is left out."""

    def __init__(self, config: ReferConfig):
        self.config = config
        self.instances = _read_instances(config.instances_path)
        self.refs = read_refs(config.refs_path)
        self.left_out: Counter[str] = Counter()
        self.ref_ids: set[int] = set()
        self.pictures: dict[int, dict | Defect] = {}
        self.segmentations: dict[int, dict] = {}

    def rows_by_split(self) -> dict[str, list[dict]]:
        """Return the rows of every split that the refs file names."""
        rows: dict[str, list[dict]] = {}
        for ref in tqdm(self.refs, desc=f"Checking {self.config.name}", disable=None):
            try:
                rows_of_split = rows.setdefault(_split(ref), [])
                row = self._row(ref)
            except Defect as defect:
                self._report(defect, ref)
                continue
            rows_of_split.append(row)
        return rows

    def summary(self) -> str:
        """Say in one line what was read and what was left out."""
        summary = f"{self.config.dataset} ({self.config.split_by}) from {len(self.refs)} refs."
        if self.left_out:
            kinds = ", ".join(f"{count} × {kind}" for kind, count in sorted(self.left_out.items()))
            summary += f" Left out: {kinds}."
        return summary

    def _report(self, defect: Defect, ref: dict) -> None:
        image = self.instances["images"].get(_hashable(ref.get("image_id")), {})
        message = (
            f"{self.config.dataset} ({self.config.split_by}), ref {ref.get('ref_id')!r:.200} of "
            f"{self.config.refs_path.name}, picture {image.get('file_name')!r:.200}: {defect}"
        )
        if self.config.on_error == "raise":
            raise ValueError(
                f'{message}. Mend the files, or leave out and count what is wrong: on_error="skip", --on_error skip.'
            ) from None
        logger.warning("%s; left out.", message)
        self.left_out[defect.kind] += 1

    def _row(self, ref: dict) -> dict:
        ref_id = _integer(ref, "ref_id")
        if ref_id in self.ref_ids:
            raise Defect("repeated ref id", "another ref has this id")
        self.ref_ids.add(ref_id)
        image_id = _integer(ref, "image_id")
        image = self._entry("images", image_id)
        height, width = _integer(image, "height"), _integer(image, "width")
        # Before the masks: the size of the picture itself bounds what is drawn.
        picture = self._picture(image_id)
        annotations = [self._entry("annotations", ann_id) for ann_id in self._annotation_ids(ref)]
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
        return self.instances[key][entry_id]

    def _annotation_ids(self, ref: dict) -> list[int]:
        if not self.config.generalized:
            return [_integer(ref, "ann_id")]
        ann_ids = ref.get("ann_id")
        if ann_ids == NO_TARGET:
            return []
        if not isinstance(ann_ids, list) or not ann_ids or not all(_is_integer(ann_id) for ann_id in ann_ids):
            raise Defect("malformed entry", f"ann_id is {ann_ids!r:.200}, a list of integers is needed")
        return ann_ids

    def _sentences(self, ref: dict) -> list[str]:
        entries = ref.get("sentences")
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise Defect("malformed entry", f"sentences is {entries!r:.200}, a list of dicts is needed")
        sentences = []
        for entry in entries:
            sentence = _text(entry, "sent")
            if sentence.strip():
                sentences.append(sentence)
            else:
                self._report(Defect("empty sentence", f"sentence {entry.get('sent_id')!r:.200}"), ref)
        if not sentences:
            raise Defect("no sentence", "none of its sentences has text")
        return sentences

    def _object(self, annotation: dict, image_id: int, height: int, width: int) -> dict:
        if annotation.get("image_id") != image_id:
            raise Defect(
                "annotation of another picture",
                f"annotation {annotation['id']} is of image {annotation.get('image_id')!r:.200}",
            )
        bbox = annotation.get("bbox")
        if not isinstance(bbox, list) or len(bbox) != 4 or not _are_within(bbox, -1e6, 1e6):
            raise Defect("malformed entry", f"bbox is {bbox!r:.200}, four numbers are needed")
        if annotation["id"] not in self.segmentations:
            self.segmentations[annotation["id"]] = self._segmentation(annotation, height, width)
        return {
            "category": _text(self._entry("categories", _integer(annotation, "category_id")), "name"),
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
        name = _text(image, "file_name")
        if not name or "\0" in name or "\\" in name or name.startswith("/") or ".." in PurePosixPath(name).parts:
            raise Defect("picture name leaves the folder", f"file_name is {name!r}")
        paths = [folder / name for folder in self.config.image_folders]
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            raise Defect("missing picture", f"there is no {' or '.join(map(str, paths))}")
        try:
            with Image.open(path) as picture:
                size = (picture.height, picture.width)
                is_rotated = picture.getexif().get(EXIF_ORIENTATION, 1) != 1
                if is_rotated or not ends_well(path, picture.format):
                    picture.load()
                content = _encode_png(picture) if is_rotated else None
        except PICTURE_ERRORS as error:
            raise Defect("unreadable picture", f"{path}: {error}") from None
        if size != (image.get("height"), image.get("width")):
            wanted = f"{image.get('height')!r:.200}×{image.get('width')!r:.200}"
            raise Defect("picture of another size", f"{path} is {size[0]}×{size[1]}, instances.json has {wanted}")
        return {"path": None if is_rotated else str(path), "bytes": content}


def ends_well(path: Path, file_format: str) -> bool:
    file_end = FILE_ENDS.get(file_format)
    if file_end is None:
        return False
    with open(path, "rb") as file:
        file.seek(-len(file_end), os.SEEK_END)
        return file.read() == file_end


def _encode_png(picture: Image.Image) -> bytes:
    """Encode the pixels as they are stored, without the EXIF data that would turn them."""
    content = io.BytesIO()
    Image.fromarray(np.asarray(picture.convert("RGB"))).save(content, "PNG")
    return content.getvalue()


def _split(ref: dict) -> str:
    split = _text(ref, "split")
    if not re.fullmatch(r"\w+", split):
        raise Defect("malformed entry", f"split is {split!r:.200}, a word is needed")
    return split


def _text(record: dict, key: str) -> str:
    text = record.get(key)
    if not isinstance(text, str):
        raise Defect("malformed entry", f"{key} is {text!r:.200}, text is needed")
    try:
        content = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise Defect("malformed entry", f"{key} is {text!r:.200}, which is not Unicode text") from None
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _integer(record: dict, key: str) -> int:
    number = record.get(key)
    if not _is_integer(number):
        raise Defect("malformed entry", f"{key} is {number!r:.200}, an integer is needed")
    return number


def _is_integer(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _hashable(value):
    return value if isinstance(value, (int, str)) else None


def _are_within(numbers: list, low: float, high: float) -> bool:
    return all(
        isinstance(number, (int, float)) and not isinstance(number, bool) and low <= number <= high
        for number in numbers
    )


def check_segmentation(parts, height: int, width: int, where: str) -> tuple[dict, int]:
    """Check polygons and RLEs as COCO writes them; raise Defect about `where` if they make no mask.

    Returns the `segmentation` of one object in a row, and the number of polygons under 3 points that are left out.
    """
    parts = [parts] if isinstance(parts, dict) else parts
    if not isinstance(parts, list) or not all(isinstance(part, (list, dict)) for part in parts):
        raise Defect("malformed entry", f"the segmentation of {where} is {parts!r:.200}")
    rles = [_check_rle(part, height, width, where) for part in parts if isinstance(part, dict)]
    lists = [part for part in parts if isinstance(part, list)]
    polygons = [_check_polygon(part, height, width, where) for part in lists if len(part) >= 6]
    if not rles and not polygons:
        lengths = ", ".join(str(len(part)) for part in lists) or "no"
        raise Defect("no polygon of 3 points", f"the polygons of {where} have {lengths} numbers, 3 points are 6")
    segmentation = {"polygons": polygons, "rles": rles}
    if coco_mask.area(coco_mask.merge(encode_parts(segmentation, height, width))) == 0:
        raise Defect("annotation off the picture", f"{where} covers no pixel of {width}×{height}")
    return segmentation, len(lists) - len(polygons)


def _check_polygon(polygon: list, height: int, width: int, where: str) -> list[float]:
    if len(polygon) % 2:
        raise Defect("malformed entry", f"a polygon of {where} has {len(polygon)} numbers, pairs are needed")
    # pycocotools walks along every edge, so an endless one would take all memory.
    if not _are_within(polygon[0::2], -width, 2 * width) or not _are_within(polygon[1::2], -height, 2 * height):
        raise Defect("annotation off the picture", f"a polygon of {where} leaves {width}×{height} by its size or more")
    return [float(number) for number in polygon]


def _check_rle(rle: dict, height: int, width: int, where: str) -> str:
    """Return the compressed counts of an RLE dict; pycocotools itself reads beyond runs that do not fill the mask."""
    counts = rle.get("counts")
    counts = counts.decode("latin-1") if isinstance(counts, bytes) else counts
    runs = counts if isinstance(counts, list) else _run_lengths(counts)
    if rle.get("size") != [height, width]:
        reason = f"the size is {rle.get('size')!r:.200}, the picture is [{height}, {width}], height first"
    elif runs is None or not all(_is_integer(run) and run >= 0 for run in runs):
        reason = f"the counts are {counts!r:.200}, which are no run lengths as COCO writes them"
    elif sum(runs) != height * width:
        reason = f"the runs add up to {sum(runs)}, the picture has {height * width} pixels"
    else:
        reason = None
    if reason is not None:
        raise Defect("RLE that does not fill the picture", f"{where}: {reason}")
    if isinstance(counts, str):
        return counts
    return coco_mask.frPyObjects({"size": [height, width], "counts": runs}, height, width)["counts"].decode("ascii")


def _run_lengths(counts: str) -> list[int] | None:
    """Read COCO's compressed counts; None if they are not such text.

    A number is a row of characters from "0" on with 5 bits each, the lowest first, and bit 6 set if more follow; from
    the fourth number on it is the difference to the one two places before.
    """
    if not isinstance(counts, str) or not all("0" <= character <= "o" for character in counts):
        return None
    runs: list[int] = []
    number = shift = 0
    for code in (ord(character) - ord("0") for character in counts):
        number |= (code & 0x1F) << shift
        shift += 5
        if not code & 0x20:
            if code & 0x10:
                number -= 1 << shift
            runs.append(number + runs[-2] if len(runs) > 2 else number)
            number = shift = 0
    return runs if shift == 0 else None
