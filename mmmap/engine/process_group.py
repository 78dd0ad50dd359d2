"""Start and end of the processes of a distributed run."""

import logging
import os
import subprocess
import sys
from datetime import timedelta

import torch.distributed as torch_dist
from mmengine.config import Config
from mmengine.device import get_device

from .errors import UserError

# Launcher -> where it says the rank, the number of processes and the rank on this machine.
_RANK_VARIABLES = {
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
    'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK'),
}


def leave_process_group(status: int = 0) -> None:
    """End a distributed run once all its processes have come this far.

    Takes down nccl's group. A gloo group taken down while the interpreter ends was seen to hang in some runs, so a
    process in one ends at once, its output flushed. Does nothing outside a distributed run.

    Args:
        status (int): The exit status of a process that ends here.
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
    """Start the process group of a distributed run without an accelerator, before the Runner is built.

    mmengine's own start calls CUDA. Does nothing with an accelerator, without a launcher, or when the group is there.

    Args:
        cfg (Config): A config that :func:`~mmmap.engine.device.adapt_to_device` has seen.

    Raises:
        UserError: If the launcher did not set the variables it should.
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
