# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The processor: tokens of fixed length, which expression goes with which picture, refusals, saving."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer, PreTrainedConfig
from transformers.image_utils import IMAGENET_DEFAULT_STD
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING
from transformers.utils import is_torchvision_available

from remamber_hf import processing_remamber
from remamber_hf.image_processing_remamber import ReMamberImageProcessor, ReMamberImageProcessorPil
from remamber_hf.processing_remamber import ReMamberProcessor


END = "<|endoftext|>"


class StandInConfig(PreTrainedConfig):
    model_type = "remamber_stand_in"


@pytest.fixture
def auto_image_processor(monkeypatch):
    """Loading a processor goes through AutoImageProcessor, which must know the class."""
    classes = {"torchvision": ReMamberImageProcessor, "pil": ReMamberImageProcessorPil}
    monkeypatch.setitem(IMAGE_PROCESSOR_MAPPING._extra_content, StandInConfig, classes)


def make_tokenizer(**kwargs):
    alphabet = sorted(ByteLevel.alphabet())
    merges = [("c", "a"), ("ca", "t</w>"), ("d", "o"), ("do", "g</w>")]
    tokens = alphabet + [letter + "</w>" for letter in alphabet] + ["".join(merge) for merge in merges]
    tokens += ["<|startoftext|>", END]
    vocab = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77, **kwargs)


@pytest.fixture
def processor():
    return ReMamberProcessor(ReMamberImageProcessorPil(size={"height": 16, "width": 16}), make_tokenizer())


def pictures(count, height=20, width=30):
    values = np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    return [Image.fromarray(value) for value in values]


def tokens(processor, input_ids):
    return processor.tokenizer.convert_ids_to_tokens(input_ids)


# --------------------------------------------------------------------------------------------------------------- text
def test_short_expressions_are_padded_with_the_end_token(processor):
    features = processor(text="The  CAT dog", return_tensors="pt")
    expected = ["<|startoftext|>", "t", "h", "e</w>", "cat</w>", "dog</w>"] + [END] * 14
    assert features["input_ids"].shape == (1, 20) and features["input_ids"].dtype == torch.int64
    assert tokens(processor, features["input_ids"][0]) == expected
    assert features["attention_mask"].tolist() == [[1] * 7 + [0] * 13]


def test_long_expressions_are_cut_and_still_end_with_the_end_token(processor):
    features = processor(text="cat " * 50, return_tensors="pt")
    assert tokens(processor, features["input_ids"][0]) == ["<|startoftext|>"] + ["cat</w>"] * 18 + [END]
    assert features["attention_mask"].tolist() == [[1] * 20]


def test_text_length_is_what_the_processor_was_built_with():
    processor = ReMamberProcessor(ReMamberImageProcessorPil(), make_tokenizer(), text_length=7)
    for text in ("cat", "cat " * 50):
        assert len(processor(text=text)["input_ids"][0]) == 7


def test_text_alone_gives_only_tokens(processor):
    features = processor(text=[["cat", "dog"], ["dog"]], return_tensors="pt")
    assert set(features) == {"input_ids", "attention_mask"}
    assert [tokens(processor, ids)[1] for ids in features["input_ids"]] == ["cat</w>", "dog</w>", "dog</w>"]


def spelled(*words: str) -> list[str]:
    """The tokens of words of which the tokenizer knows only bytes."""
    names = ByteLevel(add_prefix_space=False, use_regex=False)
    spelled_words = [names.pre_tokenize_str(word)[0][0] for word in words]
    return [token for word in spelled_words for token in (*word[:-1], f"{word[-1]}</w>")]


# What was written → its words as the model gets them, by the rules of CLIP's tokenizer.
ODD_TEXT = {
    "emoji": ("🐶 x", ["🐶", "x"]),
    "accent": ("é", ["é"]),
    "accent beside its letter": ("e\u0301", ["é"]),
    "capital with accent": ("\u00c9", ["é"]),
    "non-breaking blank": ("x\u00a0y", ["x", "y"]),
    "zero-width blank": ("x\u200by", ["x", "\u200b", "y"]),
    "byte order mark": ("\ufeffx", ["\ufeff", "x"]),
    "mark of direction": ("\u202ex", ["\u202e", "x"]),
    "right to left": ("שלום", ["שלום"]),
    "chinese": ("左边的", ["左边的"]),
    "quotes": ('"x" ‘y’', ['"', "x", '"', "‘", "y", "’"]),
    "backslash": ("x\\n", ["x", "\\", "n"]),
    "control characters": ("x\x01\x7fy", ["x", "\x01\x7f", "y"]),
    "tab and line ends": ("x\ty\r\nz\u2028w", ["x", "y", "z", "w"]),
    "NUL": ("x\0y", ["x", "\0", "y"]),
    "punctuation alone": ("?!...", ["?!..."]),
    "numbers": ("2nd 15%", ["2", "nd", "1", "5", "%"]),
    "upper case": ("X SS", ["x", "ss"]),
    "a special token in capitals": ("<|X|>", ["<|", "x", "|>"]),
    "what marks the end of a word": ("x</w>", ["x", "</", "w", ">"]),
    "numpy's str": (np.str_("x"), ["x"]),
}


