"""torchrun for the dist_*.sh scripts, but without a second traceback after the error line of the failed process."""

import sys

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main

if __name__ == '__main__':
    try:
        main()
    except SignalException as error:
        sys.exit(f'error: torchrun was stopped by {error.sigval.name}')
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode > 0:
            why = f'ended with status {failure.exitcode}, its own error line says why'
        else:
            why = f'was killed by signal {-failure.exitcode}; signal 9 often means that the machine is out of memory'
        sys.exit(f'error: the process of rank {rank} {why}')
