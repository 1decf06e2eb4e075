# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The pipeline as users of transformers call pipelines, and the model's outputs as they hand them on."""

import datasets
import numpy as np
import pandas as pd
import pytest
import rows as idioms
import torch
from PIL import Image
from rows import EXPRESSIONS, check_refused, logits_one_by_one, make_rows, masks_one_by_one, serve
from tiny import make_tokenizer
from transformers import AutoImageProcessor, AutoModelForImageSegmentation, AutoProcessor, pipeline
from transformers.pipelines.pt_utils import KeyDataset, KeyPairDataset

from remamber_hf import ReMamberImageProcessorPil


TASK = "referring-image-segmentation"
ROWS = make_rows(7)
PICTURES = [row["image"] for row in ROWS]
ONE = ROWS[0]["image"], ROWS[0]["expression"]


@pytest.fixture(scope="module")
def model(folder):
    """Shared: no test here changes it."""
    return idioms.load_model(folder)


@pytest.fixture(scope="module")
def pipe(folder):
    return pipeline(TASK, model=str(folder))


@pytest.fixture(scope="module")
def masks(model, processor):
    """The masks of all rows, one by one."""
    return masks_one_by_one(model, processor, ROWS)


@pytest.fixture(scope="module")
def cat_masks(model, processor):
    """The masks of "cat" in each picture, one by one."""
    return masks_one_by_one(model, processor, [{**row, "expression": "cat"} for row in ROWS])


def check_masks(results, masks):
    for result, mask in zip(list(results), masks, strict=True):
        np.testing.assert_array_equal(np.asarray(result["mask"]) > 0, mask)


# ------------------------------------------------------------------------------------------ what a pipeline is made of
def auto(folder):
    return AutoModelForImageSegmentation.from_pretrained(folder)


PIPELINES = {
    "folder": lambda folder: pipeline(TASK, str(folder)),
    "Path": lambda folder: pipeline(TASK, model=folder),
    "folder, device": lambda folder: pipeline(TASK, model=str(folder), device="cpu"),
    "folder, device -1": lambda folder: pipeline(TASK, model=str(folder), device=-1),
    "folder, device_map": lambda folder: pipeline(TASK, model=str(folder), device_map="cpu"),
    "folder, dtype": lambda folder: pipeline(TASK, model=str(folder), dtype=torch.float32),
    "folder, own processor": lambda folder: pipeline(
        TASK, str(folder), processor=AutoProcessor.from_pretrained(folder)
    ),
    "folder, trust_remote_code": lambda folder: pipeline(TASK, str(folder), trust_remote_code=True),
    "model": lambda folder: pipeline(TASK, model=auto(folder)),
    "model in training": lambda folder: pipeline(TASK, model=auto(folder).train()),
    "model, processor": lambda folder: pipeline(
        TASK, model=auto(folder), processor=AutoProcessor.from_pretrained(folder)
    ),
    "model, processor's folder": lambda folder: pipeline(TASK, model=auto(folder), processor=str(folder)),
    "model, parts": lambda folder: pipeline(
        TASK,
        model=auto(folder),
        image_processor=AutoImageProcessor.from_pretrained(folder),
        tokenizer=make_tokenizer(),
    ),
    "model, folders of parts": lambda folder: pipeline(
        TASK, model=auto(folder), image_processor=str(folder), tokenizer=str(folder)
    ),
    "batch_size": lambda folder: pipeline(TASK, str(folder), batch_size=3),
}


@pytest.mark.parametrize("make", PIPELINES.values(), ids=PIPELINES.keys())
def test_a_pipeline_of_any_parts_gives_the_loops_masks(folder, masks, make):
    pipe = make(folder)
    check_masks([pipe(row["image"], row["expression"]) for row in ROWS[:3]], masks[:3])
    rows = [{"image": row["image"], "expression": row["expression"]} for row in ROWS]
    check_masks(pipe(rows), masks)


@pytest.mark.parametrize("model_kind", ["folder", "model"])
def test_an_image_processor_of_ones_own_is_used(folder, model, processor, model_kind):
    own = ReMamberImageProcessorPil(size={"height": 48, "width": 48})
    pipe = pipeline(TASK, model=str(folder) if model_kind == "folder" else auto(folder), image_processor=own)
    expected = masks_one_by_one(model, type(processor)(own, processor.tokenizer, processor.text_length), ROWS[:3])
    check_masks([pipe(row["image"], row["expression"]) for row in ROWS[:3]], expected)