@pytest.mark.parametrize(("text", "words"), ODD_TEXT.values(), ids=ODD_TEXT)
def test_text_of_every_kind_gives_its_words(processor, text, words):
    features = processor(text=["cat", text])
    expected = ["<|startoftext|>", *spelled(*words), END]
    assert tokens(processor, features["input_ids"][1]) == expected + [END] * (20 - len(expected))
    assert features["attention_mask"][1] == [1] * len(expected) + [0] * (20 - len(expected))
    assert processor(text=text)["input_ids"] == features["input_ids"][1:]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (END, "Expression 1, '<|endoftext|>', has the end token 2 times"),
        (f"cat {END} dog", "has the end token 2 times"),
        ("<|startoftext|>cat", "has the start token inside"),
        ("a\ud800", "has half of a letter"),
        ("\u00a0\u2003\x1c", "give a str that says which object is meant"),
        (b"cat", "Expression 1 is b'cat'; give a str"),
        (np.bytes_(b"cat"), "give a str that says which object is meant"),
    ],
)
def test_what_is_no_text_is_one_clear_line(processor, text, message):
    with pytest.raises(ValueError, match=re.escape(message)) as refusal:
        processor(text=["cat", text])
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 400


# ------------------------------------------------------------------------------------------------ what is said of cuts
@pytest.fixture
def said(monkeypatch):
    """What is said of expressions that are cut, in a process of which nobody has said anything."""
    lines = []
    monkeypatch.setattr(processing_remamber, "SAID_CUT", set())
    monkeypatch.setattr(processing_remamber.logger, "warning", lines.append)
    return lines


def test_that_expressions_are_cut_is_said_once_by_any_number_of_processors(said):
    for count in (30, 40, 10_000):
        processor = ReMamberProcessor(ReMamberImageProcessorPil(), make_tokenizer())
        assert len(processor(text=["dog", "cat " * count])["input_ids"][1]) == 20
    (line,) = said
    assert line.startswith("An expression has 32 tokens, and 20 are read: 'cat cat") and len(line) < 400


def test_of_expressions_that_fit_nothing_is_said(processor, said):
    processor(text=["dog", "cat " * 18])
    assert said == [] and processor.describe_cut(["dog", "cat " * 18]) is None
    assert processor.describe_cut([]) is None


def test_who_counts_the_cut_ones_says_it_and_nobody_else(processor, said):
    expressions = ["dog", "cat " * 19, "cat " * 1_234, "cat " * 18] * 2000  # more than are counted at once
    line = processor.describe_cut(expressions)
    assert line.startswith(
        "4,000 of 8,000 expressions are cut, of which the model reads 20 tokens; the longest has 1,236"
    )
    processor(text=expressions[:3])
    assert said == []


def test_what_is_no_text_is_refused_before_it_is_counted(processor):
    with pytest.raises(ValueError, match="Expression 1, 'a.ud800', has half of a letter"):
        processor.describe_cut(["cat", "a\ud800"])


