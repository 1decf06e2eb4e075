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
"""What `remamber train` is told: model and data; the rest are the TrainingArguments of transformers."""

from dataclasses import dataclass, field

from transformers import TrainingArguments


@dataclass
class ModelArguments:
    """Where the model comes from: a folder or Hub name, or a config to start from nothing."""

    model: str | None = field(
        default=None, metadata={"help": "Name or folder of a ReMamber model with its processor, to train on."}
    )
    model_config: dict | str | None = field(
        default=None,
        metadata={"help": "Start from nothing: fields of ReMamberConfig, as a mapping in YAML or a JSON file."},
    )
    image_size: int = field(
        default=480, metadata={"help": "Side of the square, in pixels, that pictures are resized to; from nothing."}
    )
    vocabulary_size: int = field(
        default=1024, metadata={"help": "Tokens of the tokenizer that is trained on the sentences; from nothing."}
    )


@dataclass
class DataArguments:
    """Which REFER data set is trained and evaluated on."""

    data_dir: str | None = field(default=None, metadata={"help": "Folder that holds the data set and the pictures."})
    dataset: str = field(default="refcoco", metadata={"help": "Name of the data set, its folder in data_dir."})
    split_by: str = field(default="unc", metadata={"help": "Who split it: unc, google, umd, berkeley."})
    train_split: str = field(default="train", metadata={"help": "Split to train on."})
    eval_split: str = field(default="val", metadata={"help": "Split to evaluate on."})
    max_eval_samples: int | None = field(default=None, metadata={"help": "Evaluate on the first N sentences only."})


@dataclass
class ReMamberTrainingArguments(TrainingArguments):
    """The TrainingArguments of transformers, with the defaults that this data needs."""

    # The collator reads the rows whole, and draws sentences.
    remove_unused_columns: bool = field(default=False, metadata={"help": "Must be false: the collator reads all."})
    per_device_eval_batch_size: int = field(default=16, metadata={"help": "Pictures per device in evaluation."})

    def __post_init__(self):
        super().__post_init__()
        if self.remove_unused_columns:
            raise ValueError("remove_unused_columns is true; the collator needs every column, leave it false.")
