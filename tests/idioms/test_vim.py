# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Vim as users of torch and transformers take it: exported, copied, fine-tuned by a Trainer, adapted, in pipelines."""

import copy
import pickle

import numpy as np
import pytest
import torch
import torch._dynamo.testing
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from PIL import Image
from tiny import vim_config
from torch.export import Dim
from transformers import AutoConfig, AutoModelForImageClassification, BitImageProcessorPil, Trainer, TrainingArguments
from transformers import pipeline as make_pipeline

from remamber_hf import VimBackbone, VimForImageClassification, VimModel
from remamber_hf.modeling_vim import VimMixer
from remamber_hf.training.parameter_groups import parameter_groups


CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return VimForImageClassification(vim_config(num_labels=3)).eval()


def pictures(batch_size=5, height=48, width=64):
    return torch.randn(batch_size, 3, height, width, generator=torch.Generator().manual_seed(0))


def one_by_one(model, pixel_values):
    with torch.no_grad():
        return torch.cat([model(pixel_values=picture[None]).logits for picture in pixel_values])


# -------------------------------------------------------------------------------------------------- copied, exported
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_gives_the_same_logits(model, copied):
    torch.testing.assert_close(one_by_one(copied(model), pictures()), one_by_one(model, pictures()))


@torch.no_grad()
def test_a_model_exported_at_the_size_it_was_trained_on_takes_any_batch_and_any_size(model):
    shapes = {"pixel_values": {0: Dim("batch"), 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}}
    program = torch.export.export(model, (), {"pixel_values": pictures()}, dynamic_shapes=shapes)
    for batch_size, *size in (
        (5, 48, 64),
        (1, 48, 64),
        (3, 80, 33),
        (2, 32, 160),
    ):  # two patches at least
        pixel_values = pictures(batch_size, *size)
        logits = program.module()(pixel_values=pixel_values).logits
        torch.testing.assert_close(logits, one_by_one(model, pixel_values), **CLOSE)


@torch.no_grad()
def test_compiling_it_once_serves_several_sizes(model):
    counted = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, backend=counted, fullgraph=True, dynamic=True)
    counts = set()
    for size in ((48, 64), (80, 48), (64, 64), (112, 32)):
        pixel_values = pictures(2, *size)
        torch.testing.assert_close(compiled(pixel_values).logits, model(pixel_values).logits, **CLOSE)
        counts.add(counted.frame_count)
    assert len(counts) == 1


# ------------------------------------------------------------------------------------------------------------ training
class Rows(torch.utils.data.Dataset):
    """Pictures, and which third of each is bright."""

    def __init__(self, count):
        generator = torch.Generator().manual_seed(1)
        self.labels = torch.randint(0, 3, (count,), generator=generator).tolist()
        self.pictures = torch.randn(count, 3, 48, 64, generator=generator) / 4
        for picture, label in zip(self.pictures, self.labels, strict=True):
            picture[:, 16 * label : 16 * label + 16] += 1

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {"pixel_values": self.pictures[index], "labels": self.labels[index]}


def arguments(folder, **given):
    common = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "save_strategy": "no", "seed": 3}
    return TrainingArguments(output_dir=str(folder), **{**common, **given})


