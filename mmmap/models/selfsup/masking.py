"""Masking strategies: which tokens a pretraining step hides."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.logging import MessageHub
from torch import Tensor

from mmmap.registry import MODELS
from mmmap.utils.device_transfer import send_to_device

from ..layers import Tokens


class _StepGenerators:
    """Torch generators that are seeded by the run's seed, the iteration and the rank.

    mmengine seeds the default generators of all ranks alike, but each rank needs its own masks. The ratio must be the
    same on all ranks, so its seed leaves out the rank. A resumed run draws new masks, as its iteration goes on. The
    generators are on the CPU, so that the masks are the same on every kind of device. Outside a Runner the CPU's
    default generator is used.
    """

    def __init__(self) -> None:
        self._iteration, self._call = None, 0

    def next(self, device: torch.device) -> tuple[torch.Generator | None, torch.Generator | None]:
        """The generator that all ranks share, and the rank's own. None is the default generator."""
        hub = MessageHub.get_current_instance()
        iteration = hub.get_info('iter')
        if iteration is None:
            return None, None
        # Draws of one iteration must differ, too: gradient accumulation, pictures.
        self._call = self._call + 1 if iteration == self._iteration else 0
        self._iteration = iteration
        key = (hub.get_info('seed') or 0, iteration, self._call)
        # Nothing is drawn on the meta device.
        own = None if device.type == 'meta' else self._seeded(*key, 1 + get_rank())
        return self._seeded(*key), own

    @staticmethod
    def _seeded(*key: int) -> torch.Generator:
        seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)
        return torch.Generator().manual_seed(seed)


class MaskingStrategy:
    """Base of the masking strategies: hide the tokens with the lowest scores.

    Args:
        ratio (float | Sequence[float]): Share of the tokens to hide, in [0, 1); 0 hides none. A pair (low, high) draws
            one ratio a call, for the whole batch, from a normal distribution around the pair's centre, truncated to the
            pair, as the released MAP code does with (0.3, 0.7). Defaults to 0.5.
        std (float): Standard deviation of that distribution before truncation. Defaults to 0.25, as released.

    Raises:
        ValueError: If ``ratio`` is not as above.
    """

    def __init__(self, ratio: float | Sequence[float] = 0.5, std: float = 0.25) -> None:
        pair = (ratio, ratio) if isinstance(ratio, (int, float)) else tuple(ratio)
        if len(pair) != 2 or not 0.0 <= pair[0] <= pair[1] < 1.0 or (pair[0] == 0 and pair[1] > 0):
            raise ValueError(f'ratio={ratio!r}: must be in [0, 1), or a pair (low, high) with 0 < low <= high < 1')
        self.low, self.high = pair
        if std <= 0:
            raise ValueError(f'std={std}: must be positive')
        self.std = std
        self._generators = _StepGenerators()

    def _draw_ratio(self, generator: torch.Generator | None) -> float:
        if self.low == self.high:
            return self.low
        half_width = (self.high - self.low) / 2 / self.std
        # Inverse of the truncated normal's distribution function.
        bound = math.erf(half_width / math.sqrt(2))
        uniform = torch.rand((), generator=generator, dtype=torch.float64) * 2 - 1
        deviate = math.sqrt(2) * torch.erfinv(uniform * bound).item()
        return min(max((self.low + self.high) / 2 + self.std * deviate, self.low), self.high)

    def order(self, tokens: Tokens, generator: torch.Generator | None) -> Tensor:
        """Score of each token, shape (B, L): the lowest are hidden."""
        raise NotImplementedError

    def __call__(self, tokens: Tokens) -> tuple[Tensor, int]:
        """Draw the masks of a batch.

        Args:
            tokens (Tokens): The batch's tokens.

        Returns:
            tuple[Tensor, int]: The mask (B, L), bool, True where hidden, and the number of hidden tokens of each
            sample: ``ceil(L * ratio)``, at least 1 and at most L - 1, or 0 where the ratio is 0.

        Raises:
            ValueError: If there are fewer than two tokens.
        """
        length = tokens.embeddings.shape[1]
        if length < 2:
            raise ValueError(f'{length} token(s) cannot be split into hidden and visible ones')
        shared, own = self._generators.next(tokens.embeddings.device)
        # Rounded first: 100 * 0.55 is a little more than 55.
        share = round(length * self._draw_ratio(shared), 6)
        num_masked = min(max(math.ceil(share), 1), length - 1) if self.high else 0
        ranks = self.order(tokens, own).argsort(dim=1, stable=True).argsort(dim=1)
        return ranks < num_masked, num_masked

    def __repr__(self) -> str:
        return f'{type(self).__name__}(ratio=({self.low}, {self.high}))'


@MODELS.register_module()
class RandomMasking(MaskingStrategy):
    """Hide tokens at random, each sample its own (MAE, arXiv 2111.06377; MAP's default with a ratio of 0.5)."""

    def order(self, tokens: Tokens, generator: torch.Generator | None) -> Tensor:
        """Uniform noise."""
        shape, device = tokens.embeddings.shape[:2], tokens.embeddings.device
        if device.type == 'meta':
            return torch.rand(shape, device=device)
        return send_to_device(torch.rand(shape, generator=generator), device)


@MODELS.register_module()
class SequentialMasking(MaskingStrategy):
    """Hide the end of the sequence: the encoder sees a prefix, as in autoregressive pretraining.

    The MAP paper compares such a mask with the random one but does not spell it out; this is our reading.
    """

    def order(self, tokens: Tokens, generator: torch.Generator | None) -> Tensor:
        """Tokens from the last to the first."""
        batch, length = tokens.embeddings.shape[:2]
        return -torch.arange(length, device=tokens.embeddings.device).expand(batch, -1)


@MODELS.register_module()
class DiagonalMasking(MaskingStrategy):
    """Hide the corner around the last token, cut off along the diagonals of the coordinates.

    The MAP paper compares such a mask with the random one but does not spell it out; this is our reading.
    """

    def order(self, tokens: Tokens, generator: torch.Generator | None) -> Tensor:
        """Tokens from the far corner to the near one."""
        # Rounded: tokens of one diagonal must tie, and then keep their sequence order.
        distance = tokens.coords.sum(dim=-1).mul(1e4).round()
        return -distance.expand(tokens.embeddings.shape[0], -1)
