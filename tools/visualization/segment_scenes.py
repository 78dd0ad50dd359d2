"""Segment scenes with a trained model, and write a picture and a PLY file of each.

    python tools/visualization/segment_scenes.py CONFIG CHECKPOINT SCENE [SCENE ...] [--out DIR]

A scene is an .npz, .ply, .las, .laz, .pcd, .off or text file with the features that the config's test pipeline loads.
Colours are drawn if the pipeline loads them. Labels in the file are drawn too; they must be classes of the test set.
The files are named FOLDER_SCENE.
"""

import argparse
from pathlib import Path


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file of a SceneSegmentor')
    parser.add_argument('checkpoint', help='its checkpoint')
    parser.add_argument('scenes', nargs='+', type=Path, help='files of scenes')
    parser.add_argument(
        '--out', type=Path, default=Path('scenes'), metavar='DIR', help='folder to write to (default: %(default)s)'
    )
    parser.add_argument('--device', default='cpu', help='device, such as cuda (default: %(default)s)')
    return parser.parse_args()


if __name__ == '__main__':
    # Before the imports, which take seconds.
    parse_args()


import mmmap  # noqa: F401  (registers everything)

# isort: split
import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from mmengine.utils import ProgressBar
from PIL import Image

from mmmap.apis import build_model, load_weights
from mmmap.datasets import SceneDataset
from mmmap.datasets.transforms import LoadScene
from mmmap.engine.error_report import one_line_errors
from mmmap.engine.launch import read_config
from mmmap.engine.wrapped_datasets import leaf_datasets
from mmmap.models.segmentors import SceneSegmentor
from mmmap.registry import DATASETS
from mmmap.structures.output_names import output_names
from mmmap.structures.ply import write_ply
from mmmap.structures.scene_files import read_scene
from mmmap.utils.errors import UserError
from mmmap.visualization import draw_segmentation, label_colours, make_palette


def scene_dataset(cfg: Config) -> tuple[SceneDataset, list[dict]]:
    """The test set, without its scenes, and the steps of its pipeline.

    Args:
        cfg (Config): The config, with ``test_dataloader``.

    Raises:
        UserError: If the test set has no scenes.
    """
    _, inner = next(leaf_datasets(cfg.test_dataloader.dataset, 'test_dataloader.dataset'))
    dataset = DATASETS.build({**inner, 'lazy_init': True, 'pipeline': []})
    if not isinstance(dataset, SceneDataset):
        raise UserError(f'{cfg.filename}: its test set is {type(dataset).__name__}, which has no scenes')
    return dataset, inner.pipeline


def label(model: SceneSegmentor, sample: dict, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Label a scene, with a line that tells how far it is.

    Args:
        model (SceneSegmentor): The segmentor.
        sample (dict): The scene, from the pipeline.
        name (str): What to call it.

    Returns:
        tuple[np.ndarray, np.ndarray | None]: Predicted labels, shape (N,), uint8, and true ones if there are any.
    """
    # Not through a list, of which a batch would be a copy.
    inputs = model.data_preprocessor(dict(inputs=sample.pop('inputs')[None]))['inputs'][0]
    truth = sample['data_samples'].get('gt_pts_seg')
    print(f'{name}: {len(inputs):,} points')
    bar = ProgressBar(100)

    def progress(done: float) -> None:
        if int(100 * done) > bar.completed:
            bar.update(int(100 * done) - bar.completed)

    labels = model.label_scene(inputs, progress).numpy().astype(np.uint8)
    print()
    return labels, None if truth is None else truth.pts_semantic_mask.numpy()


def main() -> None:
    """Run the tool."""
    args = parse_args()
    with one_line_errors():
        cfg = read_config(args.config)
        if cfg.get('test_dataloader') is None:
            raise UserError(f'{args.config} has no test_dataloader, but its pipeline loads the scenes')
        for path in args.scenes:
            if not path.is_file():
                raise UserError(f'scene not found: {path}')
        init_default_scope(cfg.get('default_scope', 'mmpretrain'))
        model = build_model(cfg)
        if not isinstance(model, SceneSegmentor):
            raise UserError(
                f'{args.config}: {type(model).__name__} labels no scenes: give the config of a SceneSegmentor; the '
                'parts of shapes are drawn by test.py --show-dir'
            )
        model = load_weights(model, args.checkpoint).to(args.device)
        dataset, steps = scene_dataset(cfg)
        for step in steps:
            # Each scene is read once: keeping them would fill the memory.
            if step.get('in_memory'):
                step.in_memory = False
        pipeline = Compose(steps)
        load = next((step for step in pipeline.transforms if isinstance(step, LoadScene)), LoadScene())
        classes, palette = (dataset.metainfo.get(key) for key in ('classes', 'palette'))
        for path, name in output_names(args.scenes).items():
            prediction, truth = label(model, pipeline(dataset.describe(path)), path)
            scene = read_scene(path, 'rgb' in load.features, load.rgb_max)
            colours = (
                make_palette(len(classes) if classes else int(prediction.max()) + 1) if palette is None else palette
            )
            picture = draw_segmentation(scene['xyz'], prediction, truth, scene.get('rgb'), classes, colours)
            args.out.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(args.out / f'{name}.png')
            write_ply(args.out / f'{name}.ply', scene['xyz'], label_colours(prediction, colours), label=prediction)
            print(f'{path}: {len(prediction):,} points, wrote {args.out / name}.png and .ply')


if __name__ == '__main__':
    main()
