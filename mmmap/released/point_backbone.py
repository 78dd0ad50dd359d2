"""The backbone of the released PointMAP code."""

from typing import Any

import torch
from torch import Tensor

from mmmap.models.backbones import PointMAPHybrid
from mmmap.models.layers import CloudTokens, PointTokenizer, group_points
from mmmap.registry import MODELS

from .point_encoder import ReleasedPointEncoder

#: PointNet++'s kernels never pick a centre whose squared distance from the origin is at most this.
ORIGIN = 1e-3


class ReleasedPointTokenizer(PointTokenizer):
    """As released: the first centre is the first point, no other centre is near the origin, points keep their order.

    Of equally far points the first one is picked.
    """

    def _group(self, points: Tensor) -> tuple[Tensor, Tensor]:
        return group_points(points, self.num_groups, self.group_size, without_origin(points[..., :3]))


def without_origin(coords: Tensor) -> Tensor:
    """Put the first point in place of those near the origin, so that none of them becomes a centre, (B, N, 3)."""
    near = coords.square().sum(dim=-1, keepdim=True) <= ORIGIN
    return torch.where(near, coords[:, :1], coords)


@MODELS.register_module()
class ReleasedPointMAPHybrid(PointMAPHybrid):
    """The backbone of the released PointMAP code, which ``PointMAPHybrid(released=...)`` builds too.

    It differs from :class:`PointMAPHybrid` in its encoder, :class:`ReleasedPointEncoder`, and its groups, see
    :class:`ReleasedPointTokenizer`. The encoder reads the groups in the order in which their centres are picked, and
    adds the positions before every block. For 'cls_max_mean' all clouds of a batch get the mean over the groups of the
    first one. So the features of a cloud depend on the other clouds of its batch and on the order of its points.

    Args:
        arch (str | dict): See :class:`PointMAPHybrid`. Defaults to 'small'.
        released (str): The released ``bimamba_type``, 'v4' or 'v2', see :class:`ReleasedMixer`. Defaults to 'v4'.
        **kwargs: The other arguments of :class:`PointMAPHybrid`.

    Raises:
        ValueError: If an argument is out of its range; the message names it.
    """

    encoder_type = ReleasedPointEncoder
    tokenizer_type = ReleasedPointTokenizer
    default_serialization = None

    def __init__(self, arch: str | dict = 'small', released: str = 'v4', **kwargs: Any) -> None:
        arch = self.resolve_arch(arch) | dict(released=released)
        super().__init__(arch, **kwargs)
        self.released = released

    def embed(self, centres: Tensor, groups: Tensor) -> CloudTokens:
        """See :meth:`PointMAPHybrid.embed`; the embeddings hold no positions."""
        regions = torch.arange(groups.shape[1], device=groups.device) // self.region_size
        return CloudTokens(self.tokenizer(groups), centres, regions, self.region_size, groups=groups)

    def encode(self, tokens: CloudTokens, visible: Tensor | None = None, causal: bool = False) -> Tensor:
        """See :meth:`HybridBackbone.encode`."""
        values = tokens.embeddings, self.pos_embed(tokens.coords), tokens.coords
        return self.encoder(*(tokens.take(x, visible) for x in values))

    def check_causal(self) -> None:
        """Raise a ValueError: the released encoder cannot be causal."""
        raise ValueError(f'backbone: a {type(self).__name__} has no causal encoder, which AR needs')

    def position_embeddings(self, tokens: CloudTokens) -> Tensor:
        """See :meth:`HybridBackbone.position_embeddings`; the embeddings hold none."""
        return torch.zeros_like(tokens.embeddings)

    def _encode_outputs(self, tokens: CloudTokens) -> tuple[Tensor, ...]:
        x, positions = tokens.embeddings, self.pos_embed(tokens.coords)
        if self.out_type == 'cls_max_mean':
            x, positions = self._behind(self.cls_token, x), self._behind(self.cls_pos_embed, positions)
        return self.encoder(x, positions, tokens.coords, out_indices=self.out_indices)

    def _mean(self, groups: Tensor) -> Tensor:
        return groups[:1].mean(dim=1)


PointMAPHybrid.variants['released'] = ReleasedPointMAPHybrid
