"""Runs the stages of the rows, also several at once, and continues interrupted runs."""

import ctypes
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from mmmap.engine.checkpoint_files import AtomicLocalBackend
from mmmap.engine.preemption import PREEMPTED_STATUS
from mmmap.utils.errors import UserError

from .compose import ROOT
from .stage import Stage, StageError, StageStopped, collect

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Launcher:
    """How a training is started.

    Args:
        gpus (int): Processes of a training; 1 needs no launcher.
        slurm (str, optional): Partition of a Slurm cluster.
        threads (int, optional): Threads of each process; None leaves it to torch.
        facts (dict): What the report tells of machine and command.
        compile (str, optional): Mode in which each training is compiled.
        devices (tuple[str, ...]): GPUs that trainings with one process take in turn; none leaves it to torch.
    """

    gpus: int = 1
    slurm: str | None = None
    threads: int | None = None
    facts: dict = field(default_factory=dict)
    compile: str | None = None
    devices: tuple[str, ...] = ()

    def command(self, stage: Stage) -> list[str]:
        """The command line of a stage."""
        tool = 'train' if stage.tested is None else 'test'
        what = [str(stage.config_file)] + ([] if stage.tested is None else [str(stage.tested)])
        options = ['--work-dir', str(stage.work_dir)] + (['--resume'] if stage.tested is None else [])
        if self.compile is not None and stage.tested is None:
            options += ['--compile', self.compile]
        if self.slurm:
            return [str(ROOT / f'tools/slurm_{tool}.sh'), self.slurm, f'{stage.name}', *what, *options]
        if self.gpus > 1:
            return [str(ROOT / f'tools/dist_{tool}.sh'), *what, str(self.gpus), *options]
        return [sys.executable, str(ROOT / f'tools/{tool}.py'), *what, *options]

    def environment(self, job: int = 0) -> dict[str, str]:
        """The environment variables of a stage that runs as one of several jobs, counted from 0."""
        variables = os.environ | dict(PYTHON=sys.executable, GPUS=str(self.gpus), PYTHONUNBUFFERED='1')
        variables['PYTHONPATH'] = os.pathsep.join(filter(None, [str(ROOT), variables.get('PYTHONPATH')]))
        if self.threads is not None:
            variables['OMP_NUM_THREADS'] = str(self.threads)
        if self.devices and self.gpus == 1 and not self.slurm:
            variables['CUDA_VISIBLE_DEVICES'] = self.devices[job % len(self.devices)]
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            variables['PORT'] = str(free.getsockname()[1])
        return variables


def _die_with_parent() -> Callable[[], None] | None:
    """Called in a child, to end it with this process, even after kill -9: two must not train in one folder."""
    if not sys.platform.startswith('linux'):
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@dataclass
class Run:
    """A row with a seed.

    Args:
        row (str): Name of the row.
        seed (int): The seed.
        stages (list[Stage]): What to do, in this order.
    """

    row: str
    seed: int
    stages: list[Stage]

    def __str__(self) -> str:
        return f'{self.row} seed {self.seed}'


def refuse_other_settings(runs: Iterable[Run], restart: bool) -> list[str]:
    """Find files of runs with other settings.

    Args:
        runs (Iterable[Run]): What is to be done.
        restart (bool): Throw these files away, and those of the stages that build on them.

    Returns:
        list[str]: A line for each stage that was thrown away.

    Raises:
        UserError: If there are any and ``restart`` is off.
    """
    messages = []
    for run in runs:
        stale = False
        for stage in run.stages:
            difference = stage.difference()
            if difference and not restart and stage.has_progress():
                raise UserError(
                    f'{run}: its {stage.name} in {stage.folder} was started with other settings: {difference}: '
                    'use another --out, or --restart to throw such runs away'
                )
            if difference and stage.has_progress():
                messages.append(f'{run}: starting {stage.name} again: {difference}')
            # Stages that start from its weights are outdated too; kNN and probe do not start from the fine-tuning.
            if difference or stale:
                stage.remove()
            stale = stale or bool(difference and stage.name == 'pretrain')
    return messages


