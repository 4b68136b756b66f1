"""One of several processes that make class anchors together: rank, processes, meeting file, where to write."""

import sys

import torch
import torch.distributed as dist


def instances() -> tuple[torch.Tensor, torch.Tensor]:
    """Return embeddings (6, 4) and their classes; class 3 has none, class 2 lies on the second process alone."""
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 0, 1, 0, 2])


def main(rank: int, world: int, meeting: str, target: str) -> None:
    """Write the anchors that this process gets from its share of the instances."""
    from semialign.losses.proxy import class_anchors

    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
    embeddings, classes = instances()
    own = slice(3 * rank, 3 * rank + 3)
    torch.save(class_anchors(embeddings[own], classes[own], 4), target)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
