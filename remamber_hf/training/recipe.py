# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What a run is told: `[RECIPE.yaml] [--name value …]` → arguments, each checked before anything is loaded or made."""

import dataclasses
import difflib
import math
import re
import reprlib
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn, get_args, get_origin, get_type_hints

import yaml
from transformers import HfArgumentParser
from transformers.integrations import (
    get_reporting_integration_callbacks,
    is_tensorboard_available,
    is_trackio_available,
)

from ..data.reading import decode_text, read_json, read_regular_file
from ..data.refer_config import ON_ERROR, SENTENCES
from ..messages import shorten
from .arguments import DataArguments, ModelArguments, ReMamberTrainingArguments


ARGUMENT_CLASSES = (ModelArguments, DataArguments, ReMamberTrainingArguments)


REPORTERS = {"tensorboard": is_tensorboard_available, "trackio": is_trackio_available}


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


RECIPES = Path(__file__).parent / "recipes"  # those that come with the package
HELP = "`remamber train --help` lists what there is"


class OneLineParser(HfArgumentParser):
    """Raises a ValueError instead of printing all options; an unknown name brings the one that is most like it."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message.rstrip('.')}; {HELP}.")

    def refuse(self, name: str, where: str) -> NoReturn:
        names = [action.dest for action in self._actions]
        raise ValueError(f"{where} {name}, which is no argument; {did_you_mean(name, names, f'{HELP}.')}")


def did_you_mean(name: str, names: Iterable[str], else_say: str) -> str:
    """The one of the names that is most like a wrong one, as a question; where none is like it, `else_say`."""
    similar = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {similar[0]}?" if similar else else_say


def parse_arguments(
    argv: list[str],
) -> tuple[ModelArguments, DataArguments, ReMamberTrainingArguments, dict]:
    """
    Read `[RECIPE] [--name value …]`: the recipe gives values, flags overrule them.

    Args:
        argv: RECIPE is a YAML file, or the name of one that comes with the package.

    Returns:
        the arguments, and by name those that differ from their defaults.

    Raises:
        ValueError: if something is unknown, of another type than it should be, missing, or at odds with another.
        FileNotFoundError: if the recipe or a file that an argument names is not there.
    """
    recipe = find_recipe(argv)
    written: set[str] = set()  # in the recipe, and nowhere else
    try:
        return read_arguments(argv, recipe, written)
    except (ValueError, FileNotFoundError) as error:
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
        text = str(error)
        if recipe is not None and recipe not in text and any(re.search(rf"\b{name}\b", text) for name in written):
            text = f"{recipe}: {text}"
        raise kind(shorten(text, 500)) from None


def find_recipe(argv: list[str]) -> str | None:
    """The file of the recipe that the first argument names; None if it is an option, ValueError if there is none."""
    if not argv or argv[0].startswith("-"):
        return None
    if argv[0].endswith((".yaml", ".yml")):
        return argv[0]
    names = sorted(path.stem for path in RECIPES.glob("*.yaml"))
    if argv[0] not in names:
        hint = did_you_mean(argv[0], names, f"give a YAML file, or one of {', '.join(names)}.")
        raise ValueError(f"{shorten(argv[0])} is no recipe; {hint}")
    return str(RECIPES / f"{argv[0]}.yaml")


def read_model_arguments(recipe: str) -> tuple[ModelArguments, list[str]]:
    """
    What a recipe says of the model, and the parts that it freezes; nothing else that it names need be here, or run on
    this machine.

    Raises:
        ValueError: if there is no such recipe, or it names no model, something unknown or of another type.
        FileNotFoundError: if it is not there, or a file that has fields of the model.
    """
    path = str(find_recipe([recipe]))
    # As in `read_arguments`.
    parser = OneLineParser(ARGUMENT_CLASSES, prog="remamber train", allow_abbrev=False)  # type: ignore[arg-type]
    flags = read_recipe(path, parser, set())
    try:
        values = vars(parser.parse_args(flags))
        given = {
            field.name: values[field.name]
            for field in dataclasses.fields(ModelArguments)
            if values[field.name] != field.default
        }
        check_values(given, argument_types())
        given |= {name: read_fields(name, given[name]) for name in ("model_config", "lora") if name in given}
        check_arguments({**given, "output_dir": ".", "do_train": True})
    except ValueError as error:
        raise ValueError(shorten(f"{path}: {error}", 500)) from None
    frozen = values["freeze"] or []
    return ModelArguments(**given), [frozen] if isinstance(frozen, str) else frozen


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
        raise FileNotFoundError(f"{path} is no file; give a YAML file, or the name of a recipe such as shapes.")
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
        raise ValueError(f"{path} is no valid YAML{line}: {shorten(reason)}") from None
    if not isinstance(recipe, dict):
        raise ValueError(f"{path} holds no mapping; write one `name: value` per line.")
    types = argument_types()
    known = {action.dest for action in parser._actions}
    flags = []
    for name, value in recipe.items():
        if name not in known:
            parser.refuse(shorten(str(name), 100), f"{path} names")
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
    shown = shorten(value)
    if not is_json and Path(value).stat().st_size > MOST_BYTES:
        raise ValueError(f"--{name} {shown} has more than {MOST_BYTES} bytes; give a mapping of fields and values.")
    try:
        fields = read_json(value if is_json else decode_text(read_regular_file(value), value))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"--{name} {shown} is no valid JSON: {shorten(str(error), 100)}.") from None
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
    if given.get("new_tokenizer") and "model" not in given:
        raise ValueError("--new_tokenizer is for a --model that brings one; from nothing, one is trained in any case.")
    if given.get("new_tokenizer") and not given.get("do_train"):
        raise ValueError("--new_tokenizer means nothing to the model until it is trained; give --do_train too.")
    if "model" in given and "vocabulary_size" in given and not given.get("new_tokenizer"):
        raise ValueError(
            "--vocabulary_size is for a tokenizer that is trained; leave it out, or give --new_tokenizer."
        )
    if given.get("new_tokenizer") and "lora" in given:
        raise ValueError("--new_tokenizer changes the text encoder, which --lora leaves as it is; leave one out.")
    if given.get("new_tokenizer") and "text_encoder" in (given.get("freeze") or ()):
        raise ValueError(
            "--new_tokenizer brings words that the text encoder has yet to learn; leave --freeze text_encoder out."
        )
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
