"""A stand-in for ONNX Runtime's TensorRT provider, for machines without a GPU: it takes a model whole, and keeps an
engine and its profile in its cache folder as the real one does.

The real one (1.18 to 1.31) builds when a model of open shapes is run first, not when it is opened; loads
`NAME_sm87.engine` where that and `NAME_sm87.profile` are there, whoever wrote them; and writes both where they are not.
Here an engine is the word "engine" and a number, and the model is computed by the CPU's provider.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest

TENSORRT, CPU = "TensorrtExecutionProvider", "CPUExecutionProvider"


class Provider:
    """What happened to it. folders: the cache folder of each opening; loaded: each engine that was deserialised;
    built: how many were built. writes: whether engines are kept at all; refuses: what each first run ends with.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folders: list[Path] = []
        self.found: list[dict[str, bytes]] = []
        self.options: list[dict[str, str]] = []
        self.loaded: list[bytes] = []
        self.built = 0
        self.writes = True
        self.refuses: str | None = None
        real, provider = ort.InferenceSession, self

        class Session:
            def __init__(self, model: bytes, settings: Any, providers: Any, **others: Any) -> None:
                name, options = providers[0]
                self._name = f"TRTKernel_graph_{hashlib.sha256(model).hexdigest()[:12]}_0"
                self._options = dict(options) if name == TENSORRT else None
                self._session = real(model, settings, providers=[CPU])
                if self._options is not None:
                    provider.opened(self._options)

            def run(self, *given: Any) -> Any:
                if self._options is not None:
                    provider.prepare(self._options, self._name)
                    self._options = None
                return self._session.run(*given)

            def get_providers(self) -> list[str]:
                return [TENSORRT, CPU]

            def end_profiling(self) -> str:
                file = Path(self._session.end_profiling())
                file.write_text(file.read_text().replace(CPU, TENSORRT))
                return str(file)

            def __getattr__(self, name: str) -> Any:
                return getattr(self._session, name)

        monkeypatch.setattr(ort, "InferenceSession", Session)
        monkeypatch.setattr(ort, "get_available_providers", lambda: [TENSORRT, CPU])

    def opened(self, options: Mapping[str, str]) -> None:
        for name, value in options.items():
            # Words of 1.18.1 and 1.31.1.
            if name.endswith("_enable") and value not in ("True", "true", "False", "false"):
                raise RuntimeError(f"[ERROR] [TensorRT] The value for the key '{name}' should be 'True' or 'False'.")
        folder = Path(options["trt_engine_cache_path"])
        self.options.append(dict(options))
        self.folders.append(folder)
        self.found.append({file.name: file.read_bytes() for file in folder.iterdir()})

    def prepare(self, options: Mapping[str, str], name: str) -> None:
        folder = Path(options["trt_engine_cache_path"])
        engine, profile = (folder / f"{name}_sm87.{kind}" for kind in ("engine", "profile"))
        if engine.exists() and profile.exists():
            self.loaded.append(engine.read_bytes())
        else:
            self.built += 1
            if self.writes:
                profile.write_bytes(options.get("trt_profile_max_shapes", "").encode())
                engine.write_bytes(b"engine %d" % self.built)
        if self.refuses:
            raise RuntimeError(self.refuses)