@pytest.mark.parametrize("model_kind", ["folder", "model"])
def test_a_tokenizer_of_ones_own_is_used(folder, masks, model_kind):
    class Translator(type(make_tokenizer())):
        def __call__(self, text, **options):
            words = {"le": "", "chat": "cat", "chien": "dog"}
            return super().__call__(
                [" ".join(words[word] for word in entry.split() if words[word]) for entry in text], **options
            )

    french = {"cat": "le chat", "dog": "le chien", "cat dog": "le chat chien"}
    tokenizer = Translator(**{**make_tokenizer().init_kwargs, "vocab": make_tokenizer().get_vocab(), "merges": MERGES})
    pipe = pipeline(TASK, model=str(folder) if model_kind == "folder" else auto(folder), tokenizer=tokenizer)
    check_masks([pipe(row["image"], french[row["expression"]]) for row in ROWS[:3]], masks[:3])


MERGES = [("c", "a"), ("ca", "t</w>"), ("d", "o"), ("do", "g</w>")]


# ---------------------------------------------------------------------------------------------------- how it is called
@pytest.mark.parametrize("image_name", ["image", "images", "inputs"])
@pytest.mark.parametrize("expression_name", ["expression", "expressions", "text", "prompt"])
def test_other_names_of_picture_and_expression_are_understood(pipe, masks, image_name, expression_name):
    row = {image_name: ROWS[0]["image"], expression_name: ROWS[0]["expression"]}
    check_masks([pipe(**row), pipe(row), *pipe([row]), *pipe(iter([row]))], [masks[0]] * 4)
    check_masks([pipe(row[image_name], **{expression_name: row[expression_name]})], masks[:1])
    check_masks(pipe(**{image_name: PICTURES[:1], expression_name: row[expression_name]}), masks[:1])


@pytest.mark.parametrize(
    "names", [("image", "images"), ("inputs", "images"), ("text", "prompt"), ("expression", "text")], ids=str
)
def test_two_names_of_one_thing_are_refused(pipe, names):
    values = {"image": ONE[0], "expression": ONE[1]}
    own = "image" if names[0] in ("image", "inputs") else "expression"
    values |= dict.fromkeys(names, values.pop(own))
    check_refused(lambda: pipe(**values), "came, which mean the same; give one of them")
    check_refused(lambda: pipe([values]), "came, which mean the same; give one of them")


class Pictures(torch.utils.data.Dataset):
    def __init__(self, entries):
        self.entries = entries

    def __len__(self):
        return len(self.entries)

    def __getitem__(self, index):
        return self.entries[index]


class Stream(torch.utils.data.IterableDataset):
    def __init__(self, entries):
        self.entries = entries

    def __iter__(self):
        return iter(self.entries)


def make_dataset(**columns):
    return datasets.Dataset.from_dict({"image": PICTURES, **columns}).cast_column("image", datasets.Image())


MANY = {
    "list": lambda: PICTURES,
    "tuple": lambda: tuple(PICTURES),
    "generator": lambda: iter(PICTURES),
    "arrays": lambda: [np.asarray(picture) for picture in PICTURES],
    "torch Dataset": lambda: Pictures(PICTURES),
    "torch IterableDataset": lambda: Stream(PICTURES),
    "KeyDataset": lambda: KeyDataset(make_dataset(), "image"),
    "Column": lambda: make_dataset()["image"],
    "rows of pictures": lambda: make_dataset(),
    "stream of pictures": lambda: make_dataset().to_iterable_dataset(),
    "dicts of pictures": lambda: [{"image": picture} for picture in PICTURES],
}


@pytest.mark.parametrize("options", [{}, {"batch_size": 3}, {"batch_size": 3, "num_workers": 2}], ids=str)
@pytest.mark.parametrize("kind", MANY)
def test_many_pictures_with_one_expression_give_the_loops_masks(pipe, cat_masks, kind, options):
    check_masks(pipe(MANY[kind](), "cat", **options), cat_masks)


