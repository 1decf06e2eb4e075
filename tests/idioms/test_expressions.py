# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Options of the tokenizer by habit, and expressions in any container."""

import datasets
import numpy as np
import pandas
import pytest
import rows as idioms
from rows import (
    TEXT_LENGTH,
    check_logits,
    check_refused,
    load_processor,
    logits_one_by_one,
    make_rows,
    make_shared,
    run,
)


LONG = " ".join(["cat"] * 9)


@pytest.fixture(scope="module")
def model(folder):
    """Shared: no test here changes it."""
    return idioms.load_model(folder)


@pytest.fixture
def processor(folder):
    """A processor of the test's own: its tokenizer and its attributes are changed here."""
    return idioms.load_processor(folder)


# ------------------------------------------------------------------------------------------ options of the expressions
@pytest.mark.parametrize(
    "options",
    [
        {"padding": True},
        {"padding": "longest"},
        {"padding": "max_length"},
        {"padding": False},
        {"padding": "do_not_pad"},
        {"truncation": True},
        {"truncation": False},
        {"truncation": "longest_first"},
        {"max_length": TEXT_LENGTH},
        {"max_length": TEXT_LENGTH, "padding": True},
        {"padding": True, "truncation": True},
        {"text_kwargs": {"padding": True}},
        {"return_attention_mask": False},
        {"return_attention_mask": True},
        {"add_special_tokens": True, "padding_side": "right"},
    ],
    ids=str,
)
def test_options_by_habit_give_the_same_tokens(model, processor, options):
    rows = make_rows()
    batch = processor(
        [row["image"] for row in rows], [row["expression"] for row in rows], return_tensors="pt", **options
    )
    check_logits(run(model, batch), logits_one_by_one(model, processor, rows))


@pytest.mark.parametrize("padding", [True, "longest", "max_length"])
@pytest.mark.parametrize("max_length", [5, 12, 77])
def test_another_max_length_is_refused_unless_the_tokens_are_as_many(model, processor, max_length, padding):
    rows = make_rows()
    with pytest.raises(ValueError, match=r"tokens per expression, the model reads exactly 7"):
        batch = processor(
            [row["image"] for row in rows],
            [row["expression"] for row in rows],
            padding=padding,
            max_length=max_length,
            return_tensors="pt",
        )
        run(model, batch)


@pytest.mark.parametrize("options", [{}, {"truncation": True}, {"padding": True}])
def test_a_long_expression_is_cut_in_a_batch_as_by_itself(model, processor, options):
    rows = make_rows()
    rows[1]["expression"] = LONG
    batch = processor(
        [row["image"] for row in rows], [row["expression"] for row in rows], return_tensors="pt", **options
    )
    check_logits(run(model, batch), logits_one_by_one(model, processor, rows))


def test_a_long_expression_that_may_not_be_cut_is_refused(processor):
    with pytest.raises(ValueError, match="Expression 1 has 11 tokens and 7 are read; make it shorter"):
        processor(text=["cat", LONG], truncation=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"padding_side": "left"}, "padding_side is 'left'; ReMamber was trained with right"),
        ({"text_kwargs": {"padding_side": "left"}}, "padding_side is 'left'"),
        ({"truncation_side": "left"}, "truncation_side is 'left'"),
        ({"add_special_tokens": False}, "add_special_tokens is False; ReMamber was trained with True, leave it out"),
        ({"text_kwargs": {"add_special_tokens": False}}, "add_special_tokens is False"),
        ({"text_pair": ["dog"]}, "text_pair is"),
        ({"return_overflowing_tokens": True}, "return_overflowing_tokens is True"),
    ],
    ids=str,
)
def test_options_that_give_other_tokens_are_refused(processor, options, message):
    with pytest.raises(ValueError, match=message):
        processor(text=["cat"], return_tensors="pt", **options)


@pytest.mark.parametrize("place", ["attribute", "from_pretrained"])
def test_a_tokenizer_that_pads_left_is_padded_right(model, processor, folder, place):
    rows = make_rows()
    expected = logits_one_by_one(model, processor, rows)
    if place == "attribute":
        processor.tokenizer.padding_side = "left"
    else:
        processor = type(processor).from_pretrained(folder, padding_side="left")
        assert processor.tokenizer.padding_side == "left"
    batch = processor([row["image"] for row in rows], [row["expression"] for row in rows], return_tensors="pt")
    check_logits(run(model, batch), expected)


@pytest.mark.parametrize(
    "options", [{"truncation_side": "left"}, {"model_max_length": 5}, {"padding_side": "left"}], ids=str
)
def test_options_of_the_tokenizer_at_loading_change_nothing(model, processor, folder, options):
    rows = make_rows()
    rows[2]["expression"] = f"dog {LONG}"
    expected = logits_one_by_one(model, processor, rows)
    loaded = type(processor).from_pretrained(folder, **options)
    batch = loaded([row["image"] for row in rows], [row["expression"] for row in rows], return_tensors="pt")
    check_logits(run(model, batch), expected)


def test_a_text_length_at_loading_takes_effect(folder, processor):
    loaded = type(processor).from_pretrained(folder, text_length=12)
    assert loaded.text_length == 12
    assert loaded(text=["cat"], return_tensors="pt")["input_ids"].shape == (1, 12)


