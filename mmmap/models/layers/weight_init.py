"""Initialisation of the linear layers and mixers of encoders and decoders."""

from collections.abc import Callable

from torch import nn


def init_linears(module: nn.Module) -> None:
    """Draw every linear weight below ``module`` from Xavier's uniform distribution and zero its bias."""
    for m in module.modules():
        if isinstance(m, nn.Linear):
            nn.init.xavier_uniform_(m.weight)
            if m.bias is not None:
                nn.init.zeros_(m.bias)


def init_linears_and_step_sizes(module: nn.Module) -> None:
    """Call :func:`init_linears`, and ``reset_step_sizes`` of every mixer that has it, such as :class:`MambaMixer`."""
    init_linears(module)
    for m in module.modules():
        if callable(reset := getattr(m, 'reset_step_sizes', None)):
            reset()


#: The values of ``weight_init`` of an encoder.
WEIGHT_INITS: dict[str, Callable[[nn.Module], None]] = {'mamba': init_linears_and_step_sizes}
