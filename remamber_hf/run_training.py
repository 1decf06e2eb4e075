# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Command: train ReMamber on referring data and evaluate it. Only wires; see `training/` and `data/`."""

import difflib
import math
import re
import reprlib
import sys
import unicodedata
import warnings
from pathlib import Path
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

import datasets
import yaml
from accelerate import PartialState
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import CLIPTextConfig, HfArgumentParser, set_seed
from transformers.integrations import (
    get_reporting_integration_callbacks,
    is_tensorboard_available,
    is_trackio_available,
)

from .configuration_remamber import ReMamberConfig, VMambaConfig
from .data.mixture import DataSource, is_generalized, load_sources, mix_training_rows
from .data.refer import ON_ERROR, SENTENCES, decode_text, one_row_per_sentence, read_json, read_regular_file
from .image_backend import image_backend
from .image_processing_remamber import ReMamberImageProcessorPil
from .loading import load_model, load_tokenizer
from .modeling_remamber import ReMamberForImageSegmentation
from .processing_remamber import ReMamberProcessor
from .training.arguments import DataArguments, ModelArguments, ReMamberTrainingArguments
from .training.callbacks import Curves, SamplePredictions, choose_samples
from .training.lora import add_lora, merge_lora
from .training.model_card import TrainingRun, push_folder, write_model_card
from .training.nonfinite import NotFiniteError
from .training.tokenizer import train_tokenizer
from .training.trainer import ReferringSegmentationTrainer


ARGUMENT_CLASSES = (ModelArguments, DataArguments, ReMamberTrainingArguments)
REPORTERS = {"tensorboard": is_tensorboard_available, "trackio": is_trackio_available}
STORED = ("auto_map", "custom_pipelines", "use_cache")  # in a config.json, besides the fields
DEFAULT_IMAGE_SIZE = 480  # as published
# What transformers and torch say only later, after training, or not at all.
LEAST = {
    **dict.fromkeys(("max_eval_samples", "per_device_train_batch_size", "per_device_eval_batch_size"), 1),
    **dict.fromkeys(("eval_accumulation_steps", "vocabulary_size"), 1),
    **dict.fromkeys(("sample_predictions", "dataloader_num_workers", "seed", "data_seed", "eval_delay"), 0),
    **dict.fromkeys(("learning_rate", "weight_decay", "max_grad_norm", "adam_epsilon"), 0),
    "image_size": 32,
}
SEEDS = ("seed", "data_seed")
MOST_SEED = 2**32 - 1  # of numpy
MOST_BYTES = 2**20  # of a recipe, or of a mapping in a file
MOST_VALUES, MOST_LEVELS = 10_000, 20  # of a list or a mapping
MAPPING_FILES = ("accelerator_config", "deepspeed", "fsdp_config")  # may be named instead of written out
# What transformers and accelerate raise on values that they do not expect.
NOT_SAID = (AttributeError, AssertionError, ImportError, LookupError, NotImplementedError, TypeError)
HELP = "`remamber train --help` lists what there is"


