"""A classifier whose parts take their widths from the backbone."""

from mmpretrain.models import ImageClassifier
from torch import nn

from mmmap.registry import MODELS

from .build_parts import build_parts


@MODELS.register_module()
class HybridClassifier(ImageClassifier):
    """mmpretrain's ``ImageClassifier``, of images or clouds, whose neck and head take their widths from the backbone.

    Args:
        backbone (dict | nn.Module): Such as :class:`MAPHybrid` or :class:`PointMAPHybrid`.
        neck (dict | nn.Module, optional): Such as :class:`RegisterNeck`, or one of mmpretrain's. Defaults to None.
        head (dict | nn.Module, optional): One of mmpretrain's. Defaults to None.
        pretrained, train_cfg, data_preprocessor, init_cfg: See ``ImageClassifier``.

    Raises:
        ValueError: If a part does not fit those before it; the message names both.
    """

    def __init__(
        self,
        backbone: dict | nn.Module,
        neck: dict | nn.Module | None = None,
        head: dict | nn.Module | None = None,
        pretrained: str | None = None,
        train_cfg: dict | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        # mmpretrain's parts have no ``takes``.
        backbone, neck, head = build_parts(
            backbone, neck=neck, head=head, foreign={'in_channels': 'width', 'input_features': 'width'}
        )
        super().__init__(backbone, neck, head, pretrained, train_cfg, data_preprocessor, init_cfg)
