"""The network that a plan describes."""

from semialign.data.plan import Plan
from semialign.networks.unet import UNet


def network_of_plan(plan: Plan, num_classes: int) -> UNet:
    """Return the plan's U-Net, started as PyTorch starts it; ``methods`` start it anew."""
    return UNet(len(plan.normalisation), num_classes, widths=plan.widths, strides=plan.strides, kernels=plan.kernels)
