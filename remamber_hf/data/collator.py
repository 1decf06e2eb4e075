# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Rows of `load_refer` → batches: draw a sentence, draw the mask, process, stack."""

import reprlib

import numpy as np
import torch
from torch.utils.data import default_collate

from .rle import encode_mask
from .rows import row_mask, target_kind


class ReMamberCollator:
    """sentences → tokenizer; each row's picture and mask → image processor; then stack.

    The batch goes into the model as it is. One mask is drawn at a time, so a single full-size mask is held.

    A row with several sentences gives one of them, drawn from the default generator of PyTorch. In a worker of a
    DataLoader that is the worker's own, which the DataLoader seeds anew in every epoch from the seed of the run;
    without workers its state is part of the checkpoints of Trainer. A row with one sentence draws nothing, so
    evaluation on `expand_sentences` rows leaves the generator alone, and so does `ReferringSegmentationTrainer`,
    whose rows come with the sentence drawn (`DrawnSentences`).

    Args:
        processor (`ReMamberProcessor`): makes the inputs of one picture and one sentence.
        keep_masks (`bool`, defaults to `False`): for evaluation, add the masks at the size of the pictures; a row must
            have one sentence then.
        keep_ids (`bool`, defaults to `False`): add the rows' ids, to name a batch by.
        share_pictures (`bool`, defaults to `False`): put a picture into the batch once for all of its rows, and say
            with `image_index` which row has which. That is faster, and wants a loop that neither cuts a batch nor
            gathers its tensors: without it every tensor has one entry per row, as accelerate and Trainer expect.
    """

    def __init__(self, processor, keep_masks: bool = False, keep_ids: bool = False, share_pictures: bool = False):
        if not hasattr(processor, "image_processor"):
            came = "missing" if processor is None else f"a {type(processor).__name__}"
            raise ValueError(f"the processor is {came}; give ReMamberProcessor.from_pretrained(…).")
        self.processor = processor
        self.keep_masks = keep_masks
        self.keep_ids = keep_ids
        self.share_pictures = share_pictures

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor | list]:
        """Make a batch, one entry per row.

        Returns:
            input_ids, attention_mask: (batch, text_length), int64.
            pixel_values: (batch, 3, height, width), float32; with `share_pictures` (pictures, 3, height, width).
            image_index: (batch), int64, the picture of each row; only where pictures are shared.
            labels: (batch, height, width), uint8, 0 or 1, at the size of pixel_values.
            is_present: (batch), bool, whether the sentence means something in the picture.
            ref_ids: with `keep_ids`, a list of the rows' ids, None where a row has none; no input of the model.
            original_masks: with `keep_masks`, a list of RLE dicts for `decode_mask`; no input of the model.

        Raises:
            ValueError: a row lacks what a row of `load_refer` has, or has no sentence or, with `keep_masks`, several.
        """
        for row in rows:
            check_row(row, self.keep_masks)
        tokens = self.processor(text=[draw_sentence(row["sentences"]) for row in rows], return_tensors="pt")
        pictures: list[tuple[int | None, torch.Tensor]] = []
        image_index, labels, original_masks = [], [], []
        for row in rows:
            mask = row_mask(row)
            sample = self.processor.image_processor(images=[row["image"]], segmentation_maps=[mask])
            pixels = torch.as_tensor(sample["pixel_values"][0])
            image_index.append(self._place(pictures, row.get("image_id"), pixels))
            labels.append(torch.as_tensor(sample["labels"][0]))
            if self.keep_masks:
                original_masks.append(encode_mask(mask))
            del mask
        # In a worker it stacks into memory that is shared with the main process, so nothing is copied twice.
        batch = {
            **tokens,
            "pixel_values": default_collate([pixels for _, pixels in pictures]),
            "labels": default_collate(labels),
            "is_present": torch.tensor([target_kind(row) != "none" for row in rows]),
        }
        if len(pictures) < len(rows):
            batch["image_index"] = torch.tensor(image_index)
        if self.keep_ids:
            batch["ref_ids"] = [row.get("ref_id") for row in rows]
        if self.keep_masks:
            batch["original_masks"] = original_masks
        return batch

    def _place(
        self, pictures: list[tuple[int | None, torch.Tensor]], image_id: int | None, pixels: torch.Tensor
    ) -> int:
        """The place of a picture among `pictures`, to which it is appended if it is new, or none is shared."""
        if self.share_pictures and image_id is not None:
            for place, (other_id, other_pixels) in enumerate(pictures):
                # In a mixture, pictures of several data sets can have one id.
                if image_id == other_id and torch.equal(pixels, other_pixels):
                    return place
        pictures.append((image_id, pixels))
        return len(pictures) - 1


NEEDED = ("image", "sentences", "segmentation", "height", "width", "ann_id")  # in a row


def check_row(row: dict, is_evaluated: bool):
    """ValueError for a row of another kind than `load_refer` gives."""
    missing = [name for name in NEEDED if row.get(name) is None]
    if missing:
        raise ValueError(
            f"a row has no {missing[0]!r}, but {reprlib.repr(sorted(row))}; give rows of load_refer or "
            "load_referring_folder, and remove_unused_columns=False to the Trainer."
        )
    coordinates = [polygon for part in row["segmentation"] for polygon in part["polygons"]]
    if any(isinstance(polygon, (torch.Tensor, np.ndarray)) for polygon in coordinates):
        raise ValueError(
            "rows come in the format of numpy or torch, whose float32 coordinates move masks by a pixel; give "
            "rows.with_format(None)."
        )
    sentences = row["sentences"]
    if isinstance(sentences, str) or not len(sentences):
        raise ValueError(f"the sentences of a row are {reprlib.repr(sentences)}; give a list with one str or more.")
    if is_evaluated and len(sentences) > 1:
        raise ValueError(
            f"a row has {len(sentences)} sentences, and evaluation counts each; give a row for each sentence, by "
            "one_row_per_sentence(rows) or load_refer(…, expand_sentences=True)."
        )


def draw_sentence(sentences: list[str]) -> str:
    """Draw one of a row's sentences from the default generator of PyTorch."""
    index = 0 if len(sentences) == 1 else int(torch.randint(len(sentences), ()))
    return sentences[index]
