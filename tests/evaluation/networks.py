"""Small untrained networks as extractors, for tests of whatever takes features."""

import torch

from dpwavelet.evaluation.extractors import of_network
from dpwavelet.evaluation.spaces import Extractor
from dpwavelet.features import FeatureConfig, FeatureNetwork


def tiny_network(seed: int = 0) -> FeatureNetwork:
    """For images of 32 pixels, to 12 features; its norms have seen noise."""
    torch.manual_seed(seed)
    network = FeatureNetwork(FeatureConfig(image_size=32, widths=(8, 16), depth=1, features=12, classes=5))
    network.train()(torch.rand(64, 3, 32, 32) * 2 - 1)
    return network.eval().requires_grad_(False)


def tiny_extractor(seed: int = 0) -> Extractor:
    return of_network(tiny_network(seed), f"{seed}" * 64)
