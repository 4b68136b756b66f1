"""Training that runs out of memory: one line that says what to make smaller."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from semialign.common.errors import UserError


@contextmanager
def memory_in_one_line(run: Path) -> Iterator[None]:
    """Raise :class:`UserError` in place of what PyTorch, its loaders and Python raise for want of memory."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        text = str(error)
        if "DataLoader worker" in text or "shared memory" in text:
            raise UserError(
                f"{run}: a loading process ended, perhaps for want of (shared) memory; --set workers=0 does without, "
                "docker run --shm-size=8g gives more; go on with --resume"
            ) from error
        if isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text:
            raise UserError(
                f"{run}: not enough memory to train; --set batch_labelled=1 batch_unlabelled=1, or a smaller "
                "patch_size in a recipe's plan, and another --output"
            ) from error
        raise
