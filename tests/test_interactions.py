"""Measuring: what is refused, what is counted, what an interruption leaves, and that every kind of
model and SAE gives the same edges."""
import warnings

import numpy as np
import pytest
import torch
from sae_lens import (
    JumpReLUSAE, JumpReLUSAEConfig, StandardSAE, StandardSAEConfig, TopKSAE, TopKSAEConfig
)
from sae_lens.saes.sae import SAEMetadata
from scipy import stats
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from feature_interaction_graph.measurement import blocks
from feature_interaction_graph.config import Config
from feature_interaction_graph.control.context_effects import clamped_contexts
from feature_interaction_graph.engine.errors import InputError
from feature_interaction_graph.engine.statistics import adjust
from feature_interaction_graph.interactions import (
    InteractionTable, clamp_measure, jacobian_measure, measure_gating, measure_interactions,
    mechanism_split, response_curve, within_layer_measure
)

def tiny_model(kind: str = "gpt2") -> torch.nn.Module:
    torch.manual_seed(0)
    shared = dict(vocab_size=50, bos_token_id=0, eos_token_id=0)
    config = {"gpt2": GPT2Config(n_layer=3, n_embd=16, n_head=2, n_positions=32, **shared),
              "llama": LlamaConfig(num_hidden_layers=3, hidden_size=16, num_attention_heads=4,
                                   num_key_value_heads=2, intermediate_size=32, **shared)}[kind]
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim == 2: parameter.data.normal_(0, 0.3)
    return model


def tiny_sae(hook_name: str, kind: str = "jumprelu", width: int = 30) -> torch.nn.Module:
    make, config, options = {
        "jumprelu": (JumpReLUSAE, JumpReLUSAEConfig, {}),
        "standard": (StandardSAE, StandardSAEConfig, {}), "topk": (TopKSAE, TopKSAEConfig, {"k": 6})
    }[kind]
    sae = make(config(d_in=16, d_sae=width, metadata=SAEMetadata(
                          hook_name=hook_name, model_name="tiny", prepend_bos=True
                      ), **options)).requires_grad_(False)
    sae.W_enc.data.normal_()
    if kind == "jumprelu": sae.threshold.data.fill_(1.0)
    if kind == "standard": sae.b_enc.data.fill_(-0.7)
    return sae


@pytest.fixture
def model() -> torch.nn.Module: return tiny_model()


@pytest.fixture
def saes() -> dict:
    return {1: tiny_sae("blocks.1.hook_resid_pre"), 2: tiny_sae("blocks.2.hook_resid_pre"),
            3: tiny_sae("blocks.2.hook_resid_post")}


@pytest.fixture
def corpus(ragged_corpus):
    return ragged_corpus(40, 12, 50)


class Pairs:
    "The part of `Candidates` that measuring reads."
    features = None
    def __init__(self, sources, targets):
        both = [
            (*source, *target) for source in sources for target in targets if target[0] >= source[0]
        ]
        self.columns = dict(zip(("src_layer", "src_feature", "tgt_layer", "tgt_feature"),
                                np.array(both).T, strict=True))
    def __getitem__(self, name): return self.columns[name]
    def __len__(self): return len(self.columns["src_layer"])


def hooked(model: torch.nn.Module, tokens: torch.Tensor, places: list[tuple]) -> list[torch.Tensor]:
    """One plain forward pass: for (block, push) adds `push` to the block's input and returns that
    input, for (block, 'output') returns its output."""
    found, handles = [], []
    def enter(push):
        def hook(module, args, kwargs):
            stream = args[0] if args else kwargs["hidden_states"]
            found.append(stream if push is None else stream + push)
            return ((found[-1], *args[1:]), kwargs) if args else (
                args, {**kwargs, "hidden_states": found[-1]}
            )
        return hook
    def leave(module, args, output):
        found.append(output[0] if isinstance(output, tuple) else output)
    for block, push in places:
        handles.append(block.register_forward_hook(leave) if isinstance(push, str)
                       else block.register_forward_pre_hook(enter(push), with_kwargs=True))
    model(tokens)
    for handle in handles: handle.remove()
    return found


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("sae_kind", ["jumprelu", "standard", "topk"])
def test_every_edge_equals_plain_hooks(kind, sae_kind, corpus):
    """All samples of one source: branched sweep against a full hooked forward per dose and the
    SAE's own encode."""
    model = tiny_model(kind)
    sae = tiny_sae("blocks.1.hook_resid_pre", sae_kind)
    later = tiny_sae("blocks.2.hook_resid_post", sae_kind)
    blocks, effects = (model.transformer.h if kind == "gpt2" else model.model.layers), []
    corpus = corpus.take(range(12))
    table = clamp_measure(model, {1: sae, 3: later}, [(1, 4)], corpus, n_samples=10**6,
                          max_per_sequence=10**6, doses=[0.0, 2.0], progress=False)
    for tokens, length in zip(corpus.tokens, corpus.lengths, strict=True):
        (stream,) = hooked(model, tokens[None, :length], [(blocks[1], None)])
        value = sae.encode(stream)[0, :, 4]
        for at in (value[1:] > 0).nonzero()[:, 0] + 1:
            pushes = [torch.zeros_like(stream).index_put(
                          (torch.tensor(0), at), (dose - value[at]) * sae.W_dec[4]
                      ) for dose in (0.0, 2.0)]
            low, high = (later.encode(hooked(model, tokens[None, :length],
                                             [(blocks[1], push), (blocks[2], "output")])[-1])[0, at]
                         for push in pushes)
            effects.append(((high - low) / 2.0).numpy())
    assert len(effects) > 5 and (table.columns["n_samples"] == len(effects)).all()
    np.testing.assert_allclose(table.columns["strength"], np.mean(effects, 0), atol=2e-5)
    np.testing.assert_allclose(table.columns["std"], np.std(effects, 0, ddof=1), atol=1e-4)
    assert np.abs(table.columns["strength"]).max() > 0.05


