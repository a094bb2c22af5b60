"""The errors a user can cause: each prints as one line, what is wrong and what to do. A bug keeps its traceback."""

from __future__ import annotations


class EdgeError(Exception):
    """Base of everything `edge` reports in one line. `exit_code` is the status the command line ends with."""

    exit_code = 2


class InputError(EdgeError):
    """A file, folder or argument the user named cannot be used."""


class DiskFullError(InputError):
    """A file cannot be written as its disk has no room, which it may have again."""


class ContractError(EdgeError):
    """A model and what is asked of it do not fit: wrong role, size, template, or vectors of another model."""


class BundleError(EdgeError):
    """A bundle is missing, damaged, of another version, or lacks the variant asked for."""


class EngineError(EdgeError):
    """An engine cannot open or run a model on this machine."""


class DivergenceError(EngineError):
    """An engine runs, but gives something else than its model."""


class MissingExtraError(EdgeError):
    """A package that only an extra installs is not there."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} is not installed; install it with: {how_to_install(extra)}")
        self.extra = extra


def end_if_interrupted(error: ImportError) -> None:
    """Raises KeyboardInterrupt where Ctrl-C is why a package could not be imported: pybind11 hides it as the cause."""
    if isinstance(error.__cause__, KeyboardInterrupt):
        raise KeyboardInterrupt from error


def how_to_install(extra: str) -> str:
    """What brings an extra, as a user types it. PyPI's TensorRT is not for Jetsons."""
    from edge.jetson import is_jetson  # not for everybody who imports errors: the health check runs every minute

    if extra == "tensorrt" and is_jetson():
        return "docker build -f Dockerfile.jetson, which has NVIDIA's"
    return f"pip install 'arcedge[{extra}]'"


class GalleryError(EdgeError):
    """A gallery is missing, damaged, bound to another model, or does not hold what is asked for."""


class SourceError(EdgeError):
    """A camera, video, folder or stream cannot be opened or read."""


class DownloadError(EdgeError):
    """Weights cannot be fetched: no network, a server that fails, or bytes that are not those of their digest."""


class GateError(EdgeError):
    """A measured figure is outside its budget, so that nothing was written."""

    exit_code = 3
