# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What a run starts from: a model from parts, from nothing or as it was saved, and rows to evaluate on."""

import json
from pathlib import Path

import datasets
import pytest
import runs
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_recipe import save_parts

from remamber_hf import ReMamberForImageSegmentation, ReMamberProcessor
from remamber_hf.data.mixture import DataSource
from remamber_hf.data.refer import load_refer
from remamber_hf.data.rows import is_generalized
from remamber_hf.inference.loading import BUNDLED_MODEL, load_model
from remamber_hf.synthetic.dataset import synthesize
from remamber_hf.training.arguments import DataArguments, ModelArguments
from remamber_hf.training.start import build_model, check_fields, read_config, read_evaluation_rows


def test_text_encoder_and_backbone_are_those_that_are_named(tmp_path):
    text, vision = save_parts(tmp_path)
    fields = {"mask_head": "mamba", "text_length": 9, "correlation_size": 8, "decoder_depths": [1, 1, 1, 1]}
    parts = {"text_model": str(tmp_path / "clip"), "vision_model": str(tmp_path / "vmamba")}
    model, processor = build_model(ModelArguments(**parts, model_config=fields, image_size=64), None)
    assert model.config.mask_head == "mamba" and processor.text_length == 9
    assert dict(processor.image_processor.size) == {"height": 64, "width": 64}
    for ours, theirs in ((model.remamber.text_encoder, text), (model.remamber.backbone, vision.base_model)):
        for name, tensor in theirs.state_dict().items():
            assert torch.equal(ours.state_dict()[name], tensor), name
    weights = Path(parts["text_model"]) / "model.safetensors"
    tensors = load_file(weights)
    cut = sorted(tensors)[-1]
    save_file({name: tensor for name, tensor in tensors.items() if name != cut}, weights, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"cannot be put together: .* lacks the weights of .*{cut.split('.')[-2]}"):
        build_model(ModelArguments(**parts, model_config={"mask_head": "mamba"}), None)
    with pytest.raises(ValueError, match="text_model and vision_model bring theirs"):
        build_model(ModelArguments(**parts, model_config={"text_config": {}}), None)
    with pytest.raises(
        ValueError,
        match="--text_model .* put together: .* of type 'vmamba'; give one of type clip",
    ):
        build_model(ModelArguments(text_model=parts["vision_model"], vision_model=parts["vision_model"]), None)


def test_the_config_is_that_of_the_model_that_would_be_built(tmp_path):
    save_parts(tmp_path)
    parts = {"text_model": str(tmp_path / "clip"), "vision_model": str(tmp_path / "vmamba")}
    fields = {"mask_head": "mamba", "text_length": 9, "fusion": "in_context", "decoder_depths": [1, 1, 1, 1]}
    for arguments in (
        ModelArguments(model=str(BUNDLED_MODEL)),
        ModelArguments(model_config=runs.FIELDS, tokenizer=str(BUNDLED_MODEL)),
        ModelArguments(**parts, model_config=fields),
    ):
        built = build_model(arguments, None)[0]
        with torch.device("meta"):
            model = ReMamberForImageSegmentation(read_config(arguments))
        shapes = [{name: tensor.shape for name, tensor in each.state_dict().items()} for each in (model, built)]
        assert shapes[0] == shapes[1] and model.config.fusion == built.config.fusion
    with pytest.raises(ValueError, match="nothing is no model to start from: .*nothing"):
        read_config(ModelArguments(text_model=parts["text_model"], vision_model=str(tmp_path / "nothing")))
    with pytest.raises(
        ValueError, match="clip is no model to start from: it is of type 'clip_text_model'; give .* vmamba"
    ):
        read_config(ModelArguments(text_model=parts["text_model"], vision_model=parts["text_model"]))
    with pytest.raises(ValueError, match="text_model and vision_model bring theirs"):
        read_config(ModelArguments(**parts, model_config={"text_config": {}}))


def test_a_tokenizer_that_is_still_to_be_trained_counts_with_all_that_it_may_have():
    config = read_config(ModelArguments(model_config=runs.FIELDS, vocabulary_size=600))
    assert config.text_config.vocab_size == 600 and config.text_config.eos_token_id == 599


