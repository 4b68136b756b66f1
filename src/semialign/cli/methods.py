"""List methods, plug-ins and recipes, a line each."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Arguments:
    """Arguments of ``semialign methods``: none."""


def run(arguments: Arguments) -> None:
    """Print the lists; imports no method, so that it answers at once."""
    from semialign.methods import METHODS
    from semialign.plugins import PLUGINS
    from semialign.recipes.load import load_recipe, recipe_names

    lists = {
        "methods (semialign train DATA --method NAME)": {name: text for name, (_, _, text) in METHODS.items()},
        "plug-ins (--plugin NAME)": {name: text for name, (_, _, text) in PLUGINS.items()},
        "recipes (--recipe NAME)": {name: _described(load_recipe(name)) for name in recipe_names()},
    }
    width = max((len(name) for lines in lists.values() for name in lines), default=0)
    for title, lines in lists.items():
        print(f"{title}:")
        for name, text in lines.items():
            print(f"  {name:<{width}}  {text}")
        if not lines:
            print("  none")


def _described(recipe: dict[str, object]) -> str:
    text = " ".join(str(recipe.get("description", "")).split())
    return text or f"settings of {recipe.get('method', 'the default method')}"
