"""The options for its report that a run's folder keeps."""

from __future__ import annotations

from distprof.config.option import Layer
from distprof.config.options import SHOWN
from distprof.errors import DataError, UsageError
from distprof.run_folder import RunFolder


def options_of_run(run: RunFolder) -> Layer:
    """Returns the options for its report that the run's folder keeps.  Raises DataError for an invalid one."""
    manifest = run.read_manifest()
    try:
        return {
            option.name: option.checked(manifest.shown[option.name], f"{option.name!r} in {run.manifest}")
            for option in SHOWN
            if manifest and option.name in manifest.shown
        }
    except UsageError as error:
        raise DataError(str(error)) from None
