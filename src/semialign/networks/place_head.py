"""The classifier of a cube's place from a network's bottleneck, which MagicNet trains beside it."""

from torch import nn

from semialign.networks.contract import Network


def place_head(network: Network, cubes: int) -> nn.Module:
    """Return the classifier of ``cubes`` places an axis, from the bottleneck pooled to 2 an axis, flattened.

    Twice as many hidden units as inputs (MagicNet, CVPR 2023).
    """
    inputs = network.widths[-1] * 2**network.spatial_dims
    norm = nn.BatchNorm1d(2 * inputs, track_running_stats=False)  # in prediction nobody asks for places
    first = nn.Linear(inputs, 2 * inputs, bias=False)  # a bias before a norm learns nothing
    return nn.Sequential(first, norm, nn.LeakyReLU(0.2), nn.Linear(2 * inputs, cubes**network.spatial_dims))
