"""Attention in which the regions of the tokens decide who sees whom."""

import functools
import importlib.util
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import BlockMask, flex_attention

#: Attention of queries, keys and values, each of shape (B, L, heads, D), the result likewise.
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]

ATTENTION_RULES = ('region_causal', 'full', 'causal', 'local')

# On a CPU the queries of region-causal attention go in groups of whole regions: of about so many tokens, below which
# the keys that a group skips save less than a further call costs, and in no more groups than so.
GROUP_TOKENS = 64
MAX_GROUPS = 16
# On a GPU FlexAttention passes over the blocks of so many tokens that are hidden, which pays from a length on.
FLEX_BLOCK = 128
FLEX_TOKENS = 2048
# On a CPU the backward pass of torch's attention in bfloat16 takes several times what it takes in float32 below so many
# keys, and somewhat less above.
SHORT_KEYS = 512
# The kernels for attention on a GPU. cuDNN's is left out: its gradient is NaN at 64 keys, or 64 past a multiple of 128,
# where all scores of a query are low (pytorch/pytorch#196678; seen with a mask, and without one).
_GPU_KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
HAS_TRITON = importlib.util.find_spec('triton') is not None  # Here, as the look-up cannot be compiled.


def attention_mask(region_ids: Tensor, rule: str) -> Tensor | None:
    """Which token may attend to which.

    Args:
        region_ids (Tensor): Region of each token, shape (L,) or (B, L).
        rule (str): 'region_causal': to its own and earlier regions (MAP); 'full': to all (MAE); 'causal': to itself and
            earlier tokens (token-wise autoregression); 'local': to its own region.

    Returns:
        Tensor | None: True where a query (row) may see a key (column), shape (L, L) or (B, 1, L, L) to broadcast over
        heads; None where all may.
    """
    if rule == 'full':
        return None
    if rule == 'causal':
        position = torch.arange(region_ids.shape[-1], device=region_ids.device)
        return position[None, :] <= position[:, None]
    query, key = region_ids[..., :, None], region_ids[..., None, :]
    mask = key <= query if rule == 'region_causal' else key == query
    return mask if mask.ndim == 2 else mask[:, None]


