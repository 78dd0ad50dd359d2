"""Blocks whose inner activations are computed again in the backward pass, to save memory."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts


def _policy(
    kept_operators: Sequence[str], _context: object, operator: object, *_args: object, **_kwargs: object
) -> CheckpointPolicy:
    kept = any(part in str(operator) for part in kept_operators)
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE


def kept_operators(block: nn.Module) -> tuple[str, ...]:
    """The operators whose results selective checkpointing keeps, by parts of their names, of all modules of a block."""
    return tuple({name for module in block.modules() for name in getattr(module, 'kept_operators', ())})


def check_with_cp(with_cp: bool | str) -> None:
    """Raise a ValueError that names the argument unless it is one that :func:`run_block` takes."""
    if with_cp not in (False, True, 'selective'):
        raise ValueError(f"with_cp={with_cp!r}: must be True, False or 'selective'")


def run_block(block: nn.Module, with_cp: bool | str, *args: object) -> Tensor | tuple[Tensor, ...]:
    """Call a block, which the backward pass may compute again to save memory.

    Args:
        block (nn.Module): The block.
        with_cp (bool | str): False keeps all that the backward pass needs. True keeps only the inputs of the block.
            'selective' also keeps the results of its ``kept_operators``, such as scans and attention.
        *args: For the block.
    """
    if not with_cp or not torch.is_grad_enabled():
        return block(*args)
    if with_cp == 'selective':
        contexts = partial(create_selective_checkpoint_contexts, partial(_policy, kept_operators(block)))
        return checkpoint(block, *args, use_reentrant=False, context_fn=contexts)
    return checkpoint(block, *args, use_reentrant=False)
