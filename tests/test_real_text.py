# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Expressions as people wrote them, 65,760 of five data sets, with CLIP's own vocabulary, beside a BPE by hand."""

import gzip
import unicodedata
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import regex
from PIL import Image
from transformers import CLIPTokenizer

from remamber_hf import ReMamberImageProcessorPil, ReMamberProcessor
from remamber_hf.data.statistics import find_words, measure_text
from remamber_hf.processing_remamber import count_tokens, encode


REAL = Path(__file__).parents[2] / "shared" / "real"
VOCABULARY = REAL / "bpe_simple_vocab_16e6.txt.gz"
# File → how many of its lines are of more than 20 tokens.
NUM_CUT = {
    "refclef_referit_train.txt": 76,
    "refclef_referit_val.txt": 6,
    "refcoco_unc_testA_fragment.txt": 0,
    "refcocog_umd_fragment_raw.txt": 2,
    "refer_youtube_vos_validtest.txt": 74,
    "talk2car_val_test.txt": 409,
}
pytestmark = pytest.mark.skipif(not REAL.is_dir(), reason=f"the expressions are not there: {REAL}")


class BytePairs:
    """CLIP's tokenizer as its paper has it, by hand: of two neighbours, the pair that was learnt first is joined."""

    # Of openai/CLIP, simple_tokenizer.py.
    PIECES = regex.compile(r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+""")

    def __init__(self, path: Path):
        lines = gzip.open(path, "rt", encoding="utf-8").read().split("\n")
        self.merges = [tuple(line.split()) for line in lines[1 : 49152 - 256 - 2 + 1]]
        self.ranks = {pair: rank for rank, pair in enumerate(self.merges)}
        shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
        hidden = [byte for byte in range(256) if byte not in shown]
        self.letters = {byte: chr(byte) for byte in shown} | {byte: chr(256 + n) for n, byte in enumerate(hidden)}
        alphabet = list(self.letters.values())
        tokens = alphabet + [letter + "</w>" for letter in alphabet] + ["".join(pair) for pair in self.merges]
        self.ids = {token: number for number, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
        self.ids_of_piece = cache(self.ids_of_piece)

    def ids_of(self, text: str) -> list[int]:
        pieces = self.PIECES.findall(unicodedata.normalize("NFC", text).lower())
        middle = [number for piece in pieces for number in self.ids_of_piece(piece)]
        return [self.ids["<|startoftext|>"], *middle, self.ids["<|endoftext|>"]]

    def ids_of_piece(self, piece: str) -> list[int]:
        parts = [self.letters[byte] for byte in piece.encode()]
        parts[-1] += "</w>"
        while len(parts) > 1:
            first = min(zip(parts, parts[1:]), key=lambda pair: self.ranks.get(pair, np.inf))
            if first not in self.ranks:
                break
            joined, place = [], 0
            while place < len(parts):
                is_pair = tuple(parts[place : place + 2]) == first
                joined.append("".join(first) if is_pair else parts[place])
                place += 1 + is_pair
            parts = joined
        return [self.ids[part] for part in parts]


@pytest.fixture(scope="module")
def by_hand() -> BytePairs:
    return BytePairs(VOCABULARY)


@pytest.fixture(scope="module")
def tokenizer(by_hand) -> CLIPTokenizer:
    return CLIPTokenizer(vocab=by_hand.ids, merges=by_hand.merges, model_max_length=77)


@pytest.fixture(scope="module")
def processor(tokenizer) -> ReMamberProcessor:
    return ReMamberProcessor(ReMamberImageProcessorPil(size={"height": 32, "width": 32}), tokenizer)


def read(name: str) -> list[str]:
    lines = (REAL / "expressions" / name).read_text(encoding="utf-8").split("\n")
    return [line for line in lines if line.strip()]


def test_the_vocabulary_is_that_of_clip(by_hand, tokenizer):
    assert len(tokenizer) == 49408 and tokenizer.bos_token_id == 49406 and tokenizer.eos_token_id == 49407
    # As the documentation of openai/clip-vit-base-patch32 has them.
    assert by_hand.ids_of("a photo of a cat") == [49406, 320, 1125, 539, 320, 2368, 49407]


@pytest.mark.parametrize("name", NUM_CUT)
def test_tokens_are_those_of_byte_pairs_by_hand(name, by_hand, processor):
    expressions = read(name)
    expected = [by_hand.ids_of(text) for text in expressions]
    assert [ids for ids, _ in encode(processor.tokenizer, expressions)] == expected
    batch = processor(text=expressions, return_tensors="np")
    end = by_hand.ids["<|endoftext|>"]
    for ids, mask, whole in zip(batch["input_ids"].tolist(), batch["attention_mask"].tolist(), expected):
        kept = whole if len(whole) <= 20 else [*whole[:19], end]
        assert ids == kept + [end] * (20 - len(kept))
        assert mask == [1] * len(kept) + [0] * (20 - len(kept))
    assert sum(len(whole) > 20 for whole in expected) == NUM_CUT[name]


@pytest.mark.parametrize("name", NUM_CUT)
def test_the_cut_ones_are_counted_in_one_line(name, processor):
    expressions = read(name)
    line = processor.describe_cut(expressions)
    assert (line is None) == (NUM_CUT[name] == 0)
    assert line is None or line.startswith(f"{NUM_CUT[name]} of {len(expressions):,} expressions are cut")


def test_a_batch_is_what_its_expressions_are_one_by_one_with_their_pictures(processor):
    expressions = [text for name in NUM_CUT for text in read(name)[:40]]
    pictures = [Image.new("RGB", (40 + number, 30), (number, 0, 0)) for number in range(0, len(expressions), 4)]
    lists = [expressions[start : start + 4] for start in range(0, len(expressions), 4)]
    batch = processor(pictures, lists, return_tensors="np")
    for number, text in enumerate(expressions):
        alone = processor(pictures[number // 4], text, return_tensors="np")
        assert (batch["input_ids"][number] == alone["input_ids"][0]).all()
        assert (batch["attention_mask"][number] == alone["attention_mask"][0]).all()
        assert batch["image_index"][number] == number // 4
        assert (batch["pixel_values"][batch["image_index"][number]] == alone["pixel_values"][0]).all()


def test_statistics_are_those_of_another_count(by_hand, tokenizer):
    expressions = [text for name in NUM_CUT for text in read(name)]
    found = measure_text(expressions, lambda texts: count_tokens(tokenizer, texts), text_length=20)
    lengths = [len(by_hand.ids_of(text)) for text in expressions]
    assert (found.num_sentences, found.num_cut) == (len(expressions), sum(NUM_CUT.values()))
    assert (found.tokens.min, found.tokens.max) == (min(lengths), max(lengths))
    assert found.tokens.mean == pytest.approx(sum(lengths) / len(lengths))
    words = [regex.findall(r"[\p{L}\p{N}\p{M}]+(?:['’][\p{L}\p{N}\p{M}]+)*", text.lower()) for text in expressions]
    assert [[word.replace("’", "'") for word in each] for each in words] == list(map(find_words, expressions))
    vocabulary = Counter(word.replace("’", "'") for each in words for word in each)
    assert found.num_words == vocabulary.total() and found.num_different == len(vocabulary)
    assert found.num_once == list(vocabulary.values()).count(1)
    assert dict(vocabulary.most_common(5)).items() <= found.frequent.items()
    whole = {word for word in vocabulary if f"{word}</w>" in by_hand.ids and len(by_hand.ids_of(word)) == 3}
    assert found.num_whole_different == len(whole) > 3000
    has_left = sum(bool({"left", "leftmost", "lefthand"} & set(each)) for each in words)
    assert found.places["left"] == has_left > 10_000
