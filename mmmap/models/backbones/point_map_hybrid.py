"""PointMAPHybrid: the hybrid Mamba-Transformer backbone for clouds of points."""

import math
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from mmmap.registry import MODELS

from ..layers import CloudTokens, CoordinatePositionEncoding, PointTokenizer, init_linears
from .hybrid_backbone import HybridBackbone

#: 'small' is the released size.
POINT_ARCHS = {
    'tiny': dict(embed_dim=192, layout='MMMT' * 4, num_heads=3, mlp_ratio=4.0),
    'small': dict(embed_dim=384, layout='MMMT' * 4, num_heads=6, mlp_ratio=4.0),
    'base': dict(embed_dim=768, layout='MMMT' * 4, num_heads=12, mlp_ratio=4.0),
}


class PointFeatures(NamedTuple):
    """Features of places in a cloud.

    Attributes:
        coords (Tensor): The places, shape (B, G, 3).
        features (Tensor): Shape (B, G, C).
    """

    coords: Tensor
    features: Tensor


def default_region_size(num_groups: int) -> int:
    """The largest divisor of the number of groups up to its root."""
    return next(size for size in range(math.isqrt(num_groups), 0, -1) if num_groups % size == 0)


@MODELS.register_module()
class PointMAPHybrid(HybridBackbone[CloudTokens]):
    """Hybrid Mamba-Transformer backbone of PointMAP (CVPR 2025, arXiv 2410.00871).

    Groups of neighbouring points become tokens, which the encoder reads in the order of ``serialization``. In
    evaluation mode the features of a cloud depend neither on the order of its points nor on the other clouds of the
    batch: of equally far points, as in grids and mirrored shapes, the coordinates decide. In training, the batch norms
    of the embedding share their statistics.

    Args:
        arch (str | dict): 'tiny', 'small' or 'base', or a dict of ``embed_dim``, ``layout`` and ``num_heads`` and,
            optionally, ``mlp_ratio``, ``d_state``, ``d_conv`` and ``expand``. Defaults to 'small'.
        num_groups (int): Groups G of a cloud. Defaults to 64.
        group_size (int): Points M of a group. Defaults to 32.
        in_channels (int): Coordinates and features 3 + F of a point. Defaults to 3.
        out_type (str): What :meth:`forward` returns for each of ``out_indices``: 'points', the features of the groups
            at their centres as :class:`PointFeatures`; 'max_mean', the maximum and the mean over the groups (B, 2C);
            'cls_max_mean', a class token, and the sum of the maximum and the mean over the groups (B, 2C); 'raw', the
            sequence of the encoder (B, G, C). Defaults to 'max_mean'.
        serialization (str | dict, optional): The order in which the encoder reads the groups, by their centres, see
            :class:`~mmmap.models.layers.PointSerialization`. Defaults to None, which is 'hilbert'.
        region_size (int, optional): Groups of a region, successive ones; pretraining predicts one region after the
            other. Must divide ``num_groups``. Defaults to None, the largest divisor up to the root.
        local_neighbours (int): In front of every block, each group gathers features of the groups with the nearest
            centres, this many with itself, see :class:`~mmmap.models.layers.LocalAggregation`. In pretraining only
            visible groups count. 0 turns it off. Defaults to 4.
        **common: See :class:`HybridBackbone`.

    Raises:
        ValueError: If an argument is out of its range; the message names it.
    """

    archs = POINT_ARCHS
    out_types = ('points', 'max_mean', 'cls_max_mean', 'raw')
    token_type = CloudTokens
    embedding_names = ('tokenizer', 'pos_embed', 'cls_token', 'cls_pos_embed')
    undecayed = ('cls_token', 'cls_pos_embed')
    pos_embed: CoordinatePositionEncoding
    tokenizer_type: ClassVar[type[PointTokenizer]] = PointTokenizer
    default_serialization: ClassVar[str | None] = 'hilbert'
    #: Subclasses that are built in place of this class if a keyword is given.
    variants: ClassVar[dict[str, type[HybridBackbone]]] = {}

    def __new__(cls, *args: object, **kwargs: object) -> HybridBackbone:
        """Create the variant that a keyword chooses."""
        variants = vars(cls).get('variants', {})
        return super().__new__(next((kind for keyword, kind in variants.items() if keyword in kwargs), cls))

    def __init__(
        self,
        arch: str | dict = 'small',
        num_groups: int = 64,
        group_size: int = 32,
        in_channels: int = 3,
        out_type: str = 'max_mean',
        serialization: str | dict | None = None,
        region_size: int | None = None,
        local_neighbours: int = 4,
        **common: Any,
    ) -> None:
        super().__init__(self.resolve_arch(arch) | dict(local_neighbours=local_neighbours), out_type, **common)
        self.in_channels = in_channels
        order = serialization or self.default_serialization
        self.tokenizer = self.tokenizer_type(in_channels, self.embed_dim, num_groups, group_size, order)
        if region_size is None:
            region_size = default_region_size(num_groups)
        if not isinstance(region_size, int) or region_size < 1 or num_groups % region_size:
            raise ValueError(f'region_size={region_size!r}: must divide num_groups={num_groups}')
        self.region_size = region_size
        self.pos_embed = CoordinatePositionEncoding(self.embed_dim, nn.SiLU)
        init_linears(self.tokenizer)
        init_linears(self.pos_embed)
        if out_type == 'cls_max_mean':
            self.cls_token = self._learned_tokens(1)
            self.cls_pos_embed = self._learned_tokens(1)
        self._freeze()

    @property
    def shapes(self) -> dict[str, Any]:
        """See :meth:`HybridBackbone.shapes`."""
        return dict(
            width=self.embed_dim * (2 if self.out_type in ('max_mean', 'cls_max_mean') else 1),
            grid=None,
            group_size=self.tokenizer.group_size,
            in_channels=self.in_channels,
            num_taps=len(self.out_indices),
        )

    def tokenize(self, inputs: Tensor) -> CloudTokens:
        """Embed the groups of a batch of clouds and add their positions.

        Args:
            inputs (Tensor): Coordinates, then features, shape (B, N, in_channels).

        Returns:
            CloudTokens: The tokens in the order in which the encoder reads them, their regions and their groups.

        Raises:
            TypeError, ValueError: See :meth:`~mmmap.models.layers.PointTokenizer.group`.
        """
        return self.embed(*self.tokenizer.group(inputs))

    def embed(self, centres: Tensor, groups: Tensor) -> CloudTokens:
        """Tokens of the centres (B, G, 3) and groups (B, G, M, in_channels)."""
        regions = torch.arange(groups.shape[1], device=groups.device) // self.region_size
        embeddings = self.tokenizer(groups) + self.pos_embed(centres)
        return CloudTokens(embeddings, centres, regions, self.region_size, groups=groups)

    def encode(self, tokens: CloudTokens, visible: Tensor | None = None, causal: bool = False) -> Tensor:
        """Encode the tokens of clouds, see :meth:`HybridBackbone.encode`."""
        x, coords = (tokens.take(values, visible) for values in (tokens.embeddings, tokens.coords))
        return self.encoder(x, causal_regions=tokens.scanned_regions if causal else None, coords=coords)

    def check_causal(self) -> None:
        """See :meth:`HybridBackbone.check_causal`."""
        if self.encoder.local_neighbours:
            raise ValueError(
                f'backbone.local_neighbours={self.encoder.local_neighbours}: neighbours in space may be of later '
                'regions, which AR must not show; set local_neighbours=0'
            )
        if self.region_size == self.tokenizer.num_groups:
            raise ValueError(
                f'backbone.region_size={self.region_size}: all tokens are one region, with none before it to '
                'predict it from; make it smaller'
            )

    def forward(self, inputs: Tensor) -> tuple[Tensor | PointFeatures, ...]:
        """Features of a batch of clouds.

        Args:
            inputs (Tensor): Coordinates, then features, shape (B, N, in_channels).

        Returns:
            tuple[Tensor | PointFeatures, ...]: One feature for each of ``out_indices``, of the shape of ``out_type``.
        """
        tokens = self.tokenize(inputs)
        return tuple(self._output(feature, tokens.coords) for feature in self._encode_outputs(tokens))

    def _encode_outputs(self, tokens: CloudTokens) -> tuple[Tensor, ...]:
        """The encoded tokens (B, L, C) of each of ``out_indices``, a class token first if there is one."""
        x = tokens.embeddings
        if self.out_type == 'cls_max_mean':
            x = self._behind(self.cls_token + self.cls_pos_embed, x)
        return self.encoder(x, out_indices=self.out_indices, coords=tokens.coords)

    @staticmethod
    def _behind(first: Tensor, x: Tensor) -> Tensor:
        """Put one more token (1, 1, C) in front of tokens (B, L, C)."""
        return torch.cat([first.to(x.dtype).expand(len(x), -1, -1), x], dim=1)

    def _output(self, x: Tensor, coords: Tensor) -> Tensor | PointFeatures:
        if self.out_type == 'points':
            return PointFeatures(coords, x)
        if self.out_type == 'max_mean':
            return torch.cat([x.amax(dim=1), x.mean(dim=1)], dim=1)
        if self.out_type == 'cls_max_mean':
            groups = x[:, 1:]
            return torch.cat([x[:, 0], groups.amax(dim=1) + self._mean(groups)], dim=1)
        return x

    def _mean(self, groups: Tensor) -> Tensor:
        """The mean (B, C) of groups (B, G, C)."""
        return groups.mean(dim=1)
