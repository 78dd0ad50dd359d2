"""Ending a run on a signal: which signals, how several processes agree, and the status that tells a scheduler."""

import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import CodeType, FrameType

import torch
from torch import distributed as torch_dist
from torch.utils.data import DataLoader

# sysexits.h calls it EX_TEMPFAIL: nothing is wrong, try again later.
PREEMPTED_STATUS = 75
STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ('SIGTERM', 'SIGUSR1', 'SIGHUP', 'SIGINT') if hasattr(signal, name)
)
# Set by tools/dist_train.sh, as torchrun hides the status of its processes: the file is there once a run was preempted.
MARKER_VARIABLE = 'MMMAP_PREEMPTED_FILE'
# An attribute of handlers that a training replaces for good: after an error in it they must not say that all is well.
FOR_THE_START = 'for_the_start'


class Preempted(SystemExit):
    """Ends the process of a run that a signal stopped and that lost nothing.

    The status is 75. Where a launcher takes any status but 0 for a crash it is 0: under ``tools/dist_train.sh``, which
    learns of it by a file and ends with 75 itself, and in a Slurm step for all ranks but the first, which srun would
    kill for the status of another.
    """

    def __init__(self) -> None:
        marker = os.environ.get(MARKER_VARIABLE)
        if marker:
            Path(marker).write_text('preempted\n')
        others = 'SLURM_PROCID' in os.environ and torch_dist.is_initialized() and torch_dist.get_rank() > 0
        super().__init__(0 if marker or others else PREEMPTED_STATUS)


class StopRequest:
    """Notes the first signal that asks the process to stop, and lets the program go on.

    A second SIGINT (Ctrl-C) ends the program at once, as usual. A SIGHUP or SIGINT that was ignored before, as under
    ``nohup``, stays ignored. The data-loader workers, forks of this process, take no note.

    Attributes:
        signal_name (str | None): The name of the signal, None as long as there was none.
    """

    def __init__(self) -> None:
        self.signal_name: str | None = None
        self._owner = os.getpid()
        self._former: dict[int, object] = {}

    def watch(self, within: CodeType) -> None:
        """Take the signals over; only the main thread of a process can, elsewhere nothing happens.

        Args:
            within (CodeType): The code of the function whose calls can be stopped. When a signal finds the program
                outside it, as after an error in a notebook, the signals go back to those who had them.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        self._within = within
        for number in STOP_SIGNALS:
            former = signal.getsignal(number)
            if former is signal.SIG_IGN and number in (signal.SIGHUP, signal.SIGINT):
                continue
            if former is None or hasattr(former, FOR_THE_START):
                former = signal.SIG_DFL
            self._former[number] = former
            signal.signal(number, self._note)

    def release(self) -> None:
        """Give the signals back to those who had them, but for handlers that were for the time before the training."""
        while self._former:
            signal.signal(*self._former.popitem())

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:
            return
        while frame is not None and frame.f_code is not self._within:
            frame = frame.f_back
        if frame is None:
            self.release()
            os.kill(os.getpid(), number)
            return
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if self.signal_name is None:
            self.signal_name = signal.Signals(number).name
            # Not by the logger, whose lock the interrupted code may hold.
            os.write(2, f'{self.signal_name}: the run will save and stop.\n'.encode())


class Agreement:
    """Tells all processes of a run at the same step that one of them was asked to stop.

    Each step sends the wish of the process to the others and reads what the step before has collected, over a gloo
    group of its own: no step waits for a GPU. All processes must make the same number of steps.
    """

    def __init__(self) -> None:
        several = torch_dist.is_available() and torch_dist.is_initialized() and torch_dist.get_world_size() > 1
        self._group = torch_dist.new_group(backend='gloo') if several else None
        self._wish = torch.zeros(1, dtype=torch.int32)
        self._sent = None

    def step(self, stop: bool) -> bool:
        """Send the wish of this process.

        Args:
            stop (bool): Whether it was asked to stop.

        Returns:
            bool: Whether any process wished so one step ago; of a single process, its own wish of now.
        """
        if self._group is None:
            return stop
        agreed = self._collect()
        if not agreed:
            self._wish.fill_(stop)
            self._sent = torch_dist.all_reduce(self._wish, torch_dist.ReduceOp.MAX, self._group, async_op=True)
        return agreed

    def _collect(self) -> bool:
        if self._sent is None:
            return False
        self._sent.wait()
        self._sent = None
        return bool(self._wish)

    def least(self, number: int) -> int:
        """The least of a number that each process has; waits for all of them.

        Args:
            number (int): That of this process.
        """
        if self._group is None:
            return number
        least = torch.tensor([number])
        torch_dist.all_reduce(least, torch_dist.ReduceOp.MIN, self._group)
        return int(least)

    def meet(self) -> None:
        """Wait until all processes are here."""
        if self._group is not None:
            torch_dist.barrier(self._group)


def shield_workers(dataloader: DataLoader) -> None:
    """Let the workers of a data loader live through signals that go to a whole group of processes, in place.

    Ctrl-C, ``timeout`` and Slurm signal the workers as well, which would end them, and with them the run before it
    could save. A shielded worker ends when its parent says so or is gone.

    Args:
        dataloader (DataLoader): Workers that it has already started are not reached.
    """
    init = dataloader.worker_init_fn
    if not (isinstance(init, partial) and init.func is _init_shielded):
        dataloader.worker_init_fn = partial(_init_shielded, init=init)


def _init_shielded(worker_id: int, init: Callable | None) -> None:
    for number in STOP_SIGNALS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, 'sigwaitinfo'):
        # SIGTERM is also how the parent ends a worker that hangs: the sender decides, which a handler is not told.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey_parent, args=(os.getppid(),), daemon=True).start()
    if init is not None:
        init(worker_id)


def _obey_parent(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
