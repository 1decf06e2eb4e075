# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What a run is told: flags, recipes, and what is refused of them."""

import pytest
import yaml
from tiny_recipe import RECIPE

from remamber_hf.training.recipe import RECIPES as PACKAGED
from remamber_hf.training.recipe import parse_arguments, read_model_arguments


RECIPES = sorted(PACKAGED.glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=[path.name for path in RECIPES])
def test_every_recipe_is_read(path, tmp_path):
    model, data, training, _ = parse_arguments([str(path), "--output_dir", str(tmp_path / "out")])
    for name, value in yaml.safe_load(path.read_text()).items():
        held = next(getattr(each, name) for each in (model, data, training) if hasattr(each, name))
        if name == "report_to":
            assert held == ([] if value == "none" else [value])
        else:
            assert held == value, name


@pytest.mark.parametrize("name", ["refcoco", "refcoco+", "refcocog", "mixed", "grefcoco"])
def test_the_published_recipe_is_the_published_one(name, tmp_path):
    recipe = PACKAGED / f"{name}.yaml"
    model, data, training, _ = parse_arguments([str(recipe), "--output_dir", str(tmp_path / "out")])
    assert (training.learning_rate, training.weight_decay, training.num_train_epochs) == (5e-5, 1e-4, 50)
    assert training.text_encoder_learning_rate == training.backbone_learning_rate == 2.5e-5
    assert training.per_device_train_batch_size == 8 and training.fp16 and model.image_size == 480
    assert training.weight_decay_mode == "published" and training.lr_scheduler_kwargs == {"min_lr": 1e-6}
    assert data.dataset == ("refcoco,refcoco+,refcocog" if name == "mixed" else name)