class OneLineParser(HfArgumentParser):
    """Raises a ValueError instead of printing all options; an unknown name brings the one that is most like it."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message.rstrip('.')}; {HELP}.")

    def refuse(self, name: str, where: str) -> NoReturn:
        names = [action.dest for action in self._actions]
        similar = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {similar[0]}?" if similar else f"{HELP}."
        raise ValueError(f"{where} {name}, which is no argument; {hint}")


def parse_arguments(
    argv: list[str],
) -> tuple[ModelArguments, DataArguments, ReMamberTrainingArguments, dict]:
    """
    Read `[RECIPE.yaml] [--name value …]`: the recipe gives values, flags overrule them.

    Returns:
        the arguments, and by name those that differ from their defaults.

    Raises:
        ValueError: if something is unknown, of another type than it should be, missing, or at odds with another.
        FileNotFoundError: if the recipe or a file that an argument names is not there.
    """
    recipe = argv[0] if argv and argv[0].endswith((".yaml", ".yml")) else None
    written: set[str] = set()  # in the recipe, and nowhere else
    try:
        return read_arguments(argv, recipe, written)
    except (ValueError, FileNotFoundError) as error:
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
        text = str(error)
        if recipe is not None and recipe not in text and any(re.search(rf"\b{name}\b", text) for name in written):
            text = f"{recipe}: {text}"
        raise kind(printable(text)) from None


def read_arguments(argv: list[str], recipe: str | None, written: set[str]):
    """See `parse_arguments`; `written` takes the names that only the recipe gives."""
    # It takes data classes; its annotation is of a made-up type.
    parser = OneLineParser(ARGUMENT_CLASSES, prog="remamber train", allow_abbrev=False)  # type: ignore[arg-type]
    defaults = vars(parser.parse_args([]))
    if recipe is not None:
        flags = read_recipe(recipe, parser, written)
        try:
            parser.parse_args(flags)
        except ValueError as error:
            raise ValueError(f"{recipe}: {error}") from None
        argv = flags + argv[1:]
        written -= {word.lstrip("-").split("=")[0] for word in argv[len(flags) :] if word.startswith("--")}
    namespace, unknown = parser.parse_known_args(argv)
    if unknown:
        if unknown[0].endswith((".yaml", ".yml")):
            raise ValueError(f"{unknown[0]} stands after other arguments; the recipe comes first.")
        parser.refuse(unknown[0].lstrip("-").split("=")[0].replace("-", "_"), "the command names")
    values = vars(namespace)
    types = argument_types()
    check_values({name: value for name, value in values.items() if value != defaults[name]}, types)
    for name in ("model_config", "lora"):
        values[name] = read_fields(name, values[name])
    for name in types:
        if takes(types[name], dict) and isinstance(values[name], str):
            values[name] = read_mapping(name, values[name])
    given = {name: value for name, value in values.items() if value != defaults[name]}
    check_arguments(given)
    try:
        model_arguments, data_arguments, training_arguments = parser.parse_dict(values)
    except NOT_SAID as error:
        mappings = [f"--{name}" for name, value in given.items() if isinstance(value, (dict, list))]
        where = f"one of {', '.join(mappings)} is" if mappings else "the arguments are"
        raise ValueError(f"{where} refused: {type(error).__name__}: {error}") from None
    if not (training_arguments.do_train or training_arguments.do_eval):
        raise ValueError("there is nothing to do; give --do_train, --do_eval or both.")
    for name in training_arguments.report_to:
        try:
            get_reporting_integration_callbacks([name])
        except ValueError as error:
            raise ValueError(f"--report_to: {error}") from None
        if name in REPORTERS and not REPORTERS[name]():
            raise ValueError(f"--report_to {name} needs a package: pip install {name}.")
    return model_arguments, data_arguments, training_arguments, given


def read_recipe(path: str, parser: OneLineParser, written: set[str]) -> list[str]:
    """The flags that a YAML file of arguments stands for; lists and mappings become defaults of the parser."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is no file; give a recipe such as recipes/shapes.yaml.")
    if Path(path).stat().st_size > MOST_BYTES:
        raise ValueError(f"{path} has more than {MOST_BYTES} bytes; a recipe has one `name: value` per line.")
    content = decode_text(read_regular_file(path), path)
    try:
        too_long = re.search(r"^\s*(\w*)[^\n]*\d{4300}", content, flags=re.MULTILINE)
        if too_long:
            raise ValueError(f"{too_long[1]:.100} has a number of too many digits")
        check_names(yaml.compose(content, Loader=yaml.SafeLoader))
        recipe = yaml.safe_load(content)
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError) as error:
        place = getattr(error, "problem_mark", None)
        line = "" if place is None else f" in line {place.line + 1}"
        is_said = isinstance(error, (yaml.YAMLError, ValueError))
        reason = getattr(error, "problem", None) or (" ".join(str(error).split()) if is_said else "it is too deep")
        raise ValueError(f"{path} is no valid YAML{line}: {printable(reason, 200)}") from None
    if not isinstance(recipe, dict):
        raise ValueError(f"{path} holds no mapping; write one `name: value` per line.")
    types = argument_types()
    known = {action.dest for action in parser._actions}
    flags = []
    for name, value in recipe.items():
        if name not in known:
            parser.refuse(printable(str(name), 100), f"{path} names")
        written.add(name)
        if value is False and not takes(types[name], bool):
            value = "no"  # as YAML reads it
        if isinstance(value, (list, dict)):
            if not takes(types[name], type(value)):
                raise ValueError(
                    f"{path}: {name} is {reprlib.repr(value)}; one value is needed, see `remamber train --help`."
                )
            parser.set_defaults(**{name: value})
        elif value is None:
            parser.set_defaults(**{name: None})
        elif isinstance(value, (bool, int, float, str)):
            try:
                flags.append(f"--{name}={value}")
            except ValueError:  # Python writes no integer of so many digits
                raise ValueError(f"{path}: {name} is a number of too many digits; give a smaller one.") from None
        else:
            raise ValueError(f"{path}: {name} is {reprlib.repr(value)}; write it as text, a number, true or false.")
    return flags


