# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""A processor per row and any collator; batches that are cut and put together."""

import pytest
import rows as idioms
import torch
from rows import TEXT_LENGTH, check_logits, logits_one_by_one, losses_one_by_one, make_rows, make_shared, run
from torch.utils.data import default_collate
from transformers import DataCollatorWithPadding, DefaultDataCollator, default_data_collator


COUNTS = [(3, 2, 2), (1, 3, 3), (2, 3, 2), (5, 1, 1), (1, 1, 5)]  # expressions of each of three pictures


@pytest.fixture(scope="module")
def model(folder):
    """Shared: no test here changes it."""
    return idioms.load_model(folder)


@pytest.fixture
def processor(folder):
    """A processor of the test's own: its tokenizer and its attributes are changed here."""
    return idioms.load_processor(folder)


def row_inputs(processor, row, **options):
    options = {"return_tensors": "pt", **options}
    return processor(images=row["image"], text=row["expression"], segmentation_maps=row["mask"], **options)


def first(inputs):
    return {name: values[0] for name, values in inputs.items()}


def stack(features):
    return {name: torch.stack([feature[name] for feature in features]) for name in features[0]}


def cat(features):
    return {name: torch.cat([feature[name] for feature in features]) for name in features[0]}


def check_right_or_refused(model, batch, expected) -> bool:
    """Whether the model took the batch, whose logits then are the expected ones."""
    try:
        logits = run(model, batch)
    except ValueError as error:
        assert "\n" not in str(error)
        assert "image_index" in str(error)
        return False
    check_logits(logits, expected)
    return True


# ------------------------------------------------------------------------------------------------- a processor per row
@pytest.mark.parametrize("tensors", ["pt", "np", None])
@pytest.mark.parametrize("collate", [default_data_collator, DefaultDataCollator()], ids=["function", "class"])
def test_rows_that_were_processed_one_by_one_are_stacked_by_the_default_collator(model, processor, collate, tensors):
    rows = make_rows()
    batch = collate([first(row_inputs(processor, row, return_tensors=tensors)) for row in rows])
    labels = batch.pop("labels")
    check_logits(run(model, batch), logits_one_by_one(model, processor, rows))
    loss = model(**batch, labels=labels).loss
    check_logits(loss, losses_one_by_one(model, processor, rows).mean())


@pytest.mark.parametrize(
    "strip",
    [
        first,
        lambda inputs: {name: values.squeeze(0) for name, values in inputs.items()},
        lambda inputs: {name: values.squeeze() for name, values in inputs.items()},
    ],
    ids=["[0]", "squeeze(0)", "squeeze()"],
)
@pytest.mark.parametrize("collate", [default_collate, stack], ids=["default_collate", "stack"])
def test_rows_without_their_batch_axis_are_stacked_by_any_collator(model, processor, strip, collate):
    rows = make_rows()
    batch = collate([strip(row_inputs(processor, row)) for row in rows])
    assert "image_index" not in batch
    loss = model(**batch).loss
    check_logits(loss, losses_one_by_one(model, processor, rows).mean())
    check_logits(run(model, batch), logits_one_by_one(model, processor, rows))


def test_rows_are_stacked_by_the_collator_that_pads(model, processor):
    rows = make_rows()
    collate = DataCollatorWithPadding(processor.tokenizer)
    batch = collate([first(row_inputs(processor, row)) for row in rows])
    check_logits(run(model, batch), logits_one_by_one(model, processor, rows))


def test_rows_with_their_batch_axis_are_put_together_by_cat(model, processor):
    rows = make_rows()
    batch = cat([row_inputs(processor, row) for row in rows])
    check_logits(run(model, batch), logits_one_by_one(model, processor, rows))


@pytest.mark.parametrize("collate", [default_data_collator, default_collate, stack])
def test_rows_that_are_stacked_with_their_batch_axis_are_refused(model, processor, collate):
    batch = collate([dict(row_inputs(processor, row)) for row in make_rows()])
    with pytest.raises(ValueError, match=r"pixel_values|input_ids") as caught:
        run(model, batch)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("collate", [cat, default_data_collator, stack])
