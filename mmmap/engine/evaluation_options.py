"""Options of the test tool: a file of predictions, test-time augmentation, pictures, a submission."""

from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmengine.evaluator import DumpResults

from ..utils.errors import UserError
from .config_parts import dense_kind, type_name
from .test_time_augmentation import RATIOS, derived_pipeline, foreign_sizes, mirrors, wrote_pipeline
from .wrapped_datasets import leaf_datasets


class DumpPredictions(DumpResults):
    """mmengine's ``DumpResults``, but for two things.

    Predictions of a classifier get the class names, as ``classes``. The true masks of a detector are left out: they are
    objects of mmdet, which could not be read as plain data.
    """

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep the predictions of a batch."""
        super().process(data_batch, data_samples)
        for result in self.results[-len(data_samples) :]:
            for name in ('gt_instances', 'ignored_instances'):
                truth = result.get(name) if isinstance(result, dict) else None
                if isinstance(truth, dict) and 'masks' in truth:
                    result[name] = {key: value for key, value in truth.items() if key != 'masks'}

    def compute_metrics(self, results: list) -> dict:
        """Write the predictions to the file. There is no metric."""
        classes = (self.dataset_meta or {}).get('classes')
        for result in results:
            if classes is not None and isinstance(result, dict) and 'pred_score' in result:
                result['classes'] = classes
        return super().compute_metrics(results)


def enable_tta(cfg: Config) -> list[str]:
    """Switch a config to test-time augmentation, in place.

    ``tta_pipeline`` makes several images of one, ``tta_model`` merges their predictions. Segmentors of mmseg and
    detectors of mmdet need neither: their views are the pipeline of the test, at each size in ``tta_ratios`` and, if
    the training flips images, mirrored as well. They also take the place of a ``tta_pipeline`` that is inherited and
    made for images of another size.

    Returns:
        list[str]: Lines for the log.

    Raises:
        UserError: If a part is missing or cannot be made.
    """
    default = {'segmentor': 'SegTTAModel', 'detector': 'InstanceTTAModel'}.get(dense_kind(cfg) or '')
    for name in ('tta_pipeline', 'tta_model'):
        if cfg.get(name) is None and default is None:
            raise UserError(f'--tta: {cfg.filename} has no {name}')
    messages: dict[str, None] = {}
    mirrored = mirrors(cfg.get('train_dataloader'))
    for where, dataset in leaf_datasets(cfg.test_dataloader.dataset, 'test_dataloader.dataset'):
        own, foreign = cfg.get('tta_pipeline') is not None, None
        if own and default is not None:
            foreign = foreign_sizes(cfg, dataset.get('pipeline'))
        if own and (foreign is None or wrote_pipeline(cfg)):
            dataset.pipeline = cfg.tta_pipeline
            if foreign is not None:
                messages[f'--tta: {foreign}: are these the sizes of the images at hand?'] = None
            if default is not None and not mirrored and mirrors(cfg.tta_pipeline):
                messages['--tta: tta_pipeline mirrors images, the training does not'] = None
            continue
        if foreign is not None:
            messages[f'--tta: {foreign}: it was inherited and is not used'] = None
        ratios = tuple(cfg.get('tta_ratios') or RATIOS)
        dataset.pipeline = derived_pipeline(dataset.pipeline, ratios, mirrored, f'{where}.pipeline')
        both = 'each mirrored as well' if mirrored else 'none mirrored, as the training mirrors none'
        messages[f'--tta: each image at {", ".join(f"{r:g}" for r in ratios)} of its size in a test, {both}.'] = None
    cfg.model = ConfigDict(**(cfg.get('tta_model') or dict(type=default)), module=cfg.model)
    return list(messages)


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
