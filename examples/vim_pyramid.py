# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""
Dense prediction with Vim: one map of the backbone as a pyramid, a small head, a few minutes of training on two cores.

    python examples/vim_pyramid.py --output_dir pyramid

draws scenes of shapes, trains from nothing to say of every pixel which shape it belongs to, prints the mean IoU on
scenes it has not seen, and writes pyramid/predictions.png. The pyramid is ViTDet's (arXiv 2203.16527, section 3).
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from transformers import Trainer, TrainingArguments, set_seed

from remamber_hf import VimBackbone, VimConfig
from remamber_hf.synthetic.dataset import sample_picture
from remamber_hf.synthetic.scenes import PLAIN_COLOURS, PLAIN_SHAPES, render


CLASSES = ("background", *PLAIN_SHAPES)
PALETTE = np.array([(255, 255, 255), *list(PLAIN_COLOURS.values())[: len(PLAIN_SHAPES)]], dtype=np.uint8)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Scenes(torch.utils.data.Dataset):
    """Drawn scenes: `pixel_values` (3, side, side), and `labels` (side, side), the number of each pixel's class."""

    def __init__(self, first: int, count: int, side: int):
        self.first, self.count, self.side = first, count, side

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        scene, _ = sample_picture(self.first + index, seed=7, style="plain")
        picture, masks = render(scene, self.side)
        labels = torch.zeros(self.side, self.side, dtype=torch.int64)
        for drawn, mask in zip(scene.objects, masks, strict=True):
            labels[torch.from_numpy(mask)] = CLASSES.index(drawn.shape)
        pixels = (np.asarray(picture, dtype=np.float32) / 255 - MEAN) / STD
        return {"pixel_values": torch.from_numpy(pixels).permute(2, 0, 1).float(), "labels": labels}


class SimplePyramid(nn.Module):
    """A map of stride 16 → maps of strides 4, 8, 16 and 32: two deconvolutions, one, none, and a pooling."""

    def __init__(self, size: int):
        super().__init__()
        self.stride4 = nn.Sequential(
            nn.ConvTranspose2d(size, size // 2, 2, stride=2),
            nn.GroupNorm(1, size // 2),
            nn.GELU(),
            nn.ConvTranspose2d(size // 2, size // 4, 2, stride=2),
        )
        self.stride8 = nn.ConvTranspose2d(size, size // 2, 2, stride=2)
        self.stride32 = nn.MaxPool2d(2)
        self.channels = (size // 4, size // 2, size, size)

    def forward(self, feature_map: torch.Tensor) -> list[torch.Tensor]:
        return [self.stride4(feature_map), self.stride8(feature_map), feature_map, self.stride32(feature_map)]


class VimSegmenter(nn.Module):
    """Backbone → pyramid → levels of one width, resized to the finest and summed → classes, at the picture's size."""

    def __init__(self, backbone: VimBackbone, width: int = 64):
        super().__init__()
        self.backbone = backbone
        self.pyramid = SimplePyramid(backbone.channels[-1])
        self.laterals = nn.ModuleList(nn.Conv2d(size, width, 1) for size in self.pyramid.channels)
        self.norm = nn.GroupNorm(1, width)
        self.smooth = nn.Conv2d(width, width, 3, padding=1)
        self.classifier = nn.Conv2d(width, len(CLASSES), 1)

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        levels = self.pyramid(self.backbone(pixel_values).feature_maps[-1])
        levels = [lateral(level) for lateral, level in zip(self.laterals, levels)]
        finest = levels[0].shape[2:]
        summed = sum(F.interpolate(level, finest, mode="bilinear", align_corners=False) for level in levels)
        logits = self.classifier(F.gelu(self.smooth(self.norm(summed))))
        logits = F.interpolate(logits, pixel_values.shape[2:], mode="bilinear", align_corners=False)
        outputs = {"logits": logits}
        return outputs if labels is None else {"loss": F.cross_entropy(logits, labels), **outputs}


def mean_iou(prediction) -> dict[str, float]:
    """IoU of each class over all pixels, and their mean."""
    found, truth = prediction.predictions, prediction.label_ids
    ious = [((found == c) & (truth == c)).sum() / ((found == c) | (truth == c)).sum() for c in range(len(CLASSES))]
    return {"mean_iou": float(np.mean(ious)), **{f"iou_{name}": float(iou) for name, iou in zip(CLASSES, ious)}}


@torch.no_grad()
def draw_predictions(model: VimSegmenter, rows: list[dict[str, torch.Tensor]]) -> Image.Image:
    """Pictures in the first row, what they are in the second, what the model says in the third."""
    pixel_values = torch.stack([row["pixel_values"] for row in rows])
    found = model.eval()(pixel_values)["logits"].argmax(1)
    pixels = (pixel_values.permute(0, 2, 3, 1).numpy() * STD + MEAN) * 255
    truth = torch.stack([row["labels"] for row in rows])
    strips = (pixels.round().clip(0, 255).astype(np.uint8), PALETTE[truth.numpy()], PALETTE[found.numpy()])
    return Image.fromarray(np.vstack([np.hstack(np.pad(strip, [(0, 0), (2, 2), (2, 2), (0, 0)])) for strip in strips]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("pyramid"))
    parser.add_argument("--side", type=int, default=128, help="of the scenes, in pixels; a multiple of 32")
    parser.add_argument("--max_steps", type=int, default=1200)
    parser.add_argument("--eval_scenes", type=int, default=200)
    options = parser.parse_args()

    set_seed(0)
    sizes = {"image_size": options.side, "hidden_size": 128, "num_hidden_layers": 8, "state_size": 8}
    # With ImageNet's weights, from a folder: VimBackbone.from_pretrained("vim-tiny", class_token="none").
    backbone = VimBackbone(VimConfig(**sizes, class_token="none", apply_layernorm=True))
    arguments = TrainingArguments(
        output_dir=str(options.output_dir),
        max_steps=options.max_steps,
        per_device_train_batch_size=16,
        per_device_eval_batch_size=16,
        learning_rate=1e-3,
        lr_scheduler_type="cosine",
        warmup_steps=20,
        logging_steps=50,
        save_strategy="no",
        dataloader_pin_memory=torch.cuda.is_available(),
        report_to="none",
    )
    validation = Scenes(10**6, options.eval_scenes, options.side)
    trainer = Trainer(
        VimSegmenter(backbone),
        arguments,
        train_dataset=Scenes(0, 16 * options.max_steps, options.side),
        eval_dataset=validation,
        compute_metrics=mean_iou,
        preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(1),
    )
    trainer.train()
    print({name: round(value, 3) for name, value in trainer.evaluate().items() if "iou" in name})
    options.output_dir.mkdir(parents=True, exist_ok=True)
    draw_predictions(trainer.model, [validation[index] for index in range(min(6, options.eval_scenes))]).save(
        options.output_dir / "predictions.png"
    )


if __name__ == "__main__":
    main()