def test_rows_of_several_expressions_put_together_without_counting_pictures_are_refused(model, processor, collate):
    rows = [processor(images=row["image"], text=["cat", "dog"], return_tensors="pt") for row in make_rows(3)]
    with pytest.raises(ValueError, match=r"image_index was made for|input_ids has shape .* take \[0\] of each"):
        run(model, collate([dict(row) for row in rows]))


def test_rows_of_several_expressions_are_put_together_where_pictures_are_counted_on(model, processor):
    texts = [["cat", "dog"], ["dog", "cat dog", "cat"], ["cat cat", "cat"]]
    pictures = [row["image"] for row in make_rows(3)]
    parts = [processor(images=picture, text=text, return_tensors="pt") for picture, text in zip(pictures, texts)]
    for number, part in enumerate(parts):
        part["image_index"] = part["image_index"] + number
    with pytest.raises(ValueError, match=r"made for 1 pictures \(num_images\), and 3 are here: the batch was cut"):
        run(model, cat(parts))
    for part in parts:
        del part["num_images"]
    rows = [{"image": picture, "expression": entry} for picture, text in zip(pictures, texts) for entry in text]
    check_logits(run(model, cat(parts)), logits_one_by_one(model, processor, rows))


def test_rows_of_one_and_of_several_expressions_put_together_are_refused(model, processor):
    texts = ["cat", ["cat", "dog"], "dog"]
    rows = [processor(images=row["image"], text=text, return_tensors="pt") for row, text in zip(make_rows(3), texts)]
    with pytest.raises(ValueError, match="3 pictures came with 4 expressions"):
        run(model, cat(rows))


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_any_number_of_rows_is_a_batch(model, processor, count):
    rows = make_rows(count)
    batch = processor([row["image"] for row in rows], [row["expression"] for row in rows], return_tensors="pt")
    check_logits(run(model, batch), logits_one_by_one(model, processor, rows))


# -------------------------------------------------------------------------------- a batch that was cut or put together
@pytest.mark.parametrize(
    "order",
    [[3, 0, 4, 1, 2], [4, 3, 2, 1, 0], [1, 2], [4], [0, 0, 3, 3], [2, 2, 2]],
    ids=["permuted", "reversed", "sliced", "one", "repeated", "one repeated"],
)
def test_rows_of_a_batch_in_another_order_keep_their_pictures(model, processor, order):
    rows = make_rows()
    batch = processor([row["image"] for row in rows], [row["expression"] for row in rows], return_tensors="pt")
    batch = {name: tensor[order] for name, tensor in batch.items()}
    check_logits(run(model, batch), logits_one_by_one(model, processor, [rows[index] for index in order]))


@pytest.mark.parametrize("counts", COUNTS)
def test_shared_pictures_sliced_at_any_place_are_right_or_refused(model, processor, counts):
    batch, rows = make_shared(processor, counts)
    expected = logits_one_by_one(model, processor, rows)
    wrong = []
    for start in range(len(rows)):
        for stop in range(start + 1, len(rows) + 1):
            # Where no picture is left, there is nothing to run.
            part = {name: tensor[start:stop] for name, tensor in batch.items()}
            if len(part["pixel_values"]):
                try:
                    check_right_or_refused(model, part, expected[start:stop])
                except AssertionError:
                    wrong.append(f"[{start}:{stop}]")
    assert not wrong, f"silently other logits at {wrong}"


@pytest.mark.parametrize("counts", COUNTS)
def test_shared_pictures_put_together_twice_are_refused(model, processor, counts):
    batch, _ = make_shared(processor, counts)
    for twice in (cat([batch, batch]), {name: tensor.repeat_interleave(2, 0) for name, tensor in batch.items()}):
        with pytest.raises(ValueError, match=r"image_index was made for 3 pictures .*, and 6 are here: the batch was"):
            run(model, twice)


