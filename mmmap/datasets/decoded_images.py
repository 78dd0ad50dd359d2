"""Small images that are decoded once and kept in memory."""

import numpy as np
from mmcv.transforms import Compose
from mmpretrain.registry import TRANSFORMS

from mmmap.registry import DATASETS

from .image_folder import ImageFolder


@DATASETS.register_module()
class DecodedImages(ImageFolder):
    """Square images of one size, decoded once and kept in memory. For many small images, such as 64 x 64 pixels.

    All images are in one array. Workers share it if they are forked, mmengine's default. For other sizes, the short
    side is resized by Pillow's bicubic filter, and the centre is cropped. Images that cannot be read are logged and
    left out. With ``test_mode`` they raise an error, unless ``leave_out_broken`` is set.

    Before the pipeline, a sample has ``img`` (size, size, 3), uint8, BGR, and ``gt_label``.

    Args:
        size (int): Height and width of the images, in pixels.
        **kwargs: The arguments of :class:`ImageFolder`.

    Raises:
        ValueError: If ``size`` is not positive.
        OSError: If an image cannot be read, in ``test_mode`` without ``leave_out_broken``.
    """

    def __init__(self, size: int, **kwargs) -> None:
        if size < 1:
            raise ValueError(f'DecodedImages: size={size} must be positive')
        self.size = size
        super().__init__(**kwargs)

    def _keep_readable(self, infos: list[dict]) -> list[dict]:
        strict = self.test_mode and not self.leave_out_broken
        load, *fit = [TRANSFORMS.build(transform) for transform in square_transforms(self.size, strict)]
        fit = Compose(fit)
        images = np.empty((len(infos), self.size, self.size, 3), np.uint8)
        kept: list[dict] = []
        for info in infos:
            loaded = load(dict(info))
            if loaded is not None:
                # Most images already have the size.
                fits = loaded['img_shape'] == (self.size, self.size)
                images[len(kept)] = loaded['img'] if fits else fit(loaded)['img']
                kept.append(info | dict(row=len(kept)))
        self.images = images[: len(kept)]
        return kept

    def get_data_info(self, idx: int) -> dict:
        """Return a sample before its pipeline: its entry in the list, ``sample_idx`` and its image."""
        info = super().get_data_info(idx)
        shape = (self.size, self.size)
        return info | dict(img=self.images[info['row']], img_shape=shape, ori_shape=shape)


def square_transforms(size: int, strict: bool) -> list[dict]:
    """Transforms that load an image and make it a square: the short side is resized, then the centre is cropped.

    Args:
        size (int): Height and width, in pixels.
        strict (bool): Whether an image that cannot be read raises an error. Otherwise it is skipped.
    """
    return [
        dict(type='LoadImageChecked', on_error='raise' if strict else 'skip'),
        dict(type='ResizeEdge', scale=size, edge='short', backend='pillow', interpolation='bicubic'),
        dict(type='CenterCrop', crop_size=size),
    ]
