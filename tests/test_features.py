import json

import pytest
import torch
import torch.nn.functional as F

from dpwavelet.errors import ConfigError, ModelError
from dpwavelet.features import FeatureConfig, FeatureNetwork, perceptual_distance

SHAPE = FeatureConfig(image_size=32, widths=(8, 16), depth=1, features=12, classes=5)


@pytest.fixture
def network() -> FeatureNetwork:
    torch.manual_seed(0)
    network = FeatureNetwork(SHAPE)
    network.train()(torch.rand(32, 3, 32, 32) * 2 - 1)  # statistics of its norms
    return network.eval().requires_grad_(False)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


class TestNetwork:
    def test_an_image_gives_a_row_of_features_scores_and_a_map_a_stage(self, network, images):
        rows, scores = network(images)
        assert rows.shape == (6, 12) and scores.shape == (6, 5)
        assert [tuple(each.shape) for each in network.maps(images)] == [(6, 8, 16, 16), (6, 16, 8, 8)]

    def test_a_row_depends_on_its_own_image_alone(self, network, images):
        assert torch.allclose(network(images)[0][2], network(images[2:3])[0][0], atol=1e-6)

    def test_training_mode_would_mix_images(self, network, images):
        network.train()
        assert not torch.allclose(network(images)[0][2], network(images[2:4])[0][0], atol=1e-3)

    @pytest.mark.parametrize("wrong", [{"widths": ()}, {"widths": (8, 0)}, {"classes": 0}])
    def test_a_size_below_one_is_refused(self, wrong):
        with pytest.raises(ConfigError, match="at least 1"):
            FeatureConfig(**wrong)


class TestFiles:
    def test_a_saved_network_gives_the_same_rows_but_for_half_precision(self, network, images, tmp_path):
        network.save(tmp_path / "net", {"name": "test"}, half=False)
        assert torch.equal(FeatureNetwork.from_pretrained(tmp_path / "net")(images)[0], network(images)[0])
        network.save(tmp_path / "half", {"name": "test"})
        found = FeatureNetwork.from_pretrained(tmp_path / "half")(images)[0]
        assert torch.allclose(found, network(images)[0], atol=1e-2)

    def test_it_comes_back_frozen(self, network, tmp_path):
        network.save(tmp_path / "net", {})
        found = FeatureNetwork.from_pretrained(tmp_path / "net")
        assert not found.training and not any(p.requires_grad for p in found.parameters())

    @pytest.mark.parametrize("wrong", [{"format": 2}, {"widths": [8, 17]}, {"widths": None}, {"more": 1}])
    def test_a_config_that_does_not_fit_is_refused(self, network, tmp_path, wrong):
        network.save(tmp_path / "net", {})
        path = tmp_path / "net" / "features.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | wrong))
        with pytest.raises(ModelError, match=r"features\.json"):
            FeatureNetwork.from_pretrained(tmp_path / "net")

    def test_an_empty_folder_is_refused(self, tmp_path):
        with pytest.raises(ModelError, match="cannot read"):
            FeatureNetwork.from_pretrained(tmp_path)


class TestPerceptualDistance:
    def test_equal_pictures_are_at_distance_zero(self, network, images):
        assert torch.equal(perceptual_distance(network, images, images), torch.zeros(6))

    def test_it_does_not_matter_which_comes_first(self, network, images):
        there, back = (perceptual_distance(network, *pair) for pair in ((images, -images), (-images, images)))
        assert torch.allclose(there, back)
        assert (there > 0).all() and (there <= 4).all()

    def test_it_is_the_formula_written_out(self, network, images):
        found = perceptual_distance(network, images[:1], images[1:2])
        means = []
        for a, b in zip(network.maps(images[:1]), network.maps(images[1:2]), strict=True):
            a, b = a[0].double(), b[0].double()
            a, b = a / a.norm(dim=0).clamp_min(1e-8), b / b.norm(dim=0).clamp_min(1e-8)
            means.append((a - b).square().sum(0).mean())
        assert float(found) == pytest.approx(float(torch.stack(means).mean()), rel=1e-5)

    def test_it_grows_with_blur(self, network, images):
        small = [F.avg_pool2d(images, k) for k in (2, 4, 8)]
        blurred = [F.interpolate(x, size=(32, 32), mode="bilinear") for x in small]
        far = [float(perceptual_distance(network, images, x).mean()) for x in blurred]
        assert far == sorted(far)
