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
from .hybrid import HybridBackbone

#: The released sizes. The released large cannot run with its 12 heads, which do not divide 1024; 16 do.
ARCHS = {
    'tiny': dict(embed_dim=192, layout='MMMT' * 8, num_heads=12, num_registers=12),
    'small': dict(embed_dim=384, layout='MMMT' * 8, num_heads=12, num_registers=12),
    'base': dict(embed_dim=768, layout='MMMT' * 8, num_heads=12, num_registers=12),
    'large': dict(embed_dim=1024, layout='MMMT' * 16, num_heads=16, num_registers=16),
    'huge': dict(embed_dim=1536, layout='MMMT' * 12, num_heads=12, num_registers=16),
}
OUT_TYPES = ('registers', 'avg_featmap', 'featmap', 'raw')
POS_EMBEDS = ('learned', 'coordinates')


@MODELS.register_module()
class MAPHybrid(HybridBackbone[GridTokens]):
    """Hybrid Mamba-Transformer backbone of MAP (CVPR 2025, arXiv 2410.00871).

    A patch embedding with positions, then a :class:`HybridEncoder`. For classification, register tokens are spread
    through the sequence as in Mamba-R (arXiv 2405.14858).

    For dense tasks, ``out_type='featmap'`` gives maps of the patches at any image size that the patch size divides; the
    data preprocessor pads the others (``pad_size_divisor`` in mmdet, ``size_divisor`` in mmseg). Padding is not masked:
    every token hears of every other, so that the features of an image change with the padding beside it, though not
    with the other images of its batch. An image gives the same as part of a batch and alone if both are padded to one
    size.

    Args:
        arch (str | dict): 'tiny', 'small', 'base', 'large' or 'huge', or a dict of ``embed_dim``, ``layout`` and
            ``num_heads`` and, optionally, ``num_registers`` and further options of the blocks (``mlp_ratio``,
            ``d_state``, ``d_conv``, ``expand``), see :meth:`HybridBackbone.resolve_arch`. Defaults to 'base'.
        img_size (int | Sequence[int]): Image size in pixels, (height, width), that the position embedding is stored
            for. Other inputs are served by resizing it. Defaults to 224.
        patch_size (int): Side of a patch in pixels. Defaults to 16.
        in_channels (int): Image channels. Defaults to 3.
        out_type (str): What :meth:`forward` returns for each tapped block, all of it behind the final norm:
            'registers', the register tokens (B, n, C); 'avg_featmap', the mean of the image tokens (B, C);
            'featmap', the image tokens as a map (B, C, rows, columns), registers taken out and the patches where they
            lie in the image; 'raw', the sequence (B, L + n, C) as the encoder sees it. Defaults to 'registers'.
        out_indices (int | Sequence[int]): Blocks to tap, negative ones from the end. What is tapped is the residual
            stream plus the block's branch, ``RMSNorm(s + h)`` of :class:`HybridEncoder`: what a backbone of the blocks
            up to there would give. The norm is the one final norm of the encoder for all taps. Blocks behind the last
            tap keep their weights, but are not computed and need no gradient. Defaults to -1.
        num_registers (int, optional): Register tokens. None takes the architecture's number for
            ``out_type='registers'`` and 0 otherwise. Defaults to None.
        drop_path_rate (float): Stochastic depth. Defaults to 0.
        window_size (int): Side, in patches, of windows within which T blocks attend on grids larger than one window,
            as in ViTDet (arXiv 2203.16527); the last T block of each quarter of them stays global, and M blocks scan
            the whole sequence. Windows at the far edges are smaller where the size does not divide the grid. Not for
            backbones with registers; pretraining takes no notice of it. 0 is no windows. Defaults to 0.
        frozen_stages (int | str): -1 freezes nothing, 0 the embedding of patches, positions and registers, k also
            the first k blocks, 'all' all of them and the final norm too. Defaults to -1.
        with_cp (bool | str): Compute blocks once more in backward to save memory, with 'selective' all of them but
            scans and attention. Defaults to False.
        serialization (str | dict): The order in which the encoder reads the patches, and with it the regions that
            pretraining rebuilds one after the other: 'row', 'column', 'token' or ``dict(type='block', size=4)``, see
            :class:`~mmmap.models.layers.GridSerialization`. Defaults to 'row', as released.
        regions (str | dict, optional): Another such rule for the regions, so that the order of prediction is not that
            of the scans. None takes the serialization's. Defaults to None.
        pos_embed (str): 'learned', a vector for each cell of a grid, as released, or 'coordinates', a
            :class:`~mmmap.models.layers.CoordinatePositionEncoding` of the patches' centres, (row, column) from -1 to 1
            as clouds have them, which a :class:`PointMAPHybrid` can share. Defaults to 'learned'.
        weight_init (str): 'mamba' or 'released', see :class:`HybridEncoder`. Defaults to 'mamba'.
        scan_backend (str): Backend of the scans, see :func:`mmmap.ops.bidirectional_scan`. Defaults to 'auto'.
        init_cfg (dict, optional): Initialisation config of mmengine. Defaults to None.

    Raises:
        ValueError: If an argument is out of its range; the message names it.
    """

    archs = ARCHS
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
        out_indices: int | Sequence[int] = -1,
        num_registers: int | None = None,
        drop_path_rate: float = 0.0,
        window_size: int = 0,
        frozen_stages: int | str = -1,
        with_cp: bool | str = False,
        serialization: str | dict = 'row',
        regions: str | dict | None = None,
        pos_embed: str = 'learned',
        weight_init: str = 'mamba',
        scan_backend: str = 'auto',
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        settings = self.resolve_arch(arch)
        arch_registers = settings.pop('num_registers', 0)
        if out_type not in OUT_TYPES:
            raise ValueError(f'out_type={out_type!r}: must be one of {OUT_TYPES}')
        if pos_embed not in POS_EMBEDS:
            raise ValueError(f'pos_embed={pos_embed!r}: must be one of {POS_EMBEDS}')
        if num_registers is None:
            num_registers = arch_registers if out_type == 'registers' else 0
        if num_registers < 0 or (out_type == 'registers' and num_registers == 0):
            raise ValueError(f'num_registers={num_registers}: must be positive for out_type={out_type!r}')
        self.out_type = out_type
        self.num_registers = num_registers
        self.patch_size = patch_size
        self.in_channels = in_channels
        self.embed_dim = settings['embed_dim']
        self.img_size = to_pair(img_size, 'img_size')
        encoder = self.encoder_type(
            **settings,
            drop_path_rate=drop_path_rate,
            weight_init=weight_init,
            with_cp=with_cp,
            scan_backend=scan_backend,
        )
        self._set_encoder(encoder, out_indices, frozen_stages)
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
            # As a PointMAPHybrid has it.
            self.pos_embed = CoordinatePositionEncoding(self.embed_dim, nn.SiLU)
            init_linears(self.pos_embed)
        if num_registers:
            self.register_tokens = nn.Parameter(torch.empty(1, num_registers, self.embed_dim))
            self.register_pos_embed = nn.Parameter(torch.empty(1, num_registers, self.embed_dim))
            nn.init.trunc_normal_(self.register_tokens, std=0.02)
            nn.init.trunc_normal_(self.register_pos_embed, std=0.02)
        self._freeze_unused()
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
                f'an image of {height}x{width} pixels is not divisible by patch_size={self.patch_size}: '
                f'resize it, or pad it with pad_size_divisor={self.patch_size} in the data preprocessor '
                "(mmseg's is called size_divisor)"
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
            ValueError: If the shape is not as above or the patch size does not divide the image size.
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
            tuple[Tensor, ...]: One feature for each of ``out_indices``; its shape is told by ``out_type``.
        """
        tokens = self.tokenize(inputs)
        features = self._encode_taps(tokens)
        if self.out_type == 'raw':
            return features
        if self.out_type == 'registers':
            places = self._places(tokens)[1]
            return tuple(feature[:, places] for feature in features)
        if self.out_type == 'avg_featmap':
            return tuple(self._patches(feature, tokens).mean(dim=1) for feature in features)
        return tuple(self._map(feature, tokens) for feature in features)

    def feature_maps(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """What :meth:`forward` gives for ``out_type='featmap'``, whatever the ``out_type`` is."""
        tokens = self.tokenize(inputs)
        return tuple(self._map(feature, tokens) for feature in self._encode_taps(tokens))

    def token_places(self, inputs: Tensor) -> Tensor:
        """Where the patches of images (B, in_channels, H, W) are in the sequence, shape (rows, columns), int64."""
        tokens = self.tokenize(inputs)
        return self._places(tokens)[0].view(tokens.grid)

    def _places(self, tokens: GridTokens) -> tuple[Tensor, Tensor]:
        """Where the patches, in raster order, and the registers are in the sequence that the encoder reads."""
        length, device = tokens.embeddings.shape[1], tokens.embeddings.device
        _, places, register_places = register_order(length, self.num_registers, device)
        return places if tokens.order is None else places[tokens.order.argsort()], register_places

    def _patches(self, feature: Tensor, tokens: GridTokens) -> Tensor:
        """The patches (B, L, C) of an encoded sequence, in raster order."""
        return feature[:, self._places(tokens)[0]] if self.num_registers or tokens.order is not None else feature

    def _map(self, feature: Tensor, tokens: GridTokens) -> Tensor:
        return self._patches(feature, tokens).transpose(1, 2).unflatten(-1, tokens.grid).contiguous()

    def _encode_taps(self, tokens: GridTokens) -> tuple[Tensor, ...]:
        """The whole encoded sequence (B, L + n, C) behind each tapped block."""
        x, n = tokens.take(tokens.embeddings), self.num_registers
        if n:
            registers = (self.register_tokens + self.register_pos_embed).expand(len(x), -1, -1)
            x = torch.cat([x, registers.to(x.dtype)], dim=1)[:, register_order(x.shape[1], n, x.device)[0]]
        windows = None
        if self.window_size and max(tokens.grid) > self.window_size:
            windows = GridWindows(tokens.grid, self.window_size, tokens.order, x.device)
        return self.encoder(x, taps=self.out_indices, windows=windows)
