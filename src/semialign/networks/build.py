"""The network that a plan describes."""

from semialign.common.errors import require_known
from semialign.data.plan import NETWORKS, Plan
from semialign.networks.unet import UNet
from semialign.networks.vnet import VNet


def network_of_plan(plan: Plan, num_classes: int) -> UNet | VNet:
    """Return the plan's U-Net or V-Net, started as PyTorch starts it; ``methods`` start it anew."""
    require_known(plan.network, NETWORKS, "network")
    channels = len(plan.normalisation)
    if plan.network == "vnet":
        dims, norm, dropout = plan.dimensions, plan.norm, plan.dropout
        return VNet(channels, num_classes, dims=dims, widths=plan.widths, norm=norm, dropout=dropout)
    return UNet(channels, num_classes, widths=plan.widths, strides=plan.strides, kernels=plan.kernels)