def test_a_trainer_learns_and_its_accuracy_is_that_of_a_loop(model, tmp_path):
    rows = Rows(24)
    given = {"per_device_train_batch_size": 8, "per_device_eval_batch_size": 5, "max_steps": 60, "learning_rate": 3e-3}

    def accuracy(prediction):
        return {"accuracy": float((np.argmax(prediction.predictions, -1) == prediction.label_ids).mean())}

    trainer = Trainer(
        model,
        arguments(tmp_path, **given),
        train_dataset=rows,
        eval_dataset=Rows(17),
        compute_metrics=accuracy,
    )
    trainer.train()
    found = trainer.evaluate()
    assert found["eval_accuracy"] > 0.8
    logits, labels = one_by_one(model.eval(), Rows(17).pictures), torch.tensor(Rows(17).labels)
    assert found["eval_accuracy"] == pytest.approx((logits.argmax(-1) == labels).float().mean().item())
    assert found["eval_loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-3)


def test_accumulated_steps_have_the_gradient_of_the_whole_batch(model, tmp_path):
    rows, gradients = Rows(8), {}
    for steps in (1, 4):
        trained = copy.deepcopy(model)
        given = {"per_device_train_batch_size": 8 // steps, "gradient_accumulation_steps": steps, "max_steps": 1}
        seen = gradients[steps] = {}

        class Watching(Trainer):
            def _clip_grad_norm(self, model, seen=seen):
                seen.update({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
                return super()._clip_grad_norm(model)

        Watching(trained, arguments(tmp_path, **given), train_dataset=rows).train()
        if not seen:  # the hook has another name in this version
            pytest.skip("Trainer has no _clip_grad_norm")
    for name, gradient in gradients[1].items():
        torch.testing.assert_close(gradients[4][name], gradient, rtol=1e-3, atol=1e-6)


def test_weight_decay_is_for_matrices_and_convolutions(model):
    groups = parameter_groups(model, 0.1)
    names = {parameter: name for name, parameter in model.named_parameters()}
    decayed, kept = ({names[parameter].split(".")[-1] for parameter in group["params"]} for group in groups)
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    assert decayed == {"weight", "x_proj_weight", "dt_proj_weight", "conv_weight"}
    kept_weights = {names[parameter] for parameter in groups[1]["params"] if names[parameter].endswith(".weight")}
    assert kept_weights == {name for name in names.values() if name.endswith("norm.weight")}
    assert {"A_log", "D", "dt_proj_bias", "conv_bias", "position_embedding", "class_token", "bias"} <= kept


def test_checkpointing_by_the_trainer_changes_no_step(model, tmp_path):
    weights = []
    for is_checkpointed in (False, True):
        trained = copy.deepcopy(model)
        given = {"per_device_train_batch_size": 4, "max_steps": 2, "gradient_checkpointing": is_checkpointed}
        Trainer(trained, arguments(tmp_path, **given), train_dataset=Rows(8)).train()
        weights.append(trained.state_dict())
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, msg=name)


@pytest.mark.parametrize("targets", ["all-linear", ["in_proj", "out_proj"], ["patch_embedding"]])
def test_an_adapter_is_trained_where_it_is_put_and_merged_as_it_is(model, targets):
    expected = one_by_one(model, pictures())
    adapted = get_peft_model(copy.deepcopy(model), LoraConfig(target_modules=targets, r=2, init_lora_weights=False))
    logits = one_by_one(adapted.eval(), pictures())
    assert (logits - expected).abs().max() > 1e-4
    adapted.train()(pixel_values=pictures(), labels=torch.tensor([0, 1, 2, 0, 1])).loss.backward()
    trained = {name: parameter for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert trained and all("lora" in name and parameter.grad.any() for name, parameter in trained.items())
    torch.testing.assert_close(one_by_one(adapted.eval().merge_and_unload(), pictures()), logits, **CLOSE)


def test_an_adapter_for_weights_that_are_no_module_is_refused(model):
    with pytest.raises(ValueError, match="not found in the base model"):
        get_peft_model(model, LoraConfig(target_modules=["conv1d", "x_proj"]))
    assert all(not list(mixer.conv_weight.shape[2:]) for mixer in model.modules() if isinstance(mixer, VimMixer))


# -------------------------------------------------------------------------------------------------- folders, pipelines
def test_a_folder_serves_pipelines_as_a_batch_and_one_by_one(model, tmp_path):
    model.save_pretrained(tmp_path)
    BitImageProcessorPil(size={"shortest_edge": 64}, crop_size=48).save_pretrained(tmp_path)
    generator = np.random.default_rng(0)
    images = [Image.fromarray(generator.integers(0, 256, (70, 50 + 9 * i, 3), dtype=np.uint8)) for i in range(5)]
    classify = make_pipeline("image-classification", model=str(tmp_path))
    scores = [
        [label["score"] for label in sorted(found, key=lambda label: label["label"])] for found in classify(images)
    ]
    batched = classify(images, batch_size=3)
    for found, expected in zip(batched, scores, strict=True):
        np.testing.assert_allclose(
            [label["score"] for label in sorted(found, key=lambda label: label["label"])], expected, rtol=1e-4
        )
    features = make_pipeline("image-feature-extraction", model=str(tmp_path))
    assert features(images[0], return_tensors=True).shape == (1, 10, 24)


def test_another_number_of_classes_gets_a_fresh_layer_only_where_that_is_said(model, tmp_path):
    model.save_pretrained(tmp_path)
    with pytest.raises(
        RuntimeError, match=r"classifier\.\w+ has shape .* in model.safetensors, and the configuration"
    ):
        AutoModelForImageClassification.from_pretrained(tmp_path, num_labels=7)
    fresh = AutoModelForImageClassification.from_pretrained(tmp_path, num_labels=7, ignore_mismatched_sizes=True)
    assert fresh(pictures()).logits.shape == (5, 7)
    torch.testing.assert_close(fresh.vim(pictures()).pooler_output, model.vim(pictures()).pooler_output)


def test_positions_of_another_size_are_not_taken_for_those_of_this_one(model, tmp_path):
    model.save_pretrained(tmp_path)
    for image_size in (96, [64, 48], [16, 192]):  # the last two have as many patches
        with pytest.raises(RuntimeError, match="position_embedding has shape"):
            VimModel.from_pretrained(tmp_path, image_size=image_size)
    assert VimModel.from_pretrained(tmp_path)(pictures(1, 96, 96)).last_hidden_state.shape == (1, 37, 24)


def test_maps_are_chosen_when_it_is_loaded(model, tmp_path):
    model.save_pretrained(tmp_path)
    by_index = VimBackbone.from_pretrained(tmp_path, out_indices=[1, 2])
    by_name = VimBackbone(AutoConfig.from_pretrained(tmp_path, out_features=["stage1", "stage2"]))
    assert by_index.out_features == by_name.out_features == ["stage1", "stage2"]


def test_a_subclass_is_saved_and_loads_by_its_own_class(tmp_path):
    class Doubled(VimForImageClassification):
        def forward(self, pixel_values, labels=None, **kwargs):
            outputs = super().forward(pixel_values, labels, **kwargs)
            outputs.logits = 2 * outputs.logits
            return outputs

    torch.manual_seed(0)
    model = Doubled(vim_config(num_labels=3)).eval()
    model.save_pretrained(tmp_path)
    loaded = Doubled.from_pretrained(tmp_path)
    torch.testing.assert_close(one_by_one(loaded, pictures()), one_by_one(model, pictures()))
    assert not (tmp_path / "modeling_vim.py").exists()
