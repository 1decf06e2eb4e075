# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What users of `datasets` do before a loader: map, formats, transforms, streams, files, orders."""

import datasets
import numpy as np
import pytest
import rows as idioms
import torch
from rows import logits_one_by_one, losses_one_by_one, make_rows
from torch.utils.data import DataLoader, default_collate
from transformers import default_data_collator


ROWS = make_rows(7)
ALL = range(len(ROWS))
FEATURES = datasets.Features(
    {
        "index": datasets.Value("int64"),
        "image": datasets.Image(),
        "expression": datasets.Value("string"),
        "mask": datasets.Image(),
    }
)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """Nothing that an earlier run mapped is found again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        patch.setattr(datasets.config, "HF_CACHE_HOME", str(tmp_path_factory.mktemp("home")))
        datasets.disable_progress_bars()
        yield
        datasets.enable_progress_bars()


@pytest.fixture(scope="module")
def model(folder):
    """Shared: no test here changes it."""
    return idioms.load_model(folder)


@pytest.fixture(scope="module")
def expected(model, processor):
    """Logits and losses of all rows, one by one."""
    return logits_one_by_one(model, processor, ROWS), losses_one_by_one(model, processor, ROWS)


@pytest.fixture
def dataset():
    return make_dataset()


def make_dataset(indices=ALL):
    columns = {
        "index": list(indices),
        "image": [ROWS[index]["image"] for index in indices],
        "expression": [ROWS[index]["expression"] for index in indices],
        "mask": [idioms.Image.fromarray(ROWS[index]["mask"]) for index in indices],
    }
    return datasets.Dataset.from_dict(columns, features=FEATURES)


class Encode:
    """What is mapped over rows, or over dicts of lists; a class, so that processes and fingerprints can pickle it."""

    def __init__(self, processor, tensors="np"):
        self.processor, self.tensors = processor, tensors

    def inputs(self, rows, tensors):
        return self.processor(
            images=rows["image"], text=rows["expression"], segmentation_maps=rows["mask"], return_tensors=tensors
        )

    def row(self, row):
        return {"index": row["index"], **{name: value[0] for name, value in self.inputs(row, self.tensors).items()}}

    def batch(self, rows):
        return {"index": rows["index"], **self.inputs(rows, self.tensors)}


@torch.no_grad()
def check(model, expected, batches, indices=ALL):
    """The batches hold the rows of `indices`, in their order, each with its own picture, expression and mask."""
    logits, losses, found = expected[0], expected[1], []
    for batch in batches:
        batch = dict(batch)
        batch.pop("image", None), batch.pop("expression", None), batch.pop("mask", None)
        places = [int(index) for index in batch.pop("index")]
        outputs = model(**batch)
        torch.testing.assert_close(outputs.logits, logits[places], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(outputs.loss, losses[places].mean(), rtol=1e-4, atol=1e-4)
        found += places
    assert found == list(indices)


def load(rows, batch_size=3, collate=default_data_collator, **options):
    return DataLoader(rows, batch_size, collate_fn=collate, **options)


# ----------------------------------------------------------------------------------------------------------------- map
@pytest.mark.parametrize("tensors", ["np", "pt", None])
def test_rows_mapped_one_by_one_train_on_their_own_pictures(model, processor, expected, dataset, tensors):
    mapped = dataset.map(Encode(processor, tensors).row)
    check(model, expected, load(mapped.remove_columns(["image", "expression", "mask"])))


@pytest.mark.parametrize("tensors", ["np", "pt", None])
@pytest.mark.parametrize("map_size", [1, 2, 4, 1000])
def test_rows_mapped_in_batches_train_in_batches_of_another_size(
    model, processor, expected, dataset, map_size, tensors
):
    mapped = dataset.map(
        Encode(processor, tensors).batch, batched=True, batch_size=map_size, remove_columns=dataset.column_names
    )
    for batch_size in (1, 3, 7):
        check(model, expected, load(mapped, batch_size))


@pytest.mark.parametrize("batched", [False, True])
def test_rows_mapped_by_two_processes_keep_their_pictures(model, processor, expected, dataset, batched):
    encode = Encode(processor)
    mapped = dataset.map(
        encode.batch if batched else encode.row,
        batched=batched,
        batch_size=2,
        num_proc=2,
        remove_columns=["image", "expression", "mask"],
    )
    check(model, expected, load(mapped))


@pytest.mark.parametrize("collate", [default_data_collator, default_collate])
@pytest.mark.parametrize("kind", ["torch", "numpy"])
def test_mapped_rows_have_any_format(model, processor, expected, dataset, kind, collate):
    mapped = dataset.map(Encode(processor).row, remove_columns=["image", "expression", "mask"]).with_format(kind)
    check(model, expected, load(mapped, collate=collate))
    batches = [mapped[start : start + 3] for start in (0, 3, 6)]
    check(model, expected, [{name: torch.as_tensor(value) for name, value in batch.items()} for batch in batches])


def test_a_format_without_the_attention_mask_changes_no_logits(model, processor, expected, dataset):
    mapped = dataset.map(Encode(processor).row)
    columns = ["index", "pixel_values", "input_ids", "labels"]
    check(model, expected, load(mapped.with_format("torch", columns=columns)))


@pytest.mark.parametrize("kind", ["torch", "numpy"])
def test_pictures_and_masks_that_a_format_made_arrays_are_the_same(model, processor, expected, dataset, kind):
    encode = Encode(processor, "pt")
    formatted = dataset.with_format(kind)
    check(model, expected, load([encode.row(formatted[index]) for index in range(len(ROWS))]))
    check(model, expected, [encode.batch(formatted[start : start + 3]) for start in (0, 3, 6)])
    check(model, expected, load(formatted.map(encode.row, remove_columns=["image", "expression", "mask"])))


# ---------------------------------------------------------------------------------------------------------- transforms
@pytest.mark.parametrize("name", ["set_transform", "with_transform"])
@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_a_transform_of_dicts_of_lists_gives_each_row_its_picture(
    model, processor, expected, dataset, name, batch_size
):
    transformed = getattr(dataset, name)(Encode(processor, "pt").batch) or dataset
    check(model, expected, load(transformed, batch_size))
    check(model, expected, [transformed[:3], transformed[3:]])


def test_a_transform_under_workers_gives_each_row_its_picture(model, processor, expected, dataset):
    transformed = dataset.with_transform(Encode(processor, "pt").batch)
    check(model, expected, load(transformed, num_workers=2))


# ------------------------------------------------------------------------------------------------------------- streams
@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("kind", [None, "torch", "numpy"])
def test_a_stream_that_is_mapped_gives_each_row_its_picture(model, processor, expected, dataset, batched, kind):
    encode = Encode(processor)
    stream = dataset.to_iterable_dataset(num_shards=2)
    stream = stream.map(
        encode.batch if batched else encode.row,
        batched=batched,
        batch_size=2,
        remove_columns=["image", "expression", "mask"],
    )
    if kind:
        stream = stream.with_format(kind)
    check(model, expected, load(stream))


def test_a_stream_with_a_shuffle_buffer_gives_each_row_its_picture(model, processor, expected, dataset):
    encode = Encode(processor)
    stream = dataset.to_iterable_dataset(num_shards=2).map(encode.row, remove_columns=["image", "expression", "mask"])
    stream = stream.shuffle(seed=0, buffer_size=4)
    order = [row["index"] for row in stream]
    assert sorted(order) == list(range(len(ROWS))) != order
    check(model, expected, load(stream), order)


def test_a_generator_as_a_stream_gives_each_row_its_picture(model, processor, expected):
    def generate():
        for index, row in enumerate(ROWS):
            yield {"index": index, **row}

    stream = datasets.IterableDataset.from_generator(generate).map(Encode(processor).row)
    check(model, expected, load(stream.remove_columns(["image", "expression", "mask"])))


def test_batches_of_a_mapped_stream_are_the_rows(model, processor, expected, dataset):
    stream = dataset.to_iterable_dataset().map(Encode(processor).row, remove_columns=["image", "expression", "mask"])
    check(model, expected, stream.with_format("torch").batch(3))


# --------------------------------------------------------------------------------------------------------------- files
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", ["disk", "parquet"])
def test_a_data_set_on_disk_trains_as_before(model, processor, expected, dataset, tmp_path, when, kind):
    if when == "after":
        dataset = dataset.map(Encode(processor).batch, batched=True, remove_columns=dataset.column_names)
    if kind == "disk":
        dataset.save_to_disk(tmp_path / "rows")
        dataset = datasets.load_from_disk(tmp_path / "rows")
    else:
        dataset.to_parquet(tmp_path / "rows.parquet")
        dataset = datasets.load_dataset(
            "parquet", data_files=str(tmp_path / "rows.parquet"), split="train", cache_dir=str(tmp_path)
        )
    if when == "before":
        dataset = dataset.map(Encode(processor).row, remove_columns=["image", "expression", "mask"])
    check(model, expected, load(dataset))


@pytest.fixture
def paths(tmp_path):
    """The rows with paths for pictures and masks."""
    columns = {"index": list(range(len(ROWS))), "expression": [row["expression"] for row in ROWS]}
    for name in ("image", "mask"):
        columns[name] = [str(tmp_path / f"{name}{index}.png") for index in range(len(ROWS))]
    for row, image, mask in zip(ROWS, columns["image"], columns["mask"]):
        row["image"].save(image)
        idioms.Image.fromarray(row["mask"]).save(mask)
    return datasets.Dataset.from_dict(columns)


def test_a_column_of_paths_is_cast_to_pictures(model, processor, expected, paths):
    dataset = paths.cast_column("image", datasets.Image()).cast_column("mask", datasets.Image())
    check(model, expected, load(dataset.with_transform(Encode(processor, "pt").batch)))


def test_a_column_of_paths_is_a_column_of_pictures(model, processor, expected, paths):
    dataset = paths.cast_column("mask", datasets.Image())
    check(model, expected, load(dataset.with_transform(Encode(processor, "pt").batch)))
    inputs = processor(images=dataset["image"], text=dataset["expression"], return_tensors="pt")
    logits = model(**inputs).logits.detach()
    torch.testing.assert_close(logits, expected[0], rtol=1e-4, atol=1e-4)


def test_pictures_that_are_not_decoded_are_decoded(model, processor, expected, dataset):
    dataset = dataset.cast_column("image", datasets.Image(decode=False))
    assert set(dataset[0]["image"]) == {"bytes", "path"}
    check(model, expected, load(dataset.with_transform(Encode(processor, "pt").batch)))
    mapped = dataset.map(Encode(processor).row, remove_columns=["image", "expression", "mask"])
    check(model, expected, load(mapped))


def test_maps_that_are_not_decoded_are_decoded_or_refused(model, processor, expected, dataset):
    dataset = dataset.cast_column("mask", datasets.Image(decode=False))
    try:
        batch = Encode(processor, "pt").batch(dataset[:])
    except ValueError as error:
        assert "segmentation map" in str(error)
    else:
        check(model, expected, [batch])


def test_columns_go_to_the_processor_as_they_are(model, processor, expected, dataset):
    check(model, expected, [Encode(processor, "pt").batch({name: dataset[name] for name in dataset.column_names})])


# -------------------------------------------------------------------------------------------------------------- orders
ORDERS = {
    "shuffle": lambda dataset: [dataset.shuffle(seed=3)],
    "select": lambda dataset: [dataset.select([5, 0, 3])],
    "select of one picture": lambda dataset: [dataset.select([2, 2, 2])],
    "filter": lambda dataset: [dataset.filter(lambda row: row["index"] % 2 == 1)],
    "sort": lambda dataset: [dataset.sort("expression", reverse=True)],
    "skip and take": lambda dataset: [dataset.skip(2), dataset.take(2)],
    "train_test_split": lambda dataset: list(dataset.train_test_split(test_size=3, seed=0).values()),
    "shard": lambda dataset: [dataset.shard(2, 0), dataset.shard(2, 1)],
    "concatenate": lambda dataset: [datasets.concatenate_datasets([dataset.select([4, 1]), dataset.select([6])])],
    "interleave": lambda dataset: [datasets.interleave_datasets([dataset.select([4, 1]), dataset.select([6, 0])])],
    "repeat": lambda dataset: [dataset.select([1, 0]).repeat(2)],
}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", ORDERS)
def test_rows_in_another_order_keep_their_pictures(model, processor, expected, dataset, name, when):
    encode = Encode(processor)
    if when == "after":
        dataset = dataset.map(encode.batch, batched=True, batch_size=2)
    for part in ORDERS[name](dataset):
        indices = list(part["index"])
        if when == "before":
            part = part.map(encode.batch, batched=True, batch_size=2)
        check(model, expected, load(part.remove_columns(["image", "expression", "mask"])), indices)


# ------------------------------------------------------------------------------------------------------------- loaders
@pytest.mark.parametrize("kind", [None, "torch"])
def test_workers_over_mapped_rows_give_each_row_its_picture(model, processor, expected, dataset, kind):
    mapped = dataset.map(Encode(processor).row, remove_columns=["image", "expression", "mask"]).with_format(kind)
    check(model, expected, load(mapped, num_workers=2))


class Pairs(torch.utils.data.Dataset):
    """PyTorch's own way: the processor in `__getitem__`."""

    def __init__(self, processor):
        self.encode = Encode(processor, "pt")

    def __len__(self):
        return len(ROWS)

    def __getitem__(self, index):
        return self.encode.row({"index": index, **ROWS[index]})


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("collate", [default_data_collator, default_collate, None])
def test_the_processor_in_getitem_gives_each_row_its_picture(model, processor, expected, collate, num_workers):
    check(model, expected, load(Pairs(processor), collate=collate, num_workers=num_workers))