def test_a_size_at_loading_takes_effect(folder, processor):
    loaded = type(processor).from_pretrained(folder, size={"height": 48, "width": 64})
    pixel_values = loaded(images=make_rows(1)[0]["image"], return_tensors="pt")["pixel_values"]
    assert pixel_values.shape == (1, 3, 48, 64)


def test_a_tokenizer_that_cuts_left_is_cut_right(model, processor):
    row = {**make_rows(1)[0], "expression": f"dog {LONG}"}
    expected = logits_one_by_one(model, processor, [row])
    processor.tokenizer.truncation_side = "left"
    check_logits(run(model, processor(row["image"], row["expression"], return_tensors="pt")), expected)


def test_a_pad_token_that_was_changed_is_refused_at_the_call(processor):
    processor.tokenizer.pad_token = "!"
    with pytest.raises(ValueError, match="The tokenizer pads with '!', ReMamber was trained with the end token"):
        processor(text="cat")


def test_no_attention_mask_is_the_processors(model, processor):
    rows = make_rows()
    batch = processor([row["image"] for row in rows], [row["expression"] for row in rows], return_tensors="pt")
    del batch["attention_mask"]
    check_logits(run(model, batch), logits_one_by_one(model, processor, rows))


def test_another_text_length_of_the_processor_takes_effect_and_is_saved(model, processor, tmp_path):
    processor.text_length = 12
    assert processor(text=["cat"], return_tensors="pt")["input_ids"].shape == (1, 12)
    processor.save_pretrained(tmp_path)
    assert idioms.load_processor(tmp_path).text_length == 12
    batch = processor(make_rows(1)[0]["image"], "cat", return_tensors="pt")
    with pytest.raises(ValueError, match="input_ids has 12 tokens per expression, the model reads exactly 7"):
        run(model, batch)


# -------------------------------------------------------------------------------------------- kinds of the expressions
KINDS = {
    "tuple": tuple,
    "generator": iter,
    "dict values": lambda entries: dict(enumerate(entries)).values(),
    "numpy": np.array,
    "numpy of objects": lambda entries: np.array(entries, dtype=object),
    "Series": pandas.Series,
    "Series of another index": lambda entries: pandas.Series(entries, index=range(7, 7 + len(entries))),
    "Series of categories": lambda entries: pandas.Series(entries, dtype="category"),
    "Column": lambda entries: datasets.Dataset.from_dict({"text": entries})["text"],
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_expressions_of_every_kind_are_a_list(model, processor, kind):
    rows = make_rows()
    expressions = kind([row["expression"] for row in rows])
    batch = processor([row["image"] for row in rows], expressions, return_tensors="pt")
    check_logits(run(model, batch), logits_one_by_one(model, processor, rows))


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_expressions_of_every_kind_are_a_list_for_each_picture(model, processor, kind):
    _, rows = make_shared(processor)
    text = [kind([row["expression"] for row in rows[start:stop]]) for start, stop in ((0, 3), (3, 5), (5, 7))]
    batch = processor([rows[index]["image"] for index in (0, 3, 5)], text, return_tensors="pt")
    check_logits(run(model, batch), logits_one_by_one(model, processor, rows))


def test_a_column_of_lists_is_a_list_for_each_picture(model, processor):
    _, rows = make_shared(processor)
    lists = [[row["expression"] for row in rows[start:stop]] for start, stop in ((0, 3), (3, 5), (5, 7))]
    column = datasets.Dataset.from_dict({"text": lists})["text"]
    batch = processor([rows[index]["image"] for index in (0, 3, 5)], column, return_tensors="pt")
    check_logits(run(model, batch), logits_one_by_one(model, processor, rows))


@pytest.mark.parametrize("text", [["cat", None], ["cat", float("nan")], [b"cat", "dog"], ["cat", 7], [["cat"], "dog"]])
def test_what_is_no_expression_is_refused(processor, text):
    with pytest.raises(ValueError, match="give a str that says which object is meant|give only expressions or only"):
        processor([row["image"] for row in make_rows(2)], text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"truncation": "do_not_truncate"}, "Expression 0 has 14 tokens and 7 are read"),
        ({"truncation": "some"}, "truncation is 'some'; give one of"),
        ({"padding": "some"}, "padding is 'some'; give one of"),
        ({"max_length": 1}, "max_length is 1; give 3 or more"),
        ({"max_length": "20"}, "max_length is '20'; give 3 or more"),
        ({"return_length": True}, "return_length is True; ReMamber was trained with False, leave it out"),
        ({"return_offsets_mapping": True}, "return_offsets_mapping is True"),
        ({"text_kwargs": {"stride": 2}}, "stride is 2"),
    ],
)
def test_an_option_without_effect_or_sense_is_refused(processor, options, message):
    check_refused(lambda: processor(text="cat dog " * 6, **options), message)


def test_a_text_length_without_room_for_a_word_is_refused_also_when_it_is_set(folder):
    processor = load_processor(folder)
    processor.text_length = 2
    check_refused(lambda: processor(text="cat"), "text_length is 2")


def test_special_tokens_in_an_expression_are_refused(processor):
    for text in ("<|startoftext|> cat", "cat <|endoftext|> dog"):
        check_refused(lambda text=text: processor(text=text), "Expression 0, '.*', has the (start|end) token")
