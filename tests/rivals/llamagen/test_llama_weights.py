"""Folders of ours come back, and published files load by the names that their authors gave the parts."""

import argparse
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dpwavelet.checkpoint import read_json, write_json, write_tensors
from dpwavelet.comparison.methods import Method, open_system
from dpwavelet.errors import ConfigError, ModelError
from dpwavelet.rivals.llamagen import LlamaGen, create
from dpwavelet.rivals.llamagen.sampling import LlamaSampling
from dpwavelet.rivals.llamagen.transformer import LlamaTransformer
from dpwavelet.rivals.llamagen.weights import (
    from_published,
    load,
    open_published,
    published_transformer,
    save,
)
from dpwavelet.rivals.llamagen.words import T5, ClassNames
from dpwavelet.text import Vocabulary

CLASSES = ["cat", "dog", "house", "tree"]
C, LATENT, CODES, SIDE = 32, 6, 40, 2  # channels, latent channels, codes, raster
E, INNER, DEPTH, HEADS = 16, 24, 2, 2


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))) * 0.1


def norm(name: str, width: int) -> dict[str, Tensor]:
    return {f"{name}.weight": drawn(width) + 1, f"{name}.bias": drawn(width)}


def conv(name: str, before: int, after: int, side: int = 3) -> dict[str, Tensor]:
    return {f"{name}.weight": drawn(after, before, side, side), f"{name}.bias": drawn(after)}


def residual(name: str, before: int, after: int) -> dict[str, Tensor]:
    tensors = norm(f"{name}.norm1", before) | conv(f"{name}.conv1", before, after)
    tensors |= norm(f"{name}.norm2", after) | conv(f"{name}.conv2", after, after)
    return tensors | (conv(f"{name}.nin_shortcut", before, after, 1) if before != after else {})


def attention(name: str, width: int) -> dict[str, Tensor]:
    parts = ("q", "k", "v", "proj_out")
    tensors = norm(f"{name}.norm", width)
    for part in parts:
        tensors |= conv(f"{name}.{part}", width, width, 1)
    return tensors


def middle(name: str, width: int) -> dict[str, Tensor]:
    ends = residual(f"{name}.0", width, width) | residual(f"{name}.2", width, width)
    return ends | attention(f"{name}.1", width)


def vq_tensors() -> dict[str, Tensor]:
    """A VQ-16 with a quarter of the channels: names and order of parts as in the published code."""
    widths = [C, C, 2 * C, 2 * C, 4 * C]
    tensors = conv("encoder.conv_in", 3, C) | conv("decoder.conv_in", LATENT, widths[-1])
    before = C
    for level, width in enumerate(widths):
        for block in range(2):
            tensors |= residual(f"encoder.conv_blocks.{level}.res.{block}", before, width)
            before = width
            if level == 4:
                tensors |= attention(f"encoder.conv_blocks.{level}.attn.{block}", width)
        if level < 4:
            tensors |= conv(f"encoder.conv_blocks.{level}.downsample.conv", width, width)
    for level, width in enumerate(widths[::-1]):
        for block in range(3):
            tensors |= residual(f"decoder.conv_blocks.{level}.res.{block}", before, width)
            before = width
            if level == 0:
                tensors |= attention(f"decoder.conv_blocks.{level}.attn.{block}", width)
        if level < 4:
            tensors |= conv(f"decoder.conv_blocks.{level}.upsample.conv", width, width)
    tensors |= middle("encoder.mid", widths[-1]) | middle("decoder.mid", widths[-1])
    tensors |= norm("encoder.norm_out", widths[-1]) | conv("encoder.conv_out", widths[-1], LATENT)
    tensors |= norm("decoder.norm_out", C) | conv("decoder.conv_out", C, 3)
    tensors |= conv("quant_conv", LATENT, 8, 1) | conv("post_quant_conv", 8, LATENT, 1)
    return tensors | {"quantize.embedding.weight": drawn(CODES, 8), "quantize.codebook_used": torch.zeros(9)}


