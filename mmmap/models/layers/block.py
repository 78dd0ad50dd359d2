"""The base of the blocks of an encoder, and their registry."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import ClassVar

from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from .grid_windows import GridWindows
from .local_aggregation import LocalAggregation
from .region_attention import Attend, attend

#: The class of a block for each letter of a layout.
BLOCKS: dict[str, type['Block']] = {}


@dataclass(frozen=True)
class Context:
    """What all blocks share in one forward pass.

    Attributes:
        attend (Attend): The attention of blocks that attend. Defaults to all to all.
        causal (bool): No token may see a later one. Defaults to False.
        windows (GridWindows, optional): Windows of the blocks that attend within them. Defaults to None.
        neighbours (Tensor, optional): The nearest tokens in space of each token, shape (B, T, k). Defaults to None.
    """

    attend: Attend = attend
    causal: bool = False
    windows: GridWindows | None = None
    neighbours: Tensor | None = None


def options_of(kind: type[nn.Module]) -> dict[str, Parameter]:
    """The keywords of a module's ``__init__`` that are not those of :class:`Block`."""
    common = signature(Block.__init__).parameters
    named = signature(kind.__init__, eval_str=True).parameters.items()
    return {name: p for name, p in named if name not in common and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


class Block(nn.Module):
    """Base of the blocks of an encoder.

    An encoder keeps a residual stream beside the branch of the last block. A block takes both and returns both; how
    they are joined is defined by the block. The keywords of a subclass's ``__init__`` that this class does not have are
    its options, which a user sets in ``arch``.

    Args:
        embed_dim (int): Token width C.
        drop_path_rate (float): Chance that a sample's incoming branch is not added to the stream. Defaults to 0.
        norm_eps (float): Epsilon of the norms. Defaults to 1e-5.
        local (bool): Tokens gather the features of their neighbours in front of the block. Defaults to False.
        refines (bool): The block before opens a branch. Defaults to False.
    """

    #: Whether the block puts its result on a new branch, which the block behind it may refine.
    opens_branch: ClassVar[bool] = False
    #: Whether the block attends, and so may attend within windows.
    attends: ClassVar[bool] = False
    #: Operators, by a part of their names, whose results selective checkpointing keeps.
    kept_operators: ClassVar[tuple[str, ...]] = ()
    #: The part of a model under which its parameters and operations are counted: a part for a piece of their names, ''
    #: for all others. None leaves it to the modules inside.
    counted_as: ClassVar[Mapping[str, str] | None]
    #: The module inside whose ``response(x, position)`` tells what a token responds to, see `mmmap.analysis`.
    probed: ClassVar[str | None] = None
    #: The module that gathers features of neighbours.
    local_type: ClassVar[type[LocalAggregation]] = LocalAggregation
    #: Checkpointing and FSDP handle such modules one by one.
    repeated: ClassVar[bool] = True

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if 'counted_as' not in vars(cls):
            cls.counted_as = {'': f'{cls.__name__}s'}

    def __init__(
        self,
        embed_dim: int,
        *,
        drop_path_rate: float = 0.0,
        norm_eps: float = 1e-5,
        local: bool = False,
        refines: bool = False,
    ) -> None:
        super().__init__()
        self.drop_path = DropPath(drop_path_rate)
        self.local = self.local_type(embed_dim, norm_eps) if local else None
        self.norm_eps = norm_eps
        self.refines = refines
        #: Set by the encoder: whether the block attends within windows if there are any.
        self.windowed = False

    @classmethod
    def options(cls) -> dict[str, Parameter]:
        """The block's own options: name and parameter of each."""
        return options_of(cls)

    def gather(self, x: Tensor, context: Context) -> Tensor:
        """Add features of neighbours to tokens (B, L, C) if the block has ``local``."""
        return x if self.local is None else x + self.local(x, context.neighbours)

    def forward(self, branch: Tensor | None, stream: Tensor, context: Context) -> tuple[Tensor | None, Tensor]:
        """Run the block.

        Args:
            branch (Tensor, optional): Branch of the block before, shape (B, L, C), or None.
            stream (Tensor): Residual stream in at least float32, shape (B, L, C).
            context (Context): What all blocks share.

        Returns:
            tuple[Tensor | None, Tensor]: Branch and stream behind this block.
        """
        raise NotImplementedError


def register_block(letter: str) -> Callable[[type[Block]], type[Block]]:
    """Class decorator: make a block available in layouts under a letter.

    Raises:
        ValueError: If it is no single letter, or another class has it.
    """
    if len(letter) != 1 or not letter.isalpha():
        raise ValueError(f'register_block({letter!r}): must be one letter')

    def register(block: type[Block]) -> type[Block]:
        taken = BLOCKS.setdefault(letter, block)
        if taken.__qualname__ != block.__qualname__ or taken.__module__ != block.__module__:
            raise ValueError(f'register_block({letter!r}): {taken.__module__}.{taken.__qualname__} has this letter')
        BLOCKS[letter] = block
        return block

    return register
