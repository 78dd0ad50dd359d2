"""Train or pretrain a model."""

import argparse

from mmmap.engine.device import leave_process_group
from mmmap.engine.errors import UserError, one_line_errors
from mmmap.engine.hooks.compile_hook import COMPILE_MODES
from mmmap.engine.launch import (
    add_common_options,
    build_runner,
    enable_amp,
    enable_compile,
    load_config,
    require_fit,
    set_resume,
)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog='Errors are one line; MMMAP_TRACEBACK=1 shows where they were raised.'
    )
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='continue from this checkpoint, or without a value from the last whole one of the work directory',
    )
    parser.add_argument('--amp', action='store_true', help='train in mixed precision')
    parser.add_argument(
        '--compile',
        nargs='?',
        const='default',
        choices=list(COMPILE_MODES),
        help="compile encoder and decoder by torch.compile, in this mode; 'reduce-overhead' is for small models",
    )
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help='scale the learning rate by batch size / base_batch_size'
    )
    parser.add_argument('--no-validate', action='store_true', help='do not evaluate during training')
    add_common_options(parser)
    return parser.parse_args()


def main() -> None:
    """Run the tool."""
    args = parse_args()
    with one_line_errors():
        cfg = load_config(args)
    with one_line_errors(cfg):
        if cfg.get('train_dataloader') is None or cfg.get('train_cfg') is None:
            raise UserError(f'{args.config} has no train_dataloader or no train_cfg: nothing to train')
        if args.no_validate:
            cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        if args.amp:
            enable_amp(cfg)
        if args.compile:
            enable_compile(cfg, args.compile)
        if args.auto_scale_lr:
            if (cfg.get('auto_scale_lr') or {}).get('base_batch_size') is None:
                raise UserError(f'--auto-scale-lr: {args.config} has no auto_scale_lr.base_batch_size')
            cfg.auto_scale_lr.enable = True
        # A config may ask to resume as well.
        resume = args.resume or (cfg.get('resume') and (cfg.get('load_from') or 'auto'))
        runner = build_runner(cfg, set_resume(cfg, resume) if resume else [])
        if cfg.get('resume'):
            require_fit(runner, cfg.load_from)
        # The data sets are built here, where an error is the config's, and not within the training.
        _ = runner.train_loop
        if cfg.get('val_dataloader') is not None:
            _ = runner.val_loop
    with one_line_errors(cfg, show_traceback=True):
        runner.train()
    leave_process_group()


if __name__ == '__main__':
    main()