def check_names(document: yaml.Node | None) -> None:
    """MarkedYAMLError for a name that stands twice in one mapping: `yaml` takes the last without a word."""
    waiting, seen = [document], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen or not isinstance(node, yaml.CollectionNode):
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
            continue
        names: set[str] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in names:
                    raise yaml.MarkedYAMLError(problem=f"{key.value} stands there twice", problem_mark=key.start_mark)
                names.add(key.value)
            waiting.append(value)


def argument_types() -> dict:
    """The type hint of every argument."""
    return {name: hint for each in ARGUMENT_CLASSES for name, hint in get_type_hints(each).items()}


def check_values(given: dict, types: dict) -> None:
    """ValueError for a value that no argument takes, whatever it means."""
    for name, value in given.items():
        if value is None and not takes(types[name], type(None)):
            raise ValueError(f"--{name} is empty; give a value, or leave it out.")
        if isinstance(value, (list, dict)):
            check_nested(name, value)
            if isinstance(value, list) and not all(isinstance(item, str) for item in value):
                raise ValueError(f"--{name} is {reprlib.repr(value)}; give a list of words.")
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, str) and any(unicodedata.category(letter) in ("Cc", "Cs") for letter in item):
                raise ValueError(f"--{name} is {reprlib.repr(item)}, which holds control characters; leave them out.")
            if isinstance(item, int) and not abs(item) < 2**63:
                raise ValueError(f"--{name} is {reprlib.repr(item)}; give a number below 2 to the power of 63.")
            if isinstance(item, float) and not math.isfinite(item) and name != "max_grad_norm":
                raise ValueError(f"--{name} is {item}; give a finite number.")


def check_nested(name: str, value: list | dict) -> None:
    """ValueError for more values than anybody writes, as aliases of YAML stand for, or for keys that are no text."""
    rest, count = [(value, 0)], 0
    while rest:
        item, depth = rest.pop()
        count += 1
        if count > MOST_VALUES or depth > MOST_LEVELS:
            raise ValueError(
                f"--{name} holds more than {MOST_VALUES} values or {MOST_LEVELS} levels, aliases counted where they "
                "stand; give a mapping or list of few."
            )
        if isinstance(item, dict):
            if not all(isinstance(key, str) for key in item):
                raise ValueError(f"--{name} has {reprlib.repr(next(iter(item)))} for a name; write text.")
            rest += [(inner, depth + 1) for inner in item.values()]
        elif isinstance(item, list):
            rest += [(inner, depth + 1) for inner in item]


def read_mapping(name: str, value: str) -> dict | str:
    """A mapping that is given as JSON; what may be the name of a file stays text, if that file is JSON or YAML."""
    if value.lstrip().startswith("{"):
        return read_fields(name, value) or {}
    if name not in MAPPING_FILES:
        raise ValueError(f"--{name} is {reprlib.repr(value)}; give a mapping, in JSON with quoted names.")
    if value and not Path(value).is_file():
        raise FileNotFoundError(f"--{name} {value:.200} is no file; give a JSON file, or a mapping in a recipe.")
    if value.endswith(".json"):
        read_fields(name, value)
    return value


def printable(text: str, most: int = 500) -> str:
    """A text for a terminal: control characters and marks of direction escaped, of a long one the middle left out."""
    if len(text) > most:
        text = f"{text[: most - 100]} … {text[-90:]}"
    return "".join(letter if letter.isprintable() or letter in " \n" else ascii(letter)[1:-1] for letter in text)


