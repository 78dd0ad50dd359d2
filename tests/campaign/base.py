"""What all trials share: the row of the table, and how trials are run side by side."""

import multiprocessing
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass
class Row:
    """A row of the table.

    Attributes:
        what (str): What was tried.
        tried (int): How often.
        lost (list[str]): What went wrong, one line for each trial that did.
        skipped (str): Why it was not tried here; empty if it was.
        note (str): What else there is to say.
    """

    what: str
    tried: int = 0
    lost: list[str] = field(default_factory=list)
    skipped: str = ''
    note: str = ''

    @property
    def survived(self) -> int:
        """Trials whose outcome is right."""
        return self.tried - len(self.lost)


@dataclass
class Campaign:
    """How a campaign is run.

    Attributes:
        folder (Path): For all that it writes.
        seed (int): Of what is drawn at random.
        jobs (int): Trials side by side.
        quick (bool): One or two trials of each kind instead of all.
    """

    folder: Path
    seed: int = 0
    jobs: int = 2
    quick: bool = False

    def count(self, number: int, quick: int = 2) -> int:
        """How many trials to make of so many."""
        return quick if self.quick else number

    def row(self, what: str, trial: Callable, arguments: Iterable, note: str = '') -> Row:
        """Run a trial for each argument.

        Args:
            what (str): What is tried.
            trial (Callable): Returns what went wrong, None if nothing did. Runs in a process of its own.
            arguments (Iterable): Its only argument, one for each trial.
            note (str): What else there is to say.
        """
        arguments = list(arguments)
        context = multiprocessing.get_context('fork')
        with ProcessPoolExecutor(self.jobs, context) as pool:
            outcomes = list(pool.map(_Guarded(trial), arguments))
        return Row(what, len(arguments), [outcome for outcome in outcomes if outcome is not None], note=note)


@dataclass
class _Guarded:
    """A trial that fails in a way nobody thought of is lost too, and does not end the campaign."""

    trial: Callable

    def __call__(self, argument: object) -> str | None:
        try:
            found = self.trial(argument)
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            found = f'{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})'
        return None if found is None else f'{argument}: {" ".join(found.split())}'[:500]
