# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The Trainer in one process: parts, loss, average, precision, accumulation, steps that are not finite, evaluation."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import runs
import torch
from runs import load_rows, losses_of, make_trainer, weights_of
from transformers import TrainerCallback, TrainingArguments
from transformers.integrations import is_deepspeed_available

from remamber_hf import ReMamberForImageSegmentation
from remamber_hf.data.rows import row_mask
from remamber_hf.inference.cost import model_parts
from remamber_hf.modeling_remamber import segmentation_loss
from remamber_hf.modeling_vmamba import SS2D
from remamber_hf.training.arguments import ReMamberTrainingArguments
from remamber_hf.training.callbacks import draw_predictions
from remamber_hf.training.drawn_sentences import DrawnSentences
from remamber_hf.training.ema import WeightAverage
from remamber_hf.training.sync_batch_norm import SyncBatchNorm2d, synchronize_batch_norm
from remamber_hf.training.trainer import ReferringSegmentationTrainer


class Recorder(TrainerCallback):
    """Weights before training and after every step."""

    def __init__(self):
        self.weights = []

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.weights.append({name: tensor.clone() for name, tensor in model.state_dict().items()})

    on_step_end = on_train_begin


def train(start, output_dir, **arguments):
    recorder = Recorder()
    trainer = make_trainer(start, output_dir, callbacks=[recorder], **arguments)
    trainer.train()
    return trainer, recorder.weights


# ---------------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("mask_head", ["conv", "mamba"])
def test_in_20_steps_the_loss_falls_and_every_parameter_moves(start, tmp_path, mask_head):
    trainer, (before, *_, after) = train(start, tmp_path, mask_head=mask_head, max_steps=20, max_grad_norm=1.0)
    losses = losses_of(trainer)
    assert len(losses) == 20
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.1
    names = [name for name, _ in trainer.model.named_parameters()]
    # Softmax takes out again what all keys share.
    unmoved = [name for name in names if torch.equal(before[name], after[name]) and not name.endswith("k_proj.bias")]
    assert unmoved == []


def rates_of(trainer) -> dict[str, float]:
    """Learning rate of each trained parameter by name."""
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    groups = trainer.create_optimizer().param_groups
    return {names[id(parameter)]: group["lr"] for group in groups for parameter in group["params"]}


def test_each_part_has_its_learning_rate(start, tmp_path):
    trainer = make_trainer(
        start, tmp_path, learning_rate=5e-5, text_encoder_learning_rate=2.5e-5, backbone_learning_rate=1e-5
    )
    expected = {"text_encoder": 2.5e-5, "backbone": 1e-5, "fusion": 5e-5, "mask_head": 5e-5}
    rates = rates_of(trainer)
    assert rates.keys() == dict(trainer.model.named_parameters()).keys()
    for part, module in model_parts(trainer.model).items():
        members = {id(parameter) for parameter in module.parameters()}
        found = {rates[name] for name, parameter in trainer.model.named_parameters() if id(parameter) in members}
        assert found == {expected[part]}, part


def test_the_learning_rate_that_is_logged_is_that_of_the_head(start, tmp_path):
    trainer, _ = train(start, tmp_path, learning_rate=1e-4, backbone_learning_rate=1e-5, max_steps=1)
    assert trainer.state.log_history[0]["learning_rate"] == 1e-4


def test_weight_decay_reaches_matrices_only(start, tmp_path):
    trainer = make_trainer(start, tmp_path, weight_decay=0.1)
    decayed, kept = set(), set()
    for group in trainer.create_optimizer().param_groups:
        (decayed if group["weight_decay"] else kept).update(id(parameter) for parameter in group["params"])
    for module in trainer.model.modules():
        own = dict(module.named_parameters(recurse=False))
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)):
            matrices = {"weight"}
        elif isinstance(module, SS2D):
            matrices = {"x_proj_weight", "dt_proj_weight"}
        else:
            matrices = set()
        for name, parameter in own.items():
            assert (id(parameter) in decayed, id(parameter) in kept) == (name in matrices, name not in matrices)


