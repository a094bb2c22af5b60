"""Requests to a Triton server, through its official client: timed, tried again while there is time, one line each."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from edge.engines.base import Array
from edge.engines.triton.address import Address
from edge.errors import EngineError

_GONE = ("UNAVAILABLE",)
_FIRST_WAIT, _LONGEST_WAIT = 0.05, 1.0
_MESSAGE = (1 << 31) - 1
_CHANNEL = [
    ("grpc.max_send_message_length", _MESSAGE),
    ("grpc.max_receive_message_length", _MESSAGE),
    # By default a channel waits up to two minutes before it looks for a server that was restarted. (The least is the
    # time one attempt to connect may take.)
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2000),
    ("grpc.max_reconnect_backoff_ms", 500),
    # Each session has a connection of its own: a closed one takes no other's with it.
    ("grpc.use_local_subchannel_pool", 1),
]

_Answer = TypeVar("_Answer")


class TritonClient:
    """A connection. One thread at a time."""

    def __init__(self, address: Address) -> None:
        """Connects at the first request."""
        from tritonclient import grpc

        self._grpc = grpc
        self.address = address
        self._client = grpc.InferenceServerClient(address.target, ssl=address.tls, channel_args=_CHANNEL)

    def server_version(self) -> str:
        """The server's version. Raises EngineError, as every request does, where it does not answer."""
        answer = self._ask(lambda left: self._client.get_server_metadata(client_timeout=left))
        return str(answer.version)

    def config(self, model: str) -> Any | None:
        """A model's `ModelConfig`; None where the server has no model of this name that is ready."""
        try:
            return self._ask(lambda left: self._client.get_model_config(model, client_timeout=left)).config
        except _RefusedError as error:
            if error.status in ("NOT_FOUND", "UNAVAILABLE", "INVALID_ARGUMENT"):
                return None
            raise

    def metadata(self, model: str, version: str) -> Any:
        """What a version takes and gives, as the server states it."""
        return self._ask(lambda left: self._client.get_model_metadata(model, version, client_timeout=left))

    def infer(self, model: str, version: str, batch: Mapping[str, Array], outputs: list[str]) -> dict[str, Array]:
        """Runs one batch: arrays by input, then by output, of the shapes in `metadata`. Raises EngineError."""
        inputs = []
        for name, array in batch.items():
            tensor = self._grpc.InferInput(name, list(array.shape), _datatype(array))
            inputs.append(tensor.set_data_from_numpy(array))
        wanted = [self._grpc.InferRequestedOutput(name) for name in outputs]
        answer = self._ask(
            lambda left: self._client.infer(
                model, inputs, version, wanted, client_timeout=left, timeout=int(left * 1e6)
            )
        )
        found = {name: answer.as_numpy(name) for name in outputs}
        if absent := [name for name, array in found.items() if array is None]:
            raise EngineError(f"{self.address}: {model} gave no {absent[0]}; serve this bundle again: edge triton")
        return found

    def close(self) -> None:
        """Ends the connection."""
        self._client.close()

    def _ask(self, request: Callable[[float], _Answer]) -> _Answer:
        """Asks until there is an answer, the server refuses, or the time is over."""
        from tritonclient.utils import InferenceServerException

        deadline, wait, gone = time.monotonic() + self.address.timeout, _FIRST_WAIT, False
        while True:
            try:
                return request(max(deadline - time.monotonic(), 1e-3))
            except InferenceServerException as error:
                status = str(error.status() or "").removeprefix("StatusCode.")
                late = status == "DEADLINE_EXCEEDED"
                if late and not gone:
                    raise EngineError(
                        f"{self.address}: no answer within {self.address.timeout:g} s; the server is overloaded or out "
                        "of reach (--triton-timeout)"
                    ) from error
                if not late and (status not in _GONE or _is_of_a_model(error)):
                    raise _RefusedError(f"{self.address}: {_first_line(error)}", status) from error
                if late or time.monotonic() + wait > deadline:
                    raise EngineError(
                        f"{self.address}: no Triton server answers there ({self.address.timeout:g} s); is it running, "
                        "and its gRPC port open?"
                    ) from error
            gone = True
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)


class _RefusedError(EngineError):
    """The server answered, and said no. status: gRPC's."""

    def __init__(self, message: str, status: str) -> None:
        super().__init__(message)
        self.status = status


def _is_of_a_model(error: Any) -> bool:
    """Whether the server itself says UNAVAILABLE, of a model, which is no connection that broke."""
    return "Request for unknown model" in str(error.message()) or "is not ready" in str(error.message())


def _datatype(array: Array) -> str:
    from tritonclient.utils import np_to_triton_dtype

    return str(np_to_triton_dtype(array.dtype))


def _first_line(error: Any) -> str:
    text = str(error.message()).strip()
    return text.splitlines()[0] if text else "the server refuses"