def test_a_plain_model_and_its_bridge_give_the_same_edges(model, saes, corpus):
    from feature_interaction_graph.loading import wrap_model
    tables = [clamp_measure(one, saes, [(1, 3)], corpus, n_samples=30, progress=False)
              for one in (model, wrap_model(model))]
    for name in ("strength", "pre_strength", "p_value"):
        np.testing.assert_array_equal(tables[0].columns[name], tables[1].columns[name])


def test_a_hooked_transformer_is_accepted_with_a_warning(corpus):
    "What it measures is compared with branched rows in the notebook engine/06."
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hooked = HookedTransformer(
            HookedTransformerConfig(n_layers=2, d_model=16, n_heads=2, d_head=8, d_mlp=64, n_ctx=32,
                                    d_vocab=50, act_fn="gelu_new", seed=0)
        )
    hooked.embed.W_E.data.normal_(0, 0.5)
    own = {0: tiny_sae("blocks.0.hook_resid_pre"), 2: tiny_sae("blocks.1.hook_resid_post")}
    with pytest.warns(UserWarning, match="HookedTransformer cannot be branched"):
        table = clamp_measure(hooked, own, [(0, 4)], corpus, n_samples=10, progress=False)
    assert len(table) == 30 and np.isfinite(table.columns["strength"]).all() and (
        table.columns["strength"] != 0
    ).any()


def test_results_do_not_depend_on_batching(model, saes, corpus):
    tables = [clamp_measure(model, saes, [(1, 3), (1, 9), (2, 5)], corpus, n_samples=20, horizon=2,
                            batch_rows=rows, progress=False) for rows in (6, 64, 4096)]
    for other in tables[1:]:
        for name in ("strength", "std", "pre_strength", "ci_low"):
            np.testing.assert_allclose(tables[0].columns[name], other.columns[name], atol=1e-5)


def test_adding_a_source_changes_nothing_for_the_others(model, saes, corpus):
    alone = clamp_measure(model, saes, [(1, 3)], corpus, n_samples=15, progress=False).columns
    joint = clamp_measure(
        model, saes, [(1, 3), (1, 9), (2, 5)], corpus, n_samples=15, progress=False
    ).columns
    mine = (joint["src_layer"] == 1) & (joint["src_feature"] == 3)
    np.testing.assert_allclose(joint["strength"][mine], alone["strength"], atol=1e-6)
    assert (joint["n_samples"][mine] == alone["n_samples"]).all()


def test_counts_are_honest(model, saes, corpus, tmp_path):
    """A source that never fires and a pair within a layer are counted as skipped, with the reason;
    the family is what was measured."""
    saes[1].threshold.data[7] = 1e6
    cfg = Config(n_samples=20, min_samples=5, output_dir=str(tmp_path))
    candidates = Pairs([(1, 3), (1, 7), (2, 5)], [(2, 1), (2, 2), (3, 8)])
    table = measure_interactions(model, saes, candidates, cfg, corpus, progress=False)
    counts = table.meta["counts"]
    assert counts["attempted"] == len(candidates) == 9 and counts["measured"] == len(table) == 4
    assert counts["skipped"] == {"source and target are read at the same place": 2,
                                 "the source fires in fewer than 5 sequences": 3}
    assert counts["measured"] + sum(counts["skipped"].values()) == counts["attempted"]
    # the state of the run is gone when it is finished
    assert not list(tmp_path.iterdir())