def pad_heads(q: Tensor, k: Tensor, v: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pad the last dimension with zeros, which add nothing to the scores and come out as zeros."""
    return tuple(F.pad(x, (0, width - x.shape[-1])) for x in (q, k, v))


def _kernel_width(head_dim: int, dtype: torch.dtype, device: torch.device) -> int:
    """Channels of a head that fused kernels take: on a GPU multiples of 16 bytes, or all scores lie in memory."""
    multiple = 16 // dtype.itemsize if device.type == 'cuda' else 1
    return -(-head_dim // multiple) * multiple


def _kernels(device: torch.device) -> AbstractContextManager:
    """Within it torch takes only kernels of attention whose gradients are right."""
    return sdpa_kernel(_GPU_KERNELS) if device.type == 'cuda' else nullcontext()


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
    """Scaled dot-product attention by the kernel of torch that suits the device.

    Args:
        q (Tensor): Queries, shape (B, L, heads, D).
        k (Tensor): Keys, shape (B, M, heads, D).
        v (Tensor): Values, shape (B, M, heads, D).
        mask (Tensor, optional): True where a query may see a key, broadcasts to (B, heads, L, M). None: everywhere.
        is_causal (bool): Query i sees the keys up to i; takes no mask.

    Returns:
        Tensor: Shape (B, L, heads, D).
    """
    if q.device.type == 'cpu' and q.dtype == torch.bfloat16 and k.shape[1] < SHORT_KEYS:
        # Autocast would make them bfloat16 again.
        with torch.autocast('cpu', enabled=False):
            return attend(q.float(), k.float(), v.float(), mask, is_causal).to(q.dtype)
    head_dim = q.shape[-1]
    q, k, v = pad_heads(q, k, v, _kernel_width(head_dim, q.dtype, q.device))
    with _kernels(q.device):
        out = F.scaled_dot_product_attention(
            *(x.transpose(1, 2) for x in (q, k, v)), attn_mask=mask, is_causal=is_causal, scale=head_dim**-0.5
        )
    return out.transpose(1, 2)[..., :head_dim]


def attend_within_runs(q: Tensor, k: Tensor, v: Tensor, region_size: int) -> Tensor:
    """Attention of each run of ``region_size`` tokens to itself, shape (B, L, heads, D) in and out; linear in L."""
    runs = (x.unflatten(1, (-1, region_size)).flatten(0, 1) for x in (q, k, v))
    return attend(*runs).unflatten(0, (len(q), -1)).flatten(1, 2)


class AttendToEarlierRuns:
    """Attention of each run of tokens to itself and the runs before, without the hidden half of the work.

    Groups of whole runs attend in turn, each to the keys up to its end. Only groups of several runs need a mask, and
    none of them is of size (L, L).

    Args:
        length (int): Tokens L, a multiple of ``region_size``.
        region_size (int): Tokens of a run.
        device (torch.device): Where the tokens are.
    """

    def __init__(self, length: int, region_size: int, device: torch.device) -> None:
        runs = length // region_size
        rows = region_size * max(1, GROUP_TOKENS // region_size, -(-runs // MAX_GROUPS))
        self.groups = []
        for start in range(0, length, rows):
            end = min(start + rows, length)
            run = torch.arange(end, device=device) // region_size
            mask = run[None, :] <= run[start:, None] if end - start > region_size else None
            self.groups.append((start, end, mask))

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend, shape (B, L, heads, D) in and out."""
        outs = [attend(q[:, start:end], k[:, :end], v[:, :end], mask) for start, end, mask in self.groups]
        return outs[0] if len(outs) == 1 else torch.cat(outs, dim=1)


@functools.cache
def _compiled_flex_attention() -> Callable[..., Tensor]:
    # FlexAttention is a fused kernel only when compiled; without that it computes all scores.
    return torch.compile(flex_attention)


def _ordered(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """How many blocks of keys each block of queries has, and their places, those it has first."""
    places = blocks.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)
    return blocks.sum(dim=-1, dtype=torch.int32), places.int()


class AttendByBlocks:
    """Attention by FlexAttention, which passes over blocks of scores that are hidden and has no mask in memory.

    The lowest and the highest region in a block tell whether one block may see another at all, and whether in full; so
    nothing of size (L, L) is computed. Where the regions of a block are not neighbours, 'local' may look at a block in
    which nothing turns out to be visible.

    Args:
        region_ids (Tensor): Region of each token, shape (L,) or (B, L).
        rule (str): 'region_causal' or 'local'.
    """

    def __init__(self, region_ids: Tensor, rule: str) -> None:
        def visible(b: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            ids = region_ids[b] if region_ids.ndim == 2 else region_ids
            return ids[key] <= ids[query] if rule == 'region_causal' else ids[key] == ids[query]

        length = region_ids.shape[-1]
        blocks = -(-length // FLEX_BLOCK)
        ids = region_ids.view(-1, 1, length)
        ids = torch.cat([ids, ids[..., -1:].expand(-1, -1, blocks * FLEX_BLOCK - length)], dim=-1)
        low, high = ids.unflatten(-1, (blocks, FLEX_BLOCK)).aminmax(dim=-1)
        some = low[..., None, :] <= high[..., :, None]
        full = high[..., None, :] <= low[..., :, None]
        if rule == 'local':
            some, full = (x & x.transpose(-1, -2) for x in (some, full))
        # The end of a block that the sequence does not fill has to be hidden.
        filled = torch.arange(blocks, device=region_ids.device) < length // FLEX_BLOCK
        full = full & filled & filled[:, None]
        self.block_mask = BlockMask.from_kv_blocks(
            *_ordered(some & ~full), *_ordered(full), FLEX_BLOCK, visible, seq_lengths=(length, length)
        )

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend, shape (B, L, heads, D) in and out."""
        head_dim = q.shape[-1]
        q, k, v = pad_heads(q, k, v, max(16, 1 << (head_dim - 1).bit_length()))  # What all versions of it take.
        flex = _compiled_flex_attention() if q.is_cuda and not torch.compiler.is_compiling() else flex_attention
        heads_first = (x.transpose(1, 2) for x in (q, k, v))
        out = flex(*heads_first, block_mask=self.block_mask, scale=head_dim**-0.5)
        return out.transpose(1, 2)[..., :head_dim]


def region_attention(rule: str, region_ids: Tensor, region_size: int | None = None) -> Attend:
    """Attention under a rule, prepared once for all blocks of a decoder.

    What is fastest depends on the rule, the device, the length and on whether the regions are known to be equal runs of
    neighbouring tokens. The caller tells, as reading it off a GPU tensor would make the host wait.

    Args:
        rule (str): One of ``ATTENTION_RULES``, see :func:`attention_mask`.
        region_ids (Tensor): Region of each token, shape (L,) or (B, L).
        region_size (int, optional): Tokens of a region where region r is the tokens from ``r * region_size`` on. None
            makes no assumption. Defaults to None.

    Returns:
        Attend: A function of queries, keys and values (B, L, heads, D) that gives the same shape.

    Raises:
        ValueError: If regions of ``region_size`` do not fill the sequence.
    """
    length, device = region_ids.shape[-1], region_ids.device
    if region_size is not None and (region_size < 1 or length % region_size):
        raise ValueError(f'region_size={region_size}: regions of that many tokens do not fill a sequence of {length}')
    if rule == 'full':
        return attend
    if rule == 'causal':
        return partial(attend, is_causal=True)
    if rule == 'local' and region_size is not None:
        return partial(attend_within_runs, region_size=region_size)
    if device.type == 'cuda' and length >= FLEX_TOKENS and HAS_TRITON:
        return AttendByBlocks(region_ids, rule)
    if region_size is not None and device.type != 'cuda':
        return AttendToEarlierRuns(length, region_size, device)
    return partial(attend, mask=attention_mask(region_ids, rule))
