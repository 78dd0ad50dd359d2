"""The encoder of all backbones: blocks of any kind in any order, for any tokens."""

from collections.abc import Mapping, Sequence
from inspect import Parameter
from typing import Any, ClassVar

import torch
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from mmmap.ops import knn

from .block import BLOCKS, Block, Context
from .checkpointing import check_with_cp, run_block
from .grid_windows import GridWindows, windowed_blocks
from .region_attention import attend, region_attention
from .weight_init import WEIGHT_INITS


class HybridEncoder(nn.Module):
    """Mamba and Transformer blocks in the order of ``layout``; tokens in, normalised tokens out.

    The encoder keeps a residual stream ``s`` (float32 under AMP) beside the branch ``h`` of the last block. An M block
    computes ``s = s + h`` and ``h = mixer(RMSNorm(s))``. A T block right behind an M block refines that branch, with an
    extra skip: ``h = block(h) + h``; ``s`` is untouched, as in the released MAP code. Two cases are not in that
    code: a T block behind another T block of the branch is ``h = block(h)``, and a T block with no M block before it is
    a plain ViT block on the stream, so that layout ``'T' * n`` is a ViT. The output is ``RMSNorm(s + h)``.

    Args:
        embed_dim (int): Token width C.
        layout (str): One letter a block, 'M' or 'T', such as ``'MMMT' * 8``.
        drop_path_rate (float): Stochastic depth on the branches of the blocks that open one, such as M blocks: rising
            linearly from 0 to the full rate on the last one, as in Mamba-R. Defaults to 0.
        norm_eps (float): Epsilon of every norm. Defaults to 1e-5.
        weight_init (str): 'mamba' initialises the step sizes as Mamba does, 'released' as linear layers, as the
            released MAP code does. Defaults to 'mamba'.
        with_cp (bool | str): Compute each block again in the backward pass to save memory; with 'selective' all but the
            operators that the block names, such as scans and attention. Defaults to False.
        local_neighbours (int): In front of every block, tokens gather features of this many nearest tokens in space,
            with themselves, see :class:`LocalAggregation`. 0 turns it off. Defaults to 0.
        **options: Options of the blocks, see :meth:`Block.options`: ``num_heads`` and ``mlp_ratio`` of T blocks,
            ``d_state``, ``d_conv``, ``expand`` and ``scan_backend`` of M blocks.

    Raises:
        ValueError: If an argument is out of its range, or no block has an option of that name.
    """

    #: The class of a block for each letter.
    block_types: ClassVar[Mapping[str, type[Block]]] = BLOCKS
    #: The final norm.
    norm_type: ClassVar[type[nn.Module]] = nn.RMSNorm
    compilable = True

    def __init__(
        self,
        embed_dim: int,
        layout: str,
        drop_path_rate: float = 0.0,
        norm_eps: float = 1e-5,
        weight_init: str = 'mamba',
        with_cp: bool | str = False,
        local_neighbours: int = 0,
        **options: object,
    ) -> None:
        super().__init__()
        defaults = {name: p.default for name, p in self.options().items() if p.default is not p.empty}
        #: All that it was built with, by which two encoders can be compared.
        self.settings: dict[str, Any] = dict(
            embed_dim=embed_dim,
            layout=layout,
            drop_path_rate=drop_path_rate,
            norm_eps=norm_eps,
            weight_init=weight_init,
            with_cp=with_cp,
            local_neighbours=local_neighbours,
            **defaults | options,
        )
        self._check(options)
        self.local_neighbours = local_neighbours
        self.embed_dim = embed_dim
        self.layout = layout
        self.with_cp = with_cp
        kinds = [self.block_types[letter] for letter in layout]
        rates = self.drop_path_rates(kinds, drop_path_rate)
        self.blocks = nn.ModuleList()
        previous: list[type[Block]] = [Block, *kinds[:-1]]
        for kind, before, rate in zip(kinds, previous, rates, strict=True):
            own: dict[str, Any] = {name: value for name, value in options.items() if name in kind.options()}
            own |= dict(norm_eps=norm_eps, local=bool(local_neighbours), refines=before.opens_branch)
            self.blocks.append(kind(embed_dim, drop_path_rate=rate, **own))
        self.windowed_blocks = windowed_blocks([i for i, kind in enumerate(kinds) if kind.attends])
        for i in self.windowed_blocks:
            self.blocks[i].windowed = True  # type: ignore[assignment]
        self.drop_path = DropPath(drop_path_rate)
        self.norm = self.norm_type(embed_dim, eps=norm_eps)
        WEIGHT_INITS[weight_init](self)

    @classmethod
    def options(cls) -> dict[str, Parameter]:
        """The options of all blocks that have a letter, see :meth:`Block.options`."""
        return {name: option for kind in cls.block_types.values() for name, option in kind.options().items()}

    @staticmethod
    def drop_path_rates(kinds: Sequence[type[Block]], drop_path_rate: float) -> list[float]:
        """The rate of each block: 0 for the first branch, whose stream is empty, then rising up to the final sum."""
        rates = [
            0.0,
            *torch.linspace(0, drop_path_rate, sum(kind.opens_branch for kind in kinds), device='cpu').tolist(),
        ]
        return [rates.pop(0) if kind.opens_branch else 0.0 for kind in kinds]

    def _check(self, options: Mapping[str, object]) -> None:
        """Raise a ValueError that names a setting if it is not valid."""
        settings = self.settings
        layout, rate, letters = settings['layout'], settings['drop_path_rate'], sorted(self.block_types)
        if not layout or set(layout) - set(letters):
            raise ValueError(f'layout={layout!r}: must be a non-empty string of the letters {", ".join(letters)}')
        if settings['weight_init'] not in tuple(WEIGHT_INITS):
            raise ValueError(f'weight_init={settings["weight_init"]!r}: must be one of {tuple(WEIGHT_INITS)}')
        if not 0.0 <= rate < 1.0:
            raise ValueError(f'drop_path_rate={rate}: must be in [0, 1)')
        check_with_cp(settings['with_cp'])
        neighbours = settings['local_neighbours']
        if not isinstance(neighbours, int) or neighbours < 0:
            raise ValueError(f'local_neighbours={neighbours!r}: must be a number of tokens, or 0 for none')
        kinds = [self.block_types[letter] for letter in sorted(set(layout))]
        for name, option in (named for kind in kinds for named in kind.options().items()):
            if option.default is option.empty and name not in options:
                raise ValueError(f'{name}: the blocks of layout={layout!r} need this option')
        for name in options.keys() - self.options().keys():
            raise ValueError(
                f'{name}={options[name]!r}: no block has this option; they have {", ".join(self.options())}'
            )

    def _neighbours(self, coords: Tensor | None, causal_regions: Tensor | None, windows: GridWindows | None) -> Tensor:
        for name, value in (('causal_regions', causal_regions), ('windows', windows)):
            if value is not None:
                raise ValueError(f'{name}: local_neighbours={self.local_neighbours} would let a token see others')
        if coords is None:
            raise ValueError(f'coords: local_neighbours={self.local_neighbours} needs the places of the tokens')
        return knn(coords, coords, min(self.local_neighbours, coords.shape[1]))[1]

    def _normalise(self, branch: Tensor | None, stream: Tensor, drop: bool) -> Tensor:
        if branch is not None:
            stream = stream + (self.drop_path(branch) if drop else branch)
        return self.norm(stream)

    def forward(
        self,
        x: Tensor,
        out_indices: Sequence[int] | None = None,
        causal_regions: Tensor | None = None,
        windows: GridWindows | None = None,
        coords: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, ...]:
        """Encode a sequence of tokens.

        Args:
            x (Tensor): Tokens, shape (B, L, C), any L >= 1.
            out_indices (Sequence[int], optional): Blocks (0 first) whose output is returned. Later blocks are not
                computed. Defaults to None, the last block.
            causal_regions (Tensor, optional): Region of each token, shape (L,), never falling along the sequence. With
                it no token sees a later region: M blocks scan forward only, and T blocks attend to their own and
                earlier regions. Defaults to None, every token sees all.
            windows (GridWindows, optional): Windows over the tokens of a whole grid. T blocks attend within them, all
                but a few, see :func:`windowed_blocks`; M blocks scan the whole sequence. Not with ``causal_regions``.
                Defaults to None, all T blocks are global.
            coords (Tensor, optional): Places of the tokens in space, shape (B, T, D), for encoders with
                ``local_neighbours``; ignored by others. If T is below L, the first L - T tokens have no place and no
                neighbours. Defaults to None.

        Returns:
            Tensor | tuple[Tensor, ...]: The normalised stream ``RMSNorm(s + h)`` behind the last block, shape
            (B, L, C); with ``out_indices`` a tuple of it behind each of these blocks.

        Raises:
            ValueError: If both regions and windows are given; or, with ``local_neighbours``, either of them or no
                places.
        """
        if causal_regions is not None and windows is not None:
            raise ValueError('causal_regions and windows: T blocks cannot attend by both, give one of them')
        stream = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        context = Context(
            attend=attend if causal_regions is None else region_attention('region_causal', causal_regions),
            causal=causal_regions is not None,
            windows=windows,
            neighbours=self._neighbours(coords, causal_regions, windows) if self.local_neighbours else None,
        )
        return self._run_blocks(stream, out_indices, context)

    def _run_blocks(
        self, stream: Tensor, out_indices: Sequence[int] | None, context: Context
    ) -> Tensor | tuple[Tensor, ...]:
        branch = None
        last = len(self.blocks) - 1
        outputs = {}
        for i, block in enumerate(self.blocks):
            branch, stream = run_block(block, self.with_cp, branch, stream, context)
            if out_indices is not None and i in out_indices:
                outputs[i] = self._normalise(branch, stream, drop=i == last)
                if len(outputs) == len(set(out_indices)):
                    break
        if out_indices is not None:
            return tuple(outputs[i] for i in out_indices)
        return self._normalise(branch, stream, drop=True)