def test_a_model_from_nothing_takes_the_tokenizer_it_is_given():
    model, processor = build_model(ModelArguments(model_config=runs.FIELDS, tokenizer=str(BUNDLED_MODEL)), None)
    theirs = ReMamberProcessor.from_pretrained(BUNDLED_MODEL).tokenizer
    assert processor.tokenizer("the red star").input_ids == theirs("the red star").input_ids
    assert model.config.text_config.vocab_size == len(theirs)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_new_tokenizer_leaves_what_was_learnt_of_the_words_that_both_know(precision, tmp_path):
    """Sentences of tokens that both know mean the same to the model: the same logits. Other words get embeddings."""
    old, old_processor = load_model(BUNDLED_MODEL, "cpu", precision)
    old.save_pretrained(tmp_path)
    old_processor.save_pretrained(tmp_path)
    rows = datasets.Dataset.from_dict({"sentences": [["the left red circle", "the umbrella"], ["the red star"]] * 9})
    arguments = ModelArguments(model=str(tmp_path), new_tokenizer=True, vocabulary_size=600)
    model, processor = build_model(arguments, rows)
    image = Image.effect_noise((50, 40), 60).convert("RGB")
    logits = []
    for each, prepares in ((old.float(), old_processor), (model, processor)):
        inputs = prepares(images=image, text=["the left red circle", "the red star"], return_tensors="pt")
        assert inputs["attention_mask"].sum(dim=1).tolist() == [6, 5], "each word is one token of both"
        with torch.no_grad():
            logits.append(each.eval()(**inputs).logits)
    torch.testing.assert_close(*logits)
    assert len(processor.tokenizer("the umbrella").input_ids) == 4
    again, _ = build_model(arguments, rows)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values()))
    model.save_pretrained(tmp_path / "saved")
    processor.save_pretrained(tmp_path / "saved")
    loaded, its_processor = load_model(tmp_path / "saved", "cpu", "float32")
    inputs = its_processor(images=image, text=["the left red circle", "the red star"], return_tensors="pt")
    torch.testing.assert_close(loaded(**inputs).logits, logits[0])
    assert read_config(arguments).text_config.vocab_size == 600 >= model.config.text_config.vocab_size


@pytest.mark.parametrize("side", [None, 160])
def test_a_model_keeps_its_picture_size_unless_another_is_given(side, tmp_path):
    expected = side or ReMamberProcessor.from_pretrained(BUNDLED_MODEL).image_processor.size["height"]
    model, processor = build_model(ModelArguments(model=str(BUNDLED_MODEL), image_size=side), None)
    processor.save_pretrained(tmp_path)
    image = Image.new("RGB", (50, 40))
    for each in (processor, ReMamberProcessor.from_pretrained(tmp_path)):
        pixel_values = each(images=image, text="the star", return_tensors="pt")["pixel_values"]
        assert pixel_values.shape[-2:] == (expected, expected)


def test_a_model_that_was_saved_in_half_precision_is_trained_in_float32(tmp_path):
    model, processor = load_model(BUNDLED_MODEL, "cpu", "bfloat16")
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    model, _ = build_model(ModelArguments(model=str(tmp_path)), None)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="nothing is no model that can be loaded"):
        build_model(ModelArguments(model=str(tmp_path / "nothing")), None)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"mask_hed": "conv"}, "model_config names mask_hed, which is no field; did you mean mask_head?"),
        ({"vision_config": {"depth": [1]}}, "model_config names vision_config.depth, .* did you mean depths?"),
        ({"mask_head": "convv"}, "model_config is refused: .*mask_head.* expected one of"),
        ({"text_length": 0}, "model_config is refused: .*text_length is 0"),
        ({"text_config": None}, "model_config gives None for text_config; give a mapping, or leave it out"),
    ],
)
def test_fields_of_the_config_that_cannot_be_are_refused(fields, message):
    rows = datasets.Dataset.from_dict({"sentences": [["a dog"]]})
    with pytest.raises(ValueError, match=message):
        build_model(ModelArguments(model_config=fields, vocabulary_size=600), rows)


def test_the_config_of_a_model_can_be_given_as_it_is(start):
    check_fields(json.loads((start / "conv" / "config.json").read_text()))


def test_sentences_that_mean_several_objects_or_none_are_evaluated_one_by_one(tmp_path):
    synthesize(tmp_path / "shapes", 20, 0, num_workers=1, progress=False, no_target=True, many=True)
    splits = load_refer("shapes", "unc", data_dir=tmp_path / "shapes", generalized=True)
    source = DataSource("shapes", splits, "unc")
    sentences = [[text] for row in splits["val"] for text in row["sentences"]]
    rows = read_evaluation_rows([source], DataArguments())["shapes"]
    assert rows["sentences"] == sentences and is_generalized(rows)
    assert read_evaluation_rows([source], DataArguments(max_eval_samples=3))["shapes"]["sentences"] == sentences[:3]