def test_published_weight_decay_reaches_everything(start, tmp_path):
    trainer = make_trainer(start, tmp_path, weight_decay=0.1, weight_decay_mode="published")
    assert {group["weight_decay"] for group in trainer.create_optimizer().param_groups} == {0.1}


def test_a_frozen_part_keeps_weights_and_statistics_and_the_others_move(start, tmp_path):
    frozen = ["text_encoder", "mask_head"]
    trainer, (before, *_, after) = train(start, tmp_path, freeze=frozen, max_steps=2)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved <= {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    assert {".".join(name.split(".")[:2]) for name in moved} == {"remamber.backbone", "remamber.fusions"}


def test_the_cosine_ends_at_the_floor(start, tmp_path):
    trainer, _ = train(
        start,
        tmp_path,
        max_steps=4,
        learning_rate=5e-4,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr": 1e-5},
    )
    rates = [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]
    cosine = [1e-5 + (5e-4 - 1e-5) * (1 + math.cos(math.pi * step / 4)) / 2 for step in range(4)]
    assert rates == pytest.approx(cosine)
    assert trainer.lr_scheduler.get_last_lr()[0] == pytest.approx(1e-5)


def test_dice_and_cross_entropy_are_weighted(start, tmp_path):
    logits, labels = torch.randn(2, 1, 8, 8), torch.randint(0, 2, (2, 8, 8))
    cross_entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0], labels.float())
    dice = segmentation_loss(logits, labels) - cross_entropy
    trainer = make_trainer(start, tmp_path, dice_weight=0.5, cross_entropy_weight=3.0)
    torch.testing.assert_close(trainer.weighted_loss(logits, labels), 0.5 * dice + 3 * cross_entropy)
    (batch,) = [next(iter(trainer.get_train_dataloader()))]
    del batch["ref_ids"]
    outputs = trainer.model.eval()(**batch)
    with torch.no_grad():
        torch.testing.assert_close(
            trainer.compute_loss(trainer.model, dict(batch)), trainer.weighted_loss(outputs.logits, batch["labels"])
        )


def test_sentences_are_drawn_from_seed_epoch_and_row_alone(start):
    rows = load_rows(start, "train")
    several = next(index for index, row in enumerate(rows) if len(row["sentences"]) > 1)
    first, second = DrawnSentences(rows, 0), DrawnSentences(rows, 0)
    draws = set()
    for epoch in range(20):
        first.set_epoch(epoch)
        second.set_epoch(epoch)
        torch.manual_seed(epoch)
        (sentence,) = first[several]["sentences"]
        assert second[several]["sentences"] == [sentence]
        drawn = {"sentences": None, "sentence_ids": None}
        assert {**first[several], **drawn} == {**rows[several], **drawn}
        draws.add(sentence)
    assert draws == set(rows[several]["sentences"])
    assert first[several]["sentences"] != DrawnSentences(rows, 1)[several]["sentences"] or len(draws) > 1


# ------------------------------------------------------------------------- accumulation, checkpointing, precision


def test_accumulated_gradients_equal_the_large_batch(start, tmp_path):
    # Batch norm makes its statistics of each small batch, so the head that has it is frozen here. An epoch ends with
    # a step of fewer objects, whose last small batch is not full.
    num_objects = len(load_rows(start, "train"))
    num_steps = math.ceil(num_objects / 8)
    assert num_objects % 8 > 2 and num_objects % 2 == 1
    common = {"freeze": ["mask_head"], "max_steps": num_steps, "max_grad_norm": 0.5, "dtype": "float64"}
    large, (*_, weights) = train(start, tmp_path / "a", per_device_train_batch_size=8, **common)
    small, (*_, small_weights) = train(
        start, tmp_path / "b", per_device_train_batch_size=2, gradient_accumulation_steps=4, **common
    )
    assert losses_of(small) == pytest.approx(losses_of(large), rel=1e-6)
    torch.testing.assert_close(small_weights, weights, rtol=1e-7, atol=1e-9)


