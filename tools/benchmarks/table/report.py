"""Writes the results of a table: report.md, results.json and two pictures."""

import json
import math
import statistics
from collections.abc import Callable
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mmmap.engine.checkpoint_files import AtomicLocalBackend

from .rows import TRACKS, Row

_TITLES = {'finetune': 'fine-tuned', 'linear': 'linear probe', 'knn': 'kNN'}
_SPLITS = {'test': 'the test images', 'val': 'images held out of the training set'}
Results = dict[str, dict[int, dict[str, dict]]]


def read_results(rows: list[Row], runs: Path) -> Results:
    """Read the finished stages of a table.

    Args:
        rows (list[Row]): Its rows.
        runs (Path): Folder of all runs.

    Returns:
        Results: By row, seed and stage, what ``collect`` told; seeds with an evaluation only.
    """
    results: Results = {}
    for row in rows:
        for folder in sorted((runs / row.name).glob('seed*'), key=lambda path: int(path.name[4:])):
            stages = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob('*.json'))}
            if any(name in stages for name in _TITLES):
                results.setdefault(row.name, {})[int(folder.name[4:])] = stages
    return results


def _accuracies(seeds: dict[int, dict[str, dict]], stage: str) -> list[float]:
    return [stages[stage]['accuracy'] for stages in seeds.values() if stage in stages]


def _spread(values: list[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None


def _shown(values: list[float]) -> str:
    if not values:
        return '-'
    spread = _spread(values)
    return f'{statistics.mean(values):.2f}' + ('' if spread is None else f' ± {spread:.2f}')


def summarize(row: Row, seeds: dict[int, dict[str, dict]]) -> dict:
    """The results of a row over its seeds.

    Args:
        row (Row): The row.
        seeds (dict[int, dict[str, dict]]): Its results by seed and stage.

    Returns:
        dict: Mean, standard deviation and values of each evaluation; epochs, training images, image passes and seconds
        of pretraining and fine-tuning, the latter two as means over the seeds.
    """
    summary = dict(name=row.name, label=row.label, paper=row.paper, seeds=list(seeds))
    for stage in _TITLES:
        values = _accuracies(seeds, stage)
        if values:
            summary[stage] = dict(mean=statistics.mean(values), std=_spread(values), values=values)
    budget, images = [], set()
    for stage in ('pretrain', 'finetune'):
        done = [stages[stage] for stages in seeds.values() if stage in stages]
        budget.append(done[0]['epochs'] if done else 0)
        images |= {result['images']['train'] for result in done}
    summary.update(epochs=budget, images=max((n for n in images if n), default=None))
    summary['passes'] = sum(budget) * summary['images'] if summary['images'] else None
    summary['seconds'] = statistics.mean(
        sum(stages[stage]['seconds'] for stage in ('pretrain', 'finetune') if stage in stages)
        for stages in seeds.values()
    )
    return summary


def _markdown(table: str, track: str, rows: list[Row], results: Results, failures: list[str]) -> str:
    stages = [stage for stage in _TITLES if any(_accuracies(seeds, stage) for seeds in results.values())]
    lines = [f'# Table `{table}`, {track} track', '', f'Rows: {TRACKS[track]}.']
    parts = {tuple(r['images'].items()) for seeds in results.values() for of in seeds.values() for r in of.values()}
    splits = sorted({dict(part)['split'] for part in parts})
    lines += [
        f'Top-1 accuracy in percent on {" and ".join(_SPLITS[split] for split in splits)}, of the last epoch: mean ± '
        'standard deviation over the seeds, then each seed. Epochs are those of pretraining + fine-tuning, with the '
        'image passes of both and the seconds of their iterations, a mean over the seeds. The paper trains on '
        'ImageNet-1K at 224 px; its figures are second-hand.',
        '',
    ]
    head = ['method', *(title for stage in stages for title in (_TITLES[stage], 'seeds')), 'paper', 'epochs', 'images']
    head += ['image passes', 'seconds']
    lines += ['| ' + ' | '.join(head) + ' |', '|' + '---|' * len(head)]
    notes = []
    for row in rows:
        paper = '-' if row.paper is None else f'{row.paper:.1f}'
        if row.note:
            notes.append(f'{row.label}: {row.note}')
            paper += '¹'
        cells = [row.label]
        summary = summarize(row, results[row.name]) if row.name in results else None
        for stage in stages:
            values = summary.get(stage, {}).get('values', []) if summary else []
            cells += [_shown(values), ', '.join(f'{value:.2f}' for value in values)]
        if summary is None:
            cells += [paper, *['-'] * 4]
        else:
            before, after = summary['epochs']
            known = summary['images'] is not None
            cells += [paper, f'{before} + {after}', f'{summary["images"]:,}' if known else '-']
            cells += [f'{summary["passes"]:,}' if known else '-', f'{summary["seconds"]:,.0f}']
        lines.append('| ' + ' | '.join(cells) + ' |')
    lines += ['', *(f'¹ {note}' for note in notes), *([''] if notes else [])]
    lines += ['![bars](bars.png)', '', '![curves](curves.png)', '', '## How it was made', '']
    lines += [f'- {line}' for line in _origins(results)]
    if failures:
        lines += ['', '## Failed', '', *(f'- {failure}' for failure in failures)]
    return '\n'.join(lines) + '\n'


def _origins(results: Results) -> list[str]:
    """Machines, commands, commits and changed settings: each value once, with its rows."""
    lines = []
    for title in ('machine', 'jobs', 'command', 'commit', 'options'):
        found: dict[str, set[str]] = {}
        for name, seeds in results.items():
            for stages in seeds.values():
                for result in stages.values():
                    found.setdefault(json.dumps(result.get(title)), set()).add(name)
        for text, names in found.items():
            value = json.loads(text)
            if not value:
                continue
            if isinstance(value, dict):
                value = ', '.join(f'{key} {part}' for key, part in value.items())
            of = '' if len(found) == 1 else f' ({", ".join(sorted(names))})'
            label = 'runs side by side' if title == 'jobs' else title
            lines.append(f'{label}{of}: {f"`{value}`" if title in ("command", "commit") else value}')
    return lines


def _figure(panels: int, height: float) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(5.5 * panels, height), layout='constrained')
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(1, panels, squeeze=False)[0])


