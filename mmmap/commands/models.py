"""List the models that ``mmmap.create_model`` knows, and the configs in the package."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``mmmap models``."""
    parser.add_argument('pattern', nargs='?', default='*', help="names to list, such as '*carparts*' (default: all)")


def run(args: argparse.Namespace) -> None:
    """Run ``mmmap models``."""
    from fnmatch import fnmatch

    from mmmap.apis.create_model import list_models
    from mmmap.utils.packaged_configs import MIM

    print('models of mmmap.create_model:')
    for name in list_models(args.pattern):
        print(f'  {name}')
    print('configs, for `mmmap train` and _base_:')
    root = MIM / 'configs'
    for path in sorted(root.rglob('*.py')):
        name = str(path.relative_to(root))
        if '_base_' not in path.parts and (fnmatch(name, args.pattern) or fnmatch(path.stem, args.pattern)):
            print(f'  mmmap::{name}')