def test_gradient_checkpointing_gives_the_same_losses(start, tmp_path):
    common = {"max_steps": 3, "drop_path_rate": 0.3, "mask_head": "mamba"}
    plain, _ = train(start, tmp_path / "a", **common)
    checkpointed, _ = train(start, tmp_path / "b", activation_checkpointing=True, **common)
    assert checkpointed.model.is_activation_checkpointing
    assert losses_of(checkpointed) == pytest.approx(losses_of(plain), rel=1e-5)


def test_bfloat16_trains_like_float32(start, tmp_path):
    full, _ = train(start, tmp_path / "a", max_steps=6)
    half, _ = train(start, tmp_path / "b", max_steps=6, bf16=True)
    assert {parameter.dtype for parameter in half.model.parameters()} == {torch.float32}
    assert losses_of(half) != losses_of(full)
    assert losses_of(half) == pytest.approx(losses_of(full), rel=0.03)


# --------------------------------------------------------------------------------------------------- moving average


def test_the_average_is_that_of_the_formula(start, tmp_path):
    trainer, weights = train(start, tmp_path, max_steps=5, ema_decay=0.7, ema_start_step=2)
    expected = weights[2]
    for step in (3, 4, 5):
        expected = {name: 0.7 * expected[name] + 0.3 * weights[step][name] for name in trainer.average.tensors}
    assert trainer.average.tensors.keys() == {
        name for name, tensor in weights[0].items() if tensor.dtype.is_floating_point
    }
    torch.testing.assert_close(trainer.average.tensors, expected, rtol=1e-5, atol=1e-7)
    assert not torch.equal(expected["mask_head.neck.0.1.running_mean"], weights[5]["mask_head.neck.0.1.running_mean"])


def test_the_average_is_evaluated_and_saved_beside_the_weights(start, tmp_path):
    trainer, (*_, weights) = train(start, tmp_path, max_steps=4, ema_decay=0.5, mask_head="mamba")
    metrics = trainer.evaluate()
    after = weights_of(trainer)
    assert all(torch.equal(after[name], weights[name]) for name in weights)
    trainer.save_model()
    assert metrics["eval_ema_loss"] != metrics["eval_loss"]
    for folder, prefix in ((tmp_path, "eval"), (tmp_path / "ema", "eval_ema")):
        model = ReMamberForImageSegmentation.from_pretrained(folder)
        alone = make_trainer(start, tmp_path / "unused", mask_head="mamba")
        alone.model.load_state_dict(model.state_dict())
        assert alone.evaluate()["eval_loss"] == pytest.approx(metrics[f"{prefix}_loss"], rel=1e-6)


