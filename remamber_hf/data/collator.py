"""Rows of `load_refer` → batches: draw a sentence, draw the mask, process, stack."""

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch.utils.data import default_collate

from .refer import row_mask


class ReMamberCollator:
    """sentences → tokenizer; each row's picture and mask → image processor; then stack.

    One mask is drawn at a time, so a single full-size mask is held.

    A row with several sentences gives one of them, drawn from the default generator of PyTorch. In a worker of a
    DataLoader that is the worker's own, which the DataLoader seeds anew in every epoch from the seed of the run;
    without workers its state is part of the checkpoints of Trainer. A row with one sentence draws nothing, so
    evaluation on `expand_sentences` rows leaves the generator alone, and so does `ReferringSegmentationTrainer`,
    whose rows come with the sentence drawn (`DrawnSentences`).

    Args:
        processor (`ReMamberProcessor`): makes the inputs of one picture and one sentence.
        keep_masks (`bool`, defaults to `False`): add the masks at the size of the pictures, for evaluation.
    """

    def __init__(self, processor, keep_masks: bool = False):
        self.processor = processor
        self.keep_masks = keep_masks

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor | list]:
        """Make a batch, one entry per row.

        Returns:
            pixel_values: (pictures, 3, height, width), float32; rows of the same picture share one.
            image_index: (batch), int64, the picture of each row.
            input_ids, attention_mask: (batch, text_length), int64.
            labels: (batch, height, width), uint8, 0 or 1, at the size of pixel_values.
            ref_ids: a list of the rows' ids, to name a batch by; no input of the model.
            original_masks: with `keep_masks`, a list of RLE dicts for `decode_mask`.
        """
        tokens = self.processor(text=[draw_sentence(row["sentences"]) for row in rows], return_tensors="pt")
        pictures: list[tuple[int, torch.Tensor]] = []
        image_index, labels, original_masks = [], [], []
        for row in rows:
            mask = row_mask(row)
            sample = self.processor.image_processor(images=[row["image"]], segmentation_maps=[mask])
            image_index.append(find_or_append(pictures, row["image_id"], torch.as_tensor(sample["pixel_values"][0])))
            labels.append(torch.as_tensor(sample["labels"][0]))
            if self.keep_masks:
                original_masks.append(encode_mask(mask))
            del mask
        # In a worker it stacks into memory that is shared with the main process, so nothing is copied twice.
        batch = {
            **tokens,
            "pixel_values": default_collate([pixels for _, pixels in pictures]),
            "image_index": torch.tensor(image_index),
            "labels": default_collate(labels),
            "ref_ids": [row["ref_id"] for row in rows],
        }
        return {**batch, "original_masks": original_masks} if self.keep_masks else batch


def draw_sentence(sentences: list[str]) -> str:
    """Draw one of a row's sentences from the default generator of PyTorch."""
    index = 0 if len(sentences) == 1 else int(torch.randint(len(sentences), ()))
    return sentences[index]


def find_or_append(pictures: list[tuple[int, torch.Tensor]], image_id: int, pixels: torch.Tensor) -> int:
    """The place of a picture among `pictures`, to which it is appended if it is new."""
    for place, (other_id, other_pixels) in enumerate(pictures):
        # In a mixture, pictures of several data sets can have one id.
        if image_id == other_id and torch.equal(pixels, other_pixels):
            return place
    pictures.append((image_id, pixels))
    return len(pictures) - 1


def encode_mask(mask: np.ndarray) -> dict:
    """Encode a mask, bool (height, width), as a compressed RLE: {"size": [height, width], "counts": bytes}."""
    return coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))


def decode_mask(rle: dict) -> np.ndarray:
    """Decode what `encode_mask` made: bool (height, width)."""
    return np.ascontiguousarray(coco_mask.decode(rle), dtype=bool)