def gpt_tensors(kind: str) -> dict[str, Any]:
    """A GPT with the names of the published code."""
    tensors: dict[str, Any] = {
        "tok_embeddings.weight": drawn(CODES, E),
        "norm.weight": drawn(E) + 1,
        "output.weight": drawn(CODES, E),
    }
    for n in range(DEPTH):
        tensors |= {
            f"layers.{n}.attention.wqkv.weight": drawn(3 * E, E),
            f"layers.{n}.attention.wo.weight": drawn(E, E),
            f"layers.{n}.feed_forward.w1.weight": drawn(INNER, E),
            f"layers.{n}.feed_forward.w3.weight": drawn(INNER, E) - 0.1,
            f"layers.{n}.feed_forward.w2.weight": drawn(E, INNER),
            f"layers.{n}.attention_norm.weight": drawn(E) + 1,
            f"layers.{n}.ffn_norm.weight": drawn(E) + 1,
        }
    if kind == "classes":
        return tensors | {"cls_embedding.embedding_table.weight": drawn(len(CLASSES) + 1, E)}
    return tensors | {
        "cls_embedding.cap_proj.fc1.weight": drawn(E, 5),
        "cls_embedding.cap_proj.fc2.weight": drawn(E, E) + 0.05,
        "cls_embedding.uncond_embedding": torch.nn.Parameter(drawn(7, 5)),
    }


def saved(path: Path, tree: Any) -> Path:
    torch.save(tree, path)
    return path


@pytest.fixture(scope="module")
def vq(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("vq") / "vq_ds16.pt", {"model": OrderedDict(vq_tensors())})


@pytest.fixture
def rival() -> LlamaGen:
    made = create("tiny", Vocabulary.of(), 3)
    return replace(made, sampling=LlamaSampling(batch_size=2, guidance=2.0), card={"name": "a test"}).eval()


def states(rival: LlamaGen) -> dict[str, Tensor]:
    parts = {"tokenizer": rival.tokenizer, "transformer": rival.transformer}
    return {f"{part}.{name}": t for part, net in parts.items() for name, t in net.state_dict().items()}


class TestFolder:
    """What is saved is what comes back."""

    def test_everything_comes_back(self, rival: LlamaGen, tmp_path: Path) -> None:
        save(rival, tmp_path / "it")
        found = load(tmp_path / "it")
        assert found.sampling == rival.sampling
        assert found.card == {"name": "a test"}
        assert states(found).keys() == states(rival).keys()
        assert all(torch.equal(t, states(rival)[name]) for name, t in states(found).items())
        assert torch.equal(found.draw(["a red house"], 1), rival.draw(["a red house"], 1))
        assert not any(p.requires_grad for p in found.transformer.parameters())

    def test_half_precision_halves_the_files_and_rounds_the_weights(
        self, rival: LlamaGen, tmp_path: Path
    ) -> None:
        save(rival, tmp_path / "whole")
        save(rival, tmp_path / "half", half=True)
        found = states(load(tmp_path / "half"))
        assert all(torch.equal(found[name], t.bfloat16().float()) for name, t in states(rival).items())
        sizes = [(tmp_path / it / "tokenizer.safetensors").stat().st_size for it in ("half", "whole")]
        assert sizes[0] < 0.6 * sizes[1]

    def test_a_damaged_folder_is_refused(self, rival: LlamaGen, tmp_path: Path) -> None:
        save(rival, tmp_path / "it")
        config = read_json(tmp_path / "it" / "config.json")
        for change, told in (
            ({"kind": "smoke"}, "does not describe"),
            ({"transformer": config["transformer"] | {"depth": 3}}, "does not fit"),
            ({"transformer": config["transformer"] | {"words": 7}}, "words"),
            ({"tokenizer": config["tokenizer"] | {"groups": 3}}, "does not describe"),
        ):
            write_json(tmp_path / "it" / "config.json", config | change)
            with pytest.raises(ModelError, match=told):
                load(tmp_path / "it")
        (tmp_path / "it" / "config.json").unlink()
        with pytest.raises(ModelError, match="cannot read"):
            load(tmp_path / "it")


