"""What tells whether a case's files have changed, without opening them."""

import hashlib
import json
from pathlib import Path
from typing import Any

from semialign.common.errors import UserError
from semialign.data.dataset import Case


def digest(value: Any, size: int = 8) -> str:
    """Return a short hash of plain values."""
    return hashlib.blake2b(json.dumps(value).encode(), digest_size=size).hexdigest()


def case_key(case: Case, labelled: bool) -> list[str]:
    """Return the id, and name, size and time of every file of a case; of its label only where ``labelled``."""
    files = [*case.images, *([case.label] if labelled and case.label else [])]
    # A file of a DICOM folder may be replaced without any change to the folder itself.
    files = [f for path in files for f in (sorted(path.iterdir()) if path.is_dir() else [path, *_voxels_of(path)])]
    found = [case.id]
    for path in files:
        try:
            about = path.stat()
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); restore the file or its link") from error
        found.append(f"{path.name} {about.st_size} {about.st_mtime_ns}")
    return found


def _voxels_of(path: Path) -> list[Path]:
    """Return the files in which a MetaImage header beside them usually keeps its voxels."""
    if path.suffix.lower() != ".mhd":
        return []
    return [other for ending in (".raw", ".zraw") if (other := path.with_suffix(ending)).exists()]
