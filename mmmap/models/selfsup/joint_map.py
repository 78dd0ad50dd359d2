"""JointMAP: one encoder learns from images and from clouds of points in turn."""

from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseDataPreprocessor, BaseModel
from torch import Tensor, nn

from mmmap.registry import MODELS

from ..layers import CloudTokens, CoordinatePositionEncoding, GridTokens, HybridEncoder
from ..protocols import SharedBackbone
from ..reconstruction_results import Reconstruction
from .token_pretraining import TokenPretraining

#: The part for samples with this number of dimensions: images (c, H, W) and clouds (N, 3 + F).
PARTS = {3: 'image', 2: 'points'}
TOKENS = {'image': GridTokens, 'points': CloudTokens}


def modality_of(inputs: Tensor | Sequence[Tensor]) -> str:
    """The part of a :class:`JointMAP` that a batch is for: 'image' or 'points'.

    Args:
        inputs (Tensor | Sequence[Tensor]): The samples, stacked or not.

    Raises:
        ValueError: If they are neither images nor clouds.
    """
    shape = tuple(inputs[0].shape)
    if len(shape) not in PARTS:
        raise ValueError(f'a sample of shape {shape} is neither an image (c, H, W) nor a cloud (N, 3 + F)')
    return PARTS[len(shape)]


class PartPreprocessor(BaseDataPreprocessor):
    """Passes a batch on to the data preprocessor of the part that it is for.

    Args:
        preprocessors (dict[str, nn.Module]): The data preprocessor of each part.
    """

    def __init__(self, preprocessors: dict[str, nn.Module]) -> None:
        super().__init__()
        self.preprocessors = nn.ModuleDict(preprocessors)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Make a batch of the one part that ``data`` is for, see :func:`modality_of`."""
        return self.preprocessors[modality_of(data['inputs'])](data, training)


@MODELS.register_module()
class JointMAP(BaseModel):
    """Two pretraining models, one of images and one of clouds of points, whose backbones share one encoder.

    A batch holds samples of one kind. Their number of dimensions tells which part it trains, and
    :class:`~mmmap.datasets.InTurnBatchSampler` alternates the kinds. If the images' backbone has
    ``pos_embed='coordinates'``, the position encoding is shared too. Each part has its own embedding, decoder and head.

    A checkpoint holds the shared weights under the names of both parts: it starts a :class:`MAPHybrid` with the prefix
    'image.backbone.' and a :class:`PointMAPHybrid` with 'points.backbone.'. Under DistributedDataParallel the config
    needs ``find_unused_parameters=True``.

    Args:
        image (dict | nn.Module): Such as :class:`MAP` with :class:`MAPHybrid`, and its data preprocessor.
        points (dict | nn.Module): Such as :class:`MAP` with :class:`PointMAPHybrid`, and its data preprocessor. The
            encoder must have the settings of the images', with ``local_neighbours=0``.
        points_weight (float): Factor of the loss of clouds. Adam scales the encoder's steps by the gradients of both
            parts, so a part with a much smaller loss hardly trains it. Defaults to 1.
        init_cfg (dict, optional): Initialisation config of mmengine. Defaults to None.

    Raises:
        TypeError: If a part is no such model or of the other kind, or its encoder is no :class:`HybridEncoder`.
        ValueError: If the encoders differ, only one part is causal, or the weight is not positive.
    """

    def __init__(
        self,
        image: dict | nn.Module,
        points: dict | nn.Module,
        points_weight: float = 1.0,
        init_cfg: dict | None = None,
    ) -> None:
        parts: dict[str, Any] = dict(image=image, points=points)
        for name, part in parts.items():
            parts[name] = part = MODELS.build(part) if isinstance(part, dict) else part
            if not isinstance(part, TokenPretraining):
                raise TypeError(f'{name}: {type(part).__name__} is no pretraining model such as MAP')
            encoder = getattr(part.backbone, 'encoder', None)
            if type(encoder) is not HybridEncoder:
                kind = type(encoder).__name__
                raise TypeError(f'{name}.backbone: its encoder is a {kind}, which images and points cannot share')
            if part.backbone.token_type is not (wanted := TOKENS[name]):
                raise TypeError(f'{name}.backbone: a {type(part.backbone).__name__} does not make {wanted.__name__}')
        if parts['image'].causal != parts['points'].causal:
            kinds = ' and '.join(f'{name} is a {type(part).__name__}' for name, part in parts.items())
            raise ValueError(f'{kinds}: one encoder cannot be trained in one direction and in both')
        if not points_weight > 0:
            raise ValueError(f'points_weight={points_weight!r} must be positive')
        preprocessors = {name: part.data_preprocessor for name, part in parts.items()}
        super().__init__(data_preprocessor=PartPreprocessor(preprocessors), init_cfg=init_cfg)
        self.image, self.points = parts['image'], parts['points']
        self.points_weight = points_weight
        self._share(self.image.backbone, self.points.backbone)

    @staticmethod
    def _share(image: SharedBackbone, points: SharedBackbone) -> None:
        own, theirs = image.encoder.settings, points.encoder.settings
        pairs = {name: (own.get(name), theirs.get(name)) for name in own | theirs}
        differing = [f'{name} {pair}' for name, pair in pairs.items() if pair[0] != pair[1]]
        if differing:
            raise ValueError(f'the encoders of image.backbone and points.backbone differ: {", ".join(differing)}')
        points.encoder = image.encoder
        if isinstance(image.pos_embed, CoordinatePositionEncoding):
            points.pos_embed = image.pos_embed

    def part(self, inputs: Tensor) -> TokenPretraining:
        """The part that a batch is for, see :func:`modality_of`."""
        return getattr(self, modality_of(inputs))

    def reconstruct(self, inputs: Tensor, mask: Tensor | None = None) -> Reconstruction:
        """Predict by the part that a batch is for, see :meth:`TokenPretraining.reconstruct`."""
        return self.part(inputs).reconstruct(inputs, mask)

    def extract_feat(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Features of the backbone that a batch is for."""
        return self.part(inputs).extract_feat(inputs)

    def loss(self, inputs: Tensor, data_samples: list | None = None) -> dict[str, Tensor]:
        """The losses of the part that a batch is for, under ``image_NAME`` or ``points_NAME``."""
        name = modality_of(inputs)
        losses = getattr(self, name).loss(inputs, data_samples)
        if name == 'points':
            losses['loss'] = self.points_weight * losses['loss']
        return {f'{name}_{key}': value for key, value in losses.items()}

    def forward(
        self, inputs: Tensor, data_samples: list | None = None, mode: str = 'tensor'
    ) -> dict[str, Tensor] | tuple[Tensor, ...]:
        """Features of a batch, or its loss.

        Args:
            inputs (Tensor): Inputs after the data preprocessor, (B, c, H, W) or (B, N, 3 + F).
            data_samples (list, optional): Passed on to the part.
            mode (str): 'tensor', for :meth:`extract_feat`, or 'loss', for :meth:`loss`. Defaults to 'tensor'.

        Raises:
            RuntimeError: If the mode is another.
        """
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        return self.part(inputs)(inputs, data_samples, mode)
