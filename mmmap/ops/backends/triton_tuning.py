"""Block sizes of the Triton kernels, measured on an H100 with Triton 3.6."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

import torch


class Block(NamedTuple):
    """Channels of one program (a power of 2), its warps, the most registers of a thread (None: the compiler's choice).

    With a multiple of 32 channels a warp, threads need not wait for each other. With several warps, the backward pass
    of the scan has to sum over warps, which is slow.
    """

    channels: int
    warps: int = 1
    registers: int | None = None

    def launch(self) -> dict[str, int]:
        """Options of a launch."""
        options = dict(BD=self.channels, num_warps=self.warps)
        return options if self.registers is None else options | dict(maxnreg=self.registers)


@dataclass(frozen=True)
class Tuning:
    """Block sizes of the kernels."""

    # Steps between kept states: a power of 2, at most 32 and at most the channels of the backward block.
    chunk: int
    forward: Block
    backward: Block
    conv_steps: int = 32
    conv: Block = Block(channels=64, warps=4)  # noqa: RUF009 (a tuple)
    conv_backward_steps: int = 32
    conv_backward: Block = Block(channels=64, warps=2)  # noqa: RUF009 (a tuple)
    # Parts of a sequence that run in parallel; None for as many as fill the GPU.
    segments: int | None = None


# By the longest sequence of an entry.
_TABLE: tuple[tuple[float, Tuning], ...] = (
    (float('inf'), Tuning(chunk=16, forward=Block(32), backward=Block(32, registers=255))),
)
# Programs of one warp that fill a multiprocessor, and the fewest chunks of a segment.
_PROGRAMS_PER_PROCESSOR = 32
_LEAST_SEGMENT = 4


def tuning_for(length: int) -> Tuning:
    """The block sizes for sequences of a length."""
    return next(tuning for longest, tuning in _TABLE if length <= longest)


@functools.cache
def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == 'cuda' else 1


def segments_for(tuning: Tuning, programs: int, chunks: int, device: torch.device) -> tuple[int, int]:
    """Number of segments of a sequence and chunks of each; more than one segment if there are few programs."""
    wanted = tuning.segments
    if wanted is None:
        wanted = min(_processors(device) * _PROGRAMS_PER_PROCESSOR // programs, chunks // _LEAST_SEGMENT)
    size = -(-chunks // max(1, min(wanted, chunks)))
    return -(-chunks // size), size
