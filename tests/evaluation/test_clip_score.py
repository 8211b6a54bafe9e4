"""CLIPScore is its formula, needs real weights for its name, and says what to install."""

import json
import sys
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from dpwavelet.errors import ConfigError, ModelError
from dpwavelet.evaluation.clip_score import PictureText, clip_from_folder, clip_score
from dpwavelet.images.sheet import from_bytes

WORDS = ("red", "green", "blue")


def sentences(said: Sequence[str]) -> Tensor:
    """A sentence as how often it names each colour, less one."""
    assert all(text.startswith("A photo depicts ") for text in said)
    return torch.tensor([[text.split().count(word) - 0.5 for word in WORDS] for text in said])


def pictures(images: Tensor) -> Tensor:
    return images.mean((2, 3))


FAKE = PictureText("fake", pictures, sentences)


def painted(count: int) -> tuple[Tensor, list[str]]:
    places = np.random.default_rng(0).integers(3, size=count)
    images = torch.zeros(count, 3, 8, 8, dtype=torch.uint8)
    images[torch.arange(count), torch.from_numpy(places)] = 255
    return images, [f"a {WORDS[k]} wall" for k in places]


def test_the_score_is_the_published_formula():
    images, captions = painted(70)
    images = images // 2 + torch.arange(70, dtype=torch.uint8)[:, None, None, None]
    shown, said = (
        pictures(from_bytes(images)).numpy(),
        sentences(["A photo depicts " + one for one in captions]).numpy(),
    )
    cosines = (shown * said).sum(1) / np.linalg.norm(shown, axis=1) / np.linalg.norm(said, axis=1)
    assert clip_score(FAKE, images, captions).score.value == pytest.approx(
        np.mean(2.5 * np.maximum(cosines, 0))
    )


def test_captions_of_other_pictures_score_less_and_ignorant_pictures_do_not():
    images, captions = painted(60)
    found = clip_score(FAKE, images, captions)
    assert found.score.value == pytest.approx(2.5)
    assert found.swapped.interval[1] < 1.5
    ignorant = clip_score(FAKE, images[torch.from_numpy(np.random.default_rng(1).permutation(60))], captions)
    assert ignorant.score.interval[0] < ignorant.swapped.value < ignorant.score.interval[1]
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["score"]["name"] == "fake"


def test_a_picture_that_contradicts_its_caption_scores_zero_and_not_less():
    images, captions = painted(20)
    assert clip_score(FAKE, 255 - images, captions).score.value == 0.0


def test_pictures_and_captions_must_belong_together():
    images, captions = painted(6)
    with pytest.raises(ConfigError, match="6 images have 5 captions"):
        clip_score(FAKE, images, captions[:5])


def test_without_the_package_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"pip install 'dpwavelet\[transformers\]'"):
        clip_from_folder(tmp_path)


def tiny_clip(folder, trained: bool) -> None:
    """A random CLIP in the form of transformers, of the smallest sizes."""
    package = pytest.importorskip("transformers", exc_type=ImportError)
    letters = [chr(code) for code in range(33, 127)]
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    vocabulary = {token: place for place, token in enumerate(tokens)}
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = package.CLIPConfig(
        text_config=shape
        | {"vocab_size": len(tokens), "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1},
        vision_config=shape | {"image_size": 16, "patch_size": 8},
        projection_dim=6,
    )
    torch.manual_seed(0)
    model = package.CLIPModel(config)
    if trained:
        model.logit_scale.data.fill_(4.6052)
    model.save_pretrained(folder, safe_serialization=True)
    package.CLIPTokenizer.from_pretrained(folder).save_pretrained(folder)


@pytest.mark.filterwarnings("ignore")  # of the package
@pytest.mark.parametrize("trained", [False, True])
def test_a_clip_on_disk_is_read_and_an_untrained_one_does_not_carry_the_name(tmp_path, trained):
    tiny_clip(tmp_path / "tiny", trained)
    network = clip_from_folder(tmp_path / "tiny")
    assert network.name == ("CLIPScore (tiny)" if trained else "untrained picture and text score (tiny)")
    images, captions = painted(8)
    found = clip_score(network, images, captions)
    assert 0 <= found.score.value <= 2.5
    once, padded = network.sentences(["a wall"]), network.sentences(["a wall", "a much longer sentence"])
    assert torch.allclose(once[0], padded[0], atol=1e-5)
    assert network.pictures(from_bytes(images)).shape == (8, 6)


@pytest.mark.filterwarnings("ignore")  # of the package
def test_embeddings_are_those_of_the_package(tmp_path):
    package = pytest.importorskip("transformers", exc_type=ImportError)
    tiny_clip(tmp_path / "tiny", trained=True)
    network, model = clip_from_folder(tmp_path / "tiny"), package.CLIPModel.from_pretrained(tmp_path / "tiny")
    tokens = package.CLIPTokenizer.from_pretrained(tmp_path / "tiny")(["a wall"], return_tensors="pt")
    mean, deviation = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    images = torch.rand(2, 3, 16, 16)  # of the size that the network takes
    ready = (images - torch.tensor(mean)[:, None, None]) / torch.tensor(deviation)[:, None, None]
    found = model(**tokens, pixel_values=ready)
    unit = torch.nn.functional.normalize
    assert torch.allclose(unit(network.pictures(2 * images - 1)), found.image_embeds, atol=1e-5)
    assert torch.allclose(unit(network.sentences(["a wall"])), found.text_embeds, atol=1e-5)


def test_a_folder_without_weights_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", sys)  # any module: nothing of it is reached
    with pytest.raises(ModelError, match=r"no model\.safetensors"):
        clip_from_folder(tmp_path)
