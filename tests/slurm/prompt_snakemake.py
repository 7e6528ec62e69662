"""Snakemake as it is, except that it asks SLURM every second whether a job has ended.

The executor plugin waits ten seconds longer after each question that found nothing ended. That spares a busy
cluster; on a test's own cluster it would leave the machine idle for most of the time.
"""

import asyncio
import sys

from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor


async def sleep_one_second(executor: RemoteExecutor) -> None:
    await asyncio.sleep(1)


if __name__ == "__main__":
    RemoteExecutor.sleep = sleep_one_second
    main(sys.argv[1:])
