"""Attention between tokens, as the regions of the tokens allow it."""

import importlib.util
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import BlockMask, flex_attention

#: Attention of queries, keys and values; they and the result have the shape (B, L, heads, D).
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]

ATTENTION_RULES = ('region_causal', 'full', 'causal', 'local')

# On a CPU the queries of region-causal attention are cut into groups of whole regions: of about this many tokens, as
# smaller groups cost more in calls than they save in keys, and into at most this many groups.
GROUP_TOKENS = 64
MAX_GROUPS = 16
# On a GPU FlexAttention skips hidden blocks of this many tokens, which pays from this length on.
FLEX_BLOCK = 128
FLEX_TOKENS = 2048
# On a CPU, below this many keys, the backward pass of torch's attention takes several times as long in bfloat16 as in
# float32. Above, it takes somewhat less.
SHORT_KEYS = 512
# The kernels for attention on a GPU. cuDNN's is left out: its gradient is NaN at 64 keys, or 64 past a multiple of 128,
# if all scores of a query are low (pytorch/pytorch#196678; seen with and without a mask).
_GPU_KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
HAS_TRITON = importlib.util.find_spec('triton') is not None  # Here, as the look-up cannot be compiled.


def attention_mask(region_ids: Tensor, rule: str) -> Tensor | None:
    """The mask of a rule.

    Args:
        region_ids (Tensor): Region of each token, shape (L,) or (B, L).
        rule (str): A token attends to: 'region_causal', its own and earlier regions (MAP); 'full', all tokens (MAE);
            'causal', itself and earlier tokens (token-wise autoregression); 'local', its own region.

    Returns:
        Tensor | None: True where a query (row) attends to a key (column), shape (L, L) or (B, 1, L, L); None for all.
    """
    if rule == 'full':
        return None
    if rule == 'causal':
        position = torch.arange(region_ids.shape[-1], device=region_ids.device)
        return position[None, :] <= position[:, None]
    query, key = region_ids[..., :, None], region_ids[..., None, :]
    mask = key <= query if rule == 'region_causal' else key == query
    return mask if mask.ndim == 2 else mask[:, None]


def pad_heads(q: Tensor, k: Tensor, v: Tensor, width: int) -> tuple[Tensor, ...]:
    """Pad the last dimension with zeros, which do not change the scores and give zeros."""
    return tuple(F.pad(x, (0, width - x.shape[-1])) for x in (q, k, v))


def _kernel_width(head_dim: int, dtype: torch.dtype, device: torch.device) -> int:
    """The next width of a head that has fused kernels: on a GPU a multiple of 16 bytes."""
    multiple = 16 // dtype.itemsize if device.type == 'cuda' else 1
    return -(-head_dim // multiple) * multiple


def _kernels(device: torch.device) -> AbstractContextManager:
    """A context in which torch uses only attention kernels with correct gradients."""
    return sdpa_kernel(_GPU_KERNELS) if device.type == 'cuda' else nullcontext()


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
    """Scaled dot-product attention by torch's kernel for the device.

    Args:
        q (Tensor): Queries, shape (B, L, heads, D).
        k (Tensor): Keys, shape (B, M, heads, D).
        v (Tensor): Values, shape (B, M, heads, D).
        mask (Tensor, optional): True where a query attends to a key, broadcasts to (B, heads, L, M). None: everywhere.
        is_causal (bool): Query i attends to the keys up to i. Not with a mask. Defaults to False.

    Returns:
        Tensor: Shape (B, L, heads, D).
    """
    if q.device.type == 'cpu' and q.dtype == torch.bfloat16 and k.shape[1] < SHORT_KEYS:
        # Autocast would cast to bfloat16 again.
        with torch.autocast('cpu', enabled=False):
            return attend(q.float(), k.float(), v.float(), mask, is_causal).to(q.dtype)
    head_dim = q.shape[-1]
    padded = pad_heads(q, k, v, _kernel_width(head_dim, q.dtype, q.device))
    q, k, v = (x.transpose(1, 2) for x in padded)
    with _kernels(q.device):
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=is_causal, scale=head_dim**-0.5)
    return out.transpose(1, 2)[..., :head_dim]


def attend_within_runs(q: Tensor, k: Tensor, v: Tensor, region_size: int) -> Tensor:
    """Attention of each run of ``region_size`` tokens to itself, shape (B, L, heads, D) in and out; linear in L."""
    runs = (x.unflatten(1, (-1, region_size)).flatten(0, 1) for x in (q, k, v))
    return attend(*runs).unflatten(0, (len(q), -1)).flatten(1, 2)


class AttendToEarlierRuns:
    """Attention of each run of tokens to itself and the runs before it.

    One group of whole runs after the other attends to the keys up to its end, so that hidden keys cost little. Only
    groups of several runs need a mask, and no mask has the size (L, L). L must be a multiple of ``region_size``.
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


@cache
def _compiled_flex_attention() -> Callable[..., Any]:
    # FlexAttention is a fused kernel only when compiled. Otherwise it computes all scores.
    return torch.compile(flex_attention)


def _kv_blocks(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """The number of key blocks of each query block, and the order of the key blocks: those of the query block first."""
    places = blocks.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)
    return blocks.sum(dim=-1, dtype=torch.int32), places.int()


class AttendByBlocks:
    """Attention by FlexAttention, which skips hidden blocks of scores and keeps no mask in memory.

    The lowest and the highest region of two blocks tell whether one attends to the other in part, in full or not at
    all, so nothing of size (L, L) is computed. If a block holds regions that are not neighbours, 'local' may compute a
    block of scores that is hidden in whole. The rule is 'region_causal' or 'local'.
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
        # The padding of a block that the sequence does not fill must be hidden.
        filled = torch.arange(blocks, device=region_ids.device) < length // FLEX_BLOCK
        full = full & filled & filled[:, None]
        self.block_mask = BlockMask.from_kv_blocks(
            *_kv_blocks(some & ~full), *_kv_blocks(full), FLEX_BLOCK, visible, seq_lengths=(length, length)
        )

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend, shape (B, L, heads, D) in and out."""
        head_dim = q.shape[-1]
        padded = pad_heads(q, k, v, max(16, 1 << (head_dim - 1).bit_length()))  # Widths that every version takes.
        compiled = q.is_cuda and not torch.compiler.is_compiling()
        flex: Any = _compiled_flex_attention() if compiled else flex_attention
        out = flex(*(x.transpose(1, 2) for x in padded), block_mask=self.block_mask, scale=head_dim**-0.5)
        return out.transpose(1, 2)[..., :head_dim]


def region_attention(rule: str, region_ids: Tensor, region_size: int | None = None) -> Attend:
    """Attention under a rule, prepared once for all blocks.

    The fastest way depends on the rule, the device, the length, and on whether the regions are equal runs of tokens.
    The caller says so, as looking at a tensor on a GPU would make the host wait.

    Args:
        rule (str): One of ``ATTENTION_RULES``, see :func:`attention_mask`.
        region_ids (Tensor): Region of each token, shape (L,) or (B, L).
        region_size (int, optional): Tokens of a region if region r is the tokens from ``r * region_size`` on. Defaults
            to None, regions of any kind.

    Returns:
        Attend: A function of queries, keys and values.

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
