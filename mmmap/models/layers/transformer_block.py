"""Pre-norm Transformer blocks of encoders and decoders."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .block import Block, Context, register_block
from .region_attention import Attend, attend


def _check_heads(embed_dim: int, num_heads: int) -> None:
    if num_heads < 1 or embed_dim % num_heads:
        raise ValueError(f'num_heads={num_heads} does not divide the width embed_dim={embed_dim}')


class MLP(nn.Module):
    """Two linear layers with an exact GELU between them, shape (..., C) in and out."""

    def __init__(self, embed_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Apply both layers."""
        return self.fc2(F.gelu(self.fc1(x)))


class SelfAttention(nn.Module):
    """Multi-head self-attention with one fused projection, shape (B, L, C) in and out."""

    def __init__(self, embed_dim: int, num_heads: int, qkv_bias: bool = True) -> None:
        super().__init__()
        _check_heads(embed_dim, num_heads)
        self.num_heads = num_heads
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim, bias=qkv_bias)
        self.proj = nn.Linear(embed_dim, embed_dim)

    def forward(self, x: Tensor, attend: Attend = attend) -> Tensor:
        """Attend among the tokens by a function of queries, keys and values. Defaults to all to all."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).unbind(2)
        return self.proj(attend(q, k, v).flatten(2))

    def response(self, x: Tensor, position: int) -> Tensor:
        """Attention weights (B, L) of the token at a position of tokens (B, L, C), the mean over the heads."""
        q, k, _ = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).unbind(2)
        scores = torch.einsum('bhd,blhd->bhl', q[:, position], k) * q.shape[-1] ** -0.5
        return scores.softmax(-1).mean(1)


@register_block('T')
class TransformerBlock(Block):
    """Pre-norm Transformer block (ViT, arXiv 2010.11929).

    Behind a block that opens a branch it refines that branch, with an extra skip: ``h = block(h) + h``. Behind another
    Transformer block of the branch it is ``h = block(h)``. If there is no branch, it is a ViT block on the stream.

    Args:
        embed_dim (int): Token width C.
        num_heads (int): Attention heads.
        mlp_ratio (float): Hidden width of the MLP over ``embed_dim``. Defaults to 2, as in the released MAP encoder.
        qkv_bias (bool): Give queries, keys and values a bias. Defaults to True.
        **common: See :class:`Block`; ``drop_path_rate`` is the rate of attention and MLP.
    """

    attends = True
    counted_as: ClassVar[dict[str, str]] = {'': 'Transformer blocks'}
    probed = 'attn'
    kept_operators = ('scaled_dot_product', 'flex_attention')

    def __init__(
        self, embed_dim: int, num_heads: int, mlp_ratio: float = 2.0, qkv_bias: bool = True, **common: Any
    ) -> None:
        super().__init__(embed_dim, **common)
        eps = self.norm_eps
        self.norm1 = nn.LayerNorm(embed_dim, eps=eps)
        self.attn = SelfAttention(embed_dim, num_heads, qkv_bias)
        self.norm2 = nn.LayerNorm(embed_dim, eps=eps)
        self.mlp = MLP(embed_dim, int(embed_dim * mlp_ratio))

    def _transform(self, x: Tensor, attend: Attend) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x), attend))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def forward(self, branch: Tensor | None, stream: Tensor, context: Context) -> tuple[Tensor | None, Tensor]:
        """Attention, then MLP, each with a skip, on the branch or the stream; see :meth:`Block.forward`."""
        tokens = self.gather(stream if branch is None else branch, context)
        windows = context.windows
        if windows is not None and self.windowed:
            refined = self._transform(tokens.index_select(1, windows.order), windows).index_select(1, windows.inverse)
        else:
            refined = self._transform(tokens, context.attend)
        if branch is None:
            return None, refined
        return refined + branch if self.refines else refined, stream


class CrossAttention(nn.Module):
    """Multi-head attention from query tokens to context tokens."""

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        _check_heads(embed_dim, num_heads)
        self.num_heads = num_heads
        self.q = nn.Linear(embed_dim, embed_dim)
        self.kv = nn.Linear(embed_dim, 2 * embed_dim)
        self.proj = nn.Linear(embed_dim, embed_dim)

    def forward(self, query: Tensor, context: Tensor, attend: Attend = attend) -> Tensor:
        """Attend from ``query`` to ``context``, both (B, L, C), by the given function of queries, keys and values."""
        q = self.q(query).unflatten(-1, (self.num_heads, -1))
        k, v = self.kv(context).unflatten(-1, (2, self.num_heads, -1)).unbind(2)
        return self.proj(attend(q, k, v).flatten(2))


class DecoderBlock(nn.Module):
    """Pre-norm block of the MAP decoder; queries and keys have a LayerNorm each.

    Args:
        embed_dim (int): Width C.
        num_heads (int): Attention heads.
        mlp_ratio (float): Hidden width of the MLP over ``embed_dim``. Defaults to 4.
        norm_eps (float): Epsilon of the LayerNorms. Defaults to 1e-5.
    """

    #: See :class:`Block`.
    repeated = True

    def __init__(self, embed_dim: int, num_heads: int, mlp_ratio: float = 4.0, norm_eps: float = 1e-5) -> None:
        super().__init__()
        self.norm_query = nn.LayerNorm(embed_dim, eps=norm_eps)
        self.norm_context = nn.LayerNorm(embed_dim, eps=norm_eps)
        self.attn = CrossAttention(embed_dim, num_heads)
        self.norm_mlp = nn.LayerNorm(embed_dim, eps=norm_eps)
        self.mlp = MLP(embed_dim, int(embed_dim * mlp_ratio))

    def forward(self, x: Tensor, attend: Attend = attend, context: Tensor | None = None) -> Tensor:
        """Attention, then MLP, each with a skip.

        Args:
            x (Tensor): Tokens, shape (B, L, C).
            attend (Attend): Function of queries, keys and values. Defaults to all to all.
            context (Tensor, optional): Tokens to attend to, shape (B, M, C). Defaults to None, ``x`` itself.

        Returns:
            Tensor: Shape (B, L, C).
        """
        x = x + self.attn(self.norm_query(x), self.norm_context(x if context is None else context), attend)
        return x + self.mlp(self.norm_mlp(x))
