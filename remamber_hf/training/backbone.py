# Copyright 2026 The remamber_hf authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""A first training of the backbone alone, for a model from nothing: it names the category of an object in a crop.

The published model starts from an ImageNet classifier. Where there is none for the pictures at hand, the data set's
own boxes and categories teach the backbone shapes many times faster than masks and expressions do.
"""

from dataclasses import dataclass

import datasets
import torch
import torch.nn.functional as F
from transformers import Trainer, TrainingArguments

from ..image_processing_remamber import ReMamberImageProcessorPil
from ..modeling_vmamba import VMambaForImageClassification, VMambaModel
from .arguments import ReMamberTrainingArguments


@dataclass
class BackbonePretraining:
    """
    How the backbone is trained first.

    Args:
        max_steps: batches of crops.
        crop_size: side of a crop, in pixels of the resized picture; objects should fill much of it.
        per_device_train_batch_size: crops per device.
        learning_rate: reached after a twentieth of the steps, then a cosine to 0.
    """

    max_steps: int
    crop_size: int = 32
    per_device_train_batch_size: int = 64
    learning_rate: float = 1e-3

    def __post_init__(self):
        for name in ("max_steps", "crop_size", "per_device_train_batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"backbone_pretraining: {name} is {getattr(self, name)}; give at least 1.")


class ObjectCrops(torch.utils.data.Dataset):
    """
    A crop around each object, at the scale at which the model sees the picture, and the index of its category.

    The crop's middle is off the box's by up to an eighth of its side, drawn with torch's generator. Beyond the picture
    its last pixels are repeated.

    Raises:
        ValueError: if objects have no category, or several.
    """

    def __init__(self, rows: datasets.Dataset, image_processor: ReMamberImageProcessorPil, crop_size: int):
        categories = rows["category"]
        unfit = [category for category in categories if not category or not isinstance(category, str)]
        if unfit:
            raise ValueError(
                f"backbone_pretraining needs a category for each object, one has {unfit[0]!r}; leave it out or start "
                "from --vision_model."
            )
        self.categories = sorted(set(categories))
        self.rows, self.image_processor, self.crop_size = rows, image_processor, crop_size

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor | int]:
        row = self.rows[index]
        pixels = self.image_processor(images=[row["image"]], return_tensors="pt")["pixel_values"]
        side, reach = self.crop_size, self.crop_size // 8
        padded = F.pad(pixels, [side] * 4, mode="replicate")[0]
        left, top, width, height = row["bbox"]
        middle = ((top + height / 2) / row["height"], (left + width / 2) / row["width"])
        offsets = torch.randint(-reach, reach + 1, (2,)).tolist()
        y, x = (
            round(share * length) + side - side // 2 + offset
            for share, length, offset in zip(middle, pixels.shape[-2:], offsets)
        )
        return {
            "pixel_values": padded[:, y : y + side, x : x + side],
            "labels": self.categories.index(row["category"]),
        }


def pretrain_backbone(
    backbone: VMambaModel,
    rows: datasets.Dataset,
    image_processor: ReMamberImageProcessorPil,
    pretraining: BackbonePretraining,
    arguments: ReMamberTrainingArguments,
) -> None:
    """
    Train `backbone`, in place, as a classifier of the objects in `rows`; its head is thrown away.

    Args:
        rows: of a data set, one per object, with `category`, `bbox`, `height`, `width`.
        arguments: of the training that follows; device, precision, workers and seed are taken from it.

    Raises:
        ValueError: if objects have no category, or the model is spread over devices.
    """
    crops = ObjectCrops(rows, image_processor, pretraining.crop_size)
    config = type(backbone.config)(**{**backbone.config.to_dict(), "num_labels": len(crops.categories)})
    classifier = VMambaForImageClassification(config)
    trainer = Trainer(
        model=classifier,
        args=TrainingArguments(
            output_dir=arguments.output_dir,
            max_steps=pretraining.max_steps,
            per_device_train_batch_size=pretraining.per_device_train_batch_size,
            learning_rate=pretraining.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=0.05,
            weight_decay=arguments.weight_decay,
            use_cpu=arguments.use_cpu,
            bf16=arguments.bf16,
            fp16=arguments.fp16,
            seed=arguments.seed,
            dataloader_num_workers=arguments.dataloader_num_workers,
            dataloader_pin_memory=arguments.dataloader_pin_memory,
            disable_tqdm=arguments.disable_tqdm,
            logging_steps=arguments.logging_steps,
            save_strategy="no",
            report_to="none",
        ),
        train_dataset=crops,
    )
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        raise ValueError(
            "backbone_pretraining runs on whole models; do it without FSDP and DeepSpeed, and go on from it."
        )
    trainer.train()
    backbone.load_state_dict(classifier.vmamba.state_dict())
