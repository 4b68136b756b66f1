"""The frozen encoder's latents of a step's pictures and label codes: encoded, or kept from when they were."""

from pathlib import Path

from torch import Tensor

from semialign.common.ranks import wait_for_ranks
from semialign.common.types import Batch
from semialign.data.kept_latents import KeptLatents, make_kept, path_of, remove_kept
from semialign.data.loader import TwoStream
from semialign.data.symmetries import COUNT
from semialign.networks.autoencoders.base import weights_hash
from semialign.networks.generative_segmenter import GenerativeSegmenter


class FrozenLatents:
    """Means of the posteriors, times the autoencoder's scale; no part of a checkpoint, since all can be made again."""

    def __init__(self, network: GenerativeSegmenter) -> None:
        self.network = network
        self.kept: KeptLatents | None = None
        self.labelled = 0

    def keep(self, data: TwoStream, folder: Path) -> None:
        """Keep from now on those of whole pictures of ``data``, in a new file in ``folder`` or one left there.

        All processes share it, so that what one has encoded no other has to.
        """
        autoencoder, cases = self.network.autoencoder, data.cases
        self.labelled = len(cases["labelled"])
        sides = [side // autoencoder.factor for side in data.plan.patch_size]
        path = path_of(folder, f"{weights_hash(autoencoder)} {cases} {sides}")
        count = COUNT * (2 * self.labelled + len(cases["unlabelled"]))
        shape = (autoencoder.latent_channels, *sides)
        if data.rank == 0:
            remove_kept(folder, but=path)
            make_kept(path, count=count, shape=shape)
        wait_for_ranks()
        self.kept = KeptLatents(path, count=count, shape=shape)

    def forget(self) -> None:
        """Encode every picture from now on."""
        self.kept = None

    def means(self, batch: Batch, picture: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
        """Return the latents (B, C_z, h, w) of the batch's pictures and (L, C_z, h, w) of its labels' codes."""
        if self.kept is None or batch.symmetry_l is None or batch.symmetry_u is None:
            return self.network.encode(picture).mean, self.network.encode(code).mean
        # In the file: the labelled pictures, their codes, the unlabelled pictures, a place for each symmetry.
        labelled = (COUNT * batch.index_l + batch.symmetry_l).tolist()
        unlabelled = (COUNT * batch.index_u + batch.symmetry_u).tolist()
        places = [*labelled, *(2 * COUNT * self.labelled + place for place in unlabelled)]
        means = self.kept.get(places, lambda i: self.network.encode(picture[i : i + 1]).mean[0])
        codes = [COUNT * self.labelled + place for place in labelled]
        anchors = self.kept.get(codes, lambda i: self.network.encode(code[i : i + 1]).mean[0])
        return means.to(picture.device), anchors.to(picture.device)
