"""Upscalers of diffusers, on tiny ones that the test makes with its own classes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dpwavelet.checkpoint import write_json
from dpwavelet.enlargers.diffusion import STEPS, DiffusersEnlarger, open_diffusers
from dpwavelet.errors import ConfigError, ModelError
from dpwavelet.wavelet import analyze


def pictures(count: int) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


class TestFolders:
    """What is refused before diffusers is asked."""

    @pytest.mark.parametrize(
        ("index", "words"),
        [
            ({"_class_name": "StableDiffusionPipeline"}, "describes a StableDiffusionPipeline"),
            ({"_class_name": ["code", "LDMSuperResolutionPipeline"]}, "one of"),
            ([], "describes a None"),
            ({"_class_name": "LDMSuperResolutionPipeline", "unet": ["mine", "UNet"]}, "code of its own"),
            ({"_class_name": "LDMSuperResolutionPipeline", "unet": ["os", "system"]}, "code of its own"),
        ],
    )
    def test_other_pipelines_and_parts_with_code_of_their_own_are_refused(
        self, index: Any, words: str, tmp_path: Path
    ) -> None:
        write_json(tmp_path / "model_index.json", index)
        with pytest.raises(ModelError, match=words):
            open_diffusers(tmp_path, 32, "haar")

    def test_without_diffusers_the_error_says_what_to_install(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(__import__("sys").modules, "diffusers", None)
        write_json(tmp_path / "model_index.json", {"_class_name": "LDMSuperResolutionPipeline"})
        with pytest.raises(ConfigError, match=r"pip install 'dpwavelet\[diffusers\]'"):
            open_diffusers(tmp_path, 32, "haar")


def latent(folder: Path) -> Path:
    """An untrained LDMSuperResolutionPipeline that enlarges four times."""
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipeline = diffusers.LDMSuperResolutionPipeline(
            vqvae=diffusers.VQModel(
                block_out_channels=(8, 8, 8), layers_per_block=1, latent_channels=3, norm_num_groups=4,
                down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
            ),
            unet=diffusers.UNet2DModel(
                sample_size=8, in_channels=6, out_channels=3, block_out_channels=(8, 8), norm_num_groups=4,
                layers_per_block=1, down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
            ),
            scheduler=diffusers.DDIMScheduler(),
        )  # fmt: skip
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def prompted(folder: Path) -> Path:
    """An untrained StableDiffusionUpscalePipeline with a text encoder of a few words."""
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    words = folder.parent / "words"
    words.mkdir()
    letters = ["<|startoftext|>", "<|endoftext|>", *"abcdefghijklmnopqrstuvwxyz"]
    letters += [f"{letter}</w>" for letter in "abcdefghijklmnopqrstuvwxyz"]
    (words / "vocab.json").write_text(json.dumps({letter: place for place, letter in enumerate(letters)}))
    (words / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(
        str(words / "vocab.json"), str(words / "merges.txt"), model_max_length=16
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipeline = diffusers.StableDiffusionUpscalePipeline(
            vae=diffusers.AutoencoderKL(
                block_out_channels=(8, 8, 8), layers_per_block=1, latent_channels=4, norm_num_groups=4,
                down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
            ),
            text_encoder=transformers.CLIPTextModel(
                transformers.CLIPTextConfig(
                    vocab_size=len(letters), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                    num_attention_heads=2, max_position_embeddings=16, bos_token_id=0, eos_token_id=1,
                    pad_token_id=1,
                )
            ),
            tokenizer=tokenizer,
            unet=diffusers.UNet2DConditionModel(
                sample_size=8, in_channels=7, out_channels=4, block_out_channels=(8, 8), norm_num_groups=4,
                layers_per_block=1, cross_attention_dim=16, attention_head_dim=4, num_class_embeds=1000,
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            ),
            low_res_scheduler=diffusers.DDPMScheduler(),
            scheduler=diffusers.DDIMScheduler(),
        )  # fmt: skip
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.mark.filterwarnings("ignore")  # other people's deprecations
class TestPipelines:
    """Two kinds of folders."""

    @pytest.fixture(params=[latent, prompted], ids=["latent", "prompted"])
    def folder(self, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
        made: Path = request.param(tmp_path / "upscaler")
        return made

    def opened(self, folder: Path, *, consistent: bool = True) -> DiffusersEnlarger:
        found = open_diffusers(folder, 32, "haar", consistent=consistent)
        return DiffusersEnlarger(found.name, found.files, found.pipeline, 32, "haar", consistent, steps=2)

    def test_pictures_are_enlarged_around_the_coarse_ones_each_by_its_own_seed(self, folder: Path) -> None:
        state = torch.get_rng_state()
        enlarger, few = self.opened(folder), pictures(3)
        whole = enlarger(few, captions=["a", "b", "c"], seed=4, first=0)
        assert torch.equal(torch.get_rng_state(), state)
        assert whole.shape == (3, 3, 32, 32)
        assert (analyze(whole, 2)[0] - few).abs().max() < 1e-5
        assert torch.equal(enlarger(few[2:], captions=["c"], seed=4, first=2)[0], whole[2])
        assert not torch.equal(enlarger(few[2:], captions=["c"], seed=4, first=3)[0], whole[2])
        assert not torch.equal(enlarger(few[2:], captions=["c"], seed=5, first=2)[0], whole[2])

    def test_a_side_that_needs_it_twice_is_reached(self, folder: Path) -> None:
        found = open_diffusers(folder, 64, "haar", consistent=False)
        enlarger = DiffusersEnlarger(found.name, found.files, found.pipeline, 64, "haar", False, steps=1)
        full = enlarger(pictures(1), captions=["a"], seed=4, first=0)
        assert full.shape == (1, 3, 64, 64)
        assert -1 <= float(full.min()) < float(full.max()) <= 1

    def test_its_name_says_the_steps_and_its_digest_changes_with_any_file(self, folder: Path) -> None:
        found = open_diffusers(folder, 32, "haar")
        assert found.steps == STEPS
        assert found.name.endswith(f"of diffusers in upscaler, {STEPS} steps")
        (folder / "scheduler" / "note.txt").write_text("changed")
        assert open_diffusers(folder, 32, "haar").files != found.files

    def test_a_folder_without_safetensors_is_refused(self, folder: Path) -> None:
        for path in folder.rglob("*.safetensors"):
            path.rename(path.with_suffix(".bin"))
        with pytest.raises(ModelError, match="does not hold a whole"):
            open_diffusers(folder, 32, "haar")
