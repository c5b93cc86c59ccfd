"""Where a checkpoint is: a directory, or a repository on the Hugging Face hub."""

import re
from pathlib import Path

import huggingface_hub
import huggingface_hub.errors

from flowjax.errors import FlowjaxError
from flowjax_convert.source import INDEX, no_safetensors

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
PATTERNS = (
    "*.safetensors",
    INDEX,
    "config.json",
    "adapter_config.json",
    "tokenizer.json",
    "preprocessor_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "video_processor/preprocessor_config.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)


def local_directory(src: str | Path, revision: str | None = None) -> Path:
    """The checkpoint's directory, after downloading it if `src` names a repository.

    The hub's client honours HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN and HF_HOME, resumes a download
    that was cut off, and keeps what it has downloaded.

    Raises:
        FlowjaxError: neither a directory nor a repository that can be read.
    """
    path = Path(src)
    if str(src) and path.is_dir():
        if revision is not None:
            raise FlowjaxError(f"{src} is a directory; --revision is for hub repositories")
        return path
    if path.exists() or isinstance(src, Path) or not REPOSITORY.fullmatch(src):
        raise FlowjaxError(
            f"{src} is neither a directory nor the id of a hub repository (ORGANISATION/NAME)"
        )
    return download(src, revision)


def download(repository: str, revision: str | None) -> Path:
    """The files of a hub repository that a conversion reads, in the hub's cache.

    Raises:
        FlowjaxError: says what went wrong with which repository, and what to do.
    """
    errors = huggingface_hub.errors
    at = f" at revision {revision!r}" if revision else ""
    try:
        found = huggingface_hub.snapshot_download(
            repository,
            revision=revision,
            allow_patterns=list(PATTERNS),
            ignore_patterns=["*/*.safetensors"],
        )
    except errors.GatedRepoError as error:
        raise FlowjaxError(
            f"{repository}: access is restricted; ask for it on the repository's page, then log "
            "in with `hf auth login` or set HF_TOKEN"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise FlowjaxError(
            f"{repository}: revision {revision!r} does not exist; give a branch, tag or commit of "
            "the repository with --revision"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise FlowjaxError(
            f"{repository}: no such repository on {huggingface_hub.constants.ENDPOINT}, or it is "
            "private; check the id, or log in with `hf auth login` or set HF_TOKEN"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        if huggingface_hub.constants.HF_HUB_OFFLINE:
            raise FlowjaxError(
                f"{repository}{at} is not (wholly) in the local cache, and HF_HUB_OFFLINE forbids "
                "downloading; unset it, or give a local directory"
            ) from error
        raise FlowjaxError(
            f"{repository}{at}: cannot be had from {huggingface_hub.constants.ENDPOINT} "
            f"({_reason(error.__cause__ or error)}) and is not in the local cache; check the "
            "connection (HF_ENDPOINT names another server)"
        ) from error
    except Exception as error:  # whatever the client or its HTTP library raises
        if _status(error) == 401:
            raise FlowjaxError(
                f"{repository}: {huggingface_hub.constants.ENDPOINT} refuses your token; log in "
                "again with `hf auth login`, or set or unset HF_TOKEN"
            ) from error
        raise FlowjaxError(
            f"{repository}{at}: download failed ({_reason(error)}); run the command again, it goes "
            "on where it stopped"
        ) from error
    directory = Path(found)
    if not any(directory.glob("*.safetensors")):
        raise no_safetensors(repository, _file_names(repository, revision))
    return directory


def _file_names(repository: str, revision: str | None) -> list[str]:
    """All files of the repository, or none where the hub does not say."""
    try:
        return huggingface_hub.HfApi().list_repo_files(repository, revision=revision)
    except Exception:  # whatever the client or its HTTP library raises
        return []


def _reason(error: BaseException) -> str:
    """An error of the hub's client in one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _status(error: BaseException) -> int | None:
    """The HTTP status that an error of the hub's client reports."""
    return getattr(getattr(error, "response", None), "status_code", None)