DICTS = [{"image": row["image"], "expression": row["expression"]} for row in ROWS]
PAIRS = {
    "list of dicts": lambda: DICTS,
    "generator of dicts": lambda: iter(DICTS),
    "torch Dataset of dicts": lambda: Pictures(DICTS),
    "torch IterableDataset of dicts": lambda: Stream(DICTS),
    "Dataset": lambda: make_dataset(text=[row["expression"] for row in ROWS]),
    "Dataset with other columns": lambda: make_dataset(
        expression=[row["expression"] for row in ROWS], number=list(range(len(ROWS)))
    ),
    "IterableDataset": lambda: make_dataset(text=[row["expression"] for row in ROWS]).to_iterable_dataset(),
}


@pytest.mark.parametrize("options", [{}, {"batch_size": 3}, {"batch_size": 3, "num_workers": 2}], ids=str)
@pytest.mark.parametrize("kind", PAIRS)
def test_many_pictures_with_their_own_expressions_give_the_loops_masks(pipe, masks, kind, options):
    check_masks(pipe(PAIRS[kind](), **options), masks)


@pytest.mark.parametrize("kind", [list, tuple, iter, np.array, Pictures], ids=lambda kind: kind.__name__)
def test_several_expressions_of_one_picture_give_the_loops_masks(pipe, model, processor, kind):
    if kind is Pictures:
        expressions = datasets.Dataset.from_dict({"text": EXPRESSIONS})["text"]
    else:
        expressions = kind(EXPRESSIONS)
    expected = masks_one_by_one(model, processor, [{**ROWS[0], "expression": entry} for entry in EXPRESSIONS])
    check_masks(pipe(PICTURES[0], expressions), expected)


@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_a_list_of_expressions_for_each_picture_gives_the_loops_masks(pipe, model, processor, batch_size):
    lists = [["cat"], ["dog", "cat dog"], ["cat", "dog", "dog"], ["dog"], ["cat", "cat"], ["dog cat"], ["cat", "dog"]]
    rows = [{**row, "expression": entry} for row, entries in zip(ROWS, lists) for entry in entries]
    results = pipe(PICTURES, lists, batch_size=batch_size)
    assert [len(entries) for entries in results] == [len(entries) for entries in lists]
    check_masks([result for entries in results for result in entries], masks_one_by_one(model, processor, rows))


