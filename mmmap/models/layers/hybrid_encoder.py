"""The one encoder of the toolbox: Mamba and Transformer blocks in any order, over any tokens."""

from collections.abc import Sequence

import torch
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from mmmap.ops import knn

from .checkpointing import check_with_cp, run_block
from .grid_windows import GridWindows, windowed_blocks
from .local_aggregation import LocalAggregation
from .mamba_mixer import MambaMixer
from .region_attention import Attend, attend, region_attention
from .transformer_block import TransformerBlock
from .weight_init import init_linears, init_step_sizes

WEIGHT_INITS = ('mamba', 'released')


def check_layout(layout: str, weight_init: str, drop_path_rate: float) -> None:
    """Raise a ValueError that names the argument unless they are what encoders take."""
    if not layout or set(layout) - {'M', 'T'}:
        raise ValueError(f"layout={layout!r}: must be a non-empty string of the letters 'M' and 'T'")
    if weight_init not in WEIGHT_INITS:
        raise ValueError(f'weight_init={weight_init!r}: must be one of {WEIGHT_INITS}')
    if not 0.0 <= drop_path_rate < 1.0:
        raise ValueError(f'drop_path_rate={drop_path_rate}: must be in [0, 1)')


class MambaBlock(nn.Module):
    """A bidirectional Mamba mixer behind an RMSNorm, on a separate residual stream.

    Args:
        mixer (MambaMixer): The mixer.
        embed_dim (int): Token width C.
        drop_path_rate (float): Chance that a sample's incoming branch is not added to the stream.
        norm_eps (float): Epsilon of the RMSNorm.
        local (nn.Module, optional): A :class:`LocalAggregation`, which adds to the stream in front of the norm.
            Defaults to None.
    """

    def __init__(
        self,
        mixer: MambaMixer,
        embed_dim: int,
        drop_path_rate: float,
        norm_eps: float,
        local: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.drop_path = DropPath(drop_path_rate)
        self.local = local
        self.norm = nn.RMSNorm(embed_dim, eps=norm_eps)
        self.mixer = mixer

    def forward(
        self, branch: Tensor | None, stream: Tensor, causal: bool = False, neighbours: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Add the previous block's branch to the stream, then compute this block's branch.

        Args:
            branch (Tensor, optional): What the block before put out, shape (B, L, C); None for the first block.
            stream (Tensor): Residual stream in at least float32, shape (B, L, C).
            causal (bool): Scan forward only. Defaults to False.
            neighbours (Tensor, optional): What ``local`` takes, shape (B, T, k). Defaults to None.

        Returns:
            tuple[Tensor, Tensor]: This block's branch and the stream it was computed from.
        """
        if branch is not None:
            stream = stream + self.drop_path(branch)
        if self.local is not None:
            stream = stream + self.local(stream, neighbours)
        return self.mixer(self.norm(stream), causal), stream


class HybridEncoder(nn.Module):
    """Mamba and Transformer blocks in the order of ``layout``; tokens in, normalised tokens out.

    The encoder keeps a residual stream ``s`` (float32 under AMP) beside the branch ``h`` of the last block. An M block
    computes ``s = s + h`` and ``h = mixer(RMSNorm(s))``. A T block right behind an M block refines that branch, with an
    extra skip: ``h = block(h) + h``; ``s`` is untouched, as in the released MAP code. Cases which that code does not
    have: a T block behind another T block of the branch is ``h = block(h)``, and a T block with no M block before it is
    a plain ViT block on the stream, so that layout ``'T' * n`` is a ViT. The output is ``RMSNorm(s + h)``.

    Args:
        embed_dim (int): Token width C.
        layout (str): One letter a block, 'M' or 'T', such as ``'MMMT' * 8``.
        num_heads (int): Heads of the Transformer blocks. Defaults to 12.
        mlp_ratio (float): MLP width of the Transformer blocks over ``embed_dim``. Defaults to 2.
        d_state (int): States per channel of the scans. Defaults to 16.
        d_conv (int): Width of the causal convolutions. Defaults to 4.
        expand (int): Channels of the scans over ``embed_dim``. Defaults to 2.
        drop_path_rate (float): Stochastic depth on the branches of the M blocks: rising linearly from 0, the full rate
            on the last one (Mamba-R's schedule). Defaults to 0.
        norm_eps (float): Epsilon of every norm. Defaults to 1e-5.
        weight_init (str): 'mamba' keeps Mamba's step-size initialisation; 'released' overwrites it with Xavier weights
            and zero biases, as the released MAP code does. All else is alike. Defaults to 'mamba'.
        with_cp (bool | str): Compute each block once more in backward to save memory, with 'selective' all of it but
            scans and attention. Defaults to False.
        scan_backend (str): Backend of the scans. Defaults to 'auto'.
        local_neighbours (int): In front of every block, tokens hear of so many neighbours in space, themselves among
            them, see :class:`LocalAggregation`. 0 is none of it. Defaults to 0.

    Raises:
        ValueError: If ``layout`` or ``weight_init`` is not one of the above, or the heads do not divide the width.
    """

    def __init__(
        self,
        embed_dim: int,
        layout: str,
        num_heads: int = 12,
        mlp_ratio: float = 2.0,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        drop_path_rate: float = 0.0,
        norm_eps: float = 1e-5,
        weight_init: str = 'mamba',
        with_cp: bool | str = False,
        scan_backend: str = 'auto',
        local_neighbours: int = 0,
    ) -> None:
        super().__init__()
        check_layout(layout, weight_init, drop_path_rate)
        check_with_cp(with_cp)
        if not isinstance(local_neighbours, int) or local_neighbours < 0:
            raise ValueError(f'local_neighbours={local_neighbours!r}: must be a number of tokens, or 0 for none')
        #: All that it was built with, by which two encoders can be compared.
        self.settings = dict(
            embed_dim=embed_dim,
            layout=layout,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            d_state=d_state,
            d_conv=d_conv,
            expand=expand,
            drop_path_rate=drop_path_rate,
            norm_eps=norm_eps,
            weight_init=weight_init,
            with_cp=with_cp,
            scan_backend=scan_backend,
            local_neighbours=local_neighbours,
        )
        self.local_neighbours = local_neighbours
        self.embed_dim = embed_dim
        self.layout = layout
        self.with_cp = with_cp
        self.windowed_blocks = windowed_blocks(layout)
        num_mamba = layout.count('M')
        # The first M block adds nothing to the stream; the others and the final sum follow the linear schedule.
        rates = [0.0, *torch.linspace(0, drop_path_rate, num_mamba, device='cpu').tolist()]
        self.blocks = nn.ModuleList()
        for letter in layout:
            local = LocalAggregation(embed_dim, norm_eps) if local_neighbours else None
            if letter == 'M':
                mixer = MambaMixer(embed_dim, d_state, d_conv, expand, scan_backend)
                block = MambaBlock(mixer, embed_dim, rates[len(self._mamba_blocks())], norm_eps, local)
            else:
                block = TransformerBlock(embed_dim, num_heads, mlp_ratio, norm_eps, local)
            self.blocks.append(block)
        self.drop_path = DropPath(drop_path_rate)
        self.norm = nn.RMSNorm(embed_dim, eps=norm_eps)
        init_linears(self)
        if weight_init == 'mamba':
            init_step_sizes(self)

    def _mamba_blocks(self) -> list[MambaBlock]:
        return [block for block in self.blocks if isinstance(block, MambaBlock)]

    def _neighbours(self, coords: Tensor | None, causal_regions: Tensor | None, windows: GridWindows | None) -> Tensor:
        for name, value in (('causal_regions', causal_regions), ('windows', windows)):
            if value is not None:
                raise ValueError(f'{name}: a token would hear of others by local_neighbours={self.local_neighbours}')
        if coords is None:
            raise ValueError(f'coords: local_neighbours={self.local_neighbours} needs the places of the tokens')
        return knn(coords, coords, min(self.local_neighbours, coords.shape[1]))[1]

    def _run(self, block: nn.Module, *args: Tensor | bool | Attend | None):
        return run_block(block, self.with_cp, *args)

    def _normalise(self, branch: Tensor | None, stream: Tensor, drop: bool) -> Tensor:
        if branch is not None:
            stream = stream + (self.drop_path(branch) if drop else branch)
        return self.norm(stream)

    def forward(
        self,
        x: Tensor,
        taps: Sequence[int] | None = None,
        causal_regions: Tensor | None = None,
        windows: GridWindows | None = None,
        coords: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, ...]:
        """Encode a sequence of tokens.

        Args:
            x (Tensor): Tokens, shape (B, L, C), any L >= 1.
            taps (Sequence[int], optional): Blocks (0 first) whose state to return instead of the last one's. Those
                behind the last of them are not computed.
            causal_regions (Tensor, optional): Region of each token, shape (L,), never falling along the sequence. With
                it no token sees a later region: M blocks scan forward only, and T blocks attend to their own and
                earlier regions. Defaults to None, every token sees all.
            windows (GridWindows, optional): Windows over the tokens of a whole grid, within which T blocks attend but
                for the few that stay global, see :func:`windowed_blocks`; M blocks scan the whole sequence. Not beside
                ``causal_regions``. Defaults to None, all T blocks are global.
            coords (Tensor, optional): Places of the tokens in space, shape (B, T, D), for encoders with
                ``local_neighbours``, others take no notice. With T below L the first L - T tokens have no place, and
                hear of no neighbours. Defaults to None.

        Returns:
            Tensor | tuple[Tensor, ...]: The normalised stream ``RMSNorm(s + h)`` behind the last block, shape
            (B, L, C); with ``taps`` a tuple of it behind each named block, in the order given.

        Raises:
            ValueError: If both regions and windows are given, or the encoder has ``local_neighbours`` and regions or
                windows are given or the places are not.
        """
        if causal_regions is not None and windows is not None:
            raise ValueError('causal_regions and windows: T blocks cannot attend by both, give one of them')
        stream = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        # What a block gets beside the tokens.
        for_mamba, for_transformer = (), ()
        if self.local_neighbours:
            neighbours = self._neighbours(coords, causal_regions, windows)
            for_mamba, for_transformer = (False, neighbours), (attend, neighbours)
        if causal_regions is not None:
            for_mamba, for_transformer = (True,), (region_attention('region_causal', causal_regions),)
        branch, before = None, ''
        last = len(self.blocks) - 1
        tapped = {}
        for i, (letter, block) in enumerate(zip(self.layout, self.blocks, strict=True)):
            if letter == 'M':
                branch, stream = self._run(block, branch, stream, *for_mamba)
            else:
                tokens = stream if branch is None else branch
                if windows is not None and i in self.windowed_blocks:
                    refined = self._run(block, tokens.index_select(1, windows.order), windows)
                    refined = refined.index_select(1, windows.inverse)
                else:
                    refined = self._run(block, tokens, *for_transformer)
                if branch is None:
                    stream = refined
                else:
                    branch = refined + branch if before == 'M' else refined
            before = letter
            if taps is not None and i in taps:
                tapped[i] = self._normalise(branch, stream, drop=i == last)
                if len(tapped) == len(set(taps)):
                    break
        if taps is not None:
            return tuple(tapped[i] for i in taps)
        return self._normalise(branch, stream, drop=True)