def test_the_average_passes_over_a_step_that_the_loss_scaler_skips(start, tmp_path):
    trainer = make_trainer(start, tmp_path, max_steps=2, ema_decay=0.5, callbacks=[recorder := Recorder()])
    assert trainer.args.optim == "adamw_torch_fused"  # it skips inside its kernel, unseen by accelerate
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    averages = []

    class Spoil(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
            averages.append({name: tensor.clone() for name, tensor in trainer.average.tensors.items()})

    trainer.add_callback(Spoil())
    weight = trainer.model.mask_head.classifier.weight
    weight.register_hook(lambda gradient: gradient * (torch.inf if trainer.state.global_step else 1.0))
    trainer.train()
    names = [name for name, _ in trainer.model.named_parameters()]
    assert all(torch.equal(recorder.weights[1][name], recorder.weights[2][name]) for name in names)
    assert not torch.equal(averages[1]["mask_head.classifier.weight"], weight)
    assert all(torch.equal(trainer.average.tensors[name], average) for name, average in averages[1].items())


def test_the_average_is_held_in_float32():
    linear = torch.nn.Linear(2, 2).bfloat16()
    start = linear.weight.detach().float()
    average = WeightAverage(linear, 0.999, 0)
    with torch.no_grad():
        linear.weight += 1
    average.update(linear, 1)
    torch.testing.assert_close(average.tensors["weight"] - start, torch.full((2, 2), 0.001), rtol=0.01, atol=0)


def test_an_average_of_other_weights_is_refused(tmp_path):
    WeightAverage(torch.nn.Linear(2, 2, bias=False), 0.9, 0).save(tmp_path / "ema.safetensors")
    with pytest.raises(ValueError, match="averages other weights than this run trains, bias for one; resume with the"):
        WeightAverage(torch.nn.Linear(2, 2), 0.9, 0).load(tmp_path / "ema.safetensors")


# ---------------------------------------------------------------------------------------- steps that are not finite


def first_refs(start, tmp_path, step: int) -> list[int]:
    """Ids of the batch of `step`, counted from 0."""
    batches = iter(make_trainer(start, tmp_path).get_train_dataloader())
    return [next(batches)["ref_ids"] for _ in range(step + 1)][-1]


def test_a_step_that_is_not_finite_leaves_no_trace_and_is_counted(start, tmp_path):
    poison = first_refs(start, tmp_path, 1)[:1]
    trainer, weights = train(start, tmp_path, poison=poison, max_steps=3, weight_decay=0.1, ema_decay=0.9)
    assert not torch.equal(weights[0]["mask_head.classifier.weight"], weights[1]["mask_head.classifier.weight"])
    assert all(torch.equal(weights[1][name], weights[2][name]) for name in weights[1])
    assert all(tensor.isfinite().all() for tensor in weights[3].values())
    assert not torch.equal(weights[2]["mask_head.classifier.weight"], weights[3]["mask_head.classifier.weight"])
    assert all(tensor.isfinite().all() for tensor in trainer.average.tensors.values())
    logged = [entry.get("nonfinite_steps") for entry in trainer.state.log_history]
    assert logged == [None, 1, 1, 1]  # three steps and the end


def test_training_stops_after_too_many_such_steps_in_a_row_and_names_the_refs(start, tmp_path):
    batches = [first_refs(start, tmp_path, step) for step in (1, 2)]
    poison = [batches[0][2], batches[1][0]]
    trainer = make_trainer(start, tmp_path, poison=poison, max_steps=8, max_nonfinite_steps=2)
    with pytest.raises(RuntimeError, match="of 2 steps in a row was not finite, so training stops; the ids of their"):
        trainer.train()
    report = json.loads((tmp_path / "nonfinite_batches.json").read_text())
    assert [(entry["step"], entry["losses"], entry["ref_ids"]) for entry in report] == [
        (2, ["nan"], batches[0]),
        (3, ["nan"], batches[1]),
    ]


def test_a_finite_step_ends_the_row(start, tmp_path):
    poison = [ref for step in (0, 2) for ref in first_refs(start, tmp_path, step)[:1]]
    trainer = make_trainer(start, tmp_path, poison=poison, max_steps=4, max_nonfinite_steps=2)
    trainer.train()
    assert trainer.nonfinite_steps.count == 2


# -------------------------------------------------------------------------------------------------------- evaluation


def test_evaluation_equals_a_plain_computation_and_leaves_the_random_state_alone(start, tmp_path):
    trainer = make_trainer(start, tmp_path, num_eval=6)  # the last batch has 2
    state = torch.get_rng_state()
    metrics = trainer.evaluate()
    assert torch.equal(torch.get_rng_state(), state)
    processor, model = trainer.processing_class, trainer.model.eval()
    intersections, unions, losses = [], [], []
    for row in trainer.eval_dataset:
        truth = row_mask(row)
        inputs = processor(images=row["image"], text=row["sentences"], segmentation_maps=[truth], return_tensors="pt")
        with torch.no_grad():
            outputs = model(**inputs)
        (found,) = processor.post_process_referring_segmentation(outputs, target_sizes=[truth.shape])
        intersections.append((found.numpy() & truth).sum())
        unions.append((found.numpy() | truth).sum())
        losses.append(outputs.loss.item())
    assert metrics["eval_miou"] == pytest.approx(np.mean(np.array(intersections) / unions), abs=1e-12)
    assert metrics["eval_oiou"] == pytest.approx(sum(intersections) / sum(unions), abs=1e-12)
    assert metrics["eval_loss"] == pytest.approx(np.mean(losses), rel=1e-5)


def test_an_overflow_finds_nothing_shows_in_the_loss_and_does_not_end_the_evaluation(start, tmp_path):
    trainer = make_trainer(start, tmp_path, num_eval=6)
    with torch.no_grad():
        trainer.model.mask_head.classifier.bias.fill_(float("nan"))
    metrics = trainer.evaluate()
    assert metrics["eval_miou"] == 0 and math.isnan(metrics["eval_loss"])
    draw_predictions(trainer.model, trainer.processing_class, trainer.eval_dataset)


def test_predict_counts_what_evaluate_counts(start, tmp_path):
    trainer = make_trainer(start, tmp_path, num_eval=6)
    metrics, prediction = trainer.evaluate(), trainer.predict(trainer.eval_dataset)
    assert len(prediction.predictions[0]) == len(prediction.label_ids) == 6
    for name in ("loss", "miou", "oiou"):
        assert prediction.metrics[f"test_{name}"] == metrics[f"eval_{name}"]


def test_the_metric_for_the_best_model_has_to_be_one_that_evaluation_gives(start, tmp_path):
    arguments = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}
    make_trainer(start, tmp_path, metric_for_best_model="eval_ema_oiou", ema_decay=0.9, **arguments)
    for metric, message in (("mIoU", "loss, miou, oiou, precision@0.5"), ("ema_miou", "loss")):
        with pytest.raises(ValueError, match=f"{metric}', which evaluation does not give; choose one of {message}"):
            make_trainer(start, tmp_path, metric_for_best_model=metric, **arguments)
    trainer = make_trainer(start, tmp_path, **arguments)  # "loss"
    trainer.eval_dataset = {"refcoco": trainer.eval_dataset, "refcoco+": trainer.eval_dataset}
    with pytest.raises(ValueError, match="is 'loss', .* refcoco_loss, refcoco_miou, .* refcoco\\+_oiou"):
        trainer._check_arguments()
    trainer.args.metric_for_best_model = "refcoco+_oiou"
    trainer._check_arguments()