# ------------------------------------------------------------------------------------------------------------ pairing
@pytest.mark.parametrize(
    ("num_images", "text", "words", "image_index"),
    [
        (1, "cat", ["cat"], None),
        (1, ["cat", "dog", "cat"], ["cat", "dog", "cat"], [0, 0, 0]),
        (1, [["cat", "dog"]], ["cat", "dog"], [0, 0]),
        (3, "cat", ["cat", "cat", "cat"], None),
        (3, ["cat"], ["cat", "cat", "cat"], None),
        (2, ["cat", "dog"], ["cat", "dog"], None),
        (2, ("cat", "dog"), ["cat", "dog"], None),
        (2, [["cat", "dog"], ["dog"]], ["cat", "dog", "dog"], [0, 0, 1]),
        (2, [["cat"], ["dog"]], ["cat", "dog"], None),
    ],
)
def test_expressions_find_their_pictures(processor, num_images, text, words, image_index):
    features = processor(images=pictures(num_images), text=text, return_tensors="pt")
    assert features["pixel_values"].shape == (num_images, 3, 16, 16)
    assert [tokens(processor, ids)[1] for ids in features["input_ids"]] == [word + "</w>" for word in words]
    assert features["attention_mask"].shape == features["input_ids"].shape
    names = set(processor.model_input_names)
    if image_index is None:  # nothing that is relative to the call
        assert set(features) == names
    else:
        assert set(features) == {*names, "image_index", "num_images"}
        assert features["num_images"].tolist() == [num_images] * len(words)
        assert features["image_index"].dtype == torch.int64
        assert features["image_index"].tolist() == image_index


@pytest.mark.parametrize(
    "images",
    [
        pictures(1)[0],
        pictures(1),
        np.asarray(pictures(1)[0]),
        torch.from_numpy(np.stack(pictures(1))).permute(0, 3, 1, 2),
    ],
    ids=["picture", "list", "array", "batch"],
)
def test_pictures_of_every_container_are_the_same(processor, images):
    expected = processor(images=pictures(1), text="cat", return_tensors="pt")
    features = processor(images=images, text="cat", return_tensors="pt")
    assert all(torch.equal(features[name], expected[name]) for name in expected)


def test_pictures_alone_give_only_pixel_values(processor):
    assert set(processor(images=pictures(2), return_tensors="pt")) == {"pixel_values"}


@pytest.mark.parametrize(("return_tensors", "kind"), [(None, list), ("np", np.ndarray), ("pt", torch.Tensor)])
def test_return_tensors_chooses_the_container(processor, return_tensors, kind):
    maps = [np.ones((20, 30), dtype=bool)] * 2
    features = processor(pictures(1), ["cat", "dog"], maps, return_tensors=return_tensors)
    assert all(type(value) is kind for value in features.values())
    assert np.asarray(features["image_index"]).dtype == np.int64


def test_return_tensors_may_come_for_the_images_only(processor):
    features = processor(pictures(1), "cat", images_kwargs={"return_tensors": "pt"})
    assert all(type(value) is torch.Tensor for value in features.values())


def test_labels_follow_the_expressions(processor):
    images = pictures(1, 20, 30) + pictures(1, 16, 16)
    maps = [np.zeros((20, 30)), np.ones((20, 30)), np.eye(16)]
    features = processor(images, [["cat", "dog"], ["dog"]], maps, return_tensors="pt")
    assert features["labels"].shape == (3, 16, 16) and features["labels"].dtype == torch.uint8
    assert features["labels"].flatten(1).sum(1).tolist() == [0, 256, 16]


def test_labels_without_text_follow_the_pictures(processor):
    features = processor(pictures(2), segmentation_maps=[np.zeros((20, 30)), np.ones((20, 30))], return_tensors="pt")
    assert set(features) == {"pixel_values", "labels"}
    assert features["labels"].flatten(1).sum(1).tolist() == [0, 256]


# ----------------------------------------------------------------------------------------------------------- refusals
MAP = np.ones((20, 30), dtype=bool)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "Neither images nor text came"),
        ({"images": pictures(3), "text": ["cat", "dog"]}, "3 images came with 2 expressions"),
        ({"images": pictures(2), "text": ["cat"] * 3}, "2 images came with 3 expressions"),
        ({"images": pictures(3), "text": [["cat"], ["dog"]]}, "3 images came with 2 lists of expressions"),
        ({"images": pictures(3), "text": [["cat", "dog", "cat"]]}, "3 images came with 1 lists of expressions"),
        ({"images": pictures(2), "text": [["cat"], []]}, r"text\[1\] has 0 expressions"),
        ({"images": pictures(2), "text": [["cat"], "dog"]}, "text mixes 1 lists with 1 expressions"),
        ({"images": [], "text": "cat"}, "images is empty"),
        ({"images": pictures(1), "text": []}, "text has 0 expressions"),
        ({"text": ["cat", ""]}, "Expression 1 is ''; give a str"),
        ({"text": [["cat"], ["dog", " \t\n"]]}, r"Expression 2 is ' \\t\\n'; give a str"),
        ({"text": ["cat", 3]}, "Expression 1 is 3; give a str"),
        ({"text": 3}, "Expression 0 is 3; give a str"),
        ({"text": "cat", "segmentation_maps": MAP}, "segmentation_maps came without images"),
        (
            {"images": pictures(1), "text": ["cat", "dog"], "segmentation_maps": [MAP]},
            "1 segmentation maps came with 2 expressions",
        ),
        (
            {"images": pictures(2), "text": "cat", "segmentation_maps": [MAP, MAP.T]},
            r"map 1 is \(30, 20\), its image 1 is \(20, 30\)",
        ),
    ],
)
def test_what_does_not_match_is_refused(processor, arguments, message):
    with pytest.raises(ValueError, match=message):
        processor(**arguments)


