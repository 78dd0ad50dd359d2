"""MAPHybrid: the hybrid Mamba-Transformer backbone for images."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from mmmap.registry import MODELS

from ..layers import (
    CoordinatePositionEncoding,
    GridSerialization,
    GridTokens,
    GridWindows,
    LearnedPositionEmbedding,
    grid_coords,
    init_linears,
    register_order,
)
from ..layers.position_encoding import to_pair
from .hybrid_backbone import HybridBackbone

#: The released sizes. The released large cannot run with its 12 heads, which do not divide 1024; 16 do.
ARCHS = {
    'tiny': dict(embed_dim=192, layout='MMMT' * 8, num_heads=12, num_registers=12),
    'small': dict(embed_dim=384, layout='MMMT' * 8, num_heads=12, num_registers=12),
    'base': dict(embed_dim=768, layout='MMMT' * 8, num_heads=12, num_registers=12),
    'large': dict(embed_dim=1024, layout='MMMT' * 16, num_heads=16, num_registers=16),
    'huge': dict(embed_dim=1536, layout='MMMT' * 12, num_heads=12, num_registers=16),
}
POS_EMBEDS = ('learned', 'coordinates')


@MODELS.register_module()
class MAPHybrid(HybridBackbone[GridTokens]):
    """Hybrid Mamba-Transformer backbone of MAP (CVPR 2025, arXiv 2410.00871).

    A patch embedding with positions, then a :class:`HybridEncoder`. For classification, register tokens are spread
    through the sequence as in Mamba-R (arXiv 2405.14858).

    For dense tasks, ``out_type='featmap'`` gives maps of the patches at any image size that the patch size divides. The
    data preprocessor pads other images: ``pad_size_divisor`` in mmdet and mmpretrain; in mmseg ``size`` for training
    and ``test_cfg=dict(size_divisor=16)`` for validation and test. Padding is not masked: the features of an image
    depend on its padding, but not on the other images of its batch.

    Args:
        arch (str | dict): 'tiny', 'small', 'base', 'large' or 'huge', or a dict of ``embed_dim``, ``layout`` and
            ``num_heads`` and, optionally, ``num_registers`` and further options of the blocks (``mlp_ratio``,
            ``d_state``, ``d_conv``, ``expand``), see :meth:`HybridBackbone.resolve_arch`. Defaults to 'base'.
        img_size (int | Sequence[int]): Image size in pixels, (height, width), of the stored position embedding, which
            is resized for other images. Defaults to 224.
        patch_size (int): Side of a patch in pixels. Defaults to 16.
        in_channels (int): Image channels. Defaults to 3.
        out_type (str): What :meth:`forward` returns for each of ``out_indices``: 'registers', the register tokens
            (B, n, C); 'avg_featmap', the mean of the image tokens (B, C); 'featmap', the image tokens as a map
            (B, C, rows, columns); 'raw', the sequence of the encoder (B, L + n, C). Defaults to 'registers'.
        num_registers (int, optional): Register tokens n. Defaults to None: the number of the architecture for
            ``out_type='registers'``, else 0.
        window_size (int): On grids larger than this many patches, T blocks attend within windows of this side, as in
            ViTDet (arXiv 2203.16527). The last T block of each quarter of them stays global, and M blocks scan the
            whole sequence. Windows at the far edges are smaller if the size does not divide the grid. Not for backbones
            with registers, and ignored in pretraining. 0 is no windows. Defaults to 0.
        serialization (str | dict): The order in which the encoder reads the patches, and their regions, which
            pretraining predicts one after the other: 'row', 'column', 'token', ``dict(type='block', size=4)`` and more,
            see :class:`~mmmap.models.layers.GridSerialization`. Defaults to 'row', as released.
        regions (str | dict, optional): Another such rule for the regions alone. Defaults to None.
        pos_embed (str): 'learned', a vector for each cell of a grid, as released, or 'coordinates', a
            :class:`~mmmap.models.layers.CoordinatePositionEncoding` of the centres of the patches, (row, column) from
            -1 to 1, which a :class:`PointMAPHybrid` can share. Defaults to 'learned'.
        **common: See :class:`HybridBackbone`.

    Raises:
        ValueError: If an argument is out of its range; the message names it.
    """

    archs = ARCHS
    out_types = ('registers', 'avg_featmap', 'featmap', 'raw')
    token_type = GridTokens
    arch_extras = ('num_registers',)
    undecayed = ('register_tokens', 'register_pos_embed')
    embedding_names = ('patch_embed', 'pos_embed', 'register_tokens', 'register_pos_embed')

    def __init__(
        self,
        arch: str | dict = 'base',
        img_size: int | Sequence[int] = 224,
        patch_size: int = 16,
        in_channels: int = 3,
        out_type: str = 'registers',
        num_registers: int | None = None,
        window_size: int = 0,
        serialization: str | dict = 'row',
        regions: str | dict | None = None,
        pos_embed: str = 'learned',
        **common: Any,
    ) -> None:
        settings = self.resolve_arch(arch)
        arch_registers = settings.pop('num_registers', 0)
        super().__init__(settings, out_type, **common)
        if pos_embed not in POS_EMBEDS:
            raise ValueError(f'pos_embed={pos_embed!r}: must be one of {POS_EMBEDS}')
        if num_registers is None:
            num_registers = arch_registers if out_type == 'registers' else 0
        if num_registers < 0 or (out_type == 'registers' and num_registers == 0):
            raise ValueError(f'num_registers={num_registers}: must be positive for out_type={out_type!r}')
        self.num_registers = num_registers
        self.patch_size = patch_size
        self.in_channels = in_channels
        self.img_size = to_pair(img_size, 'img_size')
        self.window_size = self._check_windows(window_size)
        self.serialization = GridSerialization(serialization)
        self.regions = self.serialization if regions is None else GridSerialization(regions, 'regions')

        self.patch_embed = nn.Conv2d(in_channels, self.embed_dim, patch_size, stride=patch_size)
        fan_in = in_channels * patch_size**2
        nn.init.trunc_normal_(self.patch_embed.weight, std=fan_in**-0.5)
        nn.init.zeros_(self.patch_embed.bias)  # type: ignore[arg-type]
        grid = self.grid_of(*self.img_size)
        if pos_embed == 'learned':
            self.pos_embed = LearnedPositionEmbedding(grid, self.embed_dim)
        else:
            # That of a PointMAPHybrid.
            self.pos_embed = CoordinatePositionEncoding(self.embed_dim, nn.SiLU)
            init_linears(self.pos_embed)
        if num_registers:
            self.register_tokens = self._learned_tokens(num_registers)
            self.register_pos_embed = self._learned_tokens(num_registers)
        self._freeze()

    def _check_windows(self, window_size: int) -> int:
        if not isinstance(window_size, int) or window_size < 0:
            raise ValueError(f'window_size={window_size!r}: must be a number of patches, or 0 for no windows')
        if window_size and self.num_registers:
            raise ValueError(
                f'window_size={window_size}: {self.num_registers} registers belong to no window, set num_registers=0 '
                'or window_size=0'
            )
        if window_size and not self.encoder.windowed_blocks:
            raise ValueError(
                f'window_size={window_size}: would change nothing, as four T blocks stay global and layout='
                f'{self.encoder.layout!r} has no more; set window_size=0'
            )
        return window_size

    @property
    def shapes(self) -> dict[str, Any]:
        """See :meth:`HybridBackbone.shapes`."""
        return dict(
            width=self.embed_dim,
            grid=self.grid_of(*self.img_size),
            patch_size=self.patch_size,
            in_channels=self.in_channels,
            num_registers=self.num_registers,
        )

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches of an image of this size in pixels.

        Raises:
            ValueError: If the patch size does not divide the image size.
        """
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f'an image of {height}x{width} pixels is not divisible by patch_size={self.patch_size}: resize it, or '
                f'pad it in the data_preprocessor: by pad_size_divisor={self.patch_size} in mmdet and mmpretrain; in '
                f'mmseg by test_cfg=dict(size_divisor={self.patch_size}) for validation and test, and for training by '
                f'a size that {self.patch_size} divides'
            )
        return height // self.patch_size, width // self.patch_size

    def tokenize(self, inputs: Tensor) -> GridTokens:
        """Embed the patches of a batch of images and add their positions.

        Args:
            inputs (Tensor): Preprocessed images, shape (B, in_channels, H, W).

        Returns:
            GridTokens: The tokens in raster order, their regions, and the order in which the encoder reads them.

        Raises:
            TypeError: If the inputs are not one tensor.
            ValueError: If the shape is not as above, or the patch size does not divide the image size.
        """
        if not isinstance(inputs, Tensor):
            raise TypeError(
                f'inputs are a {type(inputs).__name__}, not a tensor (B, {self.in_channels}, H, W): '
                "give the data loader collate_fn=dict(type='default_collate')"
            )
        if inputs.ndim != 4 or inputs.shape[1] != self.in_channels:
            raise ValueError(f'inputs of shape {tuple(inputs.shape)}: expected (B, {self.in_channels}, H, W)')
        grid = self.grid_of(*inputs.shape[-2:])
        tokens = GridTokens(
            self.patch_embed(inputs).flatten(2).transpose(1, 2),
            grid_coords(grid, inputs.device),
            self.regions.regions(grid, inputs.device),
            self.regions.region_size(grid),
            self.serialization.order(grid, inputs.device),
            grid=grid,
        )
        return replace(tokens, embeddings=tokens.embeddings + self.pos_embed.of(tokens))

    def encode(self, tokens: GridTokens, visible: Tensor | None = None, causal: bool = False) -> Tensor:
        """Encode the tokens of images, see :meth:`HybridBackbone.encode`."""
        regions = tokens.scanned_regions if causal else None
        return self.encoder(tokens.take(tokens.embeddings, visible), causal_regions=regions)

    def check_causal(self) -> None:
        """See :meth:`HybridBackbone.check_causal`."""
        if self.regions is not self.serialization:
            raise ValueError(
                'backbone.regions: AR predicts the regions of the serialization, along which the encoder is causal; '
                'leave regions=None'
            )
        grid = self.grid_of(*self.img_size)
        if not self.regions.regions(grid, torch.device('cpu')).any():
            raise ValueError(
                f'backbone.serialization: all {grid[0] * grid[1]} tokens are one region, with none before it to '
                "predict it from; 'token' makes regions of single patches"
            )

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Features of a batch of images.

        Args:
            inputs (Tensor): Preprocessed images, shape (B, in_channels, H, W).

        Returns:
            tuple[Tensor, ...]: One feature for each of ``out_indices``, of the shape of ``out_type``.
        """
        tokens = self.tokenize(inputs)
        features = self._encode_outputs(tokens)
        if self.out_type == 'raw':
            return features
        if self.out_type == 'registers':
            places = self._places(tokens)[1]
            return tuple(feature[:, places] for feature in features)
        if self.out_type == 'avg_featmap':
            return tuple(self._patches(feature, tokens).mean(dim=1) for feature in features)
        return tuple(self._feature_map(feature, tokens) for feature in features)

    def forward_features(self, inputs: Tensor) -> Tensor:
        """All tokens of the last block of ``out_indices``, as timm's models name it.

        Args:
            inputs (Tensor): Preprocessed images, shape (B, in_channels, H, W).

        Returns:
            Tensor: The n registers, then the L patches in raster order, shape (B, n + L, C).
        """
        tokens = self.tokenize(inputs)
        return self._registers_first(self._encode_outputs(tokens)[-1], tokens)

    def forward_intermediates(
        self,
        inputs: Tensor,
        indices: int | Sequence[int] | None = None,
        return_prefix_tokens: bool = False,
        output_fmt: str = 'NCHW',
        intermediates_only: bool = False,
    ) -> Any:
        """Features of several blocks, as timm's models give them; each is behind the final norm.

        Args:
            inputs (Tensor): Preprocessed images, shape (B, in_channels, H, W).
            indices (int | Sequence[int], optional): Blocks, negative ones from the end; an int n is the last n blocks.
                Blocks behind the last of ``out_indices`` cannot be asked for. Defaults to None: ``out_indices``.
            return_prefix_tokens (bool): Return a pair for each block: its patches, and its registers (B, n, C).
            output_fmt (str): 'NCHW', maps (B, C, rows, columns), or 'NLC', patches in raster order (B, L, C).
            intermediates_only (bool): Leave out the tokens of :meth:`forward_features`, which are returned first.

        Returns:
            list | tuple[Tensor, list]: The features of the blocks; behind the tokens, unless ``intermediates_only``.

        Raises:
            ValueError: If a block or the format does not exist.
        """
        if output_fmt not in ('NCHW', 'NLC'):
            raise ValueError(f"output_fmt={output_fmt!r}: must be 'NCHW' or 'NLC'")
        last = max(self.out_indices)
        if isinstance(indices, int):
            indices = range(last + 1 - indices, last + 1)
        blocks = self.out_indices if indices is None else tuple(i % self.num_blocks if i < 0 else i for i in indices)
        if not blocks or not all(0 <= i <= last for i in blocks):
            raise ValueError(f'indices={indices!r}: each must name one of blocks 0 to {last}')
        tokens = self.tokenize(inputs)
        *features, final = self._encode_outputs(tokens, (*blocks, last))
        n, intermediates = self.num_registers, []
        for feature in features:
            ordered = self._registers_first(feature, tokens)
            patches = ordered[:, n:]
            if output_fmt == 'NCHW':
                patches = patches.transpose(1, 2).unflatten(-1, tokens.grid).contiguous()
            intermediates.append((patches, ordered[:, :n]) if return_prefix_tokens else patches)
        if intermediates_only:
            return intermediates
        return self._registers_first(final, tokens), intermediates

    @property
    def num_features(self) -> int:
        """The width C, as timm names it."""
        return self.embed_dim

    def feature_maps(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Features as :meth:`forward` returns them for ``out_type='featmap'``, for any ``out_type``."""
        tokens = self.tokenize(inputs)
        return tuple(self._feature_map(feature, tokens) for feature in self._encode_outputs(tokens))

    def token_places(self, inputs: Tensor) -> Tensor:
        """Places in the sequence of the patches of images (B, in_channels, H, W), shape (rows, columns), int64."""
        tokens = self.tokenize(inputs)
        return self._places(tokens)[0].view(tokens.grid)

    def _places(self, tokens: GridTokens) -> tuple[Tensor, Tensor]:
        """Places in the sequence of the patches, in raster order, and of the registers."""
        length, device = tokens.embeddings.shape[1], tokens.embeddings.device
        _, places, register_places = register_order(length, self.num_registers, device)
        return places if tokens.order is None else places[tokens.order.argsort()], register_places

    def _registers_first(self, feature: Tensor, tokens: GridTokens) -> Tensor:
        """The registers, then the patches in raster order, of an encoded sequence (B, L + n, C)."""
        if not self.num_registers and tokens.order is None:
            return feature
        places, register_places = self._places(tokens)
        return feature[:, torch.cat([register_places, places])]

    def _patches(self, feature: Tensor, tokens: GridTokens) -> Tensor:
        """The patches (B, L, C) of an encoded sequence, in raster order."""
        return feature[:, self._places(tokens)[0]] if self.num_registers or tokens.order is not None else feature

    def _feature_map(self, feature: Tensor, tokens: GridTokens) -> Tensor:
        return self._patches(feature, tokens).transpose(1, 2).unflatten(-1, tokens.grid).contiguous()

    def _encode_outputs(self, tokens: GridTokens, blocks: Sequence[int] | None = None) -> tuple[Tensor, ...]:
        """The encoded sequence (B, L + n, C) of each of some blocks, or of ``out_indices``."""
        x, n = tokens.take(tokens.embeddings), self.num_registers
        if n:
            registers = (self.register_tokens + self.register_pos_embed).expand(len(x), -1, -1)
            x = torch.cat([x, registers.to(x.dtype)], dim=1)[:, register_order(x.shape[1], n, x.device)[0]]
        windows = None
        if self.window_size and max(tokens.grid) > self.window_size:
            windows = GridWindows(tokens.grid, self.window_size, tokens.order, x.device)
        return self.encoder(x, out_indices=self.out_indices if blocks is None else blocks, windows=windows)
