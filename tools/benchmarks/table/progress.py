"""Shows the progress of the running stages, and the time left for the table."""

import re
import sys
import time
from collections import defaultdict
from datetime import timedelta

from rich.console import Console
from rich.live import Live
from rich.table import Table

from .run import Run, Runner
from .stage import Stage

# A line of mmengine's log: epoch, iteration within it, its iterations, time left, loss.
_LINE = re.compile(r'Epoch\(train\)\s+\[(\d+)\]\[\s*(\d+)/(\d+)\].*?eta: (?:(\d+) days?, )?(\d+):(\d\d):(\d\d)(.*)')
_LOSS = re.compile(r'\bloss: (\S+)')
_TAIL = 16384  # Bytes at the end of a log that contain such a line
_PLAIN_INTERVAL = 60  # Seconds between reports if the output is not a terminal


def last_state(stage: Stage) -> dict | None:
    """The progress of a running stage, read from its log.

    Args:
        stage (Stage): The stage.

    Returns:
        dict | None: ``done`` (epochs, with fraction), ``left`` (seconds of this stage), ``loss``; None before the
        first line.
    """
    try:
        with open(stage.log_file, 'rb') as log:
            log.seek(max(0, log.seek(0, 2) - _TAIL))
            found = _LINE.findall(log.read().decode(errors='replace'))
    except FileNotFoundError:
        return None
    if not found:
        return None
    epoch, iteration, length, days, hours, minutes, seconds, rest = found[-1]
    loss = _LOSS.search(rest)
    return dict(
        done=int(epoch) - 1 + int(iteration) / int(length),
        left=timedelta(days=int(days or 0), hours=int(hours), minutes=int(minutes), seconds=int(seconds)).seconds
        + 86400 * int(days or 0),
        loss=loss[1] if loss else '?',
    )


class Progress:
    """The display of a table's runs.

    Args:
        runner (Runner): Runs them.
        runs (list[Run]): All of them.
        jobs (int): How many side by side.
    """

    def __init__(self, runner: Runner, runs: list[Run], jobs: int) -> None:
        self.runner, self.runs, self.jobs = runner, runs, jobs
        self._start = self._shown = time.monotonic()
        # Seconds an epoch of the stages of each name took here.
        self._paces: dict[str, list[float]] = defaultdict(list)
        self._seen: dict[str, tuple[Stage, float]] = {}
        console = Console()
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def __enter__(self) -> 'Progress':
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_) -> None:
        if self._live:
            self._live.stop()

    def time_left(self, states: dict[str, dict | None]) -> float | None:
        """Seconds until the table is done, from the pace so far; None while nothing is known.

        Args:
            states (dict[str, dict | None]): What :func:`last_state` tells of each running stage.
        """
        running = {key: stage for key, (_, stage, _) in self.runner.running.items()}
        paces = {name: sum(values) / len(values) for name, values in self._paces.items()}
        left = 0.0
        for key, stage in running.items():
            state = states.get(key)
            if state and state['done'] < stage.epochs:
                left += state['left']
                paces.setdefault(stage.name, state['left'] / (stage.epochs - state['done']))
        if not paces:
            return None
        fallback = sum(paces.values()) / len(paces)
        for run in self.runs:
            for stage in run.stages:
                if stage not in running.values() and not stage.result_file.is_file():
                    left += stage.epochs * paces.get(stage.name, fallback)
        return left / min(self.jobs, max(1, len(self.runs)))

    def tick(self) -> None:
        """Update the display; without a terminal, print at most once a minute."""
        now = time.monotonic()
        running = dict(self.runner.running)
        for key, (stage, since) in list(self._seen.items()):
            if key not in running or running[key][1] is not stage:
                if stage.epochs and stage.result_file.is_file():
                    self._paces[stage.name].append((now - since) / stage.epochs)
                del self._seen[key]
        for key, (_, stage, since) in running.items():
            self._seen[key] = stage, since
        if self._live is None and now - self._shown < _PLAIN_INTERVAL:
            return
        self._shown = now
        states = {key: last_state(stage) for key, (_, stage, _) in running.items()}
        left = self.time_left(states)
        finished = sum(all(stage.result_file.is_file() for stage in run.stages) for run in self.runs)
        total = [f'{finished} of {len(self.runs)} rows x seeds', f'{_clock(now - self._start)} so far',
                 f'{_clock(left)} left']  # fmt: skip
        lines = [(run, stage, states[key]) for key, (run, stage, _) in running.items()]
        if self._live:
            self._live.update(_table(lines, total), refresh=True)
            return
        for run, stage, state in lines:
            print(', '.join([str(run), *_columns(stage, state)]), flush=True)
        print(f'table: {", ".join(total)}', flush=True)
        sys.stdout.flush()


def _columns(stage: Stage, state: dict | None) -> list[str]:
    if state is None:
        return [stage.name, 'starting']
    epoch = f'epoch {state["done"]:.1f}/{stage.epochs}'
    return [stage.name, epoch, f'loss {state["loss"]}', f'{_clock(state["left"])} left']


def _table(lines: list[tuple[Run, Stage, dict | None]], total: list[str]) -> Table:
    table = Table(box=None, show_header=False)
    for run, stage, state in lines:
        table.add_row(str(run), *_columns(stage, state))
    table.add_row('table', *total)
    return table


def _clock(seconds: float | None) -> str:
    return '?' if seconds is None else str(timedelta(seconds=round(seconds)))
