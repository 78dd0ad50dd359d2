"""Initialisation of the linear layers and the mixers of encoders and decoders."""

from torch import nn


def init_linears(module: nn.Module) -> None:
    """Draw every linear weight below ``module`` from Xavier's uniform distribution and zero its bias."""
    for m in module.modules():
        if isinstance(m, nn.Linear):
            nn.init.xavier_uniform_(m.weight)
            if m.bias is not None:
                nn.init.zeros_(m.bias)


def init_step_sizes(module: nn.Module) -> None:
    """Draw the step sizes of every mixer below ``module`` that has them, see :meth:`MambaMixer.reset_step_sizes`."""
    for m in module.modules():
        if callable(reset := getattr(m, 'reset_step_sizes', None)):
            reset()
