"""What a method is. It owns its step and nothing else: schedule, devices, checkpoints and logs belong to the loop."""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from semialign.common.errors import UserError, require_known
from semialign.common.types import Batch, Progress, StepOutput
from semialign.config import TrainingSettings, from_mapping
from semialign.data.loader import TwoStream
from semialign.data.plan import Plan
from semialign.methods import METHODS
from semialign.methods.ranges import require_in_range
from semialign.networks.contract import Network
from semialign.networks.initialise import initialise
from semialign.plugins import PLUGINS
from semialign.plugins.base import Plugin

MakeNetwork = Callable[[], nn.Module]


@dataclass(frozen=True)
class StageSettings:
    """What a stage asks of the loop."""

    share: float = 1.0
    """Of the run's steps."""
    uses_unlabelled: bool = True
    """Whether unlabelled patches are loaded at all."""
    parameters: tuple[str, ...] | None = None
    """Prefixes of the parameters that learn; the others are frozen (default: all that want a gradient)."""
    symmetries: bool = False
    """Whether pictures are only flipped and turned by quarters, whatever the run's augmentation."""
    validates: bool = True
    """Whether predictions mean anything yet, so that validation may choose the best checkpoint."""


@dataclass(frozen=True)
class NoSettings:
    """A method without settings of its own."""


class Method(nn.Module, ABC):
    """A training method. All its state lives in parameters, buffers and submodules, so that a checkpoint is complete.

    A subclass builds its networks with :meth:`student`, which keeps the order initialise, wrap, copy. ``plan`` says how
    images were made; None where a method is tried without data.
    """

    stages: tuple[str, ...] = ("train",)
    Settings: ClassVar[type] = NoSettings
    takes_plugins: ClassVar[bool] = True
    dimensions: ClassVar[tuple[int, ...]] = (2, 3)
    may_rest: ClassVar[bool] = False  # whether a step may leave a network out; several processes must know beforehand

    def __init__(
        self,
        make_network: MakeNetwork,
        settings: Any = None,
        plugins: Sequence[Plugin] = (),
        *,
        plan: Plan | None = None,
    ) -> None:
        super().__init__()
        self.make_network: MakeNetwork = make_network
        self.plan = plan
        self.settings = settings if settings is not None else self.Settings()
        require_in_range(self.settings)
        self.plugins = nn.ModuleList(plugins)

    def student(self, start: str = "kaiming") -> Any:
        """Return a new network, started, then wrapped by the plug-ins (whose zero start must come last)."""
        return self.wrapped(initialise(self.make_network(), start))

    def wrapped(self, network: Any) -> Any:
        """Return ``network``, started, with the plug-ins' parts in it."""
        for plugin in self.plugins:
            network = cast(Plugin, plugin).wrap(network)
        return network

    def stage_settings(self, stage: str) -> StageSettings:
        """Return what ``stage`` asks of the loop."""
        return StageSettings()

    def optimisers(self, stage: str, settings: TrainingSettings) -> list[torch.optim.Optimizer]:
        """Return the optimisers of ``stage``: one over everything that learns. The loop sets their learning rates."""
        learning = [p for p in self.parameters() if p.requires_grad]
        return [make_optimiser(learning, settings)]

    def begin_stage(self, stage: str, step: int, data: TwoStream, folder: Path) -> None:
        """Get ready for ``stage``, which begins at ``step`` (a resumed run's may be above 0), its weights loaded.

        ``data``: what it trains on. ``folder``: of the run, for files that a resumed run may lack.
        """

    def wants_unlabelled(self, progress: Progress) -> bool:
        """Whether the step at ``progress`` uses unlabelled patches; once it does, all that follow are given them."""
        return True

    def joint_batch(self, stage: str, labelled: int, unlabelled: int) -> tuple[int, int]:
        """Return a step's patches of either kind once it uses unlabelled ones, from the plan's or run's numbers."""
        return labelled, unlabelled

    @abstractmethod
    def losses(self, batch: Batch, progress: Progress) -> StepOutput:
        """Return one step's weighted losses, views and figures to log."""

    def after_step(self, progress: Progress) -> None:
        """Update what follows the weights (teachers, class statistics); ``progress`` is the step just taken."""

    @abstractmethod
    def predict(self, image: Tensor) -> Tensor:
        """Return probabilities (B, C, *S) of one window (B, C_in, *S)."""

    def closing_note(self) -> str | None:
        """Return in one line what a person should know of how the training went; ``None`` for nothing."""
        return None

    def external_state(self) -> dict[str, str]:
        """Return frozen weights kept out of the checkpoint: name to hash."""
        return {}

    def forward(self, batch: Batch, progress: Progress) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the sum of all losses, the plug-ins' too, and every term and logged figure by name.

        Called as a module, not by a method's name, so that Fabric's autocast covers it.
        """
        step = self.losses(batch, progress)
        terms = dict(step.losses)
        for plugin in self.plugins:
            for view in step.views:
                own = cast(Plugin, plugin).losses(view, progress)
                terms.update({f"{name} {view.name}": value for name, value in own.items()})
        total = torch.stack([value.float() for value in terms.values()]).sum()
        logged = {name: value.detach().float() for name, value in terms.items()}
        return total, logged | {name: torch.as_tensor(v, dtype=torch.float32) for name, v in step.log.items()}


def lean_batch(labelled: int, unlabelled: int) -> tuple[int, int]:
    """Return a step's patches of either kind where unlabelled ones take the place of half of the labelled ones."""
    given_up = min(labelled // 2, unlabelled)
    return (labelled - given_up, given_up) if given_up else (labelled, unlabelled)


def make_optimiser(parameters: Iterable[nn.Parameter], settings: TrainingSettings) -> torch.optim.Optimizer:
    """Return SGD with Nesterov momentum, or AdamW, as the settings say."""
    require_known(settings.optimiser, ("sgd", "adamw"), "optimiser")
    parameters = list(parameters)
    if settings.optimiser == "adamw":
        # One pass over each weight and its moments: a processor's step is otherwise a dozen passes.
        fused = all(parameter.device.type == "cpu" for parameter in parameters)
        rate, decay = settings.learning_rate, settings.weight_decay
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay, fused=fused or None)
    return torch.optim.SGD(
        parameters,
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=settings.momentum > 0,
    )