@pytest.mark.parametrize("count", [2, 6, 7, 8])
def test_several_pictures_with_a_flat_list_of_expressions_are_refused(pipe, count):
    """It could be one for each picture, or all of them for each."""
    check_refused(lambda: pipe(PICTURES, ["cat"] * count), f"{count} expressions came with several pictures; give one")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "image is missing; give a picture"),
        ((PICTURES[0],), "expression is missing; say which object"),
        ((PICTURES,), "came; give {.*} for each picture, or an expression"),
        ((PICTURES[0], []), "text has 0 expressions"),
        ((PICTURES[0], ""), "Expression 0 is ''; give a str"),
        ((PICTURES[0], ["cat", None]), "Expression 1 is None; give a str"),
        (([{"picture": PICTURES[0], "expression": "cat"}],), r"the keys \['expression', 'picture'\] came; give"),
        (([{"image": PICTURES[0], "expression": "cat"}], "dog"), "an expression came beside a picture that has its"),
        (([(PICTURES[0], "cat")],), 'a tuple came; give {"image"'),
        ((7, "cat"), "image is a int; give a path"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.filterwarnings("ignore:.*sequentially on GPU")
def test_a_call_that_lacks_something_is_refused(pipe, arguments, message):
    check_refused(lambda: pipe(*arguments), message)


def test_rows_of_key_pairs_are_refused(pipe):
    pairs = KeyPairDataset(make_dataset(text=[row["expression"] for row in ROWS]), "image", "text")
    check_refused(lambda: list(pipe(pairs)), r"the keys \['text', 'text_pair'\] came; give")


# ------------------------------------------------------------------------------------------------------------- options
def test_a_threshold_of_none_is_that_of_the_default(pipe, masks):
    check_masks([pipe(*ONE, threshold=None)], masks[:1])


@pytest.mark.parametrize("threshold", [0, 1, 0.5, np.float32(0.5), np.float64(0.5)], ids=repr)
def test_a_threshold_of_any_number_is_read(pipe, model, processor, threshold):
    logits = logits_one_by_one(model, processor, ROWS[:1])
    size = ONE[0].size[::-1]
    (mask,) = processor.post_process_referring_segmentation(logits, target_sizes=[size], threshold=float(threshold))
    check_masks([pipe(*ONE, threshold=threshold)], [mask.numpy()])


@pytest.mark.parametrize("threshold", ["0.5", float("nan"), -0.1, 1.1, True, [0.5], float("inf")], ids=repr)
def test_a_threshold_that_is_no_probability_is_refused(pipe, model, processor, threshold):
    check_refused(lambda: pipe(*ONE, threshold=threshold), "threshold is .*; give a probability in")
    logits = torch.zeros(1, 1, 4, 4)
    check_refused(
        lambda: processor.post_process_referring_segmentation(logits, threshold=threshold),
        "threshold is .*; give a probability in",
    )


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """The address of the first picture."""
    folder = tmp_path_factory.mktemp("site")
    PICTURES[0].save(folder / "picture.png")
    with serve(folder) as address:
        yield f"{address}/picture.png"


@pytest.mark.parametrize("timeout", [None, 5, 5.0])
def test_a_timeout_is_read_and_changes_no_mask(pipe, masks, url, timeout):
    check_masks([pipe(url, ONE[1], timeout=timeout), pipe(*ONE, timeout=timeout)], [masks[0]] * 2)


@pytest.mark.parametrize("timeout", ["5", 0, -1, float("nan"), float("inf"), 1e12], ids=repr)
def test_a_timeout_that_is_no_time_is_refused(pipe, url, timeout):
    check_refused(lambda: pipe(url, ONE[1], timeout=timeout), "timeout is .*; give seconds")


@pytest.mark.parametrize("option", ["candidate_labels", "subtask", "top_k", "mask_threshold", "generate_kwargs"])
def test_the_options_of_other_pipelines_are_refused(folder, pipe, option):
    check_refused(lambda: pipe(*ONE, **{option: 0.5}), f"the option {option} is unknown")
    check_refused(lambda: pipeline(TASK, str(folder), **{option: 0.5}), f"the option {option} is unknown")


def test_a_mask_of_the_pipeline_is_a_picture_of_0_and_255(pipe, masks):
    mask = pipe(*ONE)["mask"]
    assert isinstance(mask, Image.Image)
    np.testing.assert_array_equal(np.asarray(mask), masks[0] * np.uint8(255))


# ------------------------------------------------------------------------------------------ found by those who tried
@pytest.mark.parametrize("order", [[2, 0, 1], [4, 5], [6]])
def test_a_column_or_table_of_pandas_keeps_the_order_of_its_rows(pipe, cat_masks, order):
    table = pd.DataFrame([{"image": picture} for picture in PICTURES]).iloc[order]
    check_masks(pipe(table["image"], "cat"), [cat_masks[index] for index in order])
    check_masks(pipe(table, "cat"), [cat_masks[index] for index in order])


def test_a_row_with_more_columns_is_no_stored_picture(pipe, masks):
    row = {"image": ROWS[0]["image"], "path": "none.png", "bytes": b"x"}
    check_masks([pipe({**row, "expression": ROWS[0]["expression"]}), pipe(row, ROWS[0]["expression"])], [masks[0]] * 2)


def test_a_model_in_training_gives_the_same_masks_and_is_left_as_it_was(folder, masks):
    pipe = pipeline(TASK, model=str(folder))
    before = {name: tensor.clone() for name, tensor in pipe.model.state_dict().items()}
    pipe.model.train()
    check_masks([pipe(*ONE)], masks[:1])
    assert pipe.model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in pipe.model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "part", "message"),
    [
        ("processor", "tokenizer", "processor is a .*Tokenizer.*; give a ReMamberProcessor, or this as a part"),
        ("processor", "image_processor", "processor is a ReMamberImageProcessor.*; give a ReMamberProcessor"),
        ("tokenizer", None, "tokenizer is a ReMamberProcessor; give it as processor"),
        ("image_processor", None, "image_processor is a ReMamberProcessor; give it as processor"),
        ("feature_extractor", "image_processor", "a feature_extractor came; give it as image_processor"),
    ],
)
def test_a_part_in_the_place_of_another_is_refused(folder, processor, name, part, message):
    given = {name: processor if part is None else getattr(processor, part)}
    check_refused(lambda: pipeline(TASK, model=str(folder), **given), message)