def test_a_tokenizer_with_another_padding_is_refused():
    with pytest.raises(ValueError, match="The tokenizer pads with '!'"):
        ReMamberProcessor(ReMamberImageProcessorPil(), make_tokenizer(pad_token="!"))


def test_a_text_length_without_room_for_a_word_is_refused():
    with pytest.raises(ValueError, match="text_length is 2"):
        ReMamberProcessor(ReMamberImageProcessorPil(), make_tokenizer(), text_length=2)


# --------------------------------------------------------------------------------------------------- masks and saving
def test_masks_come_back_at_original_size(processor):
    class Outputs:
        logits = torch.tensor([[[[-1.0, 1.0], [1.0, -1.0]]], [[[3.0, 3.0], [3.0, -3.0]]]])

    options = {"target_sizes": [(4, 6), (2, 2)], "interpolation": "nearest"}
    masks = processor.post_process_referring_segmentation(Outputs, **options)
    probabilities = processor.post_process_probabilities(Outputs, **options)
    assert torch.equal(masks[0], torch.tensor([[False] * 3 + [True] * 3] * 2 + [[True] * 3 + [False] * 3] * 2))
    torch.testing.assert_close(probabilities[1], Outputs.logits[1, 0].sigmoid())


def without_auto_map(fields: dict) -> dict:
    """The fields but what saving notes on an object for the Hub, at any depth."""
    return {
        name: without_auto_map(value) if isinstance(value, dict) else value
        for name, value in fields.items()
        if name != "auto_map"
    }


def test_a_saved_processor_does_the_same_after_loading(processor, auto_image_processor, tmp_path):
    processor = ReMamberProcessor(processor.image_processor, processor.tokenizer, text_length=9)
    expected = processor(pictures(2), ["cat", "dog " * 30], return_tensors="pt")
    processor.save_pretrained(tmp_path)
    reloaded = ReMamberProcessor.from_pretrained(tmp_path)
    assert reloaded.text_length == 9
    assert without_auto_map(reloaded.to_dict()) == without_auto_map(processor.to_dict())
    features = reloaded(pictures(2), ["cat", "dog " * 30], return_tensors="pt")
    # Where torchvision is installed its twin is loaded, which differs by a grey level.
    grey_level = 1.01 / 255 / min(IMAGENET_DEFAULT_STD) if is_torchvision_available() else 0
    for name in expected:
        tolerance = grey_level if name == "pixel_values" else 0
        torch.testing.assert_close(features[name], expected[name], atol=tolerance, rtol=0)


def test_the_length_of_the_last_call_is_not_saved(processor, auto_image_processor, tmp_path):
    processor(text="cat", max_length=50)
    processor.save_pretrained(tmp_path)
    assert len(ReMamberProcessor.from_pretrained(tmp_path)(text="cat")["input_ids"][0]) == 20


def test_a_processor_loads_where_the_package_is_not_installed(processor, monkeypatch, tmp_path):
    monkeypatch.setattr(ReMamberProcessor, "_auto_class", "AutoProcessor")
    monkeypatch.setattr(ReMamberImageProcessorPil, "_auto_class", "AutoImageProcessor")
    processor.save_pretrained(tmp_path / "hub")
    code = """
import sys
sys.modules["remamber_hf"] = None
from transformers import AutoProcessor
processor = AutoProcessor.from_pretrained("hub", trust_remote_code=True)
assert type(processor).__module__.startswith("transformers_modules."), type(processor)
assert type(processor.image_processor).__name__ == "ReMamberImageProcessorPil", processor.image_processor
print(processor(text="cat")["input_ids"])
"""
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str(processor(text="cat")["input_ids"])