def test_interrupted_and_resumed_gives_the_same_table(model, saes, corpus, tmp_path, monkeypatch):
    cfg = Config(n_samples=20, output_dir=str(tmp_path), placebo=0)     # every push is a block
    candidates = Pairs([(1, 3), (1, 9), (2, 5)], [(2, 1), (3, 8), (3, 9)])
    whole = measure_interactions(model, saes, candidates, cfg, corpus, progress=False)

    cfg = cfg.replace(memory_gb=1e-9)                            # one source a block
    in_pieces = measure_interactions(model, saes, candidates, cfg, corpus, progress=False)
    real, made = blocks.push, []
    def stops(*args, **kwargs):
        made.append(1)
        if len(made) == 3: raise KeyboardInterrupt
        return real(*args, **kwargs)
    monkeypatch.setattr(blocks, "push", stops)
    with pytest.raises(KeyboardInterrupt):
        measure_interactions(model, saes, candidates, cfg, corpus, progress=False)
    folder = tmp_path / "interactions.unfinished"
    assert sorted(path.name for path in folder.iterdir()) == [
        "block_00000.npz", "block_00001.npz", "manifest.json"]
    resumed = measure_interactions(model, saes, candidates, cfg, corpus, progress=False)
    # only the last block was left to do
    assert len(made) == 4 and not folder.exists()
    for name in whole.columns:
        np.testing.assert_array_equal(in_pieces.columns[name], resumed.columns[name])
    for name in ("strength", "std", "median"):
        np.testing.assert_allclose(whole.columns[name], resumed.columns[name], atol=1e-5)


def test_another_question_does_not_use_the_blocks_of_an_interrupted_one(
    model, saes, corpus, tmp_path, monkeypatch
):
    candidates = Pairs([(1, 3), (1, 9)], [(2, 1), (3, 8)])
    plain = measure_interactions(
        model, saes, candidates, Config(n_samples=20, seed=1, output_dir=str(tmp_path)), corpus,
        progress=False
    )
    little = {"n_samples": 20, "memory_gb": 1e-9, "output_dir": str(tmp_path), "placebo": 0}
    real, made = blocks.push, []
    def stops(*args, **kwargs):
        made.append(1)
        if len(made) == 2: raise KeyboardInterrupt
        return real(*args, **kwargs)
    monkeypatch.setattr(blocks, "push", stops)
    with pytest.raises(KeyboardInterrupt):
        measure_interactions(
            model, saes, candidates, Config(seed=0, **little), corpus, progress=False
        )
    with pytest.warns(UserWarning, match="1 finished parts .* because seed was 0, is 1; other s"):
        other = measure_interactions(
            model, saes, candidates, Config(seed=1, **little), corpus, progress=False
        )
    np.testing.assert_allclose(plain.columns["strength"], other.columns["strength"], atol=1e-5)


def test_dependent_samples_widen_the_error_bar(model, saes, corpus):
    "Many samples per sequence: the same mean as without clusters, an error from sequences."
    many = clamp_measure(model, saes, [(1, 3)], corpus, n_samples=200, max_per_sequence=50,
                         target_layers=[2], progress=False)
    edge = many.columns
    naive = 2 * stats.t.ppf(0.975, edge["n_samples"] - 1) * edge["std"] / np.sqrt(edge["n_samples"])
    moved = edge["std"] > 0
    ratio = (edge["ci_high"] - edge["ci_low"])[moved] / naive[moved]
    assert edge["n_samples"].max() > len(corpus) and (np.abs(ratio - 1) > 0.02).mean() > 0.6


def test_dependent_slopes_widen_the_error_bar(model, saes, corpus):
    edge = jacobian_measure(model, saes, [(1, 3)], corpus, n_samples=200, max_per_sequence=50,
                            target_layers=[2], through_threshold=False, progress=False).columns
    n = edge["n_samples"]
    t_value = edge["pre_strength"] / (edge["pre_std"] / np.sqrt(n))
    ratio = edge["pre_p_value"] / (2 * stats.t.sf(np.abs(t_value), n - 1))
    assert n.max() > len(corpus) and (np.abs(np.log(ratio[edge["pre_std"] > 0])) > 0.1).mean() > 0.6


def test_few_samples_are_tested_by_sign_flips(model, saes, corpus):
    edge = clamp_measure(
        model, saes, [(1, 3)], corpus, n_samples=6, target_layers=[2], progress=False
    ).columns
    assert edge["p_value"].min() == 2.0**-5 and np.allclose(
        edge["p_value"] * 2**5, np.round(edge["p_value"] * 2**5)
    )


