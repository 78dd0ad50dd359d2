"""What the test tool adds to a run for its options: predictions in a file, augmentation and pictures of a test."""

from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmengine.evaluator import DumpResults

from .config_rules import type_name
from .errors import UserError
from .wrapped_datasets import leaf_datasets


class DumpPredictions(DumpResults):
    """mmengine's, and the predictions of a classifier have the names of the classes with them, as ``classes``."""

    def compute_metrics(self, results: list) -> dict:
        """Write the file.

        Args:
            results (list): The predictions.

        Returns:
            dict: No metric.
        """
        classes = (self.dataset_meta or {}).get('classes')
        for result in results:
            if classes is not None and isinstance(result, dict) and 'pred_score' in result:
                result['classes'] = classes
        return super().compute_metrics(results)


def enable_tta(cfg: Config) -> None:
    """Switch a config to test-time augmentation, in place.

    Args:
        cfg (Config): A config with ``tta_pipeline``, which makes several images of one, and ``tta_model``, which merges
            the predictions for them.

    Raises:
        UserError: If it has one of them not.
    """
    for name in ('tta_pipeline', 'tta_model'):
        if cfg.get(name) is None:
            raise UserError(f'--tta: {cfg.filename} has no {name}')
    for _, dataset in leaf_datasets(cfg.test_dataloader.dataset, 'test_dataloader.dataset'):
        dataset.pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)


def draw_predictions(cfg: Config, folder: str) -> None:
    """Make a test draw its predictions, beside the truth where there is one, in place.

    Args:
        cfg (Config): A config with mmseg's or mmdet's visualization hook, or the one of points.
        folder (str): Where the pictures go. mmseg puts them into ``vis_data/vis_image`` of it.

    Raises:
        UserError: If it has no such hook.
    """
    hook = (cfg.get('default_hooks') or {}).get('visualization')
    kind = type_name(hook.type) if hook else None
    # mmdet would take a relative path from the folder of the run.
    folder = str(Path(folder).absolute())
    if kind == 'SegVisualizationHook':
        cfg.visualizer.save_dir = folder
    elif kind == 'DetVisualizationHook':
        hook.test_out_dir = folder
    elif kind == 'PointSegVisualizationHook':
        hook.out_dir, hook.interval = folder, 1
    else:
        raise UserError(
            f'--show-dir: default_hooks.visualization of {cfg.filename} is {kind}, not SegVisualizationHook, '
            'DetVisualizationHook or PointSegVisualizationHook'
        )
    hook.draw = True


def write_submission(cfg: Config, folder: str) -> None:
    """Make a test write the labels of its scenes for a benchmark, see :class:`SceneSubmissionHook`, in place.

    Args:
        cfg (Config): A config.
        folder (str): Where the files go.
    """
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), dict(type='SceneSubmissionHook', out_dir=folder)]
