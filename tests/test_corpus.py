"""Corpora against slow references: which positions count, where documents are cut, what a hostile
file does."""
import json
import random

import numpy as np
import pytest
import scipy.sparse
import torch
from safetensors.torch import save_file

from feature_interaction_graph.engine.corpus import (
    SHORTEST_CHUNK, Corpus, SpecialTokens, TokenLabels, as_corpus, corpus_from_text, read_text,
    read_tokens
)
from feature_interaction_graph.engine.errors import InputError

class LetterTokenizer:
    "One token per character."
    bos_token_id = 0

    def __call__(self, text: str, **_: object) -> "LetterTokenizer":
        self.input_ids = [ord(letter) for letter in text]
        return self


def reference_chunks(documents: list[str], context_length: int, bos: bool) -> list[str]:
    chunks, size = [], context_length - bos
    for document in documents:
        while len(document) >= SHORTEST_CHUNK:
            chunks.append(document[:size])
            document = document[size:]
    return chunks


@pytest.mark.parametrize("seed", range(30))
def test_chunks_and_mask_against_a_slow_reference(seed):
    rng = random.Random(seed)
    documents = [
        "".join(rng.choices("abcdefgh", k=rng.randrange(0, 90))) for _ in range(12)
    ] + ["abcdefgh"]
    context_length, bos = rng.randrange(9, 40), rng.random() < 0.5
    corpus = corpus_from_text(documents, LetterTokenizer(), context_length, bos=bos)
    expected = reference_chunks(documents, context_length, bos)
    assert len(corpus) == len(expected) and corpus.n_tokens == sum(map(len, expected))
    mask = corpus.sample_mask()
    for row, allowed, chunk in zip(corpus.tokens, mask, expected, strict=True):
        assert "".join(chr(token) for token in row[allowed]) == chunk
    assert int(mask.sum()) == corpus.n_tokens and corpus.starts_with_bos == bos


@pytest.mark.parametrize("wanted", [1, 20, 33, 50])
def test_no_document_is_read_that_is_not_needed(wanted):
    read = []
    def documents():
        for number in range(100):
            read.append(number)
            yield "x" * 10
    corpus = corpus_from_text(documents(), LetterTokenizer(), 11, bos=True, max_tokens=wanted)
    assert wanted <= corpus.n_tokens < wanted + 10 and len(read) == -(-wanted // 10)


def test_labels_follow_their_tokens():
    rng = np.random.default_rng(0)
    tokens = torch.from_numpy(rng.integers(5, 90, (7, 11)))
    dense = rng.random((77, 4)) < 0.3
    corpus = Corpus(tokens, torch.full((7,), 11), False,
                    labels=TokenLabels(list("abcd"), scipy.sparse.csr_matrix(dense)))
    order = [6, 0, 3, 3]
    taken = corpus.take(order)
    assert torch.equal(taken.tokens, tokens[order]) and (
        taken.labels.matrix.toarray().reshape(4, 11, 4) == dense.reshape(7, 11, 4)[order]
    ).all()


def test_bos_on_all_some_or_none():
    packed = as_corpus([[7, 1], [1, 7]], bos_id=7)
    assert packed.sample_mask().tolist() == [[False, True], [True, False]]
    assert not packed.starts_with_bos and packed.text_mask().sum() == 3
    assert as_corpus([[7, 1], [7, 2]], bos_id=7).n_tokens == 2
    assert as_corpus([[7, 1], [7, 2]]).n_tokens == 4
    for empty in ([[7], [7]], [[7], [7, 7]]):
        with pytest.raises(InputError, match="no position"): as_corpus(empty, bos_id=7)


@pytest.mark.parametrize("seed", range(20))
def test_padding_is_found_on_either_side(seed):
    "Against the rows that were filled up, whatever the pad token is."
    rng = random.Random(seed)
    bos, eos = 1, 2
    pad = rng.choice([0, bos, eos])
    special = SpecialTokens(bos, eos, pad, (bos, eos, pad))
    begin = rng.choice([[bos], []])
    rows = [begin + rng.choices(range(3, 30), k=rng.randrange(1, 9)) for _ in range(6)]
    rows += [begin + [5] * 10, begin + [6]]
    width = max(map(len, rows))
    left = rng.random() < 0.5
    filled = torch.tensor([[pad] * (width - len(row)) + row if left
                           else row + [pad] * (width - len(row)) for row in rows])
    made = as_corpus(filled, special=special)
    assert [row[:length].tolist() for row, length in zip(made.tokens, made.lengths, strict=True)
            ] == rows
    assert made.starts_with_bos == bool(begin)


@pytest.mark.parametrize("lengths", [[0, 2], [2, 4], [2], [2, -1], [1.5, 2.0]])
def test_lengths_that_cannot_be(lengths):
    words = "whole numbers are needed" if 1.5 in lengths else "one number per sequence from 1 to 3"
    with pytest.raises(InputError, match=words):
        as_corpus(torch.ones(2, 3, dtype=torch.int64), lengths=lengths)


def test_damaged_files_give_one_sentence(tmp_path):
    whole = tmp_path / "whole.safetensors"
    save_file({"tokens": torch.arange(20).reshape(2, 10), "lengths": torch.tensor([10, 8])}, whole)
    assert read_tokens(whole).n_tokens == 18
    rng = random.Random(0)
    content = whole.read_bytes()
    for trial in range(200):
        broken = bytearray(content)
        for _ in range(rng.randrange(1, 4)): broken[rng.randrange(len(broken))] = rng.randrange(256)
        path = tmp_path / "broken.safetensors"
        path.write_bytes(broken[:rng.randrange(len(broken))] if trial % 3 == 0 else broken)
        try: read_tokens(path)
        except InputError as refusal: assert "\n" not in str(refusal)


@pytest.mark.parametrize(
    "array, words", [(np.ones((2, 3)), "holds float64"), (np.array(["a", "b"]), "holds <U1"),
                     (np.ones((2, 3, 4), dtype=int), r"shape \(2, 3, 4\)"),
                     (np.arange(4), r"shape \(4,\)"), (np.ones((0, 3), dtype=int), "no sequence")]
)
def test_arrays_that_are_no_tokens(tmp_path, array, words):
    np.save(tmp_path / "t.npy", array)
    with pytest.raises(InputError, match=words): read_tokens(tmp_path / "t.npy")


def test_pickles_are_never_opened(tmp_path):
    marker = tmp_path / "ran"
    class Bomb:
        def __reduce__(self): return (open, (str(marker), "w"))
    np.save(tmp_path / "t.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="Python objects, which are never unpickled"):
        read_tokens(tmp_path / "t.npy")
    assert not marker.exists()


def test_text_files(tmp_path):
    (tmp_path / "bom.txt").write_bytes("\ufeffEin Wort.".encode())
    assert read_text(tmp_path / "bom.txt") == ["Ein Wort."]
    (tmp_path / "u.jsonl").write_text(
        json.dumps({"text": "line\u2028separator"}, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    # only \n ends a JSON line
    assert read_text(tmp_path / "u.jsonl") == ["line\u2028separator"]
    (tmp_path / "bad.txt").write_bytes(b"good \xff bad")
    with pytest.raises(InputError, match="in UTF-8 .byte 5"): read_text(tmp_path / "bad.txt")
    (tmp_path / "deep.jsonl").write_text("[" * 100_000)
    with pytest.raises(InputError, match="line 1"): read_text(tmp_path / "deep.jsonl")
    with pytest.raises(InputError, match="could not be read"): read_text(tmp_path)
