"""Folders: our own comes back, a tiny Stable Diffusion made by the test loads, broken ones are named."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch

from dpwavelet.comparison.methods import Method, open_system
from dpwavelet.errors import ConfigError, ModelError
from dpwavelet.rivals.diffusion import training
from dpwavelet.rivals.diffusion.gradients import DrawClipper
from dpwavelet.rivals.diffusion.networks import LatentDiffusion, create
from dpwavelet.rivals.diffusion.sampling import Ddim, draw
from dpwavelet.rivals.diffusion.training import Finetuning, record_losses, trained_parameters
from dpwavelet.rivals.diffusion.weights import ClipEmbedder, from_diffusers, load, save
from dpwavelet.text import Vocabulary

FEW = Ddim(steps=2)


@pytest.fixture(scope="module")
def stable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained Stable Diffusion of 16 pixels with a text encoder of a few words, as diffusers writes."""
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    folder = tmp_path_factory.mktemp("stable") / "model"
    words = folder.parent / "words"
    words.mkdir()
    letters = ["<|startoftext|>", "<|endoftext|>", *"abcdefghijklmnopqrstuvwxyz"]
    letters += [f"{letter}</w>" for letter in "abcdefghijklmnopqrstuvwxyz"]
    (words / "vocab.json").write_text(json.dumps({letter: place for place, letter in enumerate(letters)}))
    (words / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(
        str(words / "vocab.json"), str(words / "merges.txt"), model_max_length=12
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parts = {
            "vae": diffusers.AutoencoderKL(
                block_out_channels=(8, 8), layers_per_block=1, latent_channels=4, norm_num_groups=4,
                down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
            ),
            "text_encoder": transformers.CLIPTextModel(
                transformers.CLIPTextConfig(
                    vocab_size=len(letters), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                    num_attention_heads=2, max_position_embeddings=12, bos_token_id=0, eos_token_id=1,
                    pad_token_id=1,
                )
            ).half(),
            "unet": diffusers.UNet2DConditionModel(
                sample_size=8, block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1,
                cross_attention_dim=16, attention_head_dim=2,
                down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
                up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            ).half(),
            "scheduler": diffusers.PNDMScheduler(
                beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, skip_prk_steps=True,
                steps_offset=1,
            ),
            "tokenizer": tokenizer,
        }  # fmt: skip
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    return folder


def states(diffusion: LatentDiffusion) -> dict[str, torch.Tensor]:
    """Every tensor of both networks."""
    parts = {"autoencoder": diffusion.autoencoder, "denoiser": diffusion.denoiser}
    return {f"{part}.{name}": t for part, net in parts.items() for name, t in net.state_dict().items()}


class TestOurs:
    """What is saved comes back."""

    def test_a_saved_model_draws_the_same(self, diffusion: LatentDiffusion, tmp_path: Path) -> None:
        save(diffusion, tmp_path / "model")
        again = load(tmp_path / "model")
        assert again.image_size == 32
        expected = draw(diffusion, ["a red hat"], FEW, seed=0)
        assert torch.equal(draw(again, ["a red hat"], FEW, seed=0), expected)
        assert not any(p.requires_grad for p in again.denoiser.parameters())
        modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "model").rglob("*.*")}
        assert len(modes) == 1  # whoever may read the settings may read the weights
        assert str(tmp_path) not in "".join(p.read_text() for p in (tmp_path / "model").rglob("*.json"))

    def test_half_precision_halves_the_files_and_rounds_the_weights_of_the_copy_alone(
        self, diffusion: LatentDiffusion, tmp_path: Path
    ) -> None:
        """What comes back computes in float32 with rounded weights."""
        before = {name: tensor.clone() for name, tensor in states(diffusion).items()}
        save(diffusion, tmp_path / "whole")
        save(diffusion, tmp_path / "half", half=True)
        again = states(load(tmp_path / "half"))
        assert {tensor.dtype for tensor in again.values()} == {torch.float32}
        assert all(torch.equal(again[name], tensor.bfloat16().float()) for name, tensor in before.items())
        assert all(torch.equal(tensor, before[name]) for name, tensor in states(diffusion).items())
        for file in (tmp_path / "whole").rglob("*.safetensors"):
            rounded = tmp_path / "half" / file.relative_to(tmp_path / "whole")
            assert rounded.stat().st_size < 0.75 * file.stat().st_size  # names take their room too

    def test_weights_depend_on_the_seed_alone(self) -> None:
        torch.manual_seed(5)
        state = torch.get_rng_state()
        first, again, other = (create("tiny", Vocabulary.of(), seed).denoiser for seed in (3, 3, 4))
        assert torch.equal(torch.get_rng_state(), state)
        pairs = zip(first.parameters(), again.parameters(), other.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b, _ in pairs)
        assert not torch.equal(first.unet.conv_in.weight, other.unet.conv_in.weight)

    @pytest.mark.parametrize("gone", ["embedder", "unet", "vae"])
    def test_a_part_that_is_missing_is_named(
        self, diffusion: LatentDiffusion, tmp_path: Path, gone: str
    ) -> None:
        save(diffusion, tmp_path / "model")
        (tmp_path / "model" / gone).rename(tmp_path / "elsewhere")
        with pytest.raises(ModelError, match=gone):
            load(tmp_path / "model")

    def test_without_diffusers_the_error_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(__import__("sys").modules, "diffusers", None)
        with pytest.raises(ConfigError, match=r"pip install \"dpwavelet\[diffusers\]\""):
            create("tiny", Vocabulary.of(), 0)

    def test_an_unknown_preset_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="tiny, thumb, photo, paper"):
            create("huge", Vocabulary.of(), 0)


