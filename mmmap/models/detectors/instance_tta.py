"""Test-time augmentation of detectors: boxes and masks of several views of an image."""

from typing import Any

from mmengine.model import BaseTTAModel
from mmengine.structures import InstanceData

from mmmap.registry import MODELS
from mmmap.utils.errors import UserError


@MODELS.register_module()
class InstanceTTAModel(BaseTTAModel):
    """Merges the detections that a detector of mmdet makes in several views of an image.

    Those of all views are put together, and overlaps within a class are suppressed as the detector does it in one view.
    A box that stays keeps its mask. mmdet's own ``DetTTAModel`` refuses masks.

    Args:
        module (nn.Module | dict): The detector or its config.
        nms (dict, optional): The suppression, as mmcv's ``batched_nms`` takes it. Defaults to that of the detector's
            ``test_cfg``, and to an IoU of 0.5 for detectors that have none.
        max_per_img (int, optional): Most detections of an image. Defaults to that of ``test_cfg``, else 100.
    """

    def __init__(self, module: Any, nms: dict | None = None, max_per_img: int | None = None, **kwargs: Any) -> None:
        super().__init__(module, **kwargs)
        test_cfg = getattr(self.module, 'test_cfg', None) or {}
        # Detectors with two stages have a part for each.
        test_cfg = test_cfg.get('rcnn') or test_cfg
        self.nms = nms or test_cfg.get('nms') or dict(type='nms', iou_threshold=0.5)
        self.max_per_img = max_per_img or test_cfg.get('max_per_img') or 100

    def merge_preds(self, data_samples_list: list[list]) -> list:
        """Merge the predictions.

        Args:
            data_samples_list (list[list]): For each image the samples of its views, with predictions in pixels of the
                file.

        Returns:
            list: A sample for each image.

        Raises:
            UserError: If the detector gives no boxes.
        """
        return [self._merge(views) for views in data_samples_list]

    def _merge(self, views: list) -> Any:
        # mmcv's operators may not be compiled, and only this needs them.
        from mmcv.ops import batched_nms

        found = InstanceData.cat([self._in_file(view) for view in views])
        if len(found):
            boxes, kept = batched_nms(found.bboxes, found.scores, found.labels, self.nms)
            found = found[kept]
            # A soft suppression lowers scores.
            found.scores = boxes[:, -1]
            found = found[: self.max_per_img]
        views[0].pred_instances = found
        return views[0]

    def _in_file(self, view: Any) -> InstanceData:
        """The predictions of a view, not mirrored."""
        from mmdet.structures.bbox import bbox_flip

        found = view.get('pred_instances')
        kind = type(self.module).__name__
        if found is None or 'bboxes' not in found:
            raise UserError(f'--tta: {kind} gives no boxes, by which the views of an image are merged')
        if len(found) and bool((found.bboxes == 0).all()):
            raise UserError(f'--tta: {kind} gives masks without boxes, by which the views of an image are merged')
        if view.get('flip'):
            found.bboxes = bbox_flip(found.bboxes, view.ori_shape, view.flip_direction)
            if 'masks' in found:
                sides = dict(horizontal=[-1], vertical=[-2], diagonal=[-2, -1])[view.flip_direction]
                found.masks = found.masks.flip(sides)
        return found
