"""Reads the shards of a run on the workers of a Dask cluster, for runs that outgrow one machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from distprof.errors import DataError, UsageError, said
from distprof.merge.load.reading import Executors

if TYPE_CHECKING:
    from concurrent.futures import Executor

#: Seconds in which a scheduler has to answer.
_CONNECT_S = 30.0


def on_dask(address: str) -> Executors:
    """Returns what gives the executor of the cluster whose scheduler is at ``address``.

    The workers have distprof, and see the run's folder under the same path.  Raises UsageError if the package
    ``distributed`` is missing, or no scheduler answers.
    """
    try:
        from distributed import Client, KilledWorker
    except ImportError:
        raise UsageError("the package distributed is missing: pip install 'distprof[dask]'") from None

    @contextmanager
    def executors(size: int) -> Iterator[Executor]:
        try:
            client = Client(address, timeout=_CONNECT_S, set_as_default=False)
        except (OSError, ValueError) as error:
            raise UsageError(f"no scheduler of Dask answers at {address}: {said(error)}") from None
        with client:
            try:
                yield client.get_executor(pure=False)  # else a result of the same files at another time would be used
            except (KilledWorker, ImportError) as error:
                raise DataError(f"the workers of Dask at {address} could not read the run: {said(error)}") from None

    return executors
