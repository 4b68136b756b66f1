"""A random patch from the prepared store over the same patch from a .nii.gz file, as a ratio inside one run.

python benchmarks/store.py [--size 512 512 300]
"""

import argparse
import tempfile
import time
from pathlib import Path

import nibabel
import numpy as np
from scipy import ndimage

from semialign.data.store import Store, read_box

PATCH = 96


def main() -> None:
    """Write one volume both ways, read random patches from each, print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, nargs=3, default=(512, 512, 300))
    size = parser.parse_args().size
    rng = np.random.default_rng(0)
    # Smooth structure with noise: compresses about as a CT does.
    coarse = rng.normal(0, 300, [max(2, n // 16) for n in size]).astype(np.float32)
    volume = ndimage.zoom(coarse, [n / c for n, c in zip(size, coarse.shape, strict=True)], order=1)
    volume += rng.normal(0, 10, volume.shape).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        nifti = Path(folder) / "volume.nii.gz"
        nibabel.save(nibabel.Nifti1Image(volume.astype(np.int16), np.eye(4)), nifti)
        store = Store(Path(folder))
        store.write("case", volume[None] / 300, None, "key")
        corners = [[int(rng.integers(0, n - PATCH)) for n in volume.shape] for _ in range(50)]
        begin = time.perf_counter()
        for low in corners:
            read_box(store.image("case"), low, [a + PATCH for a in low], 0.0)
        ours = (time.perf_counter() - begin) / len(corners)
        begin = time.perf_counter()
        for low in corners[:3]:
            box = tuple(slice(a, a + PATCH) for a in low)
            np.asarray(nibabel.load(nifti).dataobj[box])  # type: ignore[attr-defined]
        theirs = (time.perf_counter() - begin) / 3
    print(
        f"{PATCH}^3 patch: store {ours * 1e3:.2f} ms, .nii.gz {theirs * 1e3:.0f} ms, {theirs / ours:.0f} times faster"
    )


if __name__ == "__main__":
    main()
