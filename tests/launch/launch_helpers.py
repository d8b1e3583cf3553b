"""Filled templates, for the tests of this folder."""

import argparse
import pathlib
import warnings

import pytest

from aejax.engines import cli
from aejax.engines.plan import make_jobs

HERE = pathlib.Path(__file__).parent
SETTINGS = {
    "local": ["program=aejax", "workers=2"],
    "slurm": ["program=aejax", "partition=gpu", "gres=gpu:4", "tasks_per_node=2"],
    "gke": [
        *("image=europe-docker.pkg.dev/p/r/aejax:1", "bucket=my-runs", "spot=true"),
        "source=git+https://github.com/me/aejax@0123abc",
    ],
    "tpu_vm": [
        *("project=p", "zone=us-west4-a", "bucket=my-runs"),
        "source=git+https://github.com/me/aejax@0123abc",
    ],
    "sky": [
        *("bucket=gs://my-runs", "runtime=v2-alpha-tpuv5-lite"),
        "source=git+https://github.com/me/aejax@0123abc",
    ],
}


def arguments(engine, *more, study="tiny_study.py:smoke", settings=None):
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    texts = SETTINGS.get(engine, []) if settings is None else settings
    sets = [w for text in texts for w in ("--set", text)]
    overrides = [m for m in more if m.startswith("--config.")]
    args = parser.parse_args([engine, study, *sets, *(m for m in more if m not in overrides)])
    args.overrides = overrides
    return args


def files_of(engine, *more, **kwargs):
    return jobs(arguments(engine, *more, **kwargs)).files


def jobs(args):
    return make_jobs(cli.request_of(args))


def skip_loudly(reason):
    warnings.warn(f"NOT CHECKED: {reason}", stacklevel=2)
    pytest.skip(reason)
