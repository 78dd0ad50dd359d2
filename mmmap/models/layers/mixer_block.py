"""Blocks around a mixer of tokens, such as Mamba's."""

from inspect import Parameter
from typing import Any, ClassVar

from torch import Tensor, nn

from .block import Block, Context, options_of, register_block
from .mamba_mixer import MambaMixer


class MixerBlock(Block):
    """A mixer behind an RMSNorm, whose result is a new branch.

    A subclass names its mixer, ``mixer_type``: a module that is built from ``embed_dim`` and its options, and called
    with tokens (B, L, C) and ``causal``, whether no token may see a later one. It gives mixed tokens (B, L, C).

    Args:
        embed_dim (int): Token width C.
        **settings: The mixer's options, and what :class:`Block` takes; ``drop_path_rate`` is that of the incoming
            branch.
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

    def forward(self, branch: Tensor | None, stream: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Add the previous block's branch to the stream, then mix it; see :meth:`Block.forward`."""
        if branch is not None:
            stream = stream + self.drop_path(branch)
        stream = self.gather(stream, context)
        return self.mixer(self.norm(stream), context.causal), stream


@register_block('M')
class MambaBlock(MixerBlock):
    """A bidirectional Mamba mixer, see :class:`MambaMixer`."""

    mixer_type = MambaMixer
    counted_as = None
