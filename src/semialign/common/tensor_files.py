"""Files of tensors, written whole or not at all."""

import errno
from pathlib import Path
from typing import Any

import torch

from semialign.common.files import written_whole


def write_tensors(path: Path, value: dict[str, Any]) -> None:
    """Write ``value`` (tensors and plain values) to ``path``; killed at any moment, the old or the new file stands.

    Raises :class:`UserError` where the disk is full or the place cannot be written.
    """
    with written_whole(path) as temporary:
        try:
            # Opened here, since torch reports whatever goes wrong with a path as one and the same error.
            with open(temporary, "wb") as handle:
                torch.save(value, handle)
        except RuntimeError as error:
            if "inline_container" not in str(error):
                raise
            # A failed write of torch's archive: its file was opened, so the disk is full.
            raise OSError(errno.ENOSPC, "No space left on device") from error
