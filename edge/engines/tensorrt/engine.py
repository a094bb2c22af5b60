"""The engine: finds a plan for this device in the cache, or builds one and proves it, and opens it."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from edge.cuda.device import missing_backend, open_device
from edge.cuda.driver import DeviceInfo
from edge.cuda.protocol import CudaDevice
from edge.engine_cache import EngineCache, EngineIdentity, Passport
from edge.engines.base import Array, Engine, SessionOptions
from edge.engines.tensorrt import api
from edge.engines.tensorrt.builder import build_plan
from edge.engines.tensorrt.onnx_file import OnnxFile
from edge.engines.tensorrt.options import TensorRtOptions
from edge.engines.tensorrt.parity import compare, made_up_pictures, require_parity
from edge.engines.tensorrt.session import LoadedPlan, TensorRtSession
from edge.errors import DivergenceError, EngineError

REAL, MADE_UP_PICTURES = "real pictures", "made-up pictures"
"""What a passport says an engine was held against ONNX Runtime on."""

_log = logging.getLogger(__name__)


class TensorRtEngine(Engine):
    """See the module. `options` say how engines are built and kept.

    defaults: where none are given, as where an engine is opened by its name.
    """

    name = "tensorrt"
    extra = "tensorrt"
    defaults: ClassVar[TensorRtOptions] = TensorRtOptions()

    def __init__(self, options: TensorRtOptions | None = None) -> None:
        self.options = options or self.defaults

    def available(self) -> str | None:
        if missing := missing_backend():
            return missing
        try:
            api.load()
        except EngineError as error:
            return str(error)
        except Exception as error:  # MissingExtraError, or a package that does not load here
            return f"tensorrt cannot be used: {error}"
        return None

    def version(self) -> str:
        return str(api.load().__version__)

    def open(self, model: bytes, options: SessionOptions) -> TensorRtSession:
        # There is one device TensorRT can run on: naming the engine names it.
        return self.load(model).open()

    def load(self, model: bytes) -> ReadyPlan:
        """The engine of a model for this device, built and proved where the cache has none. Raises EngineError."""
        trt = api.load()
        device = device_of(self.options.backend)
        identity = identity_of(trt, model, device.info, self.options)
        folder = EngineCache(self.options.cache)
        kept = folder.find(identity)  # without a lock: engines may lie where nobody may write
        if kept is None:
            with folder.alone(identity):
                kept = folder.find(identity)
                if kept is None:
                    return self._build(trt, device, model, identity, folder)
        return self._reopened(LoadedPlan(trt, device, kept[0]), *kept, model, folder)

    def _reopened(
        self, loaded: LoadedPlan, plan: bytes, passport: Passport, model: bytes, folder: EngineCache
    ) -> ReadyPlan:
        """An engine of the cache. Where real pictures are given and it was proved on others, they judge it now."""
        if self.options.probes is None or passport.facts["parity"]["on"] == REAL:
            return ReadyPlan(loaded, passport)
        try:
            parity = self._prove(loaded, model, passport.identity.precision)
        except DivergenceError:
            # Other errors, as a GPU whose memory others have taken, say nothing of the plan.
            folder.remove(passport.identity)
            raise
        return ReadyPlan(loaded, folder.store(passport.identity, plan, {**passport.facts, "parity": parity}))

    def _build(
        self, trt: Any, device: CudaDevice, model: bytes, identity: EngineIdentity, folder: EngineCache
    ) -> ReadyPlan:
        timings = folder.folder / timings_name(identity)
        before = _read_if_there(timings)
        # Kept whatever the proof says: what was timed took minutes, and is true of the device.
        built = build_plan(trt, model, self.options, before, _log.warning, lambda found: folder.write(timings, found))
        loaded = LoadedPlan(trt, device, built.data)
        facts = {
            "seconds": round(built.seconds, 1),
            "in_float": list(built.in_float),
            "parity": self._prove(loaded, model, identity.precision),
        }
        return ReadyPlan(loaded, folder.store(identity, built.data, facts))

    def _prove(self, loaded: LoadedPlan, model: bytes, precision: str) -> dict[str, Any]:
        """Holds a new engine against ONNX Runtime on the CPU.

        Raises DivergenceError where they differ, EngineError where it cannot.
        """
        from edge.engines.onnxruntime import OnnxRuntimeEngine

        judge = OnnxRuntimeEngine()
        if missing := judge.available():
            raise EngineError(f"no engine is kept that was not held against ONNX Runtime: {missing}")
        session = loaded.open({})
        with session, judge.open(model, SessionOptions()) as reference:
            probes: Mapping[str, Array] | None = self.options.probes
            on = REAL
            if probes is None:
                probes, on = made_up_pictures(session.inputs, self.options.profile.side[1]), MADE_UP_PICTURES
            parity = compare(session, reference, probes, on, session.largest_batches)
        require_parity(parity, precision)
        return parity.to_dict()


class ReadyPlan:
    """An engine that may be used, and its passport. Each session has its own stream, and any number may be open."""

    def __init__(self, loaded: LoadedPlan, passport: Passport) -> None:
        self.loaded = loaded
        self.passport = passport

    def open(self) -> TensorRtSession:
        """A session."""
        identity = self.passport.identity
        return self.loaded.open(
            {
                "engine": "tensorrt",
                "version": identity.version,
                "device": f"{identity.device} ({identity.capability})",
                "precision": identity.precision,
                "profile": identity.profile,
                "plan": self.passport.plan_sha256[:16],
                "backend": self.loaded.device.backend,
            }
        )

    def layers(self) -> tuple[str, ...]:
        """What TensorRT's inspector says of every layer, see `TensorRtSession.inspect`. Raises EngineError."""
        session = self.open()
        with session:
            return session.inspect()


def identity_of(trt: Any, model: bytes, info: DeviceInfo, options: TensorRtOptions) -> EngineIdentity:
    """What an engine for this model, device and these options is."""
    flags = ("strongly-typed",) if api.carries_precision(trt) else ("precision-flags",)
    return EngineIdentity(
        model=hashlib.sha256(model).hexdigest(),
        engine="tensorrt",
        version=str(trt.__version__),
        device=info.module,
        capability=info.architecture,
        driver=info.driver_name,
        precision=OnnxFile(model).precision,
        profile=str(options.profile),
        flags=(*flags, "no-tf32", f"workspace-{options.workspace}"),
    )


def timings_name(identity: EngineIdentity) -> str:
    """The file of what was timed while engines were built: of this TensorRT, device and driver alone."""
    device = re.sub(r"[^A-Za-z0-9.]+", "-", identity.device)
    return f"timings-{identity.version}-{identity.capability}-{device}-{identity.driver}.bin"


def _read_if_there(file: Path) -> bytes:
    """A file's bytes, b"" where it cannot be read. For what only saves time."""
    try:
        return file.read_bytes()
    except OSError:
        return b""


@cache
def device_of(backend: str | None) -> CudaDevice:
    """One device a process: its context is the process's."""
    return open_device(backend=backend)