def test_the_processor_in_the_collator_gives_each_row_its_picture(model, processor, expected, dataset):
    encode = Encode(processor, "pt")

    def collate(rows):
        return encode.batch({name: [row[name] for row in rows] for name in rows[0]})

    check(model, expected, load(dataset, collate=collate))
    check(model, expected, load([{"index": index, **row} for index, row in enumerate(ROWS)], collate=collate))


def test_a_shuffling_loader_keeps_pictures(model, processor, expected):
    generator = torch.Generator().manual_seed(1)
    batches = list(load(Pairs(processor), shuffle=True, generator=generator))
    order = np.concatenate([batch["index"] for batch in batches]).tolist()
    assert sorted(order) == list(range(len(ROWS))) != order
    check(model, expected, batches, order)


def test_several_expressions_of_a_picture_are_expanded_into_rows_by_a_map(model, processor, expected):
    dataset = make_dataset([0, 1, 2])
    lists = [["cat", "dog"], ["dog cat"], ["cat cat", "dog dog", "cat"]]
    dataset = dataset.remove_columns("expression").add_column("expressions", lists)

    def expand(batch):
        numbers = [len(group) for group in batch["expressions"]]
        repeated = {
            name: [value for value, number in zip(batch[name], numbers) for _ in range(number)]
            for name in ("index", "image", "mask")
        }
        return {**repeated, "expression": [entry for group in batch["expressions"] for entry in group]}

    expanded = dataset.map(expand, batched=True, remove_columns=["expressions"])
    rows = [{**ROWS[index], "expression": entry} for index, group in enumerate(lists) for entry in group]
    logits, losses = logits_one_by_one(model, processor, rows), losses_one_by_one(model, processor, rows)
    expanded = expanded.remove_columns("index").add_column("index", list(range(len(rows))))
    check(model, (logits, losses), load(expanded.with_transform(Encode(processor, "pt").batch), 4), range(len(rows)))