def test_sequential_sampling_adds_where_it_is_undecided(model, saes, corpus):
    """Sources that stop keep their samples and pay for every look; those that go on have the
    samples of a fixed design of that size."""
    sources = [(1, 3), (1, 9), (1, 12)]
    sequential = clamp_measure(
        model, saes, sources, corpus, n_samples=10, max_samples=40, progress=False
    ).columns
    small, large = (clamp_measure(model, saes, sources, corpus, n_samples=n, progress=False).columns
                    for n in (10, 40))
    went_on = sequential["n_samples"] > 10
    assert went_on.any() and sequential["n_samples"].max() <= 40
    full = sequential["n_samples"] == large["n_samples"]
    np.testing.assert_allclose(sequential["strength"][full], large["strength"][full], atol=1e-6)
    np.testing.assert_allclose(
        sequential["p_value"][full], np.minimum(3 * large["p_value"][full], 1), rtol=1e-3
    )
    np.testing.assert_allclose(
        sequential["p_value"][~went_on], np.minimum(3 * small["p_value"][~went_on], 1), rtol=1e-3
    )


def test_evidence_before_the_threshold(model, saes, corpus):
    # never fires, but can be pushed
    saes[3].threshold.data[5] = 1e6
    after = clamp_measure(
        model, saes, [(1, 3)], corpus, n_samples=30, placebo=0, progress=False
    ).columns
    before = clamp_measure(
        model, saes, [(1, 3)], corpus, n_samples=30, placebo=0, evidence="pre-activation",
        progress=False
    ).columns
    np.testing.assert_array_equal(after["strength"], before["strength"])
    np.testing.assert_allclose(before["q_value"], adjust(before["pre_p_value"]))
    edges = before["interaction_type"] != "none"
    silent = (before["tgt_layer"] == 3) & (before["tgt_feature"] == 5)
    assert edges[silent].all() and (before["strength"][silent] == 0).all() and (
        after["interaction_type"][silent] == "none"
    ).all()
    np.testing.assert_array_equal(
        before["interaction_type"][edges] == "excitatory", before["pre_strength"][edges] > 0
    )
    with pytest.raises(InputError, match="'activation' or 'pre-activation'"):
        clamp_measure(model, saes, [(1, 3)], corpus, evidence="both", progress=False)


def test_a_full_disk_leaves_nothing(model, saes, corpus, tmp_path, monkeypatch):
    import errno

    import h5py
    table = clamp_measure(model, saes, [(1, 3)], corpus, n_samples=10, progress=False)
    def full(*args, **kwargs): raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(h5py.Group, "create_dataset", full)
    with pytest.raises(InputError, match="No space left on device"):
        table.save(tmp_path / "interactions.h5")
    assert not list(tmp_path.iterdir())