def _draw_bars(rows: list[Row], results: Results, out: Path) -> None:
    done = [row for row in rows if row.name in results]
    stages = [stage for stage in _TITLES if any(_accuracies(results[row.name], stage) for row in done)]
    figure, axes = _figure(len(stages) + 1, 1.2 + 0.45 * len(done))
    at = range(len(done))[::-1]
    bars = {stage: [_accuracies(results[row.name], stage) for row in done] for stage in stages}
    bars['paper'] = [[row.paper] if row.paper is not None else [] for row in done]
    for panel, (stage, values) in zip(axes, bars.items(), strict=True):
        means = [statistics.mean(of) if of else 0 for of in values]
        panel.barh(at, means, xerr=[_spread(of) or math.nan for of in values], capsize=4, color='tab:blue', alpha=0.6)
        for y, of in zip(at, values, strict=True):
            if stage != 'paper':
                panel.plot(of, [y] * len(of), 'k.', markersize=4)
        everything = [value for of in values for value in of]
        if everything:
            low, high = min(everything), max(everything)
            margin = max(1.0, 0.3 * (high - low))
            panel.set_xlim(max(0, low - margin), min(100, high + margin))
        panel.set_yticks(at, [row.label if panel is axes[0] else '' for row in done])
        title = 'the paper (ImageNet-1K)' if stage == 'paper' else _TITLES[stage]
        # The label warns of the axis, because lengths of bars mislead.
        panel.set(title=title, xlabel='top-1 accuracy (%), axis does not start at 0')
        panel.grid(axis='x', alpha=0.3)
    figure.savefig(out, dpi=120)


def _mean_curve(curves: list[list[list[float]]]) -> tuple[list[float], list[float]]:
    points: dict[float, list[float]] = {}
    for curve in curves:
        for at, value in curve:
            points.setdefault(at, []).append(value)
    # Only points that all seeds have
    kept = sorted((at, statistics.mean(of)) for at, of in points.items() if len(of) == len(curves))
    return [at for at, _ in kept], [value for _, value in kept]


def _draw_curves(rows: list[Row], results: Results, out: Path) -> None:
    panels = (
        ('pretrain', 'losses', 'pretraining loss (of different kinds)'),
        ('finetune', 'losses', 'fine-tuning loss'),
        ('finetune', 'accuracies', 'fine-tuning: top-1 accuracy (%)'),
    )
    figure, axes = _figure(len(panels), 4)
    for panel, (stage, key, title) in zip(axes, panels, strict=True):
        for index, row in enumerate(rows):
            curves = [stages[stage][key] for stages in results.get(row.name, {}).values() if stage in stages]
            if curves:
                at, values = _mean_curve(curves)
                # A single point has no line.
                panel.plot(at, values, 'o' if len(at) == 1 else '-', label=row.label, color=f'C{index}')
        panel.set(title=title, xlabel='epoch')
        panel.grid(alpha=0.3)
        if panel.lines:
            panel.legend(fontsize='small')
    figure.savefig(out, dpi=120)


def write_report(table: str, track: str, rows: list[Row], runs: Path, out: Path, failures: list[str]) -> None:
    """Write ``report.md``, ``results.json``, ``bars.png`` and ``curves.png`` from the finished stages.

    Args:
        table (str): Name of the table.
        track (str): Its track.
        rows (list[Row]): Its rows.
        runs (Path): Folder of all runs.
        out (Path): Where the files go.
        failures (list[str]): A line for each row that failed.
    """
    results = read_results(rows, runs)
    if not results:
        return
    out.mkdir(parents=True, exist_ok=True)
    summaries = [summarize(row, results[row.name]) for row in rows if row.name in results]
    full = dict(table=table, track=track, rows=summaries, runs=results, failures=failures)
    AtomicLocalBackend().put_text(json.dumps(full, indent=1) + '\n', out / 'results.json')
    AtomicLocalBackend().put_text(_markdown(table, track, rows, results, failures), out / 'report.md')
    draw: Callable[[list[Row], Results, Path], None]
    for draw, name in ((_draw_bars, 'bars.png'), (_draw_curves, 'curves.png')):
        draw(rows, results, out / name)
