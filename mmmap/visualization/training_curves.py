"""Logged scalars of training runs, and plots of them."""

import json
from collections import defaultdict
from pathlib import Path

from .figures import new_figure, save_figure


def read_scalars(path: str | Path) -> dict[str, tuple[list[float], list[float]]]:
    """Read the steps and values of each scalar that mmengine's local backend logged.

    Args:
        path (str | Path): ``vis_data/scalars.json`` of a run, one JSON object per line, or the work directory of a run,
            whose files are joined.

    Raises:
        ValueError: If there is no such file, or a line is not JSON.
    """
    path = Path(path)
    # Each time a run is resumed, it gets a new folder, named by the time.
    files = sorted(path.rglob('scalars.json')) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise ValueError(f'{path}: there is no scalars.json')
    scalars: dict[str, dict[float, float]] = defaultdict(dict)
    for file in files:
        lines = file.read_text().splitlines()
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                # The last line of a killed run may be incomplete.
                if number == len(lines):
                    break
                raise ValueError(f'{file}:{number}: the line is not JSON') from None
            step = record.pop('step', number)
            for name, value in record.items():
                if isinstance(value, (int, float)) and name not in ('epoch', 'iter'):
                    # A resumed run repeats steps: the latest values count.
                    scalars[name][step] = value
    return {name: (list(values), list(values.values())) for name, values in scalars.items()}


def plot_curves(runs: dict[str, str | Path], names: list[str], out: str | Path) -> None:
    """Plot scalars of runs, one panel per scalar.

    Args:
        runs (dict[str, str | Path]): Path of each run by its label, see :func:`read_scalars`.
        names (list[str]): Scalars to plot, such as 'loss', 'lr' or 'knn/accuracy'.
        out (str | Path): Picture file to write.

    Raises:
        ValueError: If none of the runs has a scalar.
    """
    scalars = {label: read_scalars(path) for label, path in runs.items()}
    figure = new_figure(5 * len(names), 3.5)
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        labels = [label for label in runs if name in scalars[label]]
        if not labels:
            known = sorted({key for run in scalars.values() for key in run})
            raise ValueError(f'no run has the scalar {name!r}; the scalars are {", ".join(known)}')
        for label in labels:
            steps, values = scalars[label][name]
            axes.plot(steps, values, marker='.' if len(steps) < 30 else None, label=label)
        axes.set(xlabel='step', title=name)
        axes.grid(alpha=0.3)
        if len(runs) > 1:
            axes.legend()
    save_figure(figure, out)
