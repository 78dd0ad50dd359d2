"""Options of the test tool: a file of predictions, test-time augmentation, pictures, a submission."""

from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmengine.evaluator import DumpResults

from ..utils.errors import UserError
from .config_parts import type_name
from .wrapped_datasets import leaf_datasets


class DumpPredictions(DumpResults):
    """mmengine's ``DumpResults`` that adds the class names, as ``classes``, to predictions of a classifier."""

    def compute_metrics(self, results: list) -> dict:
        """Write the predictions to the file. There is no metric."""
        classes = (self.dataset_meta or {}).get('classes')
        for result in results:
            if classes is not None and isinstance(result, dict) and 'pred_score' in result:
                result['classes'] = classes
        return super().compute_metrics(results)


def enable_tta(cfg: Config) -> None:
    """Switch a config to test-time augmentation, in place.

    Raises:
        UserError: If it lacks ``tta_pipeline``, which makes several images of one, or ``tta_model``, which merges their
            predictions.
    """
    for name in ('tta_pipeline', 'tta_model'):
        if cfg.get(name) is None:
            raise UserError(f'--tta: {cfg.filename} has no {name}')
    for _, dataset in leaf_datasets(cfg.test_dataloader.dataset, 'test_dataloader.dataset'):
        dataset.pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)


def draw_predictions(cfg: Config, folder: str) -> None:
    """Make a test draw its predictions, and the ground truth if there is one, to a folder, in place.

    mmseg writes to ``vis_data/vis_image`` in it.

    Raises:
        UserError: If the config has no visualization hook of mmseg, of mmdet or of points.
    """
    hook = (cfg.get('default_hooks') or {}).get('visualization') or {}
    kind = type_name(hook['type']) if hook else None
    # mmdet would resolve a relative path in the folder of the run.
    folder = str(Path(folder).absolute())
    if kind == 'SegVisualizationHook':
        cfg.visualizer.save_dir = folder
    elif kind == 'DetVisualizationHook':
        hook['test_out_dir'] = folder
    elif kind == 'PointSegVisualizationHook':
        hook.update(out_dir=folder, interval=1)
    else:
        raise UserError(
            f'--show-dir: default_hooks.visualization of {cfg.filename} is {kind}, not SegVisualizationHook, '
            'DetVisualizationHook or PointSegVisualizationHook'
        )
    hook['draw'] = True


def write_submission(cfg: Config, folder: str) -> None:
    """Make a test write the labels of its scenes to a folder for a benchmark, see :class:`SceneSubmissionHook`."""
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), dict(type='SceneSubmissionHook', out_dir=folder)]