class TestDiffusers:
    """What others made."""

    def test_a_stable_diffusion_draws_and_comes_back_from_our_own_folder(
        self, stable: Path, tmp_path: Path
    ) -> None:
        state = torch.get_rng_state()
        model = from_diffusers(stable)
        assert torch.equal(torch.get_rng_state(), state)
        assert isinstance(model.denoiser.embedder, ClipEmbedder)
        assert (model.image_size, model.latent) == (16, (4, 8, 8))
        assert float(model.scheduler.alphas_cumprod[0]) == pytest.approx(1 - 0.00085)
        expected = draw(model, ["a cat", ""], FEW, seed=0)
        assert expected.shape == (2, 3, 16, 16)
        save(model, tmp_path / "ours")
        assert torch.equal(draw(load(tmp_path / "ours"), ["a cat", ""], FEW, seed=0), expected)

    def test_a_folder_of_diffusers_is_a_system_to_compare(self, stable: Path) -> None:
        system = open_system(Method.parse("dp-ldm"), stable)
        assert system.image_size == 16
        assert isinstance(system.rival.diffusion.denoiser.embedder, ClipEmbedder)

    def test_every_gradient_of_it_is_known_record_by_record(self, stable: Path) -> None:
        model, settings = from_diffusers(stable), Finetuning(draws=2, mixed_precision=False)
        parameters = trained_parameters(model.denoiser, settings)
        clipper = DrawClipper(model.denoiser, parameters, max_norm=1.0)
        clipper.check(partial(record_losses, model, settings), *training._made_up(model, 2))
        names = " ".join(parameters)
        assert "position_embedding" in names
        assert "attentions.0.proj_in" in names  # a convolution here

    def test_a_folder_in_which_nothing_reads_captions_is_refused(self, stable: Path, tmp_path: Path) -> None:
        for part in ("vae", "unet"):
            (tmp_path / part).symlink_to(stable / part)
        with pytest.raises(ModelError, match="nothing there reads captions"):
            from_diffusers(tmp_path)

    def test_weights_that_are_no_safetensors_or_incomplete_are_refused(
        self, stable: Path, tmp_path: Path
    ) -> None:
        for part in ("vae", "unet"):
            (tmp_path / part).mkdir()
            for file in (stable / part).iterdir():
                (tmp_path / part / file.name).write_bytes(file.read_bytes())
        weights = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
        config = json.loads((tmp_path / "unet" / "config.json").read_text())
        (tmp_path / "unet" / "config.json").write_text(json.dumps(config | {"layers_per_block": 2}))
        with pytest.raises(ModelError, match="lacks the weights"):
            from_diffusers(tmp_path)
        (tmp_path / "unet" / "config.json").write_text(json.dumps(config))
        weights.rename(weights.with_suffix(".bin"))
        with pytest.raises(ModelError, match="cannot be read"):
            from_diffusers(tmp_path)
