"""Studies: many runs of one experiment, trained once each by any number of processes.

    definition.py   Study, the helpers that list its runs, a run and its id
    search.py       searches: the next runs follow from the finished ones
    store.py        the files of a study's folder
    state.py        which runs there are, and which are done, failed or open
    worker.py       one process: takes the lease of a run, trains it, goes on with the next
    pool.py         several such processes on this machine
    run.py          run_study: trains all runs that are not done, then writes the report
    cli.py          `aejax study`

The names below are imported when they are first used: `import aejax.study` needs neither JAX nor
NumPy.
"""

import importlib
from typing import Any

_PUBLIC = {
    "Study": "definition",
    "Search": "definition",
    "grid": "definition",
    "named": "definition",
    "seeds": "definition",
    "product": "definition",
    "load": "definition",
    "Run": "definition",
    "run_id": "definition",
    "list_runs": "definition",
    "resolve": "definition",
    "load_results": "store",
    "run_study": "run",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'aejax.study' has no attribute {name!r}")
    return getattr(importlib.import_module(f"aejax.study.{_PUBLIC[name]}"), name)
