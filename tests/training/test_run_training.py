"""`remamber train` from nothing on a small synthetic set, and the Trainer behind it."""

import json

import numpy as np
import pytest
import torch
import yaml
from transformers import AutoModelForImageSegmentation, AutoProcessor

from remamber_hf.data.collator import ReMamberCollator
from remamber_hf.data.refer import load_refer, row_mask
from remamber_hf.data.synthetic import synthesize
from remamber_hf.run_training import main, parse_arguments
from remamber_hf.training.arguments import ReMamberTrainingArguments
from remamber_hf.training.trainer import ReferringSegmentationTrainer


RECIPE = {
    "dataset": "shapes",
    "image_size": 64,
    "vocabulary_size": 600,
    "model_config": {
        "mask_head": "mamba",
        "text_length": 10,
        "correlation_size": 8,
        "channel_scan_size": 4,
        "decoder_depths": [1, 1, 1, 1],
        "num_fusion_blocks": 1,
        "text_config": {
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "max_position_embeddings": 10,
        },
        "initializer_range": 0.1,
        "vision_config": {
            "hidden_sizes": [8, 16, 32, 64],
            "depths": [1, 1, 1, 1],
            "drop_path_rate": 0.0,
            "initializer_range": 0.1,
        },
    },
    "do_train": True,
    "do_eval": True,
    "use_cpu": True,
    "seed": 3,
    "learning_rate": 2.0e-3,
    "per_device_train_batch_size": 8,
    "max_steps": 12,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "shapes"
    synthesize(folder, 16, 0, num_workers=1, progress=False)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory, data_dir):
    """Folder of a finished run."""
    folder = tmp_path_factory.mktemp("run")
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE))
    main([str(recipe), "--data_dir", str(data_dir), "--output_dir", str(folder / "out")])
    return folder / "out"


def losses_of(run) -> list[float]:
    log = json.loads((run / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in log if "loss" in entry]


def test_the_loss_falls(run):
    losses = losses_of(run)
    assert len(losses) == 12
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.05


def test_every_parameter_has_moved(run, data_dir, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({**RECIPE, "max_steps": 1, "learning_rate": 1.0e-12, "do_eval": False}))
    main([str(recipe), "--data_dir", str(data_dir), "--output_dir", str(tmp_path / "start")])
    start = AutoModelForImageSegmentation.from_pretrained(tmp_path / "start").state_dict()
    trained = AutoModelForImageSegmentation.from_pretrained(run)
    unmoved = [name for name, parameter in trained.named_parameters() if torch.equal(parameter, start[name])]
    # Softmax takes out again what all keys share.
    assert [name for name in unmoved if not name.endswith("k_proj.bias")] == []


def test_the_folder_loads_with_the_auto_classes_and_evaluates_to_what_was_reported(run, data_dir):
    model, processor = AutoModelForImageSegmentation.from_pretrained(run).eval(), AutoProcessor.from_pretrained(run)
    assert model.config.mask_head == "mamba"
    assert processor.text_length == 10
    intersections, unions = [], []
    for row in load_refer("shapes", "unc", "val", data_dir=data_dir, expand_sentences=True):
        inputs = processor(images=row["image"], text=row["sentences"], return_tensors="pt")
        with torch.no_grad():
            outputs = model(**inputs)
        (mask,) = processor.post_process_referring_segmentation(outputs, target_sizes=[(row["height"], row["width"])])
        found, truth = mask.numpy(), row_mask(row)
        intersections.append((found & truth).sum())
        unions.append((found | truth).sum())
    metrics = json.loads((run / "eval_results.json").read_text())
    assert metrics["eval_miou"] == pytest.approx(np.mean(np.array(intersections) / np.array(unions)), abs=1e-9)
    assert metrics["eval_oiou"] == pytest.approx(sum(intersections) / sum(unions), abs=1e-9)


def test_training_can_go_on_from_a_folder(run, data_dir, tmp_path):
    flags = ["--model", run, "--data_dir", data_dir, "--output_dir", tmp_path / "more", "--dataset", "shapes"]
    flags += ["--do_train", "--max_steps", 2, "--use_cpu", "--logging_steps", 1, "--learning_rate", 1e-5]
    main([str(flag) for flag in [*flags, "--report_to", "none", "--disable_tqdm", "true", "--save_strategy", "no"]])
    assert np.mean(losses_of(tmp_path / "more")) < losses_of(run)[0]


def test_weight_decay_reaches_matrices_only(run, data_dir):
    model, processor = AutoModelForImageSegmentation.from_pretrained(run), AutoProcessor.from_pretrained(run)
    trainer = ReferringSegmentationTrainer(
        model=model,
        args=ReMamberTrainingArguments(
            output_dir=str(run / "unused"), weight_decay=0.1, use_cpu=True, report_to="none"
        ),
        data_collator=ReMamberCollator(processor),
        processing_class=processor,
    )
    decayed, kept = (group["params"] for group in trainer.create_optimizer().param_groups)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert len(decayed) + len(kept) == len(names)
    assert all(parameter.dim() >= 2 for parameter in decayed)
    kept_matrices = {names[id(parameter)].rsplit(".", 1)[-1] for parameter in kept if parameter.dim() >= 2}
    embeddings = [names[id(parameter)] for parameter in kept if "embedding" in names[id(parameter)]]
    assert kept_matrices == {"A_log", "dt_proj_bias", "weight"} and len(embeddings) == 2


def test_flags_overrule_the_recipe(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE))
    arguments = ["--data_dir", "somewhere", "--output_dir", str(tmp_path / "out"), "--max_steps", "5"]
    model_arguments, data_arguments, training_arguments = parse_arguments([str(recipe), *arguments])
    assert training_arguments.max_steps == 5
    assert training_arguments.learning_rate == 2.0e-3
    assert data_arguments.dataset == "shapes"
    assert model_arguments.model_config["mask_head"] == "mamba"


@pytest.mark.parametrize(
    "flags, message",
    [
        (["missing.yaml"], "missing.yaml is no file; give a recipe"),
        (["--model", "folder"], "--data_dir is missing"),
        (["--data_dir", "folder", "--model", "a"], "there is nothing to do; give --do_train, --do_eval or both"),
        (["--do_eval", "--data_dir", "folder"], "either --model, to train on, or --model_config"),
        (["--do_eval", "--data_dir", "folder", "--model", "a", "--model_config", "b"], "either --model"),
    ],
)
def test_bad_arguments_are_refused(tmp_path, flags, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        parse_arguments([*flags, "--output_dir", str(tmp_path / "out")])
