"""The step of MAE on a ViT with as many parameters, beside ours."""

import argparse
import copy
from pathlib import Path

import torch
from mmengine.config import Config

from mmmap.models import MAPHybrid
from mmmap.models.layers import HybridEncoder

from .common import count_parameters, format_table, load_config
from .step import COLUMNS, add_shares, time_model


def matching_vit(arch: str | dict) -> dict:
    """The arch of a ViT (MLP ratio about 4) with as many parameters in its encoder as a hybrid."""
    settings = MAPHybrid.resolve_arch(arch)
    settings.pop('num_registers', None)
    shape = {key: settings[key] for key in ('embed_dim', 'num_heads')}
    with torch.device('meta'):
        wanted = count_parameters(HybridEncoder(**settings))
        one, wider = (count_parameters(HybridEncoder(layout='T', mlp_ratio=ratio, **shape)) for ratio in (4.0, 5.0))
    norm = shape['embed_dim']
    blocks = max(1, round((wanted - norm) / (one - norm)))
    ratio = 4.0 + ((wanted - norm) / blocks - (one - norm)) / (wider - one)
    return dict(layout='T' * blocks, mlp_ratio=round(ratio, 3), **shape)


def vit_config(cfg: Config) -> Config:
    """The same pretraining of that ViT under MAE's rule: every token is predicted from all visible ones."""
    cfg = copy.deepcopy(cfg)
    cfg.model.backbone.arch = matching_vit(cfg.model.backbone.arch)
    cfg.model.neck.attention = 'full'
    return cfg


def vit(args: argparse.Namespace, report: dict, device: torch.device) -> None:
    """The step of a ViT of as many parameters, with the same share of hidden patches and the same decoder."""
    result = report['vit'] = dict(rows=[], archs={})
    for arch in args.archs:
        cfg, name = vit_config(load_config(arch)), Path(arch).stem
        result['archs'][name] = dict(cfg.model.backbone.arch)
        rows = time_model(f'ViT like {name}', cfg, args, device, None)
        add_shares(rows, report)
        result['rows'] += rows
        args.save()
        print(f'{name}: {dict(cfg.model.backbone.arch)}, {rows[0]["parameters"] / 1e6:.1f} M parameters with decoder')
        print(format_table([row for row in rows if 'failed' not in row], COLUMNS), flush=True)
