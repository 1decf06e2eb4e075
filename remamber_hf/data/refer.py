# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""RefCOCO, RefCOCO+, G-Ref, RefCLEF, gRefCOCO and sets like them, from their published files.

instances.json + refs(split_by).p + pictures → checked rows → Arrow cache; `row_mask` draws a row's mask on demand.

    <data_dir>/<dataset>/instances.json
    <data_dir>/<dataset>/refs(<split_by>).p              grefs(<split_by>).json for gRefCOCO
    <data_dir>/ref-zom/refs(final).p                     or refzom/, Ref_ZOM.p, Ref-ZOM(final).p
    <data_dir>/arefcoco/arefcoco.json                    see `arefcoco.py`
    <data_dir>/VGPhraseCut_v0/refer_<split>.json         see `phrasecut.py`
    <data_dir>/images/mscoco/images/train2014/           LAVT's layout
    <data_dir>/train2014/                                ReMamber's layout
    <data_dir>/images/train2014/                         gRefCOCO's layout
    <data_dir>/images/trainval2014/                      Ref-ZOM's; train2014 and val2014 will do
    <data_dir>/images/<dataset>/JPEGImages/              RRSIS-D's layout

`COCO_FOLDERS` has more places for COCO's pictures. RefCLEF's are in `images/saiapr_tc-12/` or `saiapr_tc-12/`. Any
further folder with the first two files is a data set too, whose pictures may be in `images/<dataset>/`.

What is handled by rule:
- The splits are the exact names in the refs file, in the papers' order; nothing is joined to a "test". REFER's own
  reader joins the refs of RefCLEF's testAB to its testA and testB, and likewise for every such name: to have its
  testA, concatenate the splits testA and testAB.
- What a sentence means (one object, several, nothing) is read by the rules at the top of `refs.py`.
- A picture's name is that of instances.json, and its rows have its size. The name in the refs file is not read.
- A picture with an EXIF rotation is copied into the cache as it is stored, since the annotations are not rotated.
- Python 2 text is read as UTF-8, and as Latin-1 where it is not UTF-8.
- An RLE dict (a crowd) and a list of them (RefCLEF) are masks like polygons, compressed or not.
- In a grefs file crowds (`iscrowd`) are left out, as the published readers of gRefCOCO do, and counted.
- A polygon under 3 points covers nothing: it is left out and counted. (pycocotools would read 4 numbers as a box.)
- What an annotation has outside the picture is cut off.
- A sentence id that came before is counted, and its sentence kept: sentences are read from their refs, never by id.
- `sentence_ids` are the `sent_id` of the file. A sentence without one, as all of aRefCOCO, has the least number from 1
  up that no sentence of the file has, counted over all splits in the order of the file; of PhraseCut, its `ref_id`.

What is reported, with data set, ref id and file names: a ref or annotation without a needed field, a ref id that came
before, an id that stands twice in images, annotations or categories, an unknown one, an annotation of another picture,
an annotation that has no polygon of 3 points or covers no pixel or reaches further than one picture size outside, an
RLE whose runs do not fill the picture, a ref of crowds only in a grefs file, fields that contradict each other about
what a sentence means, an empty sentence, one that is not Unicode text, a picture that is missing, unreadable,
truncated or of another size, a picture name that leaves the folder. A ref whose objects are lost so never means
"nothing". `on_error="raise"` stops there. `on_error="skip"` logs it and leaves the row out (only the sentence, where a
sentence is empty); the counts are logged at every load and kept in `info.description`. A split of which nothing is
left raises.

The files are anybody's: nothing in them is executed, and what a message shows of them is cut and escaped.
"""

from __future__ import annotations

import logging
import os

import datasets

from ..messages import describe
from .published import GENERALIZED_SETS, PUBLISHED_SETS, REFS_NAMES, published_name
from .refer_config import ReferConfig
from .refs import read_refs
from .row_reader import RowReader
from .rows import one_row_per_sentence, refer_features, writable_cache


logger = logging.getLogger(__name__)

__all__ = ["READ_HERE", "ReferBuilder", "load_refer", "read_refs"]

# Caches that `load_refer` filled or opened in this process: the paths of pictures in them are those of its `data_dir`.
READ_HERE: set[str] = set()


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
            features=refer_features(self.config.generalized or self.config.dataset in GENERALIZED_SETS),
            homepage="https://github.com/lichengunc/refer",
        )

    def _split_generators(self, dl_manager) -> list[datasets.SplitGenerator]:
        reader = RowReader(self.config)
        # What the refs say of themselves: they may mean nothing in a set of any name. The cache keeps it.
        self.info.features = refer_features(reader.files.is_generalized)
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
        dataset: one of `PUBLISHED_SETS`, such as "refcoco" or "grefcoco", or any further folder of `data_dir`.
        split_by: one of those that `PUBLISHED_SETS` names, such as "unc" or "authors"; else as the files have it.
        split: exact name of a split; None gives all of them.
        data_dir: folder of one of the layouts at the top of this file.
        generalized: read grefs(split_by).json instead of refs(split_by).p; by default only for "grefcoco".
        expand_sentences: one row per sentence (evaluation) instead of one row per object (training).
        on_error: "raise" or "skip", see the top of this file.
        sentences: "sent", the text as it was cleaned, or "raw", as it was written, which LAVT and ReLA read.
        cache_dir: folder of the Arrow cache; by default that of `datasets`.

    Returns a data set, or one per split if `split` is None. A row has `image` (decoded when it is read), `sentences`,
    `sentence_ids` (one for each), `ref_id`, `ann_id`, `image_id`, `category`, `bbox` (x, y, width, height in pixels),
    `height`, `width`, `split` and `segmentation` (one entry per object; see `row_mask`). Where sentences may mean
    nothing or several objects, as in gRefCOCO, `ann_id`, `category` and `bbox` are lists with one entry per object,
    and empty if they mean nothing.

    Raises ValueError for an unknown name or a defect in the files, FileNotFoundError for a missing file, and OSError
    where the cache cannot be written.
    """
    dataset = published_name(dataset)
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
        # The sets of `REFS_NAMES` have one file, and no grefs.
        generalized=dataset == "grefcoco" if generalized is None else generalized and dataset not in REFS_NAMES,
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
