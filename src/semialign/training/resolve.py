"""What is asked for, a method, a recipe and settings by name, as checked settings with every key known."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from semialign.common.errors import UserError, closest, require_known
from semialign.config import TrainingSettings, from_mapping, merge, to_mapping


def resolve(
    method: str | None, recipe: str | None, settings: Mapping[str, Any]
) -> tuple[str, TrainingSettings, dict[str, Any], dict[str, dict[str, Any]]]:
    """Return method, training settings, the method's own and the plug-ins' settings, every key checked.

    Raises :class:`UserError` for an unknown method, recipe, plug-in or key, with the nearest name.
    """
    from semialign.methods.base import NoSettings, method_class, plugin_class
    from semialign.methods.ranges import require_in_range
    from semialign.recipes.load import ASIDE, load_recipe, settings_of

    said = settings_of(load_recipe(recipe)) if recipe else {}
    if settings.get("steps") is not None:
        if settings.get("minutes") is not None:
            raise UserError("--steps and --minutes: give one of them")
        settings = {**settings, "minutes": None}  # or a recipe's would still rule
    values = merge(said, settings, {"method": method} if method else {})
    name = str(values.get("method", TrainingSettings.method))
    kind = method_class(name)
    plugins = values.get("plugins") or []
    plugins = [plugins] if isinstance(plugins, str) else plugins
    if not isinstance(plugins, list | tuple) or not all(isinstance(p, str) for p in plugins):
        raise UserError(f"plugins must be a list of names, not {plugins!r}")
    general = {field.name for field in fields(TrainingSettings)}
    of_method = {field.name for field in fields(kind.Settings)}
    for key in values:
        if key in ASIDE:
            raise UserError(f"'{key}' is no setting of a run; write it into a recipe file (docs/reference/recipes.md)")
        if key not in general | of_method | set(plugins):
            raise UserError(f"unknown key '{key}'{closest(str(key), general | of_method | set(plugins))}")
    training = from_mapping(
        TrainingSettings,
        {k: v for k, v in values.items() if k in general} | {"method": name, "plugins": plugins},
        "training",
    )
    _require_sensible(training)
    for plugin in plugins:
        if not isinstance(values.get(plugin, {}), Mapping):
            raise UserError(f"{plugin}: must hold keys, such as --set {plugin}.weight=0.5, not {values[plugin]!r}")
    settings_of_method: Any = from_mapping(kind.Settings, {k: v for k, v in values.items() if k in of_method}, name)
    require_in_range(settings_of_method)  # before scans are prepared, which may take hours
    own = to_mapping(settings_of_method)
    its = {
        p: to_mapping(from_mapping(getattr(plugin_class(p), "Settings", NoSettings), values.get(p, {}), p))
        for p in plugins
    }
    if plugins and not kind.takes_plugins:
        raise UserError(f"method {name} takes no plug-ins; leave out --plugin {plugins[0]}")
    return name, training, own, its


def _require_sensible(training: TrainingSettings) -> None:
    from semialign.data.transforms import STRENGTHS

    least = dict.fromkeys(("steps", "batch_labelled", "lr_decay_steps", "checkpoint_steps", "log_steps"), 1)
    least |= dict.fromkeys(("batch_unlabelled", "warmup_steps", "validations", "workers"), 0)
    least |= dict.fromkeys(("momentum", "weight_decay", "clip_norm", "foreground"), 0)
    for name, smallest in least.items():
        value = getattr(training, name)
        if value is not None and value < smallest:
            raise UserError(f"{name} must be at least {smallest}, not {value}")
    for name in ("minutes", "learning_rate"):
        value = getattr(training, name)
        if value is not None and value <= 0:
            raise UserError(f"{name} must be more than 0, not {value}")
    for name, largest in (("momentum", 1), ("foreground", 1)):
        if getattr(training, name) > largest:
            raise UserError(f"{name} must be at most {largest}, not {getattr(training, name)}")
    require_known(training.optimiser, ("sgd", "adamw"), "optimiser")
    require_known(training.augmentation, STRENGTHS, "augmentation")
