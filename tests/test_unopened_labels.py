"""Labels of unlabelled and test cases are never opened: poisoned ones harm nothing, and no reader touches them."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

from raw_data import (
    pictures,
    volumes,
    write_split,
)

AUDITED = """
    import json, sys, pathlib
    opened = []
    def hook(event, arguments):
        if event in ("open", "os.open") and isinstance(arguments[0], (str, bytes, pathlib.PurePath)):
            opened.append(str(arguments[0]))
    sys.addaudithook(hook)
    from semialign.cli.main import main
    for root in map(pathlib.Path, sys.argv[1:]):
        data = [str(root / "raw"), "--split", str(root / "s.json")]
        assert main(["prepare", *data, "--output", str(root / "out")]) == 0
        assert main(["train", *data, "--prepared", str(root / "out"), "--output", str(root / "run"),
            "--steps", "3", "--set", "workers=0", "--accelerator", "cpu"]) == 0
    trained = set(opened)
    opened.clear()
    for root in map(pathlib.Path, sys.argv[1:]):
        assert main(["suggest", str(root / "run"), "-n", "1", "--split", str(root / "next.json")]) == 0
    assert any("imagesTr" in p for p in opened)
    assert not any("labelsTr" in p for p in opened), opened
    opened = trained
    print("OPENED", json.dumps(sorted({p for p in opened if "labelsTr" in p})))
"""


def test_no_label_of_an_unlabelled_or_test_case_is_opened(tmp_path: Path) -> None:
    roots, poisoned, controls, allowed = [], [], [], []
    for make, ending in ((volumes, ".nii.gz"), (pictures, ".png")):
        roots.append(root := tmp_path / make.__name__)
        labels = make(root / "raw", labelled=6, unlabelled=0) / "labelsTr"
        write_split(root / "s.json", labelled=["a", "b"], unlabelled=["c", "d"], validation=["e"], test=["f"])
        poisoned += [labels / f"{name}{ending}" for name in "cdf"]
        allowed += [str(labels / f"{name}{ending}") for name in "abe"]
        controls.append(labels / f"a{ending}")
    for path in poisoned:
        path.write_bytes(b"poison")
    # Where the file system keeps times of access, they show what readers in C++ open, too.
    for path in [*poisoned, *controls]:
        os.utime(path, ns=(1, path.stat().st_mtime_ns))
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(AUDITED), *roots], capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    opened = next(text for text in done.stdout.splitlines() if text.startswith("OPENED"))
    assert json.loads(opened.removeprefix("OPENED")) == sorted(allowed)
    if all(path.stat().st_atime_ns != 1 for path in controls):
        assert [path.stat().st_atime_ns for path in poisoned] == [1] * 6
    assert all((root / "run" / "best.pt").exists() for root in roots)