def takes(hint, kind: type) -> bool:
    """Whether a type hint, such as `dict | str | None`, names `kind`."""
    return kind in [get_origin(part) or part for part in (hint, *get_args(hint))]


def read_fields(name: str, value: str | dict | None) -> dict | None:
    """A mapping that is given as such, as JSON or as the name of a JSON file."""
    if not isinstance(value, str):
        return value
    is_json = value.lstrip().startswith("{")
    if not is_json and not Path(value).is_file():
        raise FileNotFoundError(f"--{name} {value} is no file; give a JSON file, or a mapping in a recipe.")
    shown = printable(value, 200)
    if not is_json and Path(value).stat().st_size > MOST_BYTES:
        raise ValueError(f"--{name} {shown} has more than {MOST_BYTES} bytes; give a mapping of fields and values.")
    try:
        fields = read_json(value if is_json else decode_text(read_regular_file(value), value))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"--{name} {shown} is no valid JSON: {printable(str(error), 100)}.") from None
    if not isinstance(fields, dict):
        raise ValueError(f"--{name} {shown} holds no mapping; give an object with fields and values.")
    check_nested(name, fields)
    return fields


def check_arguments(given: dict) -> None:
    """ValueError for what is missing, or at odds with something else; before anything is loaded or made."""
    if given.get("output_dir") is None:
        raise ValueError("--output_dir is missing; give the folder to write to.")
    parts = [name for name in ("text_model", "vision_model") if name in given]
    if len(parts) == 1:
        raise ValueError(f"--{parts[0]} comes alone; give --text_model and --vision_model.")
    if "model" in given and (parts or "model_config" in given):
        raise ValueError("--model is a whole model; leave out --text_model, --vision_model and --model_config.")
    if not (parts or "model" in given or "model_config" in given):
        raise ValueError(
            "no model is named; give --model, to train on, --text_model and --vision_model, to start from these, or "
            "--model_config, to start from nothing."
        )
    if "model_config" in given and not parts and not given.get("do_train"):
        raise ValueError("--model_config alone starts from nothing, which only training can; give --do_train.")
    if "tokenizer" in given and (parts or "model" in given):
        raise ValueError("--tokenizer is for a model from nothing; others bring theirs, leave it out.")
    if "tokenizer" in given and "vocabulary_size" in given:
        raise ValueError("--vocabulary_size is for a tokenizer that is trained; leave it or --tokenizer out.")
    if "lora" in given and given.get("ema_decay") is not None:
        raise ValueError("--lora and --ema_decay do not go together; leave one out.")
    if given.get("push_to_hub") and "hub_model_id" not in given:
        raise ValueError(
            "--push_to_hub comes without --hub_model_id; give its name there, as in you/remamber-refcoco."
        )
    if given.get("push_to_hub") and not given.get("do_train"):
        raise ValueError("--push_to_hub sends what was trained; give --do_train too, or leave it out.")
    for name, choices in (("on_error", ON_ERROR), ("sentences", SENTENCES)):
        if given.get(name, choices[0]) not in choices:
            raise ValueError(f"--{name} is {given[name]!r}; choose one of {', '.join(choices)}.")
    for name, least in LEAST.items():
        value = given.get(name, least)
        if isinstance(value, (int, float)) and value < least:
            raise ValueError(f"--{name} is {value}; give at least {least}.")
    for name in SEEDS:
        if given.get(name, 0) > MOST_SEED:
            raise ValueError(f"--{name} is {given[name]}; give at most {MOST_SEED}.")
    for name in ("num_train_epochs", "eval_steps", "logging_steps", "save_steps"):
        if given.get(name, 1) <= 0:
            raise ValueError(f"--{name} is {given[name]}; give more than 0.")


def check_fields(fields: dict) -> None:
    """ValueError for a name that no config has: the configs themselves take any."""
    known = {"": ReMamberConfig(), "vision_config": VMambaConfig(), "text_config": CLIPTextConfig()}
    for part, config in known.items():
        names = {*config.to_dict(), *STORED}
        given = fields.get(part, {}) if part else fields
        if not isinstance(given, dict):
            raise ValueError(f"model_config gives {given!r:.100} for {part}; give a mapping, or leave it out.")
        for name in given:
            if name not in names:
                similar = difflib.get_close_matches(name, names, n=1)
                hint = f"did you mean {similar[0]}?" if similar else f"see {type(config).__name__}."
                raise ValueError(f"model_config names {f'{part}.' if part else ''}{name}, which is no field; {hint}")


