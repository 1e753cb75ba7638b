"""A TensorRT and a GPU that compute with NumPy, know no name that the real ones lack, and do nothing early.

Networks are JSON (shapes of the inputs, and for each output which input it is, times how much) or ONNX files.
Work on a stream happens when somebody waits for it, as late as a GPU may.
"""

from __future__ import annotations

import enum
import json
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime as ort

from sage_edge.irp.recipe import Recipe
from sage_edge.runtime.tensorrt.api import TensorRT

ORACLES = Path(__file__).parent / "oracles"
SUPPORTED = ("10.3", "10.16", "11.4", "rtx-1.7")


def api_names(version, library="tensorrt_api"):
    """Names by class, of one version."""
    return json.loads((ORACLES / library / f"{version}.json").read_text())


def network(scale=2.0, rest=(3,)):
    """A network z -> scaled, as its file's bytes."""
    return json.dumps({"inputs": {"z": rest}, "outputs": {"scaled": ["z", scale]}}).encode()


def recipe(folder, name="net.step.fp16", content=None, widths=(1, 4)):
    """A recipe whose file is in a folder."""
    import hashlib

    content = network() if content is None else content
    path = Path(folder) / f"{name}.onnx"
    path.write_bytes(content)
    return Recipe(name, path, hashlib.sha256(content).hexdigest(), "fp16", widths)


class FakeStream:
    """Keeps what is enqueued until somebody waits; while it captures, work is counted and not done."""

    def __init__(self, handle):
        self.handle = handle
        self.work = []
        self.captured = None

    def enqueue(self, work):
        (self.work if self.captured is None else self.captured).append(work)

    def synchronize(self):
        work, self.work = self.work, []
        for item in work:
            item()


class _Memory:
    def __init__(self, address, size_bytes):
        self.address = address
        self.bytes = np.zeros(size_bytes, np.uint8)
        self.bytes[:] = 0xFF  # a NaN in every float: memory comes with anything in it

    def __int__(self):
        return self.address


class FakeDevice:
    """One GPU."""

    name = "Fake GPU"

    def __init__(self, sm="8.7", captures=True):
        self.sm = sm
        self._captures = captures
        self.memory = {}
        self.streams = {}
        self.depth = 0

    @contextmanager
    def current(self):
        self.depth += 1
        yield
        self.depth -= 1

    def stream(self):
        stream = FakeStream(handle=1 + len(self.streams))
        self.streams[stream.handle] = stream
        return stream

    def allocate(self, size_bytes):
        assert self.depth, "the device is not current"
        memory = _Memory(0x10000 * (1 + len(self.memory)), size_bytes)
        self.memory[memory.address] = memory
        return memory

    def adopt(self, array):
        """Take memory that somebody else allocated for the device's."""
        memory = _Memory(array.ctypes.data, 0)
        memory.bytes = array.reshape(-1).view(np.uint8)
        self.memory[memory.address] = memory

    def host_array(self, shape, dtype):
        return np.full(shape, np.nan, dtype)

    def view(self, address, shape, dtype):
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return self.memory[address].bytes[:size].view(dtype).reshape(shape)

    def upload(self, source, target, stream):
        assert source.flags.c_contiguous
        stream.enqueue(lambda: np.copyto(self.view(int(target), source.shape, source.dtype), source))

    def download(self, source, target, stream):
        assert target.flags.c_contiguous
        stream.enqueue(lambda: np.copyto(target, self.view(int(source), target.shape, target.dtype)))

    def captured_nodes(self, enqueue, stream):
        stream.captured = [] if self._captures else None
        enqueue(stream.handle)
        count, stream.captured = len(stream.captured or ()), None
        return count


class _Named:
    """An object of a TensorRT class: only that class's names are answered or set."""

    def __init__(self, class_name, names, **members):
        object.__setattr__(self, "_class", class_name)
        object.__setattr__(self, "_names", set(names))
        object.__setattr__(self, "_members", members)

    def _check(self, name):
        if name not in self._names:
            raise AttributeError(f"{self._class} has no {name}")

    def __getattr__(self, name):
        self._check(name)
        return self._members[name]

    def __setattr__(self, name, value):
        self._check(name)
        self._members[name] = value


class _Network:
    """A network: the shapes of its ends without the batch, and what it computes."""

    def __init__(self, content):
        """ValueError: neither JSON nor ONNX."""
        if content.startswith(b"{"):
            document = json.loads(content)
            self.inputs = {name: tuple(rest) for name, rest in document["inputs"].items()}
            self.outputs = {name: self.inputs[of] for name, (of, _) in document["outputs"].items()}
            self.compute = lambda given: {
                name: given[of] * scale for name, (of, scale) in document["outputs"].items()
            }
            return
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        try:
            session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as exc:  # onnxruntime raises a class of its own for each status
            raise ValueError("no ONNX file") from exc
        self.inputs = {end.name: tuple(end.shape[1:]) for end in session.get_inputs()}
        self.outputs = {end.name: tuple(end.shape[1:]) for end in session.get_outputs()}
        self.compute = lambda given: dict(zip(self.outputs, session.run(None, given), strict=True))


