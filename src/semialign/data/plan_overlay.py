"""Fields of the plan that a recipe names, laid over the plan that preparing makes and checked by the same rules."""

from collections.abc import Mapping
from contextlib import suppress
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
    stands, wanted = to_mapping(plan), to_mapping(laid_over(plan, fields, where))
    for name in fields:
        if stands[name] != wanted[name]:
            raise UserError(
                f"{path}: {name} is {stands[name]}, but {where} says {wanted[name]}; delete the file, "
                "or prepare into another folder"
            )
