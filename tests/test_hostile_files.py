"""Every kind of file, altered in every way: what comes out is the content or one sentence, never a
traceback, a crash or a wait."""
import gzip
import io
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import networkx as nx
import numpy as np
import pytest
import scipy.sparse
import torch

from feature_interaction_graph.circuits.library import load_behavior
from feature_interaction_graph.candidates import CANDIDATE_COLUMNS, Candidates
from feature_interaction_graph.coactivation import CoactivationAtlas, build_coactivation_atlas
from feature_interaction_graph.config import Config
from feature_interaction_graph.dictionary.labels import first_labels, load_labels
from feature_interaction_graph.dictionary.store import ActivationStore, firings_of, write_store
from feature_interaction_graph.engine.corpus import Corpus, TokenLabels, read_text, read_tokens
from feature_interaction_graph.engine.errors import InputError
from feature_interaction_graph.engine.files import is_sealed, read_npy
from feature_interaction_graph.engine.hook_points import KINDS as POINTS
from feature_interaction_graph.engine.hook_points import HookPoint, parse_hook_point
from feature_interaction_graph.features import FeatureTable, feature_table
from feature_interaction_graph.graph import graph_summary, load_graph, save_graph
from feature_interaction_graph.measurement.gating import GATING_COLUMNS, GatingTable
from feature_interaction_graph.measurement.table import COLUMNS, InteractionTable

SEAL = 33 + 32       # bytes at the end of a sealed file


def numbers(kinds: dict, rng: np.random.Generator, n_rows: int = 7) -> dict[str, np.ndarray]:
    "Columns of those kinds: small whole numbers, or anything between 0 and 1."
    return {name: (rng.random(n_rows) if np.dtype(kind).kind == "f"
                   else rng.integers(0, 2, n_rows)).astype(kind) for name, kind in kinds.items()}


def write_all(folder: Path) -> None:
    "One small file of every HDF5 kind."
    rng = np.random.default_rng(0)
    tokens = torch.as_tensor(rng.integers(1, 9, (6, 12)))
    holds = TokenLabels(["a", "b"], scipy.sparse.csr_matrix(rng.random((72, 2)) < 0.3))
    corpus = Corpus(tokens, torch.tensor([12, 12, 9, 12, 10, 12]), True, "here", holds)
    spelling = types.SimpleNamespace(decode=lambda ids: "".join(" abcdefgh"[k] for k in ids))
    layers = {layer: (f"blocks.{layer}.hook_resid_pre", 5) for layer in (0, 1)}
    with write_store(folder / "activations.h5", corpus, layers, tokenizer=spelling) as writers:
        for writer in writers.values():
            fires = torch.as_tensor(rng.random((corpus.n_tokens, 5)) < 0.4)
            writer.add(firings_of(fires * torch.rand(corpus.n_tokens, 5)))
    store = ActivationStore.open(folder / "activations.h5")
    features = feature_table(store)
    features.save(folder / "features.h5")
    build_coactivation_atlas(store, Config(), features, progress=False).save(folder / "atlas.h5")
    meta = {"kept": 7, "considered": 9, "by_reason": {"together": 7},
            "features": {"0": {"features": 5, "chosen": 5, "silent": 0}}}
    Candidates(numbers(CANDIDATE_COLUMNS, rng), features, meta).save(folder / "candidates.h5")
    words = {"interaction_type": np.array(["none", "excitatory"] * 4)[:7],
             "method": np.full(7, "clamping")}
    counts = {"attempted": 7, "measured": 7, "skipped": {"too rare": 0}}
    InteractionTable(
        {**numbers({name: kind for name, kind in COLUMNS.items() if kind != "U24"}, rng), **words},
        {"counts": counts, "evidence": "activation", "stability": {}}, features,
        {"doses": rng.random((7, 3)), "mean": rng.random((7, 3))}
    ).save(folder / "interactions.h5")
    GatingTable(
        {**numbers({name: kind for name, kind in GATING_COLUMNS.items() if kind != "U12"}, rng),
         "direction": np.array(["AND", "NOT", "AND", "NOT", "AND", "sign-flip", "modulation"])},
        {"counts": {"pairs": 3}}
    ).save(folder / "gates.h5")
    save_graph(small_graph(), folder / "graph.h5")


