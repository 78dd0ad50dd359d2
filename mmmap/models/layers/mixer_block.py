"""Blocks of an encoder that hold a mixer of tokens, such as Mamba's."""

from inspect import Parameter
from typing import Any, ClassVar

from torch import Tensor, nn

from .block import Block, Context, options_of, register_block
from .mamba_mixer import MambaMixer


class MixerBlock(Block):
    """An RMSNorm and a mixer, whose result is a new branch.

    A subclass sets ``mixer_type``: a module that is built from ``embed_dim`` and its own options. It is called with
    tokens (B, L, C) and ``causal``, whether no token may see a later one, and returns mixed tokens (B, L, C).

    Args:
        embed_dim (int): Token width C.
        **settings: Options of the mixer, and arguments of :class:`Block`.
    """

    mixer_type: ClassVar[type[nn.Module]]
    norm_type: ClassVar[type[nn.Module]] = nn.RMSNorm
    opens_branch = True
    probed = 'mixer'

    def __init__(self, embed_dim: int, **settings: Any) -> None:
        options = {name: settings.pop(name) for name in self.options() if name in settings}
        super().__init__(embed_dim, **settings)
        self.norm = self.norm_type(embed_dim, eps=self.norm_eps)
        self.mixer = self.mixer_type(embed_dim, **options)

    @classmethod
    def options(cls) -> dict[str, Parameter]:
        """The mixer's options."""
        return options_of(cls.mixer_type)

    def forward(self, branch: Tensor | None, stream: Tensor, context: Context) -> tuple[Tensor | None, Tensor]:
        """Add the incoming branch to the stream, then mix the stream; see :meth:`Block.forward`."""
        if branch is not None:
            stream = stream + self.drop_path(branch)
        stream = self.gather(stream, context)
        return self.mixer(self.norm(stream), context.causal), stream


@register_block('M')
class MambaBlock(MixerBlock):
    """A bidirectional Mamba mixer, see :class:`MambaMixer`."""

    mixer_type = MambaMixer
    counted_as = None
