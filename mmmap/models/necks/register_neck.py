"""The neck that joins an image's register tokens into one vector."""

from typing import ClassVar

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmmap.registry import MODELS

from ..layers import init_linears


@MODELS.register_module()
class RegisterNeck(BaseModule):
    """Joins the registers of each image, as Mamba-R's classifier does (arXiv 2405.14858).

    With a reduction r above 1 every register is first narrowed by one linear layer without bias, C -> C / r, and the
    joined vector is normalised by an RMSNorm. With r = 1 the neck has no parameters.

    Args:
        in_dim (int): Width C of a register.
        num_registers (int): Registers n of an image.
        reduction (int): r; must divide ``in_dim``. Defaults to 1.
        norm_eps (float): Epsilon of the norm. Defaults to 1e-5.
        init_cfg (dict, optional): Initialisation config of mmengine. Defaults to None.

    Attributes:
        out_dim (int): Width of what comes out, n * C / r: the ``in_channels`` of the head behind this neck.

    Raises:
        ValueError: If an argument is out of its range; the message names it.
    """

    takes: ClassVar[dict[str, str]] = {'in_dim': 'width', 'num_registers': 'num_registers'}

    def __init__(
        self,
        in_dim: int,
        num_registers: int,
        reduction: int = 1,
        norm_eps: float = 1e-5,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if in_dim < 1 or num_registers < 1:
            raise ValueError(f'in_dim={in_dim}, num_registers={num_registers}: both must be positive')
        if reduction < 1 or in_dim % reduction:
            raise ValueError(f'reduction={reduction}: must be a positive divisor of in_dim={in_dim}')
        self.in_dim = in_dim
        self.num_registers = num_registers
        self.out_dim = num_registers * (in_dim // reduction)
        self.shapes = dict(width=self.out_dim)
        self.proj: nn.Module = nn.Identity()
        self.norm: nn.Module = nn.Identity()
        if reduction > 1:
            self.proj = nn.Linear(in_dim, in_dim // reduction, bias=False)
            self.norm = nn.RMSNorm(self.out_dim, eps=norm_eps)
            init_linears(self)

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Join registers, a tensor (B, n, C) for each of ``out_indices``, into vectors (B, ``out_dim``) of the images.

        Raises:
            TypeError: If the inputs are not a tuple.
            ValueError: If one of them has another shape.
        """
        if isinstance(inputs, Tensor):
            raise TypeError(f'RegisterNeck takes a tuple of tensors, one for each block, not {tuple(inputs.shape)}')
        expected = self.num_registers, self.in_dim
        for x in inputs:
            if tuple(x.shape[1:]) != expected:
                raise ValueError(
                    f'registers of shape {tuple(x.shape)}: RegisterNeck expects (B, {expected[0]}, {expected[1]}), as '
                    "a MAPHybrid of this num_registers and width gives them with out_type='registers'"
                )
        return tuple(self.norm(self.proj(x).flatten(1)) for x in inputs)
