"""Transforms of the features of points, such as colours."""

from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform

from mmmap.registry import TRANSFORMS


def append_feature(results: dict, name: str, values: np.ndarray) -> None:
    """Append a feature (N, C) to the points, and its columns to ``feature_columns``, in place."""
    start, dtype = results['points'].shape[1], results['points'].dtype
    results['points'] = np.concatenate([results['points'], values.astype(dtype)], axis=1)
    results['feature_columns'][name] = (start, results['points'].shape[1])


def _columns(results: dict, name: str, transform: BaseTransform) -> slice:
    try:
        return slice(*results['feature_columns'][name])
    except KeyError:
        known = ', '.join(results.get('feature_columns', ())) or 'none'
        raise ValueError(f'{type(transform).__name__}: the points have no feature {name!r}, but {known}') from None


@TRANSFORMS.register_module()
class PointFeatureNormalize(BaseTransform):
    """Subtract a mean from a feature and divide it by a standard deviation.

    Required keys: ``points``, ``feature_columns``. Changed key: ``points``.

    Args:
        feature (str): Name of the feature, such as 'rgb'.
        mean (float | Sequence[float]): One for all columns of the feature, or one for each. Defaults to 0.
        std (float | Sequence[float]): One for all columns of the feature, or one for each. Defaults to 255.
    """

    def __init__(self, feature: str, mean: float | Sequence[float] = 0.0, std: float | Sequence[float] = 255.0) -> None:
        self.feature = feature
        self.mean = mean
        self.std = std

    def transform(self, results: dict) -> dict:
        """Normalise the feature."""
        columns = _columns(results, self.feature, self)
        values = results['points'][:, columns]
        results['points'][:, columns] = (values - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(feature={self.feature!r}, mean={self.mean}, std={self.std})'


class _ColourTransform(BaseTransform):
    """Base of the transforms that change colours with a probability.

    Required keys: ``points``, ``feature_columns`` with 'rgb', from 0 to 255. Changed key: ``points``.
    """

    def __init__(self, prob: float = 0.2) -> None:
        if not 0 <= prob <= 1:
            raise ValueError(f'{type(self).__name__}: prob={prob} is not from 0 to 1')
        self.prob = prob

    def transform(self, results: dict) -> dict:
        """Change the colours of a sample, with probability ``prob``."""
        columns = _columns(results, 'rgb', self)
        if np.random.rand() < self.prob:
            results['points'][:, columns] = self._change(results['points'][:, columns])
        return results

    def _change(self, rgb: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f'{type(self).__name__}(prob={self.prob})'


@TRANSFORMS.register_module()
class PointsColorAutoContrast(_ColourTransform):
    """Stretch each colour channel to 0 to 255, and blend the result with the original by a random weight.

    Args:
        prob (float): Probability of the change. Defaults to 0.2.
    """

    def _change(self, rgb: np.ndarray) -> np.ndarray:
        low, high = rgb.min(0), rgb.max(0)
        stretched = (rgb - low) * (255 / np.maximum(high - low, 1))
        weight = np.float32(np.random.rand())
        return (1 - weight) * rgb + weight * stretched


@TRANSFORMS.register_module()
class PointsColorDrop(_ColourTransform):
    """Set the colours of all points to 0, so that the model also learns from shape alone.

    Args:
        prob (float): Probability of the change. Defaults to 0.2.
    """

    def _change(self, rgb: np.ndarray) -> np.ndarray:
        return np.zeros_like(rgb)


@TRANSFORMS.register_module()
class PointsColorJitter(_ColourTransform):
    """Add normal noise to the colours of each point, and clip them to 0 to 255.

    Args:
        std (float): Standard deviation of the noise, in levels of 255. Defaults to 12.75.
        prob (float): Probability of the change. Defaults to 0.95.
    """

    def __init__(self, std: float = 12.75, prob: float = 0.95) -> None:
        super().__init__(prob)
        self.std = std

    def _change(self, rgb: np.ndarray) -> np.ndarray:
        return (rgb + self.std * np.random.randn(*rgb.shape)).clip(0, 255)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(std={self.std}, prob={self.prob})'