def test_synchronized_batch_norm_keeps_names_weights_and_outputs(start, tmp_path):
    trainer = make_trainer(start, tmp_path)
    model, batch = trainer.model, next(iter(trainer.get_train_dataloader()))
    del batch["ref_ids"]
    before = weights_of(trainer)
    outputs = [model.eval()(**batch).logits, model.train()(**batch).logits]
    model.load_state_dict(before)
    synchronize_batch_norm(model)
    assert sum(isinstance(module, SyncBatchNorm2d) for module in model.modules()) == 11
    assert {name: tensor.shape for name, tensor in model.state_dict().items()} == {
        n: t.shape for n, t in before.items()
    }
    synchronized = [model.eval()(**batch).logits, model.train()(**batch).logits]
    torch.testing.assert_close(synchronized, outputs)


# -------------------------------------------------------------------------------------------------------- complaints


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"remove_unused_columns": True}, "remove_unused_columns is true; the collator needs every column"),
        ({"text_encoder_learning_rate": 0.0}, "text_encoder_learning_rate is 0.0; it must be greater than 0"),
        ({"backbone_learning_rate": -1.0}, "backbone_learning_rate is -1.0; it must be greater than 0"),
        ({"weight_decay_mode": "all"}, "weight_decay_mode is 'all'; give matrices or published"),
        ({"freeze": ["text"]}, "freeze names text; the parts are text_encoder, backbone, fusion, mask_head"),
        ({"dice_weight": -1.0}, "dice_weight is -1.0, cross_entropy_weight is 1.0; neither may be below 0"),
        ({"dice_weight": 0.0, "cross_entropy_weight": 0.0}, "not both be 0"),
        ({"ema_decay": 1.0}, "ema_decay is 1.0; it must be between 0 and 1"),
        ({"ema_decay": 0.9, "ema_start_step": -1}, "ema_start_step is -1; it must be 0 or more"),
        ({"ema_start_step": 5}, "ema_start_step is 5 without ema_decay"),
        ({"max_nonfinite_steps": 0}, "max_nonfinite_steps is 0; it must be 1 or more"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps is 0; it must be 1 or more"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor is 0.1; the loss has none"),
        ({"use_liger_kernel": True}, "use_liger_kernel is true; Liger has no kernel for ReMamber, leave it out"),
        (
            {"debug": "underflow_overflow"},
            "debug is .'underflow_overflow'.; it knows no bool tensors",
        ),
        ({"torch_compile_mode": "fast"}, "torch_compile_mode is 'fast'; choose one of default, "),
        ({"eval_do_concat_batches": False}, "leave out batch_eval_metrics and eval_do_concat_batches"),
    ],
)
def test_bad_arguments_are_refused(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        ReMamberTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **arguments)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"optim": "galore_adamw"}, "optim is galore_adamw, and optim_args None: You need to install `galore_torch`"),
        ({"optim": "sgd", "optim_args": "fast"}, "optim is sgd, and optim_args 'fast': "),
        ({"adam_beta1": 2.0}, "optim is adamw_torch_fused, and optim_args None: Invalid beta parameter"),
        (
            {"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"min_lr": 1}},
            "lr_scheduler_type is cosine, and lr_scheduler_kwargs {'min_lr': 1}: .* argument 'min_lr'",
        ),
        ({"lr_scheduler_type": "warmup_stable_decay"}, "is warmup_stable_decay, .* missing .* 'num_decay_steps'"),
    ],
)
def test_an_optimizer_or_schedule_that_cannot_be_made_names_its_options(start, tmp_path, arguments, message):
    trainer = make_trainer(start, tmp_path, **arguments)
    with pytest.raises(ValueError, match=message):
        trainer.create_optimizer_and_scheduler(4)