class TestPublished:
    """Files as the authors of LlamaGen wrote them, but small."""

    @pytest.mark.parametrize("wrapper", ["ema", "model", "module", "state_dict", ""])
    def test_a_class_conditional_model_loads_and_draws(self, vq: Path, tmp_path: Path, wrapper: str) -> None:
        tensors = gpt_tensors("classes")
        gpt = saved(tmp_path / "c2i_B.pt", {wrapper: tensors, "steps": 3} if wrapper else tensors)
        rival = from_published(vq, gpt, image_size=32, words=ClassNames(CLASSES), heads=HEADS)
        assert rival.tokenizer.config.multipliers == (1, 1, 2, 2, 4)
        assert rival.tokenizer.config.tokens == (SIDE**2,)
        assert rival.transformer.config.blind_prefix
        mine = states(rival)
        for part, given in (("tokenizer", vq_tensors()), ("transformer", tensors)):
            for name, tensor in given.items():
                assert name == "quantize.codebook_used" or torch.equal(mine[f"{part}.{name}"], tensor)
        pictures = rival.draw(["cat", "a photo of a tree", ""], 0)
        assert pictures.shape == (3, 3, 32, 32)

    def test_names_of_wrapped_networks_lose_what_wraps_them(self, tmp_path: Path) -> None:
        tensors = {f"module._orig_mod.{name}": tensor for name, tensor in gpt_tensors("classes").items()}
        more = {
            "module._orig_mod.freqs_cis": torch.zeros(3),
            "module._orig_mod.layers.0.attention.kv_cache.k_cache": torch.zeros(1),
        }
        found = published_transformer(saved(tmp_path / "x.pt", tensors | more), SIDE, heads=HEADS)
        assert torch.equal(found.output.weight, gpt_tensors("classes")["output.weight"])

    def test_safetensors_of_the_same_names_are_read_too(self, tmp_path: Path) -> None:
        write_tensors(tmp_path / "x.safetensors", gpt_tensors("classes"))
        found = published_transformer(tmp_path / "x.safetensors", SIDE, heads=HEADS)
        assert torch.equal(found.norm.weight, gpt_tensors("classes")["norm.weight"])

    def test_a_class_is_its_row_and_none_the_last(self, tmp_path: Path) -> None:
        tensors = gpt_tensors("classes")
        model = published_transformer(saved(tmp_path / "x.pt", tensors), SIDE, heads=HEADS)
        table = tensors["cls_embedding.embedding_table.weight"]
        found = model.cls_embedding(torch.tensor([[1, 2], [1, 5], [1, 0]])).embeddings[:, 0]
        assert torch.equal(found, table[[0, 3, 4]])

    def test_a_text_conditional_model_loads_and_reads_features(self, vq: Path, tmp_path: Path) -> None:
        gpt = saved(tmp_path / "t2i_XL.pt", {"model": gpt_tensors("features")})
        model = published_transformer(gpt, SIDE, heads=HEADS)
        features = drawn(2, 7, 5)
        features[0, :4] = 0
        losses = model.losses(features, [torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])])
        for row in range(2):
            wanted = by_the_book(
                gpt_tensors("features"), features[row], torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])[row]
            )
            assert float(losses.image[row]) == pytest.approx(wanted, rel=1e-4)

        t5 = T5(lambda text, **_: argparse.Namespace(input_ids=[4, 5, 1]), FakeEncoder())
        rival = from_published(vq, gpt, image_size=32, words=t5, heads=HEADS)
        assert rival.sampling.guidance == 7.5
        assert rival.transformer.config.caption_length == 8
        assert rival.draw(["a red house", ""], 0).shape == (2, 3, 32, 32)
        save(rival, tmp_path / "ours")
        with pytest.raises(ConfigError, match="T5"):
            load(tmp_path / "ours")
        again = load(tmp_path / "ours", t5)
        assert torch.equal(again.draw(["a red house"], 0), rival.draw(["a red house"], 0))

    def test_a_class_model_of_ours_keeps_its_names(self, vq: Path, tmp_path: Path) -> None:
        gpt = saved(tmp_path / "x.pt", gpt_tensors("classes"))
        rival = from_published(vq, gpt, image_size=32, words=ClassNames(CLASSES), heads=HEADS)
        save(rival, tmp_path / "ours")
        assert torch.equal(load(tmp_path / "ours").draw(["dog"], 0), rival.draw(["dog"], 0))

    def test_a_folder_of_published_files_is_a_system_to_compare(self, vq: Path, tmp_path: Path) -> None:
        folder = self.folder(vq, tmp_path, classes=CLASSES)
        rival = from_published(vq, folder / "c2i_B.pt", image_size=32, words=ClassNames(CLASSES), heads=HEADS)
        system = open_system(Method.parse("dp-llamagen"), folder)
        assert system.image_size == 32
        assert torch.equal(system.rival.draw(["cat", "tree"], 0), rival.draw(["cat", "tree"], 0))

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ({"transformer": "../c2i_B.pt"}, "no place inside"),
            ({"transformer": "/etc/hosts"}, "no place inside"),
            ({"tokenizer": 3}, "no place inside"),
            ({"image_size": "32"}, "image_size must be a whole number"),
            ({"heads": 0}, "heads must be a whole number"),
            ({"heads": True}, "heads must be a whole number"),
            ({"t5": "t5"}, "either t5 or classes"),
            ({"classes": None}, "either t5 or classes"),
            ({"more": 1}, "must tell image_size, tokenizer, transformer"),
            ({"tokenizer": None}, "must tell image_size, tokenizer, transformer"),
            ({"classes": "cat"}, "a list of names"),
        ],
    )
    def test_a_folder_that_says_something_else_is_refused(
        self, vq: Path, tmp_path: Path, change: dict[str, Any], told: str
    ) -> None:
        folder = self.folder(vq, tmp_path, **({"classes": CLASSES} | change))
        with pytest.raises(ModelError, match=told):
            open_published(folder)

    def folder(self, vq: Path, tmp_path: Path, **change: Any) -> Path:
        """Published files, and what `published.json` says of them; nothing of what is None."""
        (tmp_path / "vq_ds16.pt").write_bytes(vq.read_bytes())
        saved(tmp_path / "c2i_B.pt", gpt_tensors("classes"))
        said = {"tokenizer": "vq_ds16.pt", "transformer": "c2i_B.pt", "image_size": 32, "heads": HEADS}
        write_json(
            tmp_path / "published.json",
            {name: value for name, value in (said | change).items() if value is not None},
        )
        return tmp_path

    def test_the_wrong_words_are_refused(self, vq: Path, tmp_path: Path) -> None:
        gpt = saved(tmp_path / "x.pt", gpt_tensors("features"))
        with pytest.raises(ConfigError, match="T5 encoder"):
            from_published(vq, gpt, image_size=32, words=ClassNames(CLASSES), heads=HEADS)
        gpt = saved(tmp_path / "y.pt", gpt_tensors("classes"))
        with pytest.raises(ConfigError, match="too many"):
            from_published(vq, gpt, image_size=32, words=ClassNames([*CLASSES, "cow"]), heads=HEADS)

    def test_files_of_something_else_are_refused(self, vq: Path, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="holds no transformer"):
            published_transformer(vq, SIDE)
        missing = gpt_tensors("classes")
        del missing["layers.1.attention.wo.weight"]
        with pytest.raises(ModelError, match=r"layers\.1\.attention\.wo\.weight"):
            published_transformer(saved(tmp_path / "x.pt", missing), SIDE, heads=HEADS)
        with pytest.raises(ModelError, match="holds no tokenizer"):
            gpt = saved(tmp_path / "y.pt", gpt_tensors("classes"))
            from_published(gpt, gpt, image_size=32, words=ClassNames(CLASSES), heads=HEADS)

    def test_a_file_that_claims_a_huge_network_takes_no_memory_for_it(self, tmp_path: Path) -> None:
        claimed = gpt_tensors("classes")
        claimed["tok_embeddings.weight"] = torch.zeros(1, 1 << 22)
        claimed["layers.0.feed_forward.w1.weight"] = torch.zeros(1 << 22, 1)  # 2 to the 44th weights and more
        with pytest.raises(ModelError, match="does not fit"):
            published_transformer(saved(tmp_path / "x.pt", claimed), SIDE, heads=HEADS)

    def test_a_file_that_names_more_than_tensors_is_refused(self, tmp_path: Path) -> None:
        tree = {"model": gpt_tensors("classes"), "args": argparse.Namespace(lr=1)}
        with pytest.raises(ModelError, match="plain tensors"):
            published_transformer(saved(tmp_path / "x.pt", tree), SIDE, heads=HEADS)


