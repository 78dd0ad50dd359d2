"""The command ``mmmap``, and the table of what follows it. Importing this needs only Python."""

import argparse
import importlib
import os
import sys
from pathlib import Path

#: Module of each subcommand, with ``add_arguments(parser)`` and ``run(args)``, and what it does.
COMMANDS = {
    'predict': ('.predict', 'name the classes of pictures, or draw boxes and masks'),
    'features': ('.features', 'write the features of a folder of pictures'),
    'models': ('.models', 'list the models that mmmap.create_model knows, and the configs in the package'),
    'adapt': ('.adapt', 'write a child config that gives a config of mmdet, mmseg or mmpretrain a hybrid backbone'),
}
#: Tools that are commands as they are, and what they do. Their options follow.
TOOLS = {
    'train': ('train.py', 'train or pretrain a model'),
    'test': ('test.py', 'evaluate a checkpoint'),
    'reconstruct': ('visualization/reconstruct.py', 'draw what a pretrained model rebuilds'),
    'demo': ('demo.py', 'pretrain on real digits in minutes, and report'),
}


def main(arguments: list[str] | None = None) -> None:
    """Run the command.

    Args:
        arguments (list[str], optional): What follows ``mmmap``. Defaults to None, those of the program.
    """
    parser = argparse.ArgumentParser(
        prog='mmmap',
        description='Hybrid Mamba-Transformer backbones at the command line.',
        epilog='`mmmap COMMAND --help` tells the options. Errors are one line; MMMAP_TRACEBACK=1 shows where they were '
        'raised.',
    )
    commands = parser.add_subparsers(dest='command', metavar='COMMAND', required=True)
    for name, (module, summary) in COMMANDS.items():
        part = importlib.import_module(module, __package__)
        command = commands.add_parser(name, help=summary, description=part.__doc__)
        part.add_arguments(command)
        command.set_defaults(run=part.run)
    for name, (_, summary) in TOOLS.items():
        commands.add_parser(name, help=summary, add_help=False)
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in TOOLS:
        _become_tool(*arguments)
    args = parser.parse_args(arguments)
    args.run(args)


def _become_tool(name: str, *arguments: str) -> None:
    """Replace this process by a tool, so that signals of a scheduler reach it alone."""
    tool = Path(__file__).resolve().parents[1] / '.mim' / 'tools' / TOOLS[name][0]
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, str(tool), *arguments])
