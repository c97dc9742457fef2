"""Whatever a file or a shell delivers is a valid configuration or one sentence; nothing else comes
out."""
import dataclasses
import json
import os
import random
import stat

import pytest

from feature_interaction_graph.config import FREE_SETTINGS, PRESETS, Config, settings_table
from feature_interaction_graph.engine.errors import InputError

NAMES = [item.name for item in dataclasses.fields(Config)]
AWKWARD = [None, True, False, 0, 1, -1, 3, 10**30, 0.5, -0.5, 1e308, float("nan"), float("inf"), "",
           " ", "demo", "cuda:0", "cuda:", "{layer}", "{}", "{layer", "{layer!x}", "{0}", "\x00",
           "fdr_bh", [], [1], [1, 1], [0, 2.5], ["a"], [None], [[1]], {}, {"1": "a"}, {"a": "b"},
           {1: 2}, {"-1": "a"}, [-1], (1, 2), "[1]", b"x"]


@pytest.mark.parametrize("name", NAMES)
def test_any_value_is_accepted_or_refused_in_one_sentence(name):
    for value in AWKWARD:
        try: cfg = Config(**{name: value})
        except InputError as refusal:
            assert "\n" not in str(refusal) and len(str(refusal)) < 400
            continue
        again = Config(**json.loads(json.dumps(dataclasses.asdict(cfg))))
        assert again == cfg, f"{name}={value!r} does not survive JSON"


@pytest.mark.parametrize(("settings", "words"), [
    ({"seed": -1}, "seed is -1; it must be at least 0"),
    ({"n_tokens": 2 * 10**10}, "n_tokens is 20000000000; it must be at most 1000000000"),
    ({"horizon": 10**9}, "horizon is 1000000000; it must be shorter"),
    ({"layers": [0, 10**12]}, "below 10,000"), ({"n_samples": 10**5_000}, "it must be at most"),
    ({"pmi_threshold": 10**5_000}, "a finite number is needed"),
    ({"sae_ids": {"9" * 5_000: "a"}}, "a mapping from layer to text"),
    ({"dataset": "a\0b"}, "control character"), ({"model_name": "m" * 100_000}, "4,096"),
    ({"foo": 1}, "there is no setting 'foo'"), ({"sede": 1}, "did you mean 'seed'"),
    ({"x" * 100_000: 1}, "there is no setting")
])
def test_numbers_and_names_have_limits(settings, words, tmp_path):
    with pytest.raises(InputError, match=words) as refusal: Config(**settings)
    assert len(str(refusal.value)) < 400


@pytest.mark.parametrize(("text", "words"), [
    ('{"n_tokens": ' + "9" * 5_000 + "}", "5,000 digits"), ("[" * 100_000, "too deeply nested"),
    ("[]", "an object was expected"), ('{"foo": 1}', "there is no setting 'foo', as"),
    ('{"dataset": "\\ud83d"}', "half of a two-part"), ("", "not JSON")
])
def test_hostile_settings_files_are_one_sentence(text, words, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=words): Config.load(tmp_path / "config.json")


@pytest.mark.parametrize("seed", range(20))
def test_round_trip_of_random_valid_settings(seed, tmp_path):
    rng = random.Random(seed)
    changes = {
        "layers": sorted(rng.sample(range(30), 3)), "doses": [rng.random(), 1 + rng.random()],
        "n_samples": rng.randrange(8, 500), "within_layer": rng.random() < 0.5,
        "pmi_threshold": rng.uniform(-3, 3), "output_dir": str(tmp_path),
        "device": rng.choice(["auto", "cpu", "cuda:3", "mps"]), "batch_rows": rng.choice([None, 7])
    }
    cfg = Config.preset(rng.choice(list(PRESETS)), **changes)
    assert Config.load(cfg.save(tmp_path / "deep" / "config.json")) == cfg
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["config.json"]


def test_the_fingerprint_follows_what_can_change_a_result():
    different = {
        "model_name": "m", "sae_release": "r", "sae_ids": {0: "a"}, "sae_id_template": "{layer}",
        "layers": [1], "device": "cpu", "dtype": "float64", "value_dtype": "float32",
        "dataset": "d", "dataset_split": "s", "text_column": "c", "output_dir": "o",
        "check_reconstruction": False,
        "importance_method": "frequency", "doses": [0, 1], "within_layer": True,
        "correction_method": "none", "batch_rows": 5, "clamp_percentile_low": 20,
        "clamp_percentile_high": 80, "significance_level": 0.02, "max_samples": 500,
        "evidence": "pre-activation", "candidate_method": "transport", "all_targets": False,
        "bos": "none", "positions": "last", "keep": "edges", "memory_gb": 2.0,
        "sae_gb": 2.0, "whole_dictionary": True, "keep_responses": True,
        "executor": "ray", "labels": "rules"
    }
    base = Config()
    for name in NAMES:
        value = different.get(
            name, getattr(base, name) + 1 if name in NAMES and isinstance(getattr(base, name), int)
            and not isinstance(getattr(base, name), bool) else None
        )
        if value is None: value = getattr(base, name) / 2 + 0.1
        changed = base.replace(**{name: value})
        assert (changed.fingerprint() == base.fingerprint()) == (name in FREE_SETTINGS), name
        assert changed.fingerprint([name]) != base.fingerprint([name])
    assert base.fingerprint() == Config.preset("demo").fingerprint()


def test_every_setting_has_a_meaning():
    assert {row.name for row in settings_table()} == set(NAMES)


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError): Config().n_tokens = 5


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into read-only folders")
def test_read_only_folder(tmp_path):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(InputError, match="could not be written"):
        Config().save(tmp_path / "config.json")


def test_a_path_through_a_file(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="could not be written"):
        Config().save(tmp_path / "file" / "config.json")


def test_damaged_files_give_one_sentence(tmp_path):
    path = Config().save(tmp_path / "config.json")
    content, rng = path.read_bytes(), random.Random(0)
    for _ in range(300):
        broken = bytearray(content)
        for _ in range(rng.randrange(1, 4)): broken[rng.randrange(len(broken))] = rng.randrange(256)
        path.write_bytes(broken[:rng.randrange(len(broken))] if rng.random() < 0.3 else broken)
        try: Config.load(path)
        except InputError as refusal: assert "\n" not in str(refusal)


def test_an_absent_device_is_one_sentence():
    cfg = Config(device="cuda:99")
    with pytest.raises(InputError, match="this machine has"): _ = cfg.torch_device