class FakeEncoder(torch.nn.Module):
    """Features that follow from the ids."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor([0.1, 0.2, -0.1, 0.3, 0.05]))
        self.config = argparse.Namespace(vocab_size=30, d_model=5)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> argparse.Namespace:
        return argparse.Namespace(last_hidden_state=input_ids[..., None] * self.scale)


def by_the_book(weights: dict[str, Tensor], features: Tensor, ids: Tensor) -> float:
    """The loss of one record as the published code has it, written out position by position."""
    w = {name: tensor.detach().double() for name, tensor in weights.items()}
    hidden = F.gelu(features.double() @ w["cls_embedding.cap_proj.fc1.weight"].T, approximate="tanh")
    prefix = hidden @ w["cls_embedding.cap_proj.fc2.weight"].T
    x = torch.cat((prefix, w["tok_embeddings.weight"][ids[:-1]]))
    P, T, D = len(prefix), len(x), E // HEADS
    padded = [not bool(features[p].any()) for p in range(P)] + [False] * (T - P)

    def normed(rows: Tensor, name: str) -> Tensor:
        return rows / (rows.square().mean(-1, keepdim=True) + 1e-5).sqrt() * w[f"{name}.weight"]

    def rotated(row: Tensor, place: int) -> Tensor:
        if place < P:
            return torch.zeros_like(row)  # the table of the published code is zero for the prefix
        y, x = divmod(place - P, SIDE)
        out = row.clone()
        for pair in range(D // 2):
            half = D // 4
            angle = (y if pair < half else x) / 10000 ** (2 * (pair % half) / (D // 2))
            turn = torch.tensor(angle, dtype=torch.float64)
            a, b = row[2 * pair], row[2 * pair + 1]
            out[2 * pair] = a * turn.cos() - b * turn.sin()
            out[2 * pair + 1] = b * turn.cos() + a * turn.sin()
        return out

    for n in range(DEPTH):
        name = f"layers.{n}"
        q, k, v = (normed(x, f"{name}.attention_norm") @ w[f"{name}.attention.wqkv.weight"].T).split(E, -1)
        mixed = torch.zeros_like(q)
        for head in range(HEADS):
            part = slice(head * D, (head + 1) * D)
            for t in range(T):
                seen = [s for s in range(t + 1) if s == t or not padded[s]]
                query = rotated(q[t, part], t)
                scores = torch.stack([query @ rotated(k[s, part], s) / D**0.5 for s in seen])
                mixed[t, part] = scores.softmax(0) @ v[seen][:, part]
        x = x + mixed @ w[f"{name}.attention.wo.weight"].T
        y = normed(x, f"{name}.ffn_norm")
        gate = F.silu(y @ w[f"{name}.feed_forward.w1.weight"].T) * (y @ w[f"{name}.feed_forward.w3.weight"].T)
        x = x + gate @ w[f"{name}.feed_forward.w2.weight"].T
    logits = normed(x, "norm")[P - 1 :] @ w["output.weight"].T
    return float(F.cross_entropy(logits, ids))


def test_a_published_name_is_a_name_of_ours() -> None:
    made = create("tiny", Vocabulary.of(), 0)
    published = (
        "encoder.conv_blocks.0.res.0.norm1.weight", "quantize.embedding.weight", "quant_conv.weight",
        "post_quant_conv.weight", "decoder.conv_blocks.0.attn.1.proj_out.bias", "encoder.mid.1.q.weight",
    )  # fmt: skip
    assert set(published) <= made.tokenizer.state_dict().keys()
    transformer: LlamaTransformer = made.transformer
    assert {"layers.0.feed_forward.w2.weight", "norm.weight"} <= transformer.state_dict().keys()
