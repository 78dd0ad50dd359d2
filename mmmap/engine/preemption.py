"""Stops a run on a signal: the signals, the agreement of several processes, and the exit status for a scheduler."""

import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import torch
from torch import distributed as torch_dist
from torch.utils.data import DataLoader

# EX_TEMPFAIL of sysexits.h: a temporary failure, try again later.
PREEMPTED_STATUS = 75
STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ('SIGTERM', 'SIGUSR1', 'SIGHUP', 'SIGINT') if hasattr(signal, name)
)
# tools/dist_train.sh sets it to a file that is written on preemption, as torchrun hides the status of its processes.
MARKER_VARIABLE = 'MMMAP_PREEMPTED_FILE'
# An attribute of handlers that are not restored after a training: after an error they must not report success.
FOR_THE_START = 'for_the_start'


class Preempted(SystemExit):
    """Ends the process of a run that a signal stopped without loss.

    The status is 75. It is 0 if a launcher takes any other status for a crash. Under ``tools/dist_train.sh`` a file
    reports the preemption, and the script exits with 75. In a Slurm step only the first rank exits with 75, as srun
    would kill it for the status of another rank.
    """

    def __init__(self) -> None:
        marker = os.environ.get(MARKER_VARIABLE)
        if marker:
            Path(marker).write_text('preempted\n')
        others = 'SLURM_PROCID' in os.environ and torch_dist.is_initialized() and torch_dist.get_rank() > 0
        super().__init__(0 if marker or others else PREEMPTED_STATUS)


class StopRequest:
    """Stores the first signal that asks the process to stop, and lets the program continue.

    A second SIGINT (Ctrl-C) ends the program at once. A SIGHUP or SIGINT that was ignored before, as under ``nohup``,
    stays ignored. Data loader workers, which are forks of this process, ignore the handlers.

    Attributes:
        signal_name (str | None): The name of the signal, None before the first.
    """

    def __init__(self) -> None:
        self.signal_name: str | None = None
        self._owner = os.getpid()
        self._former: dict[int, Any] = {}

    def watch(self, within: CodeType) -> None:
        """Set the signal handlers. Nothing happens outside the main thread.

        Args:
            within (CodeType): The code of the function that can be stopped. If a signal comes outside of it, as after
                an error in a notebook, the former handlers are restored.
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
        """Restore the former handlers, but for those that were only for the time before the training."""
        while self._former:
            number, handler = self._former.popitem()
            signal.signal(number, handler)

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
            # The interrupted code may hold the lock of the logger.
            os.write(2, f'{self.signal_name}: the run will save and stop.\n'.encode())


class StopAgreement:
    """Lets all processes of a run stop at the same step when one of them was asked to.

    Each step sends the request of the process to the others and reads the result of the step before, by a separate
    gloo group. So no step waits for a GPU. All processes must make the same number of steps.
    """

    def __init__(self) -> None:
        several = torch_dist.is_available() and torch_dist.is_initialized() and torch_dist.get_world_size() > 1
        self._group = torch_dist.new_group(backend='gloo') if several else None
        self._request = torch.zeros(1, dtype=torch.int32)
        self._sent: Any = None

    def step(self, stop: bool) -> bool:
        """Send whether this process was asked to stop.

        Returns:
            bool: Whether any process was asked one step ago; for a single process ``stop`` itself.
        """
        if self._group is None:
            return stop
        agreed = self._collect()
        if not agreed:
            self._request.fill_(stop)
            self._sent = torch_dist.all_reduce(self._request, torch_dist.ReduceOp.MAX, self._group, async_op=True)
        return agreed

    def _collect(self) -> bool:
        if self._sent is None:
            return False
        self._sent.wait()
        self._sent = None
        return bool(self._request)

    def least(self, number: int) -> int:
        """The minimum of a number over all processes; waits for all of them."""
        if self._group is None:
            return number
        least = torch.tensor([number])
        torch_dist.all_reduce(least, torch_dist.ReduceOp.MIN, self._group)
        return int(least)

    def meet(self) -> None:
        """Wait for all processes."""
        if self._group is not None:
            torch_dist.barrier(self._group)


def shield_workers(dataloader: DataLoader) -> None:
    """Make the workers of a data loader ignore signals to the whole process group, in place.

    Ctrl-C, ``timeout`` and Slurm also signal the workers. They would end, and the run with them before it could save.
    A shielded worker ends when its parent tells it to or ends. Workers that have started already are not changed.
    """
    init = dataloader.worker_init_fn
    if not (isinstance(init, partial) and init.func is _init_shielded):
        dataloader.worker_init_fn = partial(_init_shielded, init=init)


def _init_shielded(worker_id: int, init: Callable | None) -> None:
    for number in STOP_SIGNALS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, 'sigwaitinfo'):
        # The parent ends a hanging worker by SIGTERM. A handler does not learn the sender, sigwaitinfo does.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey_parent, args=(os.getppid(),), daemon=True).start()
    if init is not None:
        init(worker_id)


def _obey_parent(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
