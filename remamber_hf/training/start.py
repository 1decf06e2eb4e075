# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What a run starts from: the model to train on, its processor, and the rows to evaluate on."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import datasets
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn
from transformers import CLIPTextConfig, CLIPTokenizer, PreTrainedConfig

from ..configuration_remamber import ReMamberConfig, VMambaConfig, text_config_of
from ..data.mixture import DataSource, load_sources, mix_training_rows
from ..data.rows import one_row_per_sentence, read_sentences
from ..image_processing_remamber import ReMamberImageProcessorPil
from ..inference.cost import model_parts
from ..inference.loading import load_config, load_model, load_tokenizer
from ..modeling_remamber import ReMamberForImageSegmentation
from ..processing_remamber import ReMamberProcessor
from .arguments import DataArguments, ModelArguments, ReMamberTrainingArguments
from .recipe import did_you_mean
from .tokenizer import change_tokenizer, train_tokenizer


STORED = ("auto_map", "custom_pipelines", "num_labels", "use_cache")  # in a config.json, besides the fields
DEFAULT_IMAGE_SIZE = 480  # as published


def check_fields(
    fields: dict, where: str = "model_config", config_class: type[PreTrainedConfig] = ReMamberConfig
) -> None:
    """ValueError for a name that no config has: the configs themselves take any. `where` has the fields."""
    known: dict[str, PreTrainedConfig] = {"": config_class()}
    if config_class is ReMamberConfig:
        known |= {"vision_config": VMambaConfig(), "text_config": CLIPTextConfig()}
    for part, config in known.items():
        names = {*config.to_dict(), *STORED}
        given = fields.get(part, {}) if part else fields
        if not isinstance(given, dict):
            raise ValueError(f"{where} gives {given!r:.100} for {part}; give a mapping, or leave it out.")
        for name in given:
            if name not in names:
                hint = did_you_mean(name, names, f"see {type(config).__name__}.")
                raise ValueError(f"{where} names {f'{part}.' if part else ''}{name}, which is no field; {hint}")


def fields_of(arguments: ModelArguments) -> dict:
    """The fields of the config that a run is told; ValueError for those that no config has, or a part brings."""
    fields: Any = arguments.model_config or {}  # JSON's text is read by now
    check_fields(fields)
    if arguments.predicts_presence:
        fields = {**fields, "predicts_presence": True}
    if arguments.text_model is not None and {"text_config", "vision_config"} & fields.keys():
        raise ValueError("model_config has text_config or vision_config; text_model and vision_model bring theirs.")
    return fields


def build_model(
    arguments: ModelArguments, rows: datasets.Dataset | None
) -> tuple[ReMamberForImageSegmentation, ReMamberProcessor]:
    """The model to train on and its processor; without any to start from, a tokenizer is trained on the `rows`."""
    side = arguments.image_size or DEFAULT_IMAGE_SIZE
    image_processor = ReMamberImageProcessorPil(size={"height": side, "width": side})
    if arguments.model is not None:
        model, processor = load_model(arguments.model, "cpu", "float32", predicts_presence=arguments.predicts_presence)
        if arguments.image_size is not None:
            processor.image_processor.size = image_processor.size
        if arguments.new_tokenizer:
            tokenizer = train_on_rows(rows, arguments.vocabulary_size, processor.text_length)
            model = change_tokenizer(model, processor.tokenizer, tokenizer)
            processor.tokenizer = tokenizer
        return model, processor
    fields = fields_of(arguments)
    if arguments.text_model is not None:
        try:
            new = {name: value for name, value in fields.items() if name not in STORED}
            model = ReMamberForImageSegmentation.from_vision_text_pretrained(
                arguments.vision_model, arguments.text_model, **new
            )
        except (OSError, ValueError, SafetensorError, StrictDataclassError) as error:
            raise ValueError(
                f"--text_model {arguments.text_model} and --vision_model {arguments.vision_model} cannot be put "
                f"together: {' '.join(str(error).split())}"
            ) from None
        tokenizer = load_tokenizer(arguments.text_model)
        return model, ReMamberProcessor(image_processor, tokenizer, text_length=model.config.text_length)
    text_length = fields.get("text_length", ReMamberConfig.text_length)
    if arguments.tokenizer is not None:
        tokenizer = load_tokenizer(arguments.tokenizer)
    else:
        tokenizer = train_on_rows(rows, arguments.vocabulary_size, text_length)
    model = ReMamberForImageSegmentation(make_config(fields, tokenizer_fields(tokenizer)))
    return model, ReMamberProcessor(image_processor, tokenizer, text_length=text_length)


def train_on_rows(rows: datasets.Dataset | None, vocabulary_size: int, text_length: int) -> CLIPTokenizer:
    """A tokenizer trained on all sentences of the rows."""
    # Who only evaluates names a model, and has no need of it.
    sentences = [sentence for row in read_sentences(rows) for sentence in row]
    return train_tokenizer(sentences, vocabulary_size, text_length)


