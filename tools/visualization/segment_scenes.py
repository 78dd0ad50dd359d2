"""Label the points of scenes by a trained segmentor, and write a picture and a PLY file of each.

    python tools/visualization/segment_scenes.py CONFIG CHECKPOINT SCENE [SCENE ...] [--out DIR]

A scene is an .npz file as the data sets have them or a .ply file, with the features that the config's test pipeline
loads. Labels that it has are drawn beside the predicted ones.
"""

import argparse
from pathlib import Path

import mmmap  # noqa: F401  (registers everything)

# isort: split
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import init_default_scope
from PIL import Image

from mmmap.apis import build_model, load_model
from mmmap.engine.errors import UserError, one_line_errors
from mmmap.engine.launch import read_config
from mmmap.models.segmentors import SceneSegmentor
from mmmap.registry import DATASETS
from mmmap.structures.ply import write_ply
from mmmap.structures.scene_files import read_scene
from mmmap.visualization import draw_segmentation, label_colours, make_palette


def describe_classes(cfg: Config) -> tuple[list[str] | None, np.ndarray | None, list[int] | None]:
    """Names, colours and raw labels of the classes, as the test set has them.

    Args:
        cfg (Config): The config, with ``test_dataloader``.
    """
    dataset = cfg.test_dataloader.dataset
    known = DATASETS.get(dataset.type)
    meta = {**getattr(known, 'METAINFO', {}), **(dataset.get('metainfo') or {})}
    return meta.get('classes'), meta.get('palette'), dataset.get('class_labels')


def main() -> None:
    """Run the tool."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file of a SceneSegmentor')
    parser.add_argument('checkpoint', help='its checkpoint')
    parser.add_argument('scenes', nargs='+', type=Path, help='.npz or .ply files')
    parser.add_argument('--out', type=Path, default=Path('scenes'), metavar='DIR', help='(default: %(default)s)')
    parser.add_argument('--device', default='cpu', help='such as cuda (default: %(default)s)')
    args = parser.parse_args()
    with one_line_errors():
        cfg = read_config(args.config)
        if cfg.get('test_dataloader') is None:
            raise UserError(f'{args.config} has no test_dataloader, whose pipeline would load the scenes')
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
        model = load_model(model, args.checkpoint).to(args.device)
        pipeline = Compose(cfg.test_dataloader.dataset.pipeline)
        classes, palette, class_labels = describe_classes(cfg)
        for number, path in enumerate(args.scenes):
            sample = pipeline(dict(lidar_path=str(path), class_labels=class_labels, sample_idx=number))
            with torch.no_grad():
                result = model.test_step(pseudo_collate([sample]))[0]
            prediction = result.pred_pts_seg.pts_semantic_mask.cpu().numpy()
            truth = result.gt_pts_seg.pts_semantic_mask.cpu().numpy() if 'gt_pts_seg' in result else None
            scene = read_scene(path)
            colours = (
                make_palette(len(classes) if classes else int(prediction.max()) + 1) if palette is None else palette
            )
            picture = draw_segmentation(scene['xyz'], prediction, truth, scene.get('rgb'), classes, colours)
            args.out.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(args.out / f'{path.stem}.png')
            label = prediction.astype(np.uint8)
            write_ply(args.out / f'{path.stem}.ply', scene['xyz'], label_colours(prediction, colours), label=label)
            print(f'{path}: {len(prediction):,} points, wrote {args.out / path.stem}.png and .ply')


if __name__ == '__main__':
    main()
