"""Small images that are decoded once."""

import numpy as np
from mmcv.transforms import Compose
from mmpretrain.registry import TRANSFORMS

from mmmap.registry import DATASETS

from .image_folder import ImageFolder


@DATASETS.register_module()
class DecodedImages(ImageFolder):
    """Images of one size, decoded once and kept in memory: for hundreds of thousands of images of 64 x 64 pixels.

    They are one array, which workers share with the process that started them by ``fork``, mmengine's default. Other
    sizes are brought to this one: the short side is resized, Pillow's bicubic filter, and the centre cut out. An image
    that cannot be read is named in the log and left out; with ``test_mode`` it is an error, unless
    ``leave_out_broken``.

    A sample has ``img`` (size, size, 3), uint8, BGR, and ``gt_label`` before its pipeline.

    Args:
        size (int): Height and width of the images, in pixels.
        **kwargs: The arguments of :class:`ImageFolder`.

    Raises:
        ValueError: If the size is not positive.
        OSError: If an image cannot be read, in ``test_mode`` without ``leave_out_broken``.
    """

    def __init__(self, size: int, **kwargs) -> None:
        if size < 1:
            raise ValueError(f'DecodedImages: size={size} must be positive')
        self.size = size
        super().__init__(**kwargs)

    def _readable(self, infos: list[dict]) -> list[dict]:
        strict = self.test_mode and not self.leave_out_broken
        load, *fit = [TRANSFORMS.build(transform) for transform in square_transforms(self.size, strict)]
        fit = Compose(fit)
        images, kept = np.empty((len(infos), self.size, self.size, 3), np.uint8), []
        for info in infos:
            loaded = load(dict(info))
            if loaded is not None:
                # Most have the size already, and there are many.
                fits = loaded['img_shape'] == (self.size, self.size)
                images[len(kept)] = loaded['img'] if fits else fit(loaded)['img']
                kept.append(info | dict(row=len(kept)))
        self.images = images[: len(kept)]
        return kept

    def get_data_info(self, idx: int) -> dict:
        """A sample before its pipeline.

        Args:
            idx (int): Its index.

        Returns:
            dict: What is listed of it, ``sample_idx``, and its image.
        """
        info = super().get_data_info(idx)
        shape = (self.size, self.size)
        return info | dict(img=self.images[info['row']], img_shape=shape, ori_shape=shape)


def square_transforms(size: int, strict: bool) -> list[dict]:
    """Transforms that load an image and make it a square: the short side is resized, then the centre is cut out.

    An image that is such a square already stays as it is.

    Args:
        size (int): Height and width, in pixels.
        strict (bool): Whether an image that cannot be read is an error, or left out.
    """
    return [
        dict(type='LoadImageChecked', on_error='raise' if strict else 'skip'),
        dict(type='ResizeEdge', scale=size, edge='short', backend='pillow', interpolation='bicubic'),
        dict(type='CenterCrop', crop_size=size),
    ]
