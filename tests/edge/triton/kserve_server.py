"""A KServe v2 server over gRPC, made from the schema that NVIDIA publishes in its client, for tests.

It serves a model repository as Triton lays it down: it reads each `config.pbtxt` with Triton's own schema, runs the
newest version's model.onnx through ONNX Runtime, and refuses what the configuration does not allow. It is written from
the protocol and knows nothing of arcedge's client: https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol

    python kserve_server.py REPOSITORY PORT       # prints the port once it serves
"""

from __future__ import annotations

import sys
import time
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime as ort
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

DTYPES = {"UINT8": np.uint8, "FP16": np.float16, "FP32": np.float32, "INT64": np.int64}
OF_CONFIG = {"TYPE_UINT8": "UINT8", "TYPE_FP16": "FP16", "TYPE_FP32": "FP32", "TYPE_INT64": "INT64"}


class Model:
    """One model of the repository, at its newest version."""

    def __init__(self, folder: Path) -> None:
        self.config = text_format.Parse((folder / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
        self.version = max((path.name for path in folder.iterdir() if path.name.isdecimal()), key=int)
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = 1
        file = str(folder / self.version / "model.onnx")
        self.session = ort.InferenceSession(file, settings, providers=["CPUExecutionProvider"])
        self.largest = 0
        """Rows of the largest request so far."""

    def tensors(self, fields: Any) -> dict[str, tuple[str, list[int]]]:
        """Datatype and shape by name, the batch first where the configuration batches."""
        batch = [-1] if self.config.max_batch_size > 0 else []
        names = model_config_pb2.DataType.Name
        return {field.name: (OF_CONFIG[names(field.data_type)], [*batch, *field.dims]) for field in fields}


class Service(service_pb2_grpc.GRPCInferenceServiceServicer):
    """What the protocol asks of a server, without streams, statistics and shared memory."""

    def __init__(self, repository: Path, delay: float = 0.0) -> None:
        """delay: seconds by which every inference is late."""
        self.delay = delay
        self.unloaded = ""
        """A model that is being loaded anew: the server says that it is not available."""
        folders = [path.parent for path in sorted(repository.glob("*/config.pbtxt"))]
        self.models = {folder.name: Model(folder) for folder in folders}

    def ServerLive(self, request: Any, context: Any) -> Any:  # noqa: N802 - the schema's name
        return service_pb2.ServerLiveResponse(live=True)

    def ServerReady(self, request: Any, context: Any) -> Any:  # noqa: N802 - the schema's name
        return service_pb2.ServerReadyResponse(ready=True)

    def ServerMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802 - the schema's name
        return service_pb2.ServerMetadataResponse(name="kserve-test", version="2.0-test", extensions=[])

    def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802 - the schema's name
        return service_pb2.ModelReadyResponse(ready=request.name in self.models)

    def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802 - the schema's name
        return service_pb2.ModelConfigResponse(config=self._model(request.name, request.version, context).config)

    def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802 - the schema's name
        model = self._model(request.name, request.version, context)
        answer = service_pb2.ModelMetadataResponse(
            name=request.name, versions=[model.version], platform=model.config.platform
        )
        for target, fields in ((answer.inputs, model.config.input), (answer.outputs, model.config.output)):
            for name, (datatype, shape) in model.tensors(fields).items():
                target.add(name=name, datatype=datatype, shape=shape)
        return answer

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802 - the schema's name
        time.sleep(self.delay)
        model = self._model(request.model_name, request.model_version, context)
        fed = {}
        for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True):
            datatype, shape = model.tensors(model.config.input)[tensor.name]
            given = list(tensor.shape)
            fits = len(given) == len(shape) and all(a in (-1, b) for a, b in zip(shape, given, strict=True))
            if tensor.datatype != datatype or not fits:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{tensor.name}: {tensor.datatype} {given}")
            if model.config.max_batch_size and given[0] > model.config.max_batch_size:
                context.abort(
                    grpc.StatusCode.INVALID_ARGUMENT,
                    f"inference request batch-size must be <= {model.config.max_batch_size} for '{request.model_name}'",
                )
            model.largest = max(model.largest, given[0])
            fed[tensor.name] = np.frombuffer(raw, DTYPES[datatype]).reshape(given)
        wanted = [output.name for output in request.outputs] or [output.name for output in model.session.get_outputs()]
        answer = service_pb2.ModelInferResponse(model_name=request.model_name, model_version=model.version)
        kinds = {DTYPES[key]: key for key in DTYPES}
        for name, array in zip(wanted, model.session.run(wanted, fed), strict=True):
            answer.outputs.add(name=name, datatype=kinds[array.dtype.type], shape=array.shape)
            answer.raw_output_contents.append(np.ascontiguousarray(array).tobytes())
        return answer

    def _model(self, name: str, version: str, context: Any) -> Model:
        model = self.models.get(name)
        if name == self.unloaded:
            context.abort(grpc.StatusCode.UNAVAILABLE, f"Request for unknown model: '{name}' has no available versions")
        if model is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{name}' is not found")
        if version not in ("", model.version):
            context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"Request for unknown model: '{name}' version {version} is not found",
            )
        return model


def serve(service: Service, port: int = 0, tls: tuple[bytes, bytes] | None = None) -> tuple[grpc.Server, int]:
    """A server that has begun, and its port. tls: private key and certificate, PEM."""
    server = grpc.server(futures.ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(service, server)
    if tls is None:
        bound = server.add_insecure_port(f"127.0.0.1:{port}")
    else:
        bound = server.add_secure_port(f"127.0.0.1:{port}", grpc.ssl_server_credentials([tls]))
    server.start()
    return server, bound


if __name__ == "__main__":
    started, where = serve(Service(Path(sys.argv[1])), int(sys.argv[2]))
    print(where, flush=True)
    started.wait_for_termination()
