"""First values of weights.

Linear maps: normal with variance 1 / fan of their own matrix (of a
:class:`~hemix.nn.layers.GroupedLinear`, each group's; of a :class:`~hemix.nn.layers.BlockLinear`,
the whole concatenation's). A module with weights of its own says in ``init_own_weights(init)``
what they begin with.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["WeightInit", "fan_std"]

_NORMS = (nn.LayerNorm, nn.RMSNorm)
_CONTAINERS = (nn.ParameterDict, nn.ParameterList)


def fan_std(fan: int) -> float:
    """Return the standard deviation of a linear map's weights.

    One without inputs (a schema without features of a level) has no weights to draw.
    """
    return float(max(fan, 1) ** -0.5)


@dataclass(frozen=True)
class WeightInit:
    """Draws first values, all from one generator on the CPU."""

    generator: torch.Generator
    embedding_std: float
    """Standard deviation of embedding vectors, and of learned vectors that are added to them."""

    def draw(self, model: nn.Module) -> None:
        """Draw all weights of a model's modules, in their order.

        Args:
            model: Any module.

        Raises:
            NotImplementedError: A module has weights and nobody says what they begin with.
        """
        for name, module in model.named_modules():
            if isinstance(module, _CONTAINERS):
                continue  # the module that holds it draws it
            own = getattr(module, "init_own_weights", None)
            if own is not None:
                own(self)
            else:
                self._draw_layer(name, module)

    def normal(self, parameter: Tensor, std: float) -> None:
        """Fill a parameter with normal values of mean 0.

        Args:
            parameter: What to fill.
            std: The standard deviation.
        """
        drawn = torch.randn(parameter.shape, generator=self.generator, dtype=torch.float32)
        parameter.copy_(drawn * std)

    def _draw_layer(self, name: str, module: nn.Module) -> None:
        """A layer of PyTorch's."""
        if isinstance(module, nn.Linear):
            self.normal(module.weight, fan_std(module.in_features))
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, _NORMS):
            module.weight.fill_(1)
            bias = getattr(module, "bias", None)
            if isinstance(bias, Tensor):
                bias.zero_()
        elif isinstance(module, nn.PReLU):
            module.weight.fill_(0.25)
        elif any(True for _ in module.parameters(recurse=False)):
            self._reset(name, module)

    def _reset(self, name: str, module: nn.Module) -> None:
        """Another layer of PyTorch's: by its own ``reset_parameters``, from this generator."""
        reset = getattr(module, "reset_parameters", None) or getattr(
            module, "_reset_parameters", None
        )
        if reset is None:
            raise NotImplementedError(
                f"{name or 'the model'} ({type(module).__name__}) has weights of its own and "
                "no init_own_weights"
            )
        seed = int(torch.randint(2**62, (1,), generator=self.generator))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            reset()