def everything_of_a_store(path: Path) -> list:
    store = ActivationStore.open(path)
    parts = [store.rows, store.corpus.tokens, store.token_texts, store.config, store.hook_names]
    for layer in store.layers:
        parts += [store.csr(layer).toarray(), store.statistics(layer), first_labels(store, layer)]
        parts += [block.toarray() for _, block in store.iter_features(layer)]
    return parts


def everything_of_an_atlas(path: Path) -> list:
    atlas = CoactivationAtlas.load(path)
    return [atlas.meta, atlas.features.columns, *(atlas.statistics(*pair) + (
        atlas.conditional_means(*pair),) for pair in atlas.layer_pairs)]


def everything_of_candidates(path: Path) -> list:
    candidates = Candidates.load(path)
    return [candidates.columns, candidates.report(), candidates.sources, candidates.reasons(),
            candidates.meta]


def everything_of_a_table(path: Path) -> list:
    table = InteractionTable.load(path)
    return [table.columns, table.curves, table.meta, repr(table), list(table.significant(0.5)),
            table.features and table.features.columns]


def everything_of_gates(path: Path) -> list:
    gates = GatingTable.load(path)
    return [gates.columns, gates.meta, str(gates)]


KINDS: dict[str, Callable[[Path], list]] = {
    "activations.h5": everything_of_a_store, "atlas.h5": everything_of_an_atlas,
    "candidates.h5": everything_of_candidates, "interactions.h5": everything_of_a_table,
    "gates.h5": everything_of_gates, "graph.h5": lambda path: everything_of_a_graph(path),
    "features.h5": lambda path: [FeatureTable.load(path).columns],
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    write_all(folder)
    return folder


@pytest.fixture(autouse=True)
def no_waiting() -> Iterator[None]:
    "Nothing takes longer than two minutes."
    def late(*_: object) -> None: raise TimeoutError
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def sentence_of(read: Callable[[Path], list], path: Path) -> str | None:
    "What the refusal says, if it is one; it must be one readable line."
    try: read(path)
    except InputError as refusal: said = str(refusal)
    else: return None
    assert len(said) < 400 and said.isprintable() and said.endswith("."), said
    return said


NASTY = [0, -1, 2**62, 2.5, np.nan, "text", "{}", "[]", "{", b"\xff", True, np.zeros(0),
         np.arange(5), "9" * 5000, "[" * 9999, '{"kept": 3}', '{"counts": 3}', '{"counts": []}',
         '{"stability": {"level": "1"}}', '{"config": [1]}', '{"a": "\\ud83d"}', h5py.Empty("f")]


def change_attribute(file: h5py.File, rng: random.Random) -> None:
    "Removes an attribute or gives it a value of another type."
    owners: list = [file]
    file.visititems(lambda name, found: owners.append(found))
    owner = rng.choice([found for found in owners if len(found.attrs)])
    name = rng.choice(list(owner.attrs))
    if rng.random() < 0.3: del owner.attrs[name]
    else: owner.attrs[name] = rng.choice(NASTY)


def change_values(values: np.ndarray, rng: random.Random) -> np.ndarray:
    "One value at the end of its type, another type, shape or length, another order."
    if values.size and values.dtype.kind in "iuf" and rng.random() < 0.5:
        values = values.copy()
        ends = np.iinfo(values.dtype) if values.dtype.kind in "iu" else np.finfo(values.dtype)
        values.flat[rng.randrange(values.size)] = rng.choice([ends.min, ends.max, 1])
        return values
    texts = np.array([str(value) for value in values.flat], dtype=object)
    ways = [values[None], values[:-1], np.array(3), np.concatenate([values, values]), texts]
    if values.dtype.kind != "O":
        ways += [values.astype(kind) for kind in ("f8", "u1", "c16", "S5")]
        ways += [np.random.default_rng(0).permutation(values)]
    return rng.choice(ways)


def change_structure(file: h5py.File, rng: random.Random) -> None:
    "Removes or replaces a group or a data set."
    names: list[str] = []
    file.visit(names.append)
    name = rng.choice(names)
    found, attributes = file[name], dict(file[name].attrs)
    values = np.asarray(found[()] if isinstance(found, h5py.Dataset) and found.shape else [1, 2])
    way = rng.randrange(9)
    del file[name]
    if way == 0: return
    if way == 1: file[name] = rng.choice([h5py.SoftLink("/"), h5py.ExternalLink("/etc/x", "/")])
    elif way == 2: file.create_group(name)
    elif way == 3:
        file.create_dataset(name, shape=(2 ** rng.choice([28, 50]),), chunks=(2**20,), dtype="i4",
                            compression=rng.choice([None, "gzip"]))
    elif way == 4: file.create_dataset(name, data=h5py.Empty("i4"))
    else: file.create_dataset(name, data=change_values(values, rng))
    if way > 2: file[name].attrs.update(attributes)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", KINDS)
def test_altered_hdf5_files_are_content_or_one_sentence(whole, tmp_path, name):
    "As another tool alters them: the seal is gone, and every part may be anything."
    rng, refused, path = random.Random(0), 0, tmp_path / name
    for _ in range(60):
        path.write_bytes((whole / name).read_bytes())
        with h5py.File(path, "r+") as file:
            for _ in range(rng.choice([1, 1, 2])):
                rng.choice([change_attribute, change_structure])(file, rng)
        refused += sentence_of(KINDS[name], path) is not None
    assert refused > 30


@pytest.mark.parametrize("name", KINDS)
def test_no_changed_byte_of_a_sealed_file_goes_unnoticed(whole, tmp_path, name):
    content, rng, path = (whole / name).read_bytes(), random.Random(0), tmp_path / name
    assert is_sealed(whole / name) and sentence_of(KINDS[name], whole / name) is None
    for _ in range(60):
        damaged = bytearray(content)
        damaged[rng.randrange(len(content) - SEAL)] ^= rng.randrange(1, 256)
        path.write_bytes(damaged)
        assert "its bytes have changed" in (sentence_of(KINDS[name], path) or "")
    for _ in range(20):
        path.write_bytes(content[:rng.randrange(len(content) - SEAL)])
        assert "damaged" in (sentence_of(KINDS[name], path) or "")


@pytest.mark.parametrize("name", ["activations.h5", "interactions.h5"])
def test_files_of_before_are_read(whole, tmp_path, name):
    "No seal, and one attribute that says kind and format."
    path, what = tmp_path / name, name.removesuffix(".h5")
    path.write_bytes((whole / name).read_bytes()[:-SEAL])
    assert is_sealed(path) is None and sentence_of(KINDS[name], path) is None
    with h5py.File(path, "r+") as file:
        del file.attrs["kind"]
        file.attrs["format"] = f"feature_interaction_graph.{what}/1"
    assert sentence_of(KINDS[name], path) is None
    with h5py.File(path, "r+") as file: file.attrs["format"] = "feature_interaction_graph.other/1"
    assert "holds something else" in (sentence_of(KINDS[name], path) or "")
    with h5py.File(path, "r+") as file:
        file.attrs.update(kind=f"feature_interaction_graph.{what}", format=2)
    assert "update the package" in (sentence_of(KINDS[name], path) or "")


def test_indices_beyond_a_matrix_never_reach_compiled_code(whole, tmp_path):
    "Compiled code would end the process, so another one reads the files."
    for number, place in enumerate(("labels/indices", "layer_0/indices", "layer_1/indptr")):
        (tmp_path / f"{number}.h5").write_bytes((whole / "activations.h5").read_bytes())
        with h5py.File(tmp_path / f"{number}.h5", "r+") as file:
            file[place][2] = np.iinfo(file[place].dtype).max
    code = ("import sys; sys.path.insert(0, 'tests'); from test_hostile_files import *; "
            "[print(sentence_of(everything_of_a_store, Path(path))) for path in sys.argv[1:]]")
    done = subprocess.run([sys.executable, "-c", code, *map(str, tmp_path.iterdir())], text=True,
                          capture_output=True, cwd=Path(__file__).parent.parent)
    assert done.returncode == 0 and done.stdout.count("is damaged") == 3, done.stderr


# ---- graphs

def small_graph() -> nx.DiGraph:
    G = nx.DiGraph(selection={"tested": 9, "survived": 2, "edges": 2}, counts={"attempted": 9},
                   stability={"level": 0.01, "jaccard": 0.9, "low": 0.8, "high": 1.0})
    for layer in range(3):
        G.add_node(f"L{layer}_F1", layer=layer, feature_idx=1, label=f"é {layer}", importance=0.5)
    for layer in range(2):
        G.add_edge(f"L{layer}_F1", f"L{layer + 1}_F1", strength=0.5, q_value=0.001, n_samples=9,
                   interaction_type="excitatory", method="clamping", offset=0)
    return G


def everything_of_a_graph(path: Path) -> list:
    G = load_graph(path, allow_pickle=True)
    return [G, str(graph_summary(G))]


@pytest.mark.parametrize("suffix", ["json", "graphml", "pkl"])
def test_altered_bytes_of_graphs_are_a_graph_or_one_sentence(tmp_path, suffix):
    content = save_graph(small_graph(), tmp_path / f"whole.{suffix}").read_bytes()
    content = content[:-SEAL] if suffix == "pkl" else content      # as another tool writes it
    rng, path = random.Random(0), tmp_path / f"damaged.{suffix}"
    for trial in range(400):
        damaged = bytearray(content[:rng.randrange(len(content))] if trial % 4 == 0 else content)
        for _ in range(rng.randrange(1, 4)):
            if damaged: damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged)
        sentence_of(everything_of_a_graph, path)


