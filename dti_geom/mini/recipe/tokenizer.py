"""A CLIP tokenizer for the words of this small world.

The alphabet is the letters and the hyphen, so the table is small and training uses nearly every
row. Whole words occur all the time; letters and pieces of words occur through BPE dropout in a
small share of the captions.
"""

import json
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

MAX_TOKENS = 24
WORD_END = "</w>"
START, END = "<|startoftext|>", "<|endoftext|>"
MARKS = "-"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
DROPOUT = 0.15  # chance that a possible merge is left out, in a caption that is split into pieces


def train_tokenizer(captions: Iterable[str], folder: Path) -> CLIPTokenizer:
    """Learn merges until every word of the captions is one token; save to `folder`."""
    learner = Tokenizer(models.BPE(end_of_word_suffix=WORD_END))
    learner.normalizer = normalizers.Lowercase()
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation(behavior="isolated")]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=10_000, min_frequency=2, end_of_word_suffix=WORD_END, show_progress=False
    )
    learner.train_from_iterator(captions, trainer)
    merges = [tuple(merge) for merge in json.loads(learner.to_str())["model"]["merges"]]
    return _assemble(merges, folder)


def _assemble(merges: list[tuple[str, str]], folder: Path) -> CLIPTokenizer:
    letters = list(MARKS + LETTERS)
    words = (
        letters
        + [letter + WORD_END for letter in letters]
        + ["".join(merge) for merge in merges]
        + [START, END]
    )
    vocabulary = {word: row for row, word in enumerate(dict.fromkeys(words))}
    tokenizer = CLIPTokenizer(
        vocab=vocabulary, merges=cast(Any, merges), model_max_length=MAX_TOKENS
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def load_tokenizer(folder: Path) -> CLIPTokenizer:
    """Read what `train_tokenizer` saved."""
    tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(folder)
    return tokenizer


def encode_captions(tokenizer: CLIPTokenizer, captions: list[str]) -> list[list[int]]:
    """Return MAX_TOKENS token ids per caption, padded with the end token."""
    encoded = tokenizer(captions, padding="max_length", truncation=True, max_length=MAX_TOKENS)
    ids: list[list[int]] = encoded["input_ids"]
    return ids


def encode_in_pieces(
    tokenizer: CLIPTokenizer, captions: list[str], rng: np.random.Generator
) -> list[list[int]]:
    """Return token ids as `encode_captions`, with words split into pieces at random.

    BPE dropout (Provilkov et al. 2020). A caption that would exceed MAX_TOKENS keeps whole words.
    """
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    ranks = {tuple(merge): rank for rank, merge in enumerate(merges)}
    rows = tokenizer.get_vocab()
    room = MAX_TOKENS - 2  # beside the start and the end token
    encoded = []
    for caption, whole in zip(captions, encode_captions(tokenizer, captions), strict=True):
        words = caption.lower().replace("-", " - ").split()
        ids: list[int] = []
        for word in words:
            ids += [rows[piece] for piece in _pieces(word, ranks, rng)]
        padding = [rows[END]] * (room + 1 - len(ids))
        encoded.append([rows[START], *ids, *padding] if len(ids) <= room else whole)
    return encoded


def _pieces(word: str, ranks: dict[tuple[str, ...], int], rng: np.random.Generator) -> list[str]:
    """Merge the letters of a word in order of rank, each time leaving out random merges."""
    pieces = [*word[:-1], word[-1] + WORD_END]
    while True:
        pairs = [
            (ranks[pair], place)
            for place, pair in enumerate(pairwise(pieces))
            if pair in ranks and rng.random() >= DROPOUT
        ]
        if not pairs:
            return pieces
        _, place = min(pairs)
        pieces[place : place + 2] = [pieces[place] + pieces[place + 1]]
