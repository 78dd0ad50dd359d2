"""Tells whether the CPU is fast in bfloat16, and sets how its allocator keeps freed memory."""

import ctypes

import torch

# Numbers of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def cpu_has_fast_bfloat16() -> bool:
    """Whether this CPU has AMX, and so multiplies matrices faster in bfloat16 than in float32."""
    # torch has no public test, and some versions have none.
    return getattr(torch.cpu, '_is_amx_tile_supported', lambda: False)()


def keep_freed_memory() -> bool:
    """Let this process keep the memory of freed tensors; returns whether its allocator (glibc's) can.

    By default glibc returns large freed blocks to the system. A training step on the CPU asks for the same blocks
    again, and to map and zero their pages anew takes about a tenth of the step.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # Another allocator or another system.
        return False
    # No block gets its own mapping, and the heap is not trimmed.
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
