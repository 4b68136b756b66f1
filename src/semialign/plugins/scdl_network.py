"""A network decorated with SCDL's class proxies; it keeps the contract, so that a host sees nothing else."""

from typing import Any

import torch
from torch import Tensor, nn

from semialign.common.errors import UserError
from semialign.common.types import Output
from semialign.networks.modes import in_eval
from semialign.plugins.scdl import SCDL, Tokens
from semialign.plugins.scdl_settings import SCDLSettings


class SCDLOutput(Output):
    """An :class:`Output` that also carries its tokens, so that the losses need not pool and embed again."""

    tokens: Tokens


class SCDLNetwork(nn.Module):
    """A network with class proxies in it; it keeps the contract, so that the host sees nothing else."""

    def __init__(self, network: Any, settings: SCDLSettings, salt: int) -> None:
        super().__init__()
        self.network, self.settings = network, settings
        self.spatial_dims, self.num_classes = network.spatial_dims, network.num_classes
        self.feature_width, self.widths, self.strides = network.feature_width, network.widths, network.strides
        levels, level = len(network.widths), settings.level
        if not -levels <= level < levels:
            raise UserError(f"scdl.level: must be from {-levels} to {levels - 1}, not {level}")
        inject = settings.inject if settings.prior else "none"
        if settings.features == "decoder" and inject not in ("head", "none"):
            raise UserError(f"scdl.inject: features of the decoder reach the head or none, not {inject}")
        widths = {
            "stages": network.widths[:-1],
            "bottleneck": network.widths[-1:],
            "head": (network.feature_width,),
            "none": (),
        }
        width = network.feature_width if settings.features == "decoder" else network.widths[level]
        self.scdl = SCDL(
            width, network.num_classes, network.spatial_dims, settings=settings, inject=widths[inject], salt=salt
        )

    def encode(self, image: Tensor) -> list[Tensor]:
        """Image to the network's own pyramid."""
        pyramid: list[Tensor] = self.network.encode(image)
        return pyramid

    def decode(self, pyramid: list[Tensor], priors: list[Tensor] | None = None) -> Tensor:
        """Pyramid to features, with the priors of the proxies in them."""
        return self._decode(pyramid, priors)[0]

    def head(self, features: Tensor) -> Tensor:
        """Features to logits."""
        logits: Tensor = self.network.head(features)
        return logits

    def forward(self, image: Tensor) -> Output:
        """Image to :class:`Output`."""
        pyramid = self.encode(image)
        features, tokens = self._decode(pyramid, None)
        output = SCDLOutput(self.head(features), features, pyramid)
        output.tokens = tokens
        return output

    def _decode(self, pyramid: list[Tensor], priors: list[Tensor] | None) -> tuple[Tensor, Tokens]:
        of_decoder, inject = self.settings.features == "decoder", self.settings.inject
        if of_decoder:
            features = self.network.decode(pyramid, priors)
            tokens = self.scdl.tokens(features)
        else:
            tokens = self.scdl.tokens(pyramid[self.settings.level])
            if inject == "stages":
                own = self.scdl.inject(tokens, [level.shape[2:] for level in pyramid[:-1]])
                if own:
                    priors = own if priors is None else [a + b for a, b in zip(own, priors, strict=True)]
            elif inject == "bottleneck":
                own = self.scdl.inject(tokens, [pyramid[-1].shape[2:]])
                pyramid = [*pyramid[:-1], pyramid[-1] + own[0]] if own else pyramid
            features = self.network.decode(pyramid, priors)
        if inject == "head":
            own = self.scdl.inject(tokens, [features.shape[2:]])
            features = features + own[0] if own else features
        return features, tokens

    def tokens_of(self, output: Output) -> Tokens:
        """Return the tokens of an output, computed again where a host has put the output together itself."""
        if isinstance(output, SCDLOutput):
            return output.tokens
        of_decoder = self.settings.features == "decoder"
        return self.scdl.tokens(output.features if of_decoder else output.pyramid[self.settings.level])

    @torch.no_grad()
    def single_class_tokens(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean tokens (N, X) and classes (N,) of labelled images with all other classes suppressed (paper).

        ``image`` (B, C_in, *S), ``label`` (B, *S). It costs an encoding for every class in every labelled image.
        """
        means, classes = [], []
        with in_eval(self.network):
            for one, its in zip(image, label, strict=True):
                present = its[its >= 0].unique()
                for c in present:
                    alone = (one * (its == c))[None]
                    pyramid = self.network.encode(alone)
                    of_decoder = self.settings.features == "decoder"
                    source = self.network.decode(pyramid) if of_decoder else pyramid[self.settings.level]
                    means.append(self.scdl.pool(source)[0].float().mean(1))
                classes.append(present)
        if not means:
            return image.new_zeros(0, self.scdl.feature_width), label.new_zeros(0)
        return torch.cat(means), torch.cat(classes)


def proxies_of(network: Any) -> SCDLNetwork:
    """Return SCDL's decoration of ``network``, which others may have decorated in turn."""
    while not isinstance(network, SCDLNetwork):
        network = network.network
    return network
