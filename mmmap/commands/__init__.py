"""The command ``mmmap``, and the table of what follows it. Importing this needs only Python."""

import argparse
import importlib
import sys

#: Module of each subcommand, with ``add_arguments(parser)`` and ``run(args)``, and what it does.
COMMANDS = {
    'adapt': ('.adapt', 'write a child config that gives a config of mmdet, mmseg or mmpretrain a hybrid backbone'),
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
    args = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    args.run(args)
