"""Plot the training curves of runs."""

import argparse
from pathlib import Path


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('runs', nargs='+', help='work directories or scalars.json files')
    parser.add_argument('--keys', nargs='+', default=['loss', 'lr'], help='scalars to plot (default: loss lr)')
    parser.add_argument('--labels', nargs='+', help='names of the runs (default: the names of their folders)')
    parser.add_argument('--out', default='curves.png', help='picture to write (default: %(default)s)')
    args = parser.parse_args()
    args.labels = args.labels or [Path(run).name for run in args.runs]
    if len(set(args.labels)) != len(args.runs):
        parser.error(f'--labels: need {len(args.runs)} different names, got {args.labels}')
    return args


if __name__ == '__main__':
    # Before the imports, which take seconds.
    parse_args()


from mmmap.engine.error_report import one_line_errors
from mmmap.visualization import plot_curves


def main() -> None:
    """Run the tool."""
    args = parse_args()
    with one_line_errors():
        plot_curves(dict(zip(args.labels, args.runs, strict=True)), args.keys, args.out)
        print(f'wrote {args.out}')


if __name__ == '__main__':
    main()