def method_class(name: str) -> type[Method]:
    """Return the class of method ``name``; an unknown one raises :class:`UserError` with the nearest name."""
    require_known(name, METHODS, "method")
    module, kind, _ = METHODS[name]
    found: type[Method] = getattr(importlib.import_module(f"semialign.methods.{module}"), kind)
    return found


def plugin_class(name: str) -> type[Plugin]:
    """Return the class of plug-in ``name``; an unknown one raises :class:`UserError` with the nearest name."""
    require_known(name, PLUGINS, "plug-in")
    module, kind, _ = PLUGINS[name]
    found: type[Plugin] = getattr(importlib.import_module(f"semialign.plugins.{module}"), kind)
    return found


def require_dimensions(name: str, dimensions: int) -> None:
    """Raise :class:`UserError` where method ``name`` does not work in so many ``dimensions``."""
    if dimensions not in method_class(name).dimensions:
        raise UserError(
            f"method {name} takes pictures and slices of volumes, not volumes; add --dimensions 2 for slices"
        )


def build_method(
    name: str,
    make_network: MakeNetwork,
    settings: Mapping[str, Any],
    plugins: Mapping[str, Mapping[str, Any]],
    *,
    plan: Plan | None = None,
) -> Method:
    """Return method ``name`` with checked settings and its plug-ins (name to settings)."""
    kind = method_class(name)
    made = []
    for plugin, its in plugins.items():
        cls = plugin_class(plugin)
        made.append(cls(from_mapping(getattr(cls, "Settings", NoSettings), its, plugin)))
    return kind(make_network, from_mapping(kind.Settings, settings, name), made, plan=plan)


def require_network(network: Any) -> None:
    """Raise ``TypeError`` unless ``network`` keeps the contract that hosts and plug-ins rely on."""
    if not isinstance(network, Network):
        raise TypeError(f"{type(network).__name__} does not keep the Network contract")