def test_a_recipe_may_say_no(tmp_path):
    (tmp_path / "recipe.yaml").write_text("model: m\ndo_eval: true\nsave_strategy: no\neval_strategy: no\n")
    training = parse_arguments([str(tmp_path / "recipe.yaml"), "--output_dir", str(tmp_path / "out")])[2]
    assert training.save_strategy == training.eval_strategy == "no"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_of_the_package_is_found_by_its_name(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ["--data_dir", "data", "--output_dir", str(tmp_path / "out"), "--fp16", "false"]
    by_name, by_path = (parse_arguments([name, *flags]) for name in (path.stem, str(path)))
    assert by_name[3] == by_path[3] and by_name[0] == by_path[0] and by_name[1] == by_path[1]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_what_a_recipe_says_of_the_model_is_read_alone(path, tmp_path):
    model = parse_arguments([str(path), "--output_dir", str(tmp_path / "out")])[0]
    assert read_model_arguments(path.stem) == read_model_arguments(str(path)) == (model, [])


@pytest.mark.parametrize(
    "content, message",
    [
        ("seed: 1\n", "recipe.yaml: no model is named"),
        ("model: m\ntokenizer: t\n", "recipe.yaml: --tokenizer is for a model from nothing"),
        ("model_config: {mask_head: conv}\nvocabulary_size: many\n", "recipe.yaml: argument --vocabulary_size"),
        ("model_config: fields.json\n", "--model_config fields.json is no file"),
        ("modell: m\n", "names modell, which is no argument; did you mean model"),
    ],
)
def test_what_a_recipe_says_of_no_model_is_refused(content, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_model_arguments("recipe.yaml")


def test_flags_overrule_the_recipe(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE))
    arguments = ["--data_dir", "somewhere", "--output_dir", str(tmp_path / "out"), "--max_steps", "5"]
    model_arguments, data_arguments, training_arguments, _ = parse_arguments([str(recipe), *arguments])
    assert training_arguments.max_steps == 5
    assert training_arguments.learning_rate == 2.0e-3
    assert data_arguments.dataset == "shapes"
    assert model_arguments.model_config["mask_head"] == "mamba"


def test_a_recipe_may_write_numbers_lists_and_mappings_as_yaml_does(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "model: m\ndo_eval: true\nlearning_rate: 2e-4\nfreeze: [text_encoder, backbone]\nreport_to: [tensorboard]\n"
        "max_eval_samples:\nlr_scheduler_kwargs: {min_lr: 1.0e-6}\n"
    )
    _, data, training, given = parse_arguments([str(recipe), "--output_dir", str(tmp_path)])
    assert training.learning_rate == 2e-4 and training.freeze == ["text_encoder", "backbone"]
    assert training.report_to == ["tensorboard"] and training.lr_scheduler_kwargs == {"min_lr": 1e-6}
    assert data.max_eval_samples is None and "max_eval_samples" not in given


@pytest.mark.parametrize(
    "flags, message",
    [
        (["missing.yaml"], "missing.yaml is no file; give a YAML file"),
        (["refcoc"], "refcoc is no recipe; did you mean refcoco?"),
        (
            ["weather"],
            "weather is no recipe; give a YAML file, or one of grefcoco, lora, mixed, photos, refcoco",
        ),
        (["--model", "a", "b.yaml"], "b.yaml stands after other arguments; the recipe comes first"),
        (["--model", "a"], "there is nothing to do; give --do_train, --do_eval or both"),
        (["--do_eval"], "no model is named; give --model, to train on, --text_model and --vision_model"),
        (["--do_eval", "--model", "a", "--model_config", "{}"], "--model is a whole model; leave out"),
        (["--do_eval", "--model_config", "{}"], "starts from nothing, which only training can; give --do_train"),
        (["--do_eval", "--text_model", "a"], "--text_model comes alone; give --text_model and --vision_model"),
        (["--do_train", "--model", "a", "--tokenizer", "b"], "--tokenizer is for a model from nothing"),
        (
            ["--do_train", "--model_config", "{}", "--tokenizer", "b", "--vocabulary_size", "600"],
            "--vocabulary_size is for a tokenizer that is trained; leave it or --tokenizer out",
        ),
        (
            ["--do_train", "--model_config", "{}", "--new_tokenizer"],
            "--new_tokenizer is for a --model that brings one",
        ),
        (["--do_eval", "--model", "a", "--new_tokenizer"], "--new_tokenizer means nothing to the model until"),
        (["--do_train", "--model", "a", "--vocabulary_size", "600"], "for a tokenizer that is trained; leave it out"),
        (["--do_train", "--model", "a", "--new_tokenizer", "--lora", "{}"], "which --lora leaves as it is"),
        (
            ["--do_train", "--model", "a", "--new_tokenizer", "--freeze", "backbone", "text_encoder"],
            "the text encoder has yet to learn; leave --freeze text_encoder out",
        ),
        (["--model", "a", "--model_config", "b.json"], "--model_config b.json is no file"),
        (["--model", "a", "--lora", "[1"], r"--lora \[1 is no file"),
        (["--model", "a", "--lora", "{1"], "--lora {1 is no valid JSON"),
        (["--model", "a", "--lora", "{}", "--ema_decay", "0.9"], "--lora and --ema_decay do not go together"),
        (["--model", "a", "--split_bye", "unc"], "the command names split_bye, .* did you mean split_by?"),
        (["--model", "a", "--max_steps", "many"], "--max_steps.*invalid int value: 'many'"),
        (["--model", "a", "--eval_strategy", "daily"], "invalid choice: 'daily'"),
        (["--model", "a", "--max_eval_samples", "0"], "--max_eval_samples is 0; give at least 1"),
        (["--model", "a", "--on_error", "cry"], "--on_error is 'cry'; choose one of raise, skip"),
        (["--model", "a", "--sentences", "tokens"], "--sentences is 'tokens'; choose one of sent, raw"),
        (["--model", "a", "--push_to_hub"], "--push_to_hub comes without --hub_model_id"),
        (
            ["--model", "a", "--do_eval", "--push_to_hub", "--hub_model_id", "me/a"],
            "--push_to_hub sends what was trained; give --do_train too, or leave it out",
        ),
        (["--model", "a", "--do_eval", "--report_to", "tensorbord"], "--report_to: tensorbord is not supported"),
    ],
)
def test_bad_arguments_are_refused(tmp_path, flags, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        parse_arguments([*flags, "--output_dir", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "content, message",
    [
        ("max_stps: 3", "recipe.yaml names max_stps, which is no argument; did you mean max_steps?"),
        ("max_steps: many", "--max_steps.*invalid int value: 'many'"),
        ("max_steps: [1]", r"recipe.yaml: max_steps is \[1\]; one value is needed"),
        ("- max_steps", "recipe.yaml holds no mapping"),
        ("a: [", "recipe.yaml is no valid YAML"),
        ("freeze: [eyes]", "freeze names eyes; the parts are text_encoder, backbone, fusion, mask_head"),
    ],
)
def test_bad_recipes_are_refused(tmp_path, content, message):
    (tmp_path / "recipe.yaml").write_text(content)
    with pytest.raises(ValueError, match=message):
        parse_arguments([str(tmp_path / "recipe.yaml"), "--model", "a", "--do_eval", "--output_dir", str(tmp_path)])


def test_an_output_folder_is_needed():
    with pytest.raises(ValueError, match="--output_dir is missing"):
        parse_arguments(["--model", "a", "--do_eval"])


def test_a_logger_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(parse_arguments.__globals__["REPORTERS"], "trackio", lambda: False)
    with pytest.raises(ValueError, match="--report_to trackio needs a package: pip install trackio"):
        parse_arguments(["--model", "a", "--do_eval", "--output_dir", str(tmp_path), "--report_to", "trackio"])
