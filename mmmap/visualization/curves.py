"""Training curves as a picture."""

import json
from collections import defaultdict
from pathlib import Path


def read_scalars(path: str | Path) -> dict[str, tuple[list[float], list[float]]]:
    """Read the scalars that mmengine's local backend wrote.

    Args:
        path (str | Path): ``vis_data/scalars.json`` of a run, one JSON object a line, or the work directory of a run,
            whose files are joined.

    Returns:
        dict[str, tuple[list[float], list[float]]]: Steps and values of each scalar.

    Raises:
        ValueError: If there is no such file, or a line of it is not JSON.
    """
    path = Path(path)
    # A resumed run has a folder for each of its parts, named by the time it started.
    files = sorted(path.rglob('scalars.json')) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise ValueError(f'{path}: no scalars.json there')
    scalars: dict[str, dict[float, float]] = defaultdict(dict)
    for file in files:
        lines = file.read_text().splitlines()
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                # A killed run may leave its last line half-written.
                if number == len(lines):
                    break
                raise ValueError(f'{file}:{number}: not a line of JSON') from None
            step = record.pop('step', number)
            for name, value in record.items():
                if isinstance(value, (int, float)) and name not in ('epoch', 'iter'):
                    # Steps that a later part did again replace the earlier ones.
                    scalars[name][step] = value
    return {name: (list(values), list(values.values())) for name, values in scalars.items()}


def plot_curves(runs: dict[str, str | Path], names: list[str], out: str | Path) -> None:
    """Plot scalars of one or several runs, a panel for each scalar.

    Args:
        runs (dict[str, str | Path]): Where the scalars of each labelled run are, see :func:`read_scalars`.
        names (list[str]): Scalars to plot, such as 'loss', 'lr' or 'knn/accuracy'.
        out (str | Path): The picture to write.

    Raises:
        ValueError: If no run has one of the scalars.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    scalars = {label: read_scalars(path) for label, path in runs.items()}
    # The pyplot interface would change the caller's backend.
    figure = Figure(figsize=(5 * len(names), 3.5), layout='constrained')
    FigureCanvasAgg(figure)
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        having = [label for label in runs if name in scalars[label]]
        if not having:
            known = sorted({key for run in scalars.values() for key in run})
            raise ValueError(f'no run has the scalar {name!r}; there are {", ".join(known)}')
        for label in having:
            steps, values = scalars[label][name]
            axes.plot(steps, values, marker='.' if len(steps) < 30 else None, label=label)
        axes.set(xlabel='step', title=name)
        axes.grid(alpha=0.3)
        if len(runs) > 1:
            axes.legend()
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=120)
