"""Models on the Hugging Face hub: `aejax.load("hf://user/name")`, with the package huggingface-hub.

A model on the hub is a folder as `aejax export MODEL --folder DIR` writes it. Only its .safetensors
and .json files are downloaded, to the cache of huggingface-hub; no code from it is run.
"""

import os
import pathlib
import re

from aejax.errors import UserError

PREFIX = "hf://"


def is_address(source: str | os.PathLike) -> bool:
    """Whether `source` is a hub address, "hf://...", and not a path."""
    return str(source).startswith(PREFIX)


def download(address: str) -> pathlib.Path:
    """Downloads "hf://user/name" or "hf://user/name@revision"; returns its folder in the cache.

    The environment variables HF_ENDPOINT and HF_HUB_CACHE select another hub and another cache.
    Without a network connection, the copy in the cache is used.

    Raises:
      UserError: the address is malformed, huggingface-hub is not installed, there is no such model,
        or the hub cannot be reached and there is no copy in the cache.
    """
    match = re.fullmatch(rf"{PREFIX}([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", address)
    if not match:
        raise UserError(f'"{address}": give hf://user/name or hf://user/name@revision')
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
            f"{address}: {endpoint} has no model {repository}; if it is private, log in first "
            "(hf auth login)"
        ) from e
    except (errors.HfHubHTTPError, OSError, ValueError) as e:
        raise UserError(
            f"{address}: {endpoint} cannot be reached ({type(e).__name__}), and there is no copy "
            "in the cache; download the folder elsewhere and load it by its path"
        ) from e
    return pathlib.Path(folder)