@pytest.mark.parametrize("order", [[6, 2, 0, 5, 4, 3, 1], [0, 3, 5], [0, 0, 4, 4, 6]])
def test_expressions_of_shared_pictures_in_another_order_keep_their_pictures(model, processor, order):
    batch, rows = make_shared(processor)
    batch = {name: tensor if name == "pixel_values" else tensor[order] for name, tensor in batch.items()}
    assert check_right_or_refused(model, batch, logits_one_by_one(model, processor, [rows[index] for index in order]))


@pytest.mark.parametrize(
    "image_index",
    [
        [0, 0, 0, 1, 1, 2, 3],
        [0, 0, 0, 1, 1, 2, -1],
        [-3, -3, -3, -2, -2, -1, -1],
        [0, 0, 0, 1, 1, 1, 1],
        [0] * 7,
        [0, 1, 2],
        [[0, 0, 0, 1, 1, 2, 2]],
    ],
    ids=["outside", "negative", "all negative", "not named", "all zero", "too few", "2-D"],
)
def test_an_image_index_that_does_not_fit_is_refused(model, processor, image_index):
    batch, _ = make_shared(processor)
    batch["image_index"] = torch.tensor(image_index)
    with pytest.raises(ValueError, match="image_index"):
        run(model, batch)


@pytest.mark.parametrize(
    "dtype", [torch.int64, torch.int32, torch.int16, torch.uint8, torch.float32, torch.bool], ids=str
)
def test_an_image_index_of_any_type_is_right_or_refused(model, processor, dtype):
    rows = [{**make_rows()[index // 2], "expression": "dog" if index % 2 else "cat"} for index in range(4)]
    batch = processor([rows[0]["image"], rows[2]["image"]], [["cat", "dog"]] * 2, return_tensors="pt")
    batch["image_index"] = batch["image_index"].to(dtype)
    check_right_or_refused(model, batch, logits_one_by_one(model, processor, rows))


def test_an_image_index_that_says_one_to_one_changes_nothing(model, processor):
    rows = make_rows()
    batch = processor([row["image"] for row in rows], [row["expression"] for row in rows], return_tensors="pt")
    logits = run(model, {**batch, "image_index": torch.arange(len(rows))})
    check_logits(logits, logits_one_by_one(model, processor, rows))


# -------------------------------------------------------------------------------------- pictures and expressions apart
def test_pictures_and_expressions_processed_apart_are_a_batch_together(model, processor):
    rows = make_rows()
    pictures = processor(images=[row["image"] for row in rows], return_tensors="pt")
    expressions = processor(text=[row["expression"] for row in rows], return_tensors="pt")
    check_logits(run(model, {**pictures, **expressions}), logits_one_by_one(model, processor, rows))


def test_the_parts_of_the_processor_called_by_themselves_give_its_batch(model, processor):
    rows = make_rows()
    pictures = processor.image_processor([row["image"] for row in rows], return_tensors="pt")
    expressions = processor.tokenizer(
        [row["expression"] for row in rows], padding="max_length", max_length=TEXT_LENGTH, return_tensors="pt"
    )
    check_logits(run(model, {**pictures, **expressions}), logits_one_by_one(model, processor, rows))


@pytest.mark.parametrize("text", [["cat", "dog", "cat dog"], [["cat", "dog"], ["cat"]]], ids=["flat", "lists"])
def test_other_numbers_of_pictures_and_expressions_processed_apart_are_refused(model, processor, text):
    pictures = processor(images=[row["image"] for row in make_rows(2)], return_tensors="pt")
    expressions = processor(text=text, return_tensors="pt")
    with pytest.raises(ValueError, match="2 pictures came with 3 expressions; give one picture per expression or"):
        run(model, {**pictures, **expressions})


@pytest.mark.parametrize("tensors", [None, "np"])
def test_inputs_that_are_no_tensors_are_refused(model, processor, tensors):
    row = make_rows(1)[0]
    with pytest.raises(ValueError, match="return_tensors"):
        run(model, processor(row["image"], row["expression"], return_tensors=tensors))
