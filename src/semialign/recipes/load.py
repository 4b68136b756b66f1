"""Recipes: published settings and sensible defaults, a YAML file each, shipped with the package."""

from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from semialign.common.errors import UserError, require_known
from semialign.common.files import read_yaml


def recipe_names() -> list[str]:
    """Return the names of the shipped recipes."""
    folder = resources.files("semialign.recipes")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_recipe(name: str) -> dict[str, Any]:
    """Return the settings of a shipped recipe, or of a YAML file given by its path.

    Raises :class:`UserError` for an unknown name (nearest suggested) or a file that holds no settings.
    """
    if name.endswith((".yaml", ".yml")):
        value = read_yaml(Path(name))
    else:
        require_known(name, recipe_names(), "recipe")
        value = yaml.safe_load((resources.files("semialign.recipes") / f"{name}.yaml").read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise UserError(f"recipe {name}: must hold settings, such as method: cps")
    return value
