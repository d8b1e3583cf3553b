"""Models of a hub: `aejax.load("hf://user/name")`, with the package huggingface-hub.

A model there is a folder as `aejax export MODEL --folder DIR` writes it. Only its weights and JSON
files are fetched, into huggingface-hub's own cache, and nothing in them is run.
"""

import os
import pathlib
import re

from aejax.errors import UserError

PREFIX = "hf://"


def is_address(source: str | os.PathLike) -> bool:
    """Whether it is "hf://...", and no path."""
    return str(source).startswith(PREFIX)


def download(address: str) -> pathlib.Path:
    """The folder of "hf://user/name", or of "hf://user/name@revision", in the cache.

    HF_ENDPOINT is another hub's address, HF_HUB_CACHE another cache. Without a network the copy in
    the cache is taken.

    Raises:
      UserError: not of this form, huggingface-hub is not installed, there is no such model, or the
        hub cannot be reached and the cache has no copy.
    """
    match = re.fullmatch(rf"{PREFIX}([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", address)
    if not match:
        raise UserError(
            f'"{address}": a model of a hub is hf://user/name or hf://user/name@revision'
        )
    repository, revision = match.groups()
    try:
        from huggingface_hub import errors, snapshot_download
    except ImportError as e:
        raise UserError(f'{address} needs huggingface-hub: pip install "aejax[hf]"') from e
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    try:
        folder = snapshot_download(
            repository,
            revision=revision,
            endpoint=endpoint,
            cache_dir=os.environ.get("HF_HUB_CACHE"),
            allow_patterns=["*.json", "*.safetensors"],
        )
    except errors.RevisionNotFoundError as e:
        raise UserError(f'{address}: {repository} has no revision "{revision}"') from e
    except errors.RepositoryNotFoundError as e:
        raise UserError(
            f"{address}: {endpoint} has no model {repository}, or only for who is logged in "
            "(hf auth login)"
        ) from e
    except (errors.HfHubHTTPError, OSError, ValueError) as e:
        raise UserError(
            f"{address}: {endpoint} cannot be reached ({type(e).__name__}), and there is no copy "
            "in the cache; download the folder elsewhere and load it by its path"
        ) from e
    return pathlib.Path(folder)
