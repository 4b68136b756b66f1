"""Which cases there are to choose from, and which are labelled already."""

from dataclasses import dataclass, field
from pathlib import Path

from semialign.common.errors import UserError
from semialign.common.files import read_json
from semialign.data.dataset import Case, Dataset, case_from_files, load_dataset
from semialign.data.splits import Split, load_split, read_split_file
from semialign.inference.inputs import find_cases
from semialign.training.run_folder import require_finished


@dataclass(frozen=True)
class Pool:
    """Cases, all without their labels, so that nobody can open them.

    ``split``: the run's, where ``unlabelled`` are its cases; ``None`` where they come from another folder.
    """

    unlabelled: dict[str, Case]
    labelled: dict[str, Case]
    split: Split | None
    notes: list[str] = field(default_factory=list)


def pool_of(run: Path, data: Path | None, *, channels: int) -> Pool:
    """Return the unlabelled and labelled cases of the run's split in the data set ``data`` (default: the run's).

    Where ``data`` holds none of the split's cases, all of its images are there to choose from: image files, folders of
    them, a data set (see :func:`~semialign.inference.inputs.find_cases`). Raises :class:`UserError` for a folder that
    is no finished run, and where there is nothing to choose from.
    """
    require_finished(run)
    about = read_json(run / "data.json")
    root = Path(data) if data is not None else Path(about["root"])
    if not root.exists():
        also = "" if data is not None else "; the run's data set has moved: name its folder after the run"
        raise UserError(f"{root}: no such file or folder{also}")
    named = read_split_file(run / "split.json")
    if not isinstance(named, dict):
        raise UserError(f"{run / 'split.json'}: holds no split; train again")
    dataset = _dataset(root)
    training = {str(case) for part in ("labelled", "unlabelled") for case in named.get(part, [])}
    if data is None or (dataset is not None and training & set(dataset.cases)):
        dataset = dataset or load_dataset(root)
        split = load_split(run / "split.json", dataset)
        if not split.unlabelled:
            raise UserError(f"{run / 'split.json'}: no unlabelled case to choose from; name a folder of new scans")
        return Pool(_without_labels(dataset, split.unlabelled), _without_labels(dataset, split.labelled), split)
    found = find_cases([root], channels)
    own = Path(about["root"]).resolve() / "imagesTr"
    if any(case.images[0].resolve().parent == own for case in found):
        raise UserError(f"{root}: holds images of the run's own data set, test cases too; leave DATA out")
    cases = {case.id: case for case in found}
    if len(cases) < len(found):
        again = next(case for case in found if cases[case.id] is not case)
        raise UserError(f"{again.images[0]}: another file has the same name; move one of them")
    return Pool(cases, *_labelled_elsewhere(run, Path(about["root"])))


def _labelled_elsewhere(run: Path, root: Path) -> tuple[dict[str, Case], None, list[str]]:
    dataset = _dataset(root)
    if dataset is None:
        return {}, None, [f"the run's labelled cases are no longer in {root}: the choice knows nothing of them"]
    return _without_labels(dataset, load_split(run / "split.json", dataset).labelled), None, []


def _dataset(root: Path) -> Dataset | None:
    return load_dataset(root) if (root / "dataset.json").is_file() and (root / "imagesTr").is_dir() else None


def _without_labels(dataset: Dataset, ids: tuple[str, ...]) -> dict[str, Case]:
    return {case: case_from_files(case, list(dataset.cases[case].images)) for case in ids}