def tokenizer_fields(tokenizer: CLIPTokenizer) -> dict[str, Any]:
    """What the text encoder's configuration says of its tokenizer."""
    return {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def make_config(fields: dict, text_fields: dict[str, Any]) -> ReMamberConfig:
    """The configuration of `fields`, with `text_fields` for the text encoder; ValueError if they are refused."""
    try:
        return ReMamberConfig(**{**fields, "text_config": {**fields.get("text_config", {}), **text_fields}})
    except StrictDataclassError as error:
        raise ValueError(f"model_config is refused: {str(error).splitlines()[-1].strip()}") from None


def read_config(arguments: ModelArguments) -> ReMamberConfig:
    """
    The configuration of the model that a run would start from; of other models, theirs are read and no weights.

    A tokenizer that is still to be trained counts with as many tokens as it may have.

    Raises:
        ValueError: if a model that is named is not there or of another kind, or fields are refused.
    """
    if arguments.model is not None:
        config = load_config(arguments.model)
        config.predicts_presence |= arguments.predicts_presence
        if arguments.new_tokenizer:
            text_config_of(config).vocab_size = arguments.vocabulary_size
        return config
    fields = fields_of(arguments)
    if arguments.text_model is not None:
        parts = {
            "text_config": read_part(CLIPTextConfig, str(arguments.text_model), ("clip_text_model", "clip")),
            "vision_config": read_part(VMambaConfig, str(arguments.vision_model), ("vmamba",)),
        }
        return make_config({**fields, **parts}, {})
    if arguments.tokenizer is not None:
        return make_config(fields, tokenizer_fields(load_tokenizer(arguments.tokenizer)))
    last = arguments.vocabulary_size - 1
    return make_config(
        fields, {"vocab_size": last + 1, "bos_token_id": last, "eos_token_id": last, "pad_token_id": last}
    )


def read_part(
    config_class: type[CLIPTextConfig] | type[VMambaConfig], name: str, model_types: tuple[str, ...]
) -> dict[str, Any]:
    """The fields of the text encoder or backbone called `name`; ValueError if it is not there or of another type."""
    try:
        model_type = PreTrainedConfig.get_config_dict(name)[0].get("model_type")
        if model_type not in model_types:
            raise ValueError(f"it is of type {model_type!r}; give one of type {' or '.join(model_types)}.")
        return config_class.from_pretrained(name).to_dict()
    except (OSError, ValueError, StrictDataclassError) as error:
        raise ValueError(f"{name} is no model to start from: {' '.join(str(error).split())}") from None


def freeze_parts(model: nn.Module, names: Iterable[str]) -> None:
    """Have the parts of a ReMamber that are named not be trained; ValueError if it lacks one, or all are named."""
    parts = model_parts(model)
    lacking = set(names) - set(parts)
    if lacking:
        raise ValueError(f"freeze names {', '.join(lacking)}, which this model does not have; leave it out.")
    if set(names) == set(parts):
        raise ValueError("freeze names every part; leave out what is to be trained.")
    for name in names:
        parts[name].requires_grad_(False)


@dataclass(frozen=True)
class RunData:
    """What a run reads: its data sets, the rows to train on, what a mixture left out, and the rows to evaluate on."""

    sources: list[DataSource]
    train_rows: Any  # a `datasets.Dataset`, or None where nothing is trained
    num_removed: dict[str, int]
    eval_rows: dict[str, datasets.Dataset]

    def list_sentences(self) -> list[str]:
        """All sentences of the rows to train and to evaluate on."""
        parts = [*([] if self.train_rows is None else [self.train_rows]), *self.eval_rows.values()]
        return [sentence for rows in parts for sentences in read_sentences(rows) for sentence in sentences]


def read_data(arguments: DataArguments, training_arguments: ReMamberTrainingArguments) -> RunData:
    """Load the data sets that a run is told; ValueError or FileNotFoundError with the option to change."""
    names = (arguments.dataset, arguments.split_by, arguments.data_dir, arguments.on_error)
    sources = load_sources(*names, generalized=arguments.generalized, sentences=arguments.sentences)
    rows, num_removed = None, dict[str, int]()
    if training_arguments.do_train:
        rows, num_removed = mix_training_rows(sources, arguments.train_split)
    eval_rows = read_evaluation_rows(sources, arguments) if training_arguments.do_eval else {}
    return RunData(sources, rows, num_removed, eval_rows)


def read_evaluation_rows(sources: list[DataSource], arguments: DataArguments) -> dict[str, datasets.Dataset]:
    """One row per sentence of the evaluation split, by data set."""
    rows = {}
    for source in sources:
        split = source.rows(arguments.eval_split, "--eval_split")
        # A row has a sentence at least, so this many are enough.
        count = min(arguments.max_eval_samples or len(split), len(split))
        expanded = one_row_per_sentence(split.select(range(count)))
        rows[source.name] = expanded.select(range(min(arguments.max_eval_samples or len(expanded), len(expanded))))
    return rows