@pytest.mark.parametrize("suffix", ["json", "graphml", "h5"])
def test_facts_of_another_type_are_named(tmp_path, suffix):
    others = ["x", [], {}, {"a": 1}, 3, -1, True, 1e400, 10**900, [["a", 1]], "é" * 5_000]
    for owner in ("graph", "node", "edge"):
        for name in ("selection", "stability", "counts", "config", "hyperedges", "q_value", "label",
                     "layer", "strength", "n_samples", "offset", "method", "importance"):
            for other in others[::4 if suffix == "h5" else 1]:      # the files take longer
                G = small_graph()
                facts = {"graph": G.graph, "node": G.nodes["L0_F1"],
                         "edge": G.edges["L0_F1", "L1_F1"]}[owner]
                facts[name] = other
                path = save_graph(G, tmp_path / f"graph.{suffix}")
                said = sentence_of(everything_of_a_graph, path)
                if (owner, name) in {("edge", "q_value"), ("node", "label"), ("graph", "counts")}:
                    assert said is None or name in said


HOSTILE_GRAPHS = {
    "none.json": (b'{"nodes": [], "edges": []}', "without a node"),
    "half.json": (b'{"nodes": [{"id": "\\ud83d", "layer": 0, "feature_idx": 0}], "edges": []}',
                  "half of a two-part"),
    "twice.json": (b'{"nodes": [{"id": "a"}, {"id": "a"}], "edges": []}', "two nodes of one id"),
    "name.json": (b'{"nodes": [{"id": ["a"]}], "edges": []}', "wrong or missing"),
    "digits.json": (b'{"nodes": [{"id": "a", "layer": ' + b"9" * 5000 + b'}], "edges": []}',
                    "5,000 digits"),
    "coding.graphml": (b'<?xml version="1.0" encoding="klingon"?><graphml/>',
                       "unknown encoding"),
    "format.graphml": (b'<graphml><key id="k" for="graph" attr.name="fig_format" attr.type="int"/>'
                       b'<graph><data key="k">3</data></graph></graphml>', "holds 3"),
    "array.pkl": (b"\x80\x05\x96" + (2**60).to_bytes(8, "little") + b"x.", "not a pickled graph"),
    "memo.pkl": (b"\x80\x02}r" + (2**31 - 1).to_bytes(4, "little") + b".", "not a pickled graph"),
    "other.pkl": (pickle.dumps([1, 2]), "is list, a directed"),
}


