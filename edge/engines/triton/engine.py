"""The engine `triton`: a session is a connection to a model that was found to be the bundle's."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.metadata import version
from importlib.util import find_spec

import numpy as np

from edge.engines.base import Array, Engine, Session, SessionOptions, TensorSpec
from edge.engines.onnxruntime import model_specs
from edge.engines.triton.address import URL_ENVIRONMENT, Address
from edge.engines.triton.agreement import MODELS, Served, find_served, require_same
from edge.engines.triton.client import TritonClient
from edge.errors import EngineError, MissingExtraError


class TritonSession(Session):
    """A model of a server. Its version is held: where the server moves on to another, requests fail."""

    def __init__(
        self, client: TritonClient, served: Served, specs: tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]
    ) -> None:
        super().__init__()
        self._client, self._served = client, served
        self.inputs, self.outputs = specs
        self._names = [spec.name for spec in self.outputs]
        self._server = client.server_version()

    def describe(self) -> dict[str, str]:
        return {
            "engine": "triton",
            "version": self._server,
            "device": str(self._client.address),
            "model": f"{self._served.name} version {self._served.version} ({self._served.variant})",
            "max_batch": str(self._served.most),
        }

    def _run_impl(self, batch: Mapping[str, Array]) -> dict[str, Array]:
        rows = len(next(iter(batch.values())))
        step = self._served.most or rows
        parts = [
            self._infer({name: array[i : i + step] for name, array in batch.items()}) for i in range(0, rows, step)
        ]
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in self._names}

    def _infer(self, batch: Mapping[str, Array]) -> dict[str, Array]:
        whole = {name: np.ascontiguousarray(array) for name, array in batch.items()}
        return self._client.infer(self._served.name, self._served.version, whole, self._names)

    def _close_impl(self) -> None:
        self._client.close()


class TritonEngine(Engine):
    """See the module. address: of the server; None for the one that the environment names."""

    name = "triton"
    extra = "triton"

    def __init__(self, address: Address | None = None) -> None:
        self._address = address

    def available(self) -> str | None:
        if find_spec("tritonclient") is None or find_spec("grpc") is None:
            return str(MissingExtraError("the client of Triton", self.extra))
        return None

    def version(self) -> str:
        return f"client {version('tritonclient')}"

    def open(self, model: bytes, options: SessionOptions) -> TritonSession:
        address = self._address or Address.from_environment()
        if address is None:
            raise EngineError(f"triton: no server is named; give --triton-url HOST:8001, or set {URL_ENVIRONMENT}")
        specs, client = model_specs(model), TritonClient(address)
        try:
            configs = {name: config for name in MODELS if (config := client.config(name)) is not None}
            digest = hashlib.sha256(model).hexdigest()
            served = find_served(configs, digest, options.contract, str(address))
            metadata = client.metadata(served.name, served.version)
            require_same(metadata, *specs, f"{address}: {served.name}")
            return TritonSession(client, served, specs)
        except BaseException:
            client.close()
            raise
