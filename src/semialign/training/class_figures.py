"""What a plug-in learned of each class, as rows of ``proxies.csv``."""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn


def class_figure_rows(method: nn.Module, class_names: Sequence[str], step: int) -> Iterator[dict[str, Any]]:
    """Yield a row for every class of every learning network in ``method`` whose parts have ``class_figures``.

    ``norm`` and ``spread`` (mean standard deviation) of the class's proxy, ``share`` of the tokens that it attracts,
    ``cos X`` of its mean with that of class X. Teachers, which follow a student, are left out.
    """
    for name, part in method.named_modules():
        if not hasattr(part, "class_figures") or not any(p.requires_grad for p in part.parameters()):
            continue
        found: Any = part
        figures = {key: value.tolist() for key, value in found.class_figures().items()}
        for i, class_name in enumerate(class_names):
            row = {key: f"{figures[key][i]:.5g}" for key in ("norm", "spread", "share")}
            cosines = {
                f"cos {other}": f"{v:.4f}" for other, v in zip(class_names, figures["similarity"][i], strict=True)
            }
            yield {"step": step, "network": name.split(".")[0], "class": class_name} | row | cosines
