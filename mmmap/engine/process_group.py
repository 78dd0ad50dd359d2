"""Starts and ends the process group of a distributed run."""

import logging
import os
import subprocess
import sys
from datetime import timedelta

import torch.distributed as torch_dist
from mmengine.config import Config
from mmengine.device import get_device

from ..utils.errors import UserError

# Launcher -> its variables for the rank, the number of processes and the rank on this machine.
_RANK_VARIABLES = {
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
    'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK'),
}


def leave_process_group(status: int = 0) -> None:
    """Wait for all processes of a distributed run, then end its process group. Does nothing in other runs.

    A gloo group sometimes hangs when it is destroyed while the interpreter ends. So a process with gloo flushes its
    output and ends here, with the exit status ``status``.
    """
    if not torch_dist.is_initialized():
        return
    torch_dist.barrier()
    if torch_dist.get_backend() != 'gloo':
        torch_dist.destroy_process_group()
        return
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def init_cpu_process_group(cfg: Config) -> None:
    """Start the process group of a distributed run without an accelerator; mmengine would call CUDA.

    Call it after :func:`~mmmap.engine.cpu_config.adapt_to_cpu` and before the Runner is built. Nothing happens with an
    accelerator, without a launcher, or if there is a group already.

    Raises:
        UserError: If a variable of the launcher is not set.
    """
    launcher = cfg.get('launcher', 'none')
    if launcher == 'none' or get_device() != 'cpu' or torch_dist.is_initialized():
        return
    try:
        for ours, theirs in zip(('RANK', 'WORLD_SIZE', 'LOCAL_RANK'), _RANK_VARIABLES.get(launcher, ()), strict=False):
            os.environ[ours] = os.environ[theirs]
        if launcher == 'slurm' and 'MASTER_ADDR' not in os.environ:
            nodes = subprocess.check_output(
                ['scontrol', 'show', 'hostnames', os.environ['SLURM_NODELIST']], text=True
            ).split()
            os.environ['MASTER_ADDR'] = nodes[0]
        if launcher != 'pytorch':
            os.environ.setdefault('MASTER_PORT', '29500')
        for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT'):
            os.environ[name]
    except KeyError as error:
        raise UserError(f'--launcher {launcher}: the variable {error.args[0]} is not set by the launcher') from error
    options = dict(cfg.env_cfg.dist_cfg)
    if options.get('timeout') is not None:
        options['timeout'] = timedelta(seconds=options['timeout'])
    torch_dist.init_process_group(**options)