@pytest.mark.parametrize(
    ("zero_stage", "arguments", "message"),
    [
        (3, {}, "ZeRO stage is 3, which splits weights before they are loaded; use 1 or 2"),
        (2, {"bf16": True}, "would hold the weights in half precision.*add .torch_autocast"),
    ],
)
def test_what_deepspeed_would_do_wrong_is_refused(tmp_path, monkeypatch, zero_stage, arguments, message):
    def set_plugin(arguments):
        arguments.deepspeed_plugin = SimpleNamespace(zero_stage=zero_stage)

    monkeypatch.setattr(TrainingArguments, "__post_init__", set_plugin)  # the real one needs DeepSpeed
    with pytest.raises(ValueError, match=message):
        ReMamberTrainingArguments(output_dir=str(tmp_path), **arguments)


@pytest.mark.skipif(is_deepspeed_available(), reason="deepspeed is installed")
def test_deepspeed_names_its_package_where_it_is_not_installed(tmp_path):
    with pytest.raises(ValueError, match=r"pip install deepspeed"):
        ReMamberTrainingArguments(output_dir=str(tmp_path), deepspeed="zero2.json")


def test_what_the_device_or_the_model_cannot_do_is_refused(start, tmp_path):
    with pytest.raises(ValueError, match="fp16 is on and there is no GPU; give --bf16, or neither"):
        make_trainer(start, tmp_path, fp16=True)
    with pytest.raises(ValueError, match="dataloader_drop_last leaves nothing: there are .* for batches of 500"):
        make_trainer(start, tmp_path, dataloader_drop_last=True, per_device_train_batch_size=500).train()
    trainer = make_trainer(start, tmp_path, ema_decay=0.9)
    trainer.model.requires_grad_(False)
    with pytest.raises(ValueError, match="every weight is frozen, or every adapter"):
        trainer.train()
    trainer.model.requires_grad_(True)
    trainer.is_fsdp_enabled = True
    with pytest.raises(ValueError, match="ema_decay is given, and FSDP or DeepSpeed would split the weights"):
        trainer._check_arguments()
    trainer.args.fsdp = True
    with pytest.raises(ValueError, match="fsdp is on and there is no GPU"):
        trainer._check_arguments()
    arguments = ReMamberTrainingArguments(output_dir=str(tmp_path), **runs.ARGUMENTS)
    with pytest.raises(ValueError, match="The model is a Linear; give a ReMamberForImageSegmentation"):
        ReferringSegmentationTrainer(
            model=torch.nn.Linear(1, 1),
            args=arguments,
            data_collator=list,
            processing_class=SimpleNamespace(image_processor=None, tokenizer=None),
        )
