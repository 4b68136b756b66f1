"""Fields of the plan that a recipe names, laid over the plan that preparing makes and checked by the same rules."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from semialign.common.errors import UserError
from semialign.config import from_mapping, to_mapping
from semialign.data.plan import Plan, require_sound


def require_fields(fields: Mapping[str, Any], where: str) -> None:
    """Raise :class:`UserError`, which begins with ``where``, for an unknown field or a value of the wrong type."""
    with suppress(TypeError):  # fields that are not named are lacking, and may be
        from_mapping(Plan, fields, where)


def laid_over(plan: Plan, fields: Mapping[str, Any], where: str) -> Plan:
    """Return ``plan`` with ``fields``; :class:`UserError` where they do not fit it or one another."""
    laid = from_mapping(Plan, {**to_mapping(plan), **fields}, where)
    require_sound(laid, where)
    return laid


def require_agreement(plan: Plan, fields: Mapping[str, Any], path: Any, where: str) -> None:
    """Raise :class:`UserError` where the plan in the file ``path`` says something else than ``fields``."""
    stands = to_mapping(plan)
    # The number of dimensions first: fields for another one cannot be laid over this plan.
    of_fields = {name: fields[name] for name in fields if name == "dimensions" and fields[name] != stands[name]}
    wanted = of_fields or to_mapping(laid_over(plan, fields, where))
    for name in of_fields or fields:
        if stands[name] != wanted[name]:
            raise UserError(
                f"{path}: {name} is {stands[name]}, but {where} says {wanted[name]}; delete the file, "
                "or prepare into another folder"
            )


_OF_A_FORM = {"spacing", "volume_size", "patch_size", "strides", "kernels", "widths", "mirror_axes"}


def asked_dimensions(
    fields: Mapping[str, Any], where: str, *, dimensions: int | None, pictures: bool, root: Path
) -> tuple[dict[str, Any], str, str]:
    """Return ``fields`` with the ``dimensions`` asked for beside them, what errors call them, and a folder's suffix.

    The suffix is empty where none are asked for, and where the fields name them or the data in ``root`` are
    ``pictures`` anyway. Raises :class:`UserError` for other numbers than 2 and 3, and where pictures shall have 3.
    """
    if dimensions not in (None, 2, 3):
        raise UserError(f"--dimensions {dimensions}: there are 2 (pictures, slices of volumes) and 3 (volumes)")
    usual = fields.get("dimensions", 2 if pictures else 3)
    if pictures and (dimensions or usual) == 3:
        asked = "--dimensions 3" if dimensions else where
        raise UserError(f"{asked}: {root} holds pictures, which have 2 dimensions; ask for 2, or for nothing")
    if dimensions is None:
        # Such fields have a number for each axis or level: those for volumes do not fit a plan of slices.
        whole = {"dimensions": 3} if fields.keys() & _OF_A_FORM and not pictures else {}
        return {**whole, **fields}, where, ""
    where = f"{where} with --dimensions {dimensions}" if fields else f"--dimensions {dimensions}"
    suffix = "" if pictures or dimensions == fields.get("dimensions") else f"-{dimensions}d"
    return {**fields, "dimensions": dimensions}, where, suffix