def test_damaged_files_are_one_sentence(model, saes, corpus, tmp_path):
    path = clamp_measure(model, saes, [(1, 3)], corpus, n_samples=10, progress=False).save(
        tmp_path / "interactions.h5"
    )
    whole = path.read_bytes()
    for size in (0, 10, len(whole) // 3, len(whole) - 100):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match="damaged"): InteractionTable.load(path)
    with pytest.raises(InputError, match="does not exist"):
        InteractionTable.load(tmp_path / "other.h5")


@pytest.mark.parametrize(
    ("ask", "sentence"), [
        (lambda m, s, c: clamp_measure(m, s, [(9, 1)], c),
         "is in layer 9, but SAEs are loaded for layers 1, 2, 3"),
        (lambda m, s, c: clamp_measure(m, s, [(1, 30)], c),
         "does not exist: the SAE of layer 1 has features 0 to 29"),
        (lambda m, s, c: clamp_measure(m, s, [(1, 3)], c, targets=[(2, 77)]),
         "target L2_F77 does not exist"),
        (lambda m, s, c: clamp_measure(m, s, [(2, 3)], c, target_layers=[1]),
         "no target layer comes after source layer 2"),
        (lambda m, s, c: clamp_measure(m, s, [(1, 3)], c, target_layers=[8]),
         "target layer 8 was asked for"),
        (lambda m, s, c: clamp_measure(m, s, [(1, 3)], c, n_samples=0), "n_samples is 0"),
        (lambda m, s, c: clamp_measure(m, s, [(1, 3)], c, doses=[1.0]), "difference between two"),
        (lambda m, s, c: clamp_measure(m, s, [], c), "no source was given"),
        (lambda m, s, c: clamp_measure(m, s, [(1, 3)], torch.zeros(0, 5, dtype=torch.long)),
         "no sequence|empty"),
    ]
)
def test_wrong_questions(model, saes, corpus, ask, sentence):
    with pytest.raises(InputError, match=sentence): ask(model, saes, corpus)


@pytest.mark.parametrize(("wrong", "sentence"), [
    (dict(n_sample=9), r"has no keyword 'n_sample' \(did you mean 'n_samples'\?\)"),
    (dict(n_samples=1), "n_samples is 1; an error bar needs at least 2 samples"),
    (dict(n_samples="100"), "n_samples is '100'; a whole number is needed"),
    (dict(max_per_sequence=0), "max_per_sequence is 0"), (dict(seed=-1), "seed is -1"),
    (dict(seed=0.5), "seed is 0.5"), (dict(batch_rows=0), "batch_rows is 0")
])
def test_every_measurement_refuses_the_same_keywords(model, saes, corpus, wrong, sentence):
    calls = {clamp_measure: [(1, 3)], jacobian_measure: [(1, 3)], within_layer_measure: [(3, 3)],
             clamped_contexts: [(1, 3)], mechanism_split: [((1, 3), (2, 5))],
             measure_gating: [((1, 3), (2, 5))]}
    for function, what in calls.items():
        with pytest.raises(InputError, match=sentence) as refusal:
            function(model, saes, what, corpus, **wrong)
        if "n_sample" in wrong: assert str(refusal.value).startswith(function.__name__)
    with pytest.raises(InputError, match=sentence):
        response_curve(model, saes, (1, 3), (2, 5), corpus, **wrong)


@pytest.mark.parametrize(("wrong", "sentence"), [
    (dict(horizon=-1), "horizon is -1; 0 reads the place of the push alone"),
    (dict(horizon=1.5), "horizon is 1.5; a whole number is needed"),
    (dict(horizon=None), "horizon is None; a whole number is needed")
])
def test_every_measurement_refuses_the_same_horizons(model, saes, corpus, wrong, sentence):
    for function, what in ((clamp_measure, [(1, 3)]), (jacobian_measure, [(1, 3)]),
                           (mechanism_split, [((1, 3), (2, 5))]),
                           (measure_gating, [((1, 3), (2, 5))])):
        with pytest.raises(InputError, match=sentence): function(model, saes, what, corpus, **wrong)


@pytest.mark.parametrize("placebo", [-1, 1.5, "many", True, None, 10**9])
def test_directions_that_cannot_be_counted_are_refused(model, saes, corpus, placebo):
    with pytest.raises(InputError, match=f"placebo is '?{placebo}'?; "):
        clamp_measure(model, saes, [(1, 3)], corpus, placebo=placebo, progress=False)


def test_nan_weights_are_refused(model, saes, corpus):
    model.transformer.h[0].mlp.c_fc.weight.data[0, 0] = torch.nan
    with pytest.raises(InputError, match="NaN or infinite"):
        clamp_measure(model, saes, [(1, 3)], corpus, progress=False)


def test_a_source_that_fires_once_per_sequence_is_measurable(model, saes):
    "Its doses come from the whole corpus, not from the one value it takes in a sequence."
    tokens = torch.randint(1, 50, (40, 2), generator=torch.Generator().manual_seed(5))
    table = clamp_measure(model, saes, [(1, 3)], tokens, progress=False)
    assert (table.columns["n_samples"] >= 2).all() and (
        table.columns["dose_high"] > table.columns["dose_low"]
    ).all()


def test_effects_inside_a_layer_stand_beside_the_others(corpus, tmp_path):
    "Counted, typed, and not silenced by a placebo they do not have."
    model = tiny_model("llama")
    saes = {2: tiny_sae("blocks.1.hook_resid_post"), 3: tiny_sae("blocks.2.hook_resid_post")}
    cfg = Config(
        n_samples=20, min_samples=5, within_layer=True, placebo=2, output_dir=str(tmp_path)
    )
    table = measure_interactions(
        model, saes, Pairs([(2, 3), (2, 9)], [(2, 1), (2, 3), (3, 8)]), cfg, corpus, progress=False
    )
    inside = table.columns["method"] == "within-layer"
    # a feature is not its own target
    assert inside.sum() == 3 and (~inside).sum() == 2
    assert np.isnan(table.columns["placebo_p_value"][inside]).all() and not np.isnan(
        table.columns["placebo_p_value"][~inside]
    ).any()
    assert (table.columns["interaction_type"][inside] != "none").any()