def build_model(
    arguments: ModelArguments, rows: datasets.Dataset | None
) -> tuple[ReMamberForImageSegmentation, ReMamberProcessor]:
    """The model to train on and its processor; without any to start from, a tokenizer is trained on the `rows`."""
    side = arguments.image_size or DEFAULT_IMAGE_SIZE
    image_processor = ReMamberImageProcessorPil(size={"height": side, "width": side})
    if arguments.model is not None:
        model, processor = load_model(arguments.model, "cpu", "float32")
        if arguments.image_size is not None:
            processor.image_processor.size = image_processor.size
        return model, processor
    fields: Any = arguments.model_config or {}  # JSON's text is read by now
    check_fields(fields)
    if arguments.text_model is not None:
        if {"text_config", "vision_config"} & fields.keys():
            raise ValueError(
                "model_config has text_config or vision_config; text_model and vision_model bring theirs."
            )
        try:
            model = ReMamberForImageSegmentation.from_vision_text_pretrained(
                arguments.vision_model, arguments.text_model, **fields
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
        columns = rows.select_columns("sentences")  # type: ignore[union-attr]  # who only evaluates names a model
        sentences = [sentence for row in columns for sentence in row["sentences"]]
        tokenizer = train_tokenizer(sentences, arguments.vocabulary_size, text_length)
    text_fields = {
        **fields.get("text_config", {}),
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    try:
        config = ReMamberConfig(**{**fields, "text_config": text_fields})
    except StrictDataclassError as error:
        raise ValueError(f"model_config is refused: {str(error).splitlines()[-1].strip()}") from None
    model = ReMamberForImageSegmentation(config)
    return model, ReMamberProcessor(image_processor, tokenizer, text_length=text_length)


def read_evaluation_rows(sources: list[DataSource], arguments: DataArguments) -> dict[str, datasets.Dataset]:
    """One row per sentence of the evaluation split, by data set."""
    rows = {}
    for source in sources:
        split = source.rows(arguments.eval_split, "--eval_split")
        if is_generalized(split):
            raise ValueError(
                f"{source} has sentences that mean several objects or none, and training knows only the scores of "
                "one; leave out --do_eval and --eval_strategy, and score the model with `remamber evaluate`."
            )
        # A row has a sentence at least, so this many are enough.
        count = min(arguments.max_eval_samples or len(split), len(split))
        expanded = one_row_per_sentence(split.select(range(count)))
        rows[source.name] = expanded.select(range(min(arguments.max_eval_samples or len(expanded), len(expanded))))
    return rows


def main(argv: list[str] | None = None):
    """Train if `--do_train`, evaluate if `--do_eval`; the output folder holds model, card and metrics."""
    # Several processes: the gradients of depthwise convolutions come in another memory order and are copied, no more.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    arguments = parse_arguments(list(sys.argv[1:] if argv is None else argv))
    model_arguments, data_arguments, training_arguments, given = arguments
    # The Trainer would ask the Hub before it trains, and write a card of its own; everything is sent at the end.
    is_pushed, training_arguments.push_to_hub = training_arguments.push_to_hub, False
    is_main = training_arguments.process_index == 0
    set_seed(training_arguments.seed)

    with training_arguments.main_process_first(desc="reading the data"):
        sources = load_sources(
            data_arguments.dataset,
            data_arguments.split_by,
            data_arguments.data_dir,
            data_arguments.on_error,
            sentences=data_arguments.sentences,
        )
        if training_arguments.do_train:
            train_rows, num_removed = mix_training_rows(sources, data_arguments.train_split)
        else:
            train_rows, num_removed = None, {}
        eval_rows = read_evaluation_rows(sources, data_arguments) if training_arguments.do_eval else {}
    if is_main:
        print(describe_rows(sources, train_rows, num_removed, eval_rows))

    model, processor = build_model(model_arguments, train_rows)
    config = model.config
    if is_main:
        print(describe_steps(training_arguments, processor))
    if model_arguments.lora is not None:
        model = add_lora(model, model_arguments.lora)  # type: ignore[arg-type]  # JSON's text is read by now
    try:
        trainer = ReferringSegmentationTrainer(
            model=model,
            args=training_arguments,
            train_dataset=train_rows,
            eval_dataset=next(iter(eval_rows.values())) if len(eval_rows) == 1 else eval_rows or None,
            processing_class=processor,
            callbacks=[Curves()] if training_arguments.do_train else [],
        )
    except (ImportError, RuntimeError) as error:
        if "install" not in str(error):
            raise
        raise ValueError(f"--report_to {','.join(training_arguments.report_to or ())}: {error}") from None
    if eval_rows and data_arguments.sample_predictions:
        if trainer.is_fsdp_enabled:
            print("sample predictions are not drawn: no process holds the whole model.")
        else:
            rows = choose_samples(list(eval_rows.values()), data_arguments.sample_predictions)
            trainer.add_callback(SamplePredictions(rows, processor))

    metrics, train_metrics = {}, {}
    if training_arguments.do_train:
        try:
            train_metrics = trainer.train(resume_from_checkpoint=training_arguments.resume_from_checkpoint).metrics
        except NotFiniteError as error:
            raise ValueError(str(error)) from None
        if model_arguments.lora is not None:
            trainer.model = trainer.model_wrapped = merge_lora(
                trainer.model, Path(training_arguments.output_dir), is_main
            )
        trainer.save_model()
        trainer.log_metrics("train", train_metrics)
        trainer.save_metrics("train", train_metrics)
        trainer.save_state()
    if training_arguments.do_eval:
        metrics = trainer.evaluate()
        trainer.log_metrics("eval", metrics)
        trainer.save_metrics("eval", metrics)
    if training_arguments.do_train and is_main:
        run = TrainingRun(
            sources=sources,
            num_rows=len(train_rows),
            num_removed=num_removed,
            train_split=data_arguments.train_split,
            eval_split=data_arguments.eval_split,
            given=given,
            license=model_arguments.license,
            metrics=metrics,
            runtime=train_metrics["train_runtime"],
            is_resumed=trainer.checkpoint is not None,
            steps=trainer.state.global_step,
            epochs=trainer.state.epoch,
            num_parameters=sum(parameter.numel() for parameter in trainer.model.parameters()),
        )
        write_model_card(config, processor, run, training_arguments)
        print(f"written: {training_arguments.output_dir}")
        if is_pushed:
            print(f"pushed: {push_folder(training_arguments)}")
    # Its threads hold tensors for a while, and abort the process that ends before they let go.
    PartialState().destroy_process_group()


def describe_steps(arguments: ReMamberTrainingArguments, processor: ReMamberProcessor) -> str:
    """How many objects a step has, by what that comes, and what prepares their pictures."""
    factors = {
        "process": arguments.world_size,
        "object": arguments.per_device_train_batch_size,
        "accumulated batch": arguments.gradient_accumulation_steps,
    }
    counts = [
        f"{count} {name if count == 1 else name + ('es' if name.endswith(('s', 'h')) else 's')}"
        for name, count in factors.items()
    ]
    prepared = f"pictures are prepared by {image_backend(processor)}"
    if not arguments.do_train:
        return prepared
    return f"a step: {' × '.join(counts)} = {math.prod(factors.values())} objects; {prepared}"


def describe_rows(
    sources: list[DataSource],
    train_rows: datasets.Dataset | None,
    num_removed: dict[str, int],
    eval_rows: dict[str, datasets.Dataset],
) -> str:
    """What is trained and evaluated on, in a line each."""
    lines = []
    if train_rows is not None:
        lines.append(f"training: {len(train_rows)} objects of {', '.join(map(str, sources))}")
    if len(num_removed) > 1:
        counts = ", ".join(f"{count} of {name}" for name, count in num_removed.items())
        lines.append(f"left out, their pictures being in another split of one of these: {counts}")
    if eval_rows:
        counts = ", ".join(f"{len(rows)} expressions of {name}" for name, rows in eval_rows.items())
        lines.append(f"evaluation: {counts}")
    return "\n".join(lines)


if __name__ == "__main__":
    from .cli import main as remamber

    sys.argv.insert(1, "train")
    remamber()
