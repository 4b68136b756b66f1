"""Recipes: published settings and sensible defaults, a YAML file each, shipped with the package.

Beside settings of training, method and plug-ins a recipe may hold ``description``; ``base``, a recipe that it lies
over; ``plan``, fields of the plan that preparing makes; ``split``, the split to use where none is given; and ``rule``,
by which ``semialign evaluate --recipe`` counts classes that a case lacks.
"""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from semialign.common.errors import UserError, closest, require_known
from semialign.common.files import read_yaml
from semialign.config import merge

ASIDE = ("description", "plan", "split", "rule")
"""Keys of a recipe that are no settings of a run."""


def recipe_names() -> list[str]:
    """Return the names of the shipped recipes."""
    folder = resources.files("semialign.recipes")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_recipe(name: str) -> dict[str, Any]:
    """Return all that a shipped recipe, or a YAML file given by its path, holds, laid over what its ``base`` holds.

    Raises :class:`UserError` for an unknown name (nearest suggested), a file that holds no settings, and a recipe that
    is its own base.
    """
    return _with_base(name, ())


def settings_of(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe's settings of training, method and plug-ins."""
    return {key: value for key, value in recipe.items() if key not in ASIDE}


def recipe_slug(name: str) -> str:
    """Return what folders call a recipe: its name, or its file's without ending."""
    return Path(name).stem if _is_file(name) else name


def _is_file(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def _with_base(name: str, above: tuple[str, ...]) -> dict[str, Any]:
    value = _read(name)
    base = value.pop("base", None)
    if base is None:
        return value
    if not isinstance(base, str):
        raise UserError(f"recipe {name}: base must be a recipe's name or file, not {base!r}")
    if _is_file(base):
        base = str(Path(name).parent / base)
    elif base not in recipe_names():
        raise UserError(f"recipe {name}: unknown base '{base}'{closest(base, recipe_names())}")
    chain = (*above, name)
    if Path(base).resolve() in [Path(other).resolve() for other in chain]:
        raise UserError(f"recipe {name}: its base leads back to it ({' over '.join((*chain, base))}); take one out")
    below = _with_base(base, chain)
    if "steps" in value and "minutes" not in value:
        below.pop("minutes", None)  # which would take precedence over the steps that lie above it
    return merge(below, value)


def _read(name: str) -> dict[str, Any]:
    if _is_file(name):
        value = read_yaml(Path(name))
    else:
        require_known(name, recipe_names(), "recipe")
        value = yaml.safe_load((resources.files("semialign.recipes") / f"{name}.yaml").read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise UserError(f"recipe {name}: must hold settings, such as method: cps")
    if not isinstance(value.get("plan", {}), Mapping):
        raise UserError(f"recipe {name}: plan must hold fields of the plan, such as patch_size, not {value['plan']!r}")
    for key in ("split", "rule"):
        if not isinstance(value.get(key, ""), str):
            raise UserError(f"recipe {name}: {key} must be a name, not {value[key]!r}")
    return value
