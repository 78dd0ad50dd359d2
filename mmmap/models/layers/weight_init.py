"""Initialisation of the linear layers, shared by encoders and decoders."""

import math

import torch
from torch import nn

from .mamba_mixer import MambaMixer

#: Range of the step sizes that Mamba's initialisation draws from (arXiv 2312.00752, section 3.6).
DT_MIN, DT_MAX = 1e-3, 1e-1


def init_linears(module: nn.Module) -> None:
    """Draw every linear weight below ``module`` from Xavier's uniform distribution and zero its bias."""
    for m in module.modules():
        if isinstance(m, nn.Linear):
            nn.init.xavier_uniform_(m.weight)
            if m.bias is not None:
                nn.init.zeros_(m.bias)


def init_step_sizes(module: nn.Module) -> None:
    """Give every mixer below ``module`` Mamba's step sizes: log-uniform in [1e-3, 1e-1] at a zero input."""
    for m in module.modules():
        if isinstance(m, MambaMixer):
            bound = m.dt_rank**-0.5
            nn.init.uniform_(m.dt_proj_weight, -bound, bound)
            with torch.no_grad():
                dt = torch.empty_like(m.dt_proj_bias).uniform_(math.log(DT_MIN), math.log(DT_MAX)).exp()
                m.dt_proj_bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # softplus(bias) == dt
