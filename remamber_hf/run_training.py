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
"""Command: train ReMamber on a REFER data set and evaluate it. Only wires; see `training/` and `data/`."""

import json
import sys
from pathlib import Path

import yaml
from transformers import HfArgumentParser, set_seed

from .configuration_remamber import ReMamberConfig
from .data.collator import ReMamberCollator
from .data.refer import load_refer
from .image_processing_remamber import ReMamberImageProcessorPil
from .modeling_remamber import ReMamberForImageSegmentation
from .processing_remamber import ReMamberProcessor
from .training.arguments import DataArguments, ModelArguments, ReMamberTrainingArguments
from .training.tokenizer import train_tokenizer
from .training.trainer import ReferringSegmentationTrainer


def parse_arguments(
    argv: list[str],
) -> tuple[ModelArguments, DataArguments, ReMamberTrainingArguments]:
    """
    Read `[RECIPE.yaml] [--name value …]`: the recipe gives values, flags overrule them.

    Raises:
        ValueError: if the recipe cannot be read or names something unknown, or the data folder is missing.
    """
    parser = HfArgumentParser((ModelArguments, DataArguments, ReMamberTrainingArguments), prog="remamber train")
    if argv and argv[0].endswith((".yaml", ".yml")):
        recipe = read_recipe(argv.pop(0))
        known = {action.dest for action in parser._actions}
        unknown = sorted(recipe.keys() - known)
        if unknown:
            raise ValueError(f"the recipe names {', '.join(unknown)}; `remamber train --help` lists what there is.")
        parser.set_defaults(**recipe)
    model_arguments, data_arguments, training_arguments = parser.parse_args_into_dataclasses(args=argv)
    if data_arguments.data_dir is None:
        raise ValueError("--data_dir is missing; give the folder that holds the data set and the pictures.")
    if not (training_arguments.do_train or training_arguments.do_eval):
        raise ValueError("there is nothing to do; give --do_train, --do_eval or both.")
    if (model_arguments.model is None) == (model_arguments.model_config is None):
        raise ValueError("give either --model, to train on, or --model_config, to start from nothing.")
    return model_arguments, data_arguments, training_arguments


def read_recipe(path: str) -> dict:
    """The mapping in a YAML file."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is no file; give a recipe such as recipes/shapes.yaml.")
    try:
        recipe = yaml.safe_load(Path(path).read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no valid YAML: {error}") from None
    if not isinstance(recipe, dict):
        raise ValueError(f"{path} holds no mapping; write one `name: value` per line.")
    return recipe


def build_model(
    arguments: ModelArguments, sentences: list[str]
) -> tuple[ReMamberForImageSegmentation, ReMamberProcessor]:
    """The model to train on and its processor; from nothing, the tokenizer is trained on `sentences`."""
    if arguments.model is not None:
        model = ReMamberForImageSegmentation.from_pretrained(arguments.model)
        return model, ReMamberProcessor.from_pretrained(arguments.model)
    fields = arguments.model_config
    if isinstance(fields, str):
        fields = json.loads(Path(fields).read_text())
    text_length = fields.get("text_length", ReMamberConfig.text_length)
    tokenizer = train_tokenizer(sentences, arguments.vocabulary_size, text_length)
    text_fields = {
        **fields.get("text_config", {}),
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    model = ReMamberForImageSegmentation(ReMamberConfig(**{**fields, "text_config": text_fields}))
    size = {"height": arguments.image_size, "width": arguments.image_size}
    image_processor = ReMamberImageProcessorPil(size=size)
    return model, ReMamberProcessor(image_processor, tokenizer, text_length=text_length)


def main(argv: list[str] | None = None):
    """Train if `--do_train`, evaluate if `--do_eval`; the output folder holds model, processor and metrics."""
    arguments = parse_arguments(list(sys.argv[1:] if argv is None else argv))
    model_arguments, data_arguments, training_arguments = arguments
    set_seed(training_arguments.seed)

    source = {
        "dataset": data_arguments.dataset,
        "split_by": data_arguments.split_by,
        "data_dir": data_arguments.data_dir,
    }
    with training_arguments.main_process_first(desc="reading the data set"):
        train_rows = load_refer(**source, split=data_arguments.train_split)
        eval_rows = load_refer(**source, split=data_arguments.eval_split, expand_sentences=True)
    if data_arguments.max_eval_samples is not None:
        eval_rows = eval_rows.select(range(min(data_arguments.max_eval_samples, len(eval_rows))))

    sentences = [sentence for row in train_rows.select_columns("sentences") for sentence in row["sentences"]]
    model, processor = build_model(model_arguments, sentences)
    trainer = ReferringSegmentationTrainer(
        model=model,
        args=training_arguments,
        data_collator=ReMamberCollator(processor),
        train_dataset=train_rows,
        eval_dataset=eval_rows,
        processing_class=processor,
    )
    if training_arguments.do_train:
        trainer.train(resume_from_checkpoint=training_arguments.resume_from_checkpoint)
        trainer.save_model()
        trainer.save_state()
    if training_arguments.do_eval:
        metrics = trainer.evaluate()
        trainer.log_metrics("eval", metrics)
        trainer.save_metrics("eval", metrics)


if __name__ == "__main__":
    main()
