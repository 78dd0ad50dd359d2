"""Options that several tools have. Importing this needs only Python, so that ``--help`` is fast."""

import argparse
import os
from typing import Any

#: Modes of ``torch.compile``, and whether they replay CUDA graphs.
COMPILE_MODES = {'default': False, 'reduce-overhead': True, 'max-autotune-no-cudagraphs': False, 'max-autotune': True}


class CfgOptions(argparse.Action):
    """Settings of a config, read by :class:`mmmap.engine.cfg_options.CfgOptions`, which is loaded on demand."""

    def __call__(self, *args: Any) -> None:
        """Add the settings to those of the namespace."""
        from .engine import cfg_options

        cfg_options.CfgOptions(self.option_strings, self.dest)(*args)


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of every tool with a Runner: ``--work-dir``, ``--cfg-options``, ``--launcher`` and the rank."""
    parser.add_argument('--work-dir', help='where logs and checkpoints go (default: work_dirs/NAME_OF_THE_CONFIG)')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=CfgOptions,
        metavar='KEY=VALUE',
        help='override settings of the config, e.g. train_dataloader.batch_size=64, key="[a,b]" or '
        'custom_hooks="[dict(type=\'CompileHook\')]"',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    # Older launchers pass the rank as an option instead of a variable, under either name.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def add_data_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--data``."""
    parser.add_argument(
        '--data',
        metavar='DIR',
        # A shell does not expand --data=~/DIR.
        type=os.path.expanduser,
        help="images of your own in place of the config's: DIR/{train,val,test}/CLASS/*, DIR/CLASS/* (a tenth of each "
        'class is held out), or, to pretrain, any images in DIR',
    )


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--json FILE`` and ``--plot FILE``."""
    parser.add_argument('--json', metavar='FILE', help='also write the figures to this file')
    parser.add_argument('--plot', metavar='FILE', help='also draw them to this PNG')