class FakeTensorRT:
    """The module ``trt`` of one version, over a fake device."""

    def __init__(self, version, device, *, aux_streams=0, dynamic=False, refuses="", scratch_bytes=1024):
        self._names = api_names(version)
        self._device = device
        self._aux_streams = aux_streams
        self._dynamic = dynamic
        self._refuses = refuses
        self._scratch_bytes = scratch_bytes
        self.configs = []
        self.contexts = []
        self.__version__ = self._names["version"]
        for name in self._names:
            if name.isidentifier() and isinstance(self._names[name], list):
                members = {m: i for i, m in enumerate(self._names[name]) if m.isupper()}
                setattr(self, name, enum.IntEnum(name, members) if members else object)
        self.ILogger = type("ILogger", (), {})
        self.IProgressMonitor = type("IProgressMonitor", (), {})
        self.Builder, self.OnnxParser, self.Runtime = self._builder, self._parser, self._runtime
        self.nptype = lambda dtype: dtype

    def _object(self, class_name, **members):
        return _Named(class_name, self._names[class_name], **members)

    def _complain(self, logger, message):
        logger.log(SimpleNamespace(name="ERROR"), message)

    # Building

    def _builder(self, logger):
        def create_config():
            config = self._object("IBuilderConfig", set_memory_pool_limit=lambda pool, size: None)
            config.clear_flag = lambda flag: None
            config.create_timing_cache = lambda content: (
                None
                if content == b"broken"
                else self._object("ITimingCache", serialize=lambda: content + b"+1")
            )
            config.set_timing_cache = lambda cache, ignore_mismatch: cache.serialize() != b"elsewhere+1"
            self.configs.append(config)
            return config

        def build(net, config):
            monitor = config.progress_monitor
            monitor.phase_start("Building", None, 2)
            for step in range(2):
                if not monitor.step_complete("Building", step):
                    self._complain(logger, "Build canceled by user")
                    return None
            monitor.phase_finish("Building")
            if self._refuses:
                self._complain(logger, self._refuses)
                self._complain(logger, "a consequence")
                return None
            return b"PLAN %d\n" % net.get_input(0).shape[0] + net.name

        return self._object(
            "Builder",
            create_network=lambda flags: self._object("INetworkDefinition"),
            create_builder_config=create_config,
            build_serialized_network=build,
        )

    def _parser(self, net, logger):
        def parse(content):
            try:
                parsed = _Network(content)
            except ValueError:
                self._complain(logger, "not parsed")
                return False
            inputs = [
                self._object("ITensor", name=name, shape=(-1, *rest)) for name, rest in parsed.inputs.items()
            ]

            def output(number):
                batch = -1 if self._dynamic else inputs[0].shape[0]
                name, rest = list(parsed.outputs.items())[number]
                return self._object("ITensor", name=name, shape=(batch, *rest))

            net.name = content
            net.num_inputs, net.get_input = len(inputs), inputs.__getitem__
            net.num_outputs, net.get_output = len(parsed.outputs), output
            return True

        finding = self._object("ParserError", node=lambda: 7, desc=lambda: "no such operator")
        return self._object("OnnxParser", parse=parse, num_errors=1, get_error=lambda number: finding)

    # Running

    def _runtime(self, logger):
        assert self._device.depth, "the device is not current"

        def deserialize(plan):
            if not plan.startswith(b"PLAN "):
                self._complain(logger, "magic tag does not match")
                return None
            head, content = plan.split(b"\n", 1)
            return self._engine(_Network(content), int(head.split()[1]), logger)

        return self._object("Runtime", deserialize_cuda_engine=deserialize)

    def _engine(self, parsed, width, logger):
        batch, io = -1 if self._dynamic else width, self.TensorIOMode
        shapes = {name: (batch, *rest) for name, rest in (parsed.inputs | parsed.outputs).items()}
        return self._object(
            "ICudaEngine",
            num_io_tensors=len(shapes),
            get_tensor_name=list(shapes).__getitem__,
            get_tensor_shape=shapes.__getitem__,
            get_tensor_dtype=lambda name: np.float32,
            get_tensor_mode=lambda name: io.INPUT if name in parsed.inputs else io.OUTPUT,
            num_aux_streams=self._aux_streams,
            device_memory_size_v2=self._scratch_bytes,
            create_execution_context=lambda strategy: self._context(parsed, shapes, strategy, logger),
        )

    def _context(self, parsed, shapes, strategy, logger):
        assert strategy == self.ExecutionContextAllocationStrategy.USER_MANAGED
        addresses, scratch = {}, []

        def array(name):
            return self._device.view(addresses[name], shapes[name], np.float32)

        def execute(handle):
            if self._scratch_bytes and scratch != [self._scratch_bytes]:
                self._complain(logger, "no scratch memory")
                return False

            def work():
                given = {name: array(name) for name in parsed.inputs}
                for name, result in parsed.compute(given).items():
                    array(name)[...] = result

            self._device.streams[handle].enqueue(work)
            return True

        context = self._object(
            "IExecutionContext",
            set_tensor_address=lambda name, address: addresses.update({name: address}) is None,
            set_device_memory=lambda address, size: scratch.append(size),
            execute_async_v3=execute,
        )
        self.contexts.append(context)
        return context


def fake_tensorrt(version="10.3", device=None, **behaviour):
    """What ``open_tensorrt`` gives, of a fake module, and its device."""
    from sage_edge.runtime.tensorrt.api import open_tensorrt

    device = device or FakeDevice()
    module = FakeTensorRT(version, device, **behaviour)
    name = "tensorrt_rtx" if version.startswith("rtx") else "tensorrt"

    def import_module(wanted):
        if wanted == name:
            return module
        raise ModuleNotFoundError(name=wanted)

    opened = open_tensorrt(import_module)
    assert isinstance(opened, TensorRT)
    return opened, device