class Runner:
    """Runs rows.

    Args:
        launcher (Launcher): Starts the trainings.
    """

    def __init__(self, launcher: Launcher) -> None:
        self.launcher = launcher
        #: Stages that are running and the process of each, for those who watch.
        self.running: dict[str, tuple[Run, Stage, float]] = {}
        self._processes: dict[str, subprocess.Popen] = {}
        self._lock = threading.Lock()
        self._stopped = False
        #: Whether no row failed, but for those that a signal stopped.
        self.only_stopped = True
        self._jobs: queue.SimpleQueue[int] = queue.SimpleQueue()

    def run_all(self, runs: list[Run], jobs: int, tick: Callable[[], None], done: Callable[[Run], None]) -> list[str]:
        """Run rows to their end.

        Args:
            runs (list[Run]): The rows, in the order in which they start.
            jobs (int): How many side by side.
            tick (Callable): Called about twice a second.
            done (Callable): Called with each row that is complete.

        Returns:
            list[str]: One line for each row that failed or was stopped.
        """
        failures = []
        for job in range(jobs):
            self._jobs.put(job)
        with ThreadPoolExecutor(jobs) as pool:
            futures = {pool.submit(self._run, run): run for run in runs}
            try:
                waiting = set(futures)
                while waiting:
                    finished, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
                    for future in finished:
                        error = future.exception()
                        if error is None:
                            done(futures[future])
                        elif isinstance(error, StageError):
                            is_stop = isinstance(error, StageStopped)
                            self.only_stopped &= is_stop
                            failures.append(f'{futures[future]}: {error}')
                            print(f'{"stopped" if is_stop else "failed"}: {failures[-1]}', file=sys.stderr, flush=True)
                        else:
                            raise error
                    tick()
            except BaseException:
                self._stop(futures)
                raise
        return failures

    def _stop(self, futures: Iterable) -> None:
        with self._lock:
            self._stopped = True
            for process in self._processes.values():
                process.terminate()
        for future in futures:
            future.cancel()

    def _run(self, run: Run) -> None:
        job = self._jobs.get()
        try:
            for stage in run.stages:
                if not stage.result_file.is_file():
                    self._run_stage(run, stage, job)
        finally:
            self._jobs.put(job)

    def _run_stage(self, run: Run, stage: Stage, job: int) -> None:
        try:
            self._train(run, stage, job)
        finally:
            self.running.pop(str(stage.folder), None)
            self._processes.pop(str(stage.folder), None)

    def _train(self, run: Run, stage: Stage, job: int) -> None:
        stage.write_config()
        key = str(stage.folder)
        with open(stage.log_file, 'ab') as log, self._lock:
            if self._stopped:
                raise StageError('stopped')
            start = log.tell()
            process = subprocess.Popen(
                self.launcher.command(stage),
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=self.launcher.environment(job),
                preexec_fn=_die_with_parent(),
            )
            self._processes[key] = process
            self.running[key] = (run, stage, time.monotonic())
        status = process.wait()
        if status == PREEMPTED_STATUS:
            raise StageStopped(
                f'{stage.name}: a signal stopped it, its state is saved; the same command goes on from it'
            )
        if status != 0:
            with open(stage.log_file, 'rb') as log:
                log.seek(start)
                lines = [line.strip() for line in log.read().decode(errors='replace').splitlines() if line.strip()]
            errors = [line for line in lines if line.startswith('error')]
            last = (errors or lines or [f'exit status {process.returncode}'])[-1]
            raise StageError(f'{stage.name}: {last} (log: {stage.log_file})')
        text = json.dumps(collect(stage) | self.launcher.facts, indent=1) + '\n'
        AtomicLocalBackend().put_text(text, stage.result_file)