@pytest.mark.parametrize("name", HOSTILE_GRAPHS)
def test_hostile_graphs_are_refused_in_words(tmp_path, name):
    content, words = HOSTILE_GRAPHS[name]
    (tmp_path / name).write_bytes(content)
    assert words in (sentence_of(everything_of_a_graph, tmp_path / name) or "")


# ---- labels, and what is no file

LABELS = {
    "a.json": b'{"L6_F650": "names", "L0_F3": "commas"}',
    "b.jsonl": b'{"layer": "6-res-jb", "index": "650", "description": "names"}\n',
    "c.csv": b"layer,feature,label\n6,650,names\n",
}


@pytest.mark.parametrize("name", LABELS)
def test_altered_label_files_are_labels_or_one_sentence(tmp_path, name):
    rng = random.Random(0)
    for trial in range(300):
        damaged = bytearray(LABELS[name])
        for _ in range(rng.randrange(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        packed = trial % 3 == 0
        path = tmp_path / (name + ".gz" * packed)
        path.write_bytes(gzip.compress(damaged) if packed else damaged)
        sentence_of(lambda path: [load_labels(path)], path)


@pytest.mark.parametrize(("name", "content", "words"), [
    ("a.json.gz", gzip.compress(bytes(2**24), 9) * 40, "unpacks to more than"),
    ("b.csv", b"layer,feature,label\n1,2," + b"x" * 10**7, "field larger than"),
    ("c.json", b'[{"layer": 1, "index": ' + b"9" * 5000 + b', "label": "x"}]', "5,000 digits"),
    ("d.jsonl", b"[" * 100_000, "too deeply nested"),
    ("e.json", b'{"L0_F1\\n": "x"}', "feature id"),
    ("f.json", b'{"L0_F1": "\\ud83d"}', "half of a two-part"),
    ("g.json", json.dumps({"L" * 100_000: "x"}).encode(), "feature id")
])
def test_hostile_labels_are_refused_in_words(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    assert words in (sentence_of(lambda path: [load_labels(path)], tmp_path / name) or "")


# ---- corpora and behaviours

def npy(header: str | None = None, content: bytes = bytes(48), length: int | None = None) -> bytes:
    "A .npy file with that header, whose length is told as `length`."
    told = (header or "{'descr': '<i8', 'fortran_order': False, 'shape': (2, 3), }").encode()
    return (b"\x93NUMPY\x02\x00" + (len(told) if length is None else length).to_bytes(4, "little")
            + told + content)


def described(kind: str, shape: str) -> str:
    return f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}"


def pickled(rows: list) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array(rows, dtype=object), allow_pickle=True)
    return stream.getvalue()


def safetensors(header: bytes, content: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + content


LONG = b'{"tokens": {"dtype": "I64", "shape": [2, 9999999], "data_offsets": [0, 48]}}'
HOSTILE_TOKENS = {
    "huge_header.npy": (npy(length=2**32 - 1), "header cannot be read"),
    "long_header.npy": (npy(described("'<i8'", "(2, 3)") + " " * 2**16), "header cannot be read"),
    "deep_header.npy": (npy("(" * 5000), "header cannot be read"),
    "keys.npy": (npy("{[]: 1}"), "header cannot be read"),
    "more.npy": (npy(described("'<i8'", f"(2, {10**30})")), "but 48 bytes follow"),
    "overflow.npy": (npy(described("'<i8'", f"({2**32}, {2**32})"), b""), "but 0 bytes follow"),
    "negative.npy": (npy(described("'<i8'", "(-2, -3)")), "but 48 bytes follow"),
    "nothing.npy": (npy(described("'<i8'", f"(0, {2**62})"), b""), "array is too big"),
    "truncated.npy": (npy()[:-1], "but 47 bytes follow"),
    "version.npy": (npy().replace(b"Y\x02", b"Y\x09"), "header cannot be read"),
    "text.npy": (b"1 2 3", "header cannot be read"),
    "zip.npy": (b"PK\x03\x04" + bytes(60), "header cannot be read"),
    "pickled.npy": (pickle.dumps([[1, 2]]), "header cannot be read"),
    "objects.npy": (pickled([[1], [2, 3]]), "never unpickled"),
    "inside.npy": (npy(described("[('a', '|O'), ('b', '<i8')]", "(3,)")), "never unpickled"),
    "fields.npy": (npy(described("[('a', '<i4'), ('b', '<i4')]", "(2, 3)")), "whole numbers"),
    "infinite.npy": (npy(described("'<f8'", "(2, 3)"), np.full(6, np.inf).tobytes()), "float64"),
    "nan.npy": (npy(described("'<f2'", "(2, 3)"), np.full(6, np.nan, "<f2").tobytes()), "float16"),
    "flat.npy": (npy(described("'<i8'", "(6,)")), r"shape (6,)"),
    "cube.npy": (npy(described("'<i8'", "(1, 2, 3)")), "shape (1, 2, 3)"),
    "point.npy": (npy(described("'<i8'", "()"), bytes(8)), "shape ()"),
    "wrapped.npy": (npy(described("'<u8'", "(2, 3)"), b"\xff" * 48), "a token id is -1"),
    "header.safetensors": ((2**60).to_bytes(8, "little") + b"{}", "be read as safetensors"),
    "more.safetensors": (safetensors(LONG, bytes(48)), "be read as safetensors"),
    "deep.safetensors": (safetensors(b"[" * 100_000), "be read as safetensors"),
    "coding.safetensors": (safetensors(b'{"\xff": 1}'), "be read as safetensors"),
    "floats.safetensors": (safetensors(LONG.replace(b"9999999", b"3").replace(b"I64", b"F64"),
                                       np.full(6, np.nan).tobytes()), "float64"),
}


@pytest.mark.parametrize("name", HOSTILE_TOKENS)
def test_hostile_token_files_are_refused_in_words(tmp_path, name):
    content, words = HOSTILE_TOKENS[name]
    (tmp_path / name).write_bytes(content)
    said = sentence_of(lambda path: [read_tokens(path)], tmp_path / name)
    assert said is not None and words in said


@pytest.mark.parametrize("suffix", ["npy", "safetensors"])
def test_altered_token_files_are_a_corpus_or_one_sentence(tmp_path, suffix):
    content = npy() if suffix == "npy" else safetensors(LONG.replace(b"9999999", b"3"), bytes(48))
    rng, path, refused = random.Random(0), tmp_path / f"tokens.{suffix}", 0
    path.write_bytes(content)
    assert read_tokens(path).n_tokens == 6
    for _ in range(600):
        damaged = bytearray(content)
        for _ in range(rng.randrange(1, 4)):
            damaged[rng.randrange(len(content) - 48)] = rng.choice(b"{}[](),:'09-<|OUu\x00\xff")
        path.write_bytes(damaged)
        refused += sentence_of(lambda path: [read_tokens(path)], path) is not None
    assert refused > 300


def test_arrays_are_those_of_numpy(tmp_path):
    rng = np.random.default_rng(0)
    for number, kind in enumerate(("<u2", ">i4", "<f4", "?", "<c8", "S3", "<U2", "<M8[s]")):
        values = rng.integers(0, 2, (3, 0) if number == 4 else (3, 4, 2)).astype(kind)
        values = values if number % 2 else np.asfortranarray(values)
        np.save(tmp_path / "a.npy", values)
        found = read_npy(tmp_path / "a.npy", "x")
        assert found.dtype == values.dtype and np.array_equal(found, values)


HOSTILE_TEXTS = {
    "deep.jsonl": (b'{"text": "a"}\n' + b"[" * 100_000, "line 2 of"),
    "digits.jsonl": (b'{"text": "a", "n": ' + b"9" * 5000 + b"}", "5,000 digits"),
    "half.jsonl": (b'{"text": "\\ud83d"}', "half of a two-part"),
    "cut.jsonl": (b'{"text": "a"}\n{"text": "b', "line 2 of"),
    "number.jsonl": (b'{"text": NaN}', "no text in a field 'text'"),
    "coding.jsonl": (b'{"text": "\xff"}', "not text in UTF-8"),
    "coding.txt": (b"a\xff", "not text in UTF-8 (byte 1)"),
    "bomb.gz": (gzip.compress(bytes(2**24), 9) * 20, "unpacks to more than"),
    "empty.txt": (b"\n", "no text"),
}


@pytest.mark.parametrize("name", HOSTILE_TEXTS)
def test_hostile_texts_are_refused_in_words(tmp_path, name):
    content, words = HOSTILE_TEXTS[name]
    (tmp_path / name).write_bytes(content)
    assert words in (sentence_of(lambda path: [read_text(path)], tmp_path / name) or "")


BEHAVIOR = {"name": "b", "prompts": ["a", [1, 2]], "answers": [[" x"], [3]],
            "metric": "probability"}
HOSTILE_BEHAVIORS = [
    (b"[" * 100_000, "too deeply nested"), (b"\xff", "not text in UTF-8"), (b"[]", "an object"),
    (b'{"name": "b", "prompts": ["a', "is not JSON"), (b'{"n": ' + b"9" * 5000 + b"}", "digits"),
    ({"prompts": [["a"]]}, "a whole number was expected"), ({"prompts": "a"}, "a list was"),
    ({"prompts": [[[[1]]]]}, "a whole number was expected"), ({"prompts": []}, "no prompts"),
    ({"answers": [[" x"], {}]}, "text or a list was expected"),
    ({"answers": [[None], [3]]}, "is None; text or a whole number was expected"),
    ({"answers": [[float("nan")], [3]]}, "text or a whole number"), ({"metric": 3}, "text was"),
    ({"metric": "x"}, "metric 'x'"), ({"name": None}, "text was expected"), ({"n": 1}, "has 'n'"),
    ({"n" * 10**6: 1}, "which no behaviour has"), ({"counterfactuals": [True]}, "text or a list"),
    ({"counterfactuals": ["a"]}, "2 prompts"), ({"description": []}, "text was expected"),
]


@pytest.mark.parametrize("number", range(len(HOSTILE_BEHAVIORS)))
def test_hostile_behaviors_are_refused_in_words(tmp_path, number):
    given, words = HOSTILE_BEHAVIORS[number]
    path = tmp_path / "behavior.json"
    path.write_text(json.dumps(BEHAVIOR))
    assert load_behavior(path).answers == ((" x",), (3,))
    path.write_bytes(given if isinstance(given, bytes) else json.dumps(BEHAVIOR | given).encode())
    said = sentence_of(lambda path: [load_behavior(path)], path)
    assert said is not None and words in said


@pytest.mark.parametrize("name", [
    None, 3, b"blocks.0.hook_resid_pre", [], {}, float("nan"), "", "\n", "\0", "blocks.0.",
    "blocks.0.hook_resid_pre\n", "\nblocks.0.hook_resid_pre", "blocks.0.hook_\nresid_pre",
    "blocks.\u0663.hook_resid_pre", "blocks.\uff11.hook_resid_pre", "blocks.\u00b2.hook_resid_pre",
    "blocks.-1.hook_resid_pre", "blocks.1.5.hook_resid_pre", "blocks..hook_resid_pre",
    f"blocks.{'9' * 400}.hook_resid_pre", f"blocks.{'9' * 10**6}.hook_resid_pre", "x" * 10**6,
    "blocks.0." + "hook_" * 10**6, "blocks." * 10**5, "blocks.0.hook_\ud83d", 10**5000
], ids=lambda name: repr(type(name)))
def test_what_is_no_hook_point_is_one_sentence(name):
    said = sentence_of(lambda given: [parse_hook_point(given)], name)
    assert said is not None and "is not one that can be measured here" in said
    assert said.endswith("blocks.L.hook_resid_post.")


def test_hook_points_are_their_names():
    for kind in POINTS:
        for layer in (0, 7, 10**9 - 1):
            point = HookPoint(kind, layer)
            assert parse_hook_point(point.name) == parse_hook_point(point) == point


# ---- what is no file at all

READERS = {**{kind: (read, ".h5") for kind, read in KINDS.items()},
           "graph": (everything_of_a_graph, ".json"),
           "labels": (lambda path: [load_labels(path)], ".csv"),
           "config": (lambda path: [Config.load(path)], ".json"),
           "behavior": (lambda path: [load_behavior(path)], ".json"),
           "text": (lambda path: [read_text(path)], ".jsonl"),
           "array": (lambda path: [read_tokens(path)], ".npy"),
           "tensors": (lambda path: [read_tokens(path)], ".safetensors")}


@pytest.mark.parametrize("kind", READERS)
def test_what_is_no_file_is_one_sentence(tmp_path, kind):
    read, suffix = READERS[kind]
    os.mkfifo(tmp_path / f"pipe{suffix}")
    with (tmp_path / f"sparse{suffix}").open("wb") as file: file.truncate(2**40)
    (tmp_path / f"folder{suffix}").mkdir()
    (tmp_path / f"empty{suffix}").touch()
    for name in ("pipe", "sparse", "folder", "empty", "none", "n" * 256, "n" * 100_000, "a\0b"):
        assert sentence_of(read, tmp_path / (name + suffix)) is not None, name
    for path in (3, None, b"x", "", ["x"]):
        assert "no path" in (sentence_of(read, path) or ""), path
