"""Runtime `libdnn`: the X5's BPU through the C library, with several tasks at once and no GIL.

Each slot has its own tensors in cached BPU memory. Images are converted directly into them.
"""

from __future__ import annotations

import ctypes
import math
import os
import threading
import time
from contextlib import suppress
from ctypes import byref, c_char_p, c_int32, c_void_p
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from efv2_ros.runtimes.base import (
    DeviceLostError,
    ImageInput,
    InferenceError,
    InferenceTimeoutError,
    ModelLoadError,
    RunOptions,
    Runtime,
    RuntimeInfo,
)
from efv2_ros.runtimes.libdnn.abi import (
    TIMEOUT,
    Cache,
    DnnError,
    InferCtrlParam,
    Libdnn,
    Tensor,
    TensorProperties,
)
from efv2_ros.runtimes.libdnn.tensors import LogitsOutput, Nv12Input

_LOST_AFTER = 2.0
"""The BPU counts as lost after timeouts over this many times `infer_timeout` in a row."""


class LibdnnRuntime(Runtime):
    """A compiled model on the BPU."""

    def __init__(self, path: Path, image: ImageInput, options: RunOptions) -> None:
        library = Libdnn()
        self._network = _Network(library, path, image, options)
        try:
            slots = [_Slot(self._network) for _ in range(options.slots)]
        except BaseException as error:
            self._network.close()
            if isinstance(error, DnnError):
                raise ModelLoadError(f"{path} cannot be loaded: {error}") from error
            raise
        super().__init__(
            RuntimeInfo("libdnn", library.version, "BPU", self._network.output.classes),
            image,
            slots,
        )

    def close(self) -> None:
        """See `Runtime.close`. What the BPU may still use is freed once it has answered again."""
        super().close()
        self._network.close()


def probe() -> str:
    """Name libdnn's version.

    Raises:
        RuntimeUnavailableError: libdnn cannot be used here.
    """
    return f"libdnn {Libdnn().version}"


def load(path: Path, image: ImageInput, options: RunOptions) -> LibdnnRuntime:
    """Load a compiled model; see `open_runtime`."""
    return LibdnnRuntime(path, image, options)


class _Network:
    """A loaded model, the tensors allocated for it, and the BPU's health."""

    def __init__(
        self, library: Libdnn, path: Path, image: ImageInput, options: RunOptions
    ) -> None:
        self.library = library
        self.timeout = options.infer_timeout
        self.control = InferCtrlParam(
            bpuCoreId=0 if options.bpu_core < 0 else 1 << options.bpu_core,
            priority=options.bpu_priority,
        )
        self.health = _Health(options.infer_timeout)
        self._packed = c_void_p()
        self._tensors: list[Tensor] = []
        self._lock = threading.Lock()
        try:
            self.handle = self._open(path)
            self.input = Nv12Input.of(self._properties("Input", path), path, image)
            self.output = LogitsOutput.of(self._properties("Output", path), path)
        except DnnError as error:
            self.close()
            raise ModelLoadError(f"{path} cannot be loaded: {error}") from error
        except BaseException:
            self.close()
            raise

    def tensor(self, properties: TensorProperties, sizes: tuple[int, ...]) -> Tensor:
        """Allocate a tensor with memories of these sizes in bytes; `close` frees it."""
        tensor = Tensor(properties=properties)
        for index, size in enumerate(sizes):
            try:
                tensor.sysMem[index] = self.library.allocate(size)
            except DnnError:
                self._free(tensor)
                raise
        with self._lock:
            self._tensors.append(tensor)
        return tensor

    def free(self, tensors: tuple[Tensor, ...]) -> None:
        """Free tensors that `tensor` allocated."""
        with self._lock:
            self._tensors = [each for each in self._tensors if each not in tensors]
        for tensor in tensors:
            self._free(tensor)

    def close(self) -> None:
        """Free everything; if the BPU may still be using it, after the next inference."""
        if self.health.unsure:
            _leftovers.add(self)
        else:
            self.free_all()

    def free_all(self) -> None:
        """Free the tensors and the model."""
        for tensor in self._tensors:
            self._free(tensor)
        self._tensors = []
        if self._packed:
            with suppress(DnnError):  # there is no remedy
                self.library.call("hbDNNRelease", self._packed)
            self._packed = c_void_p()

    def _free(self, tensor: Tensor) -> None:
        for memory in tensor.sysMem:
            if memory.virAddr:
                with suppress(DnnError):
                    self.library.call("hbSysFreeMem", byref(memory))

    def _open(self, path: Path) -> c_void_p:
        call = self.library.call
        files = (c_char_p * 1)(os.fsencode(path))
        call("hbDNNInitializeFromFiles", byref(self._packed), files, 1)
        names, count, handle = ctypes.POINTER(c_char_p)(), c_int32(), c_void_p()
        call("hbDNNGetModelNameList", byref(names), byref(count), self._packed)
        if count.value != 1:
            raise ModelLoadError(f"{path} holds {count.value} models and not one")
        call("hbDNNGetModelHandle", byref(handle), self._packed, names[0])
        return handle

    def _properties(self, which: str, path: Path) -> TensorProperties:
        """Read the properties of the model's only input or output."""
        count, properties = c_int32(), TensorProperties()
        self.library.call(f"hbDNNGet{which}Count", byref(count), self.handle)
        if count.value != 1:
            raise ModelLoadError(f"{path} has {count.value} {which.lower()}s and not one")
        self.library.call(f"hbDNNGet{which}TensorProperties", byref(properties), self.handle, 0)
        return properties


class _Leftovers:
    """Closed networks that the BPU may still be using. Thread-safe."""

    def __init__(self) -> None:
        self._networks: tuple[_Network, ...] = ()
        self._lock = threading.Lock()

    def now(self) -> tuple[_Network, ...]:
        """The networks that are free once an inference that starts now has ended."""
        return self._networks

    def add(self, network: _Network) -> None:
        """Keep a network."""
        with self._lock:
            self._networks += (network,)

    def free(self, networks: tuple[_Network, ...]) -> None:
        """Free those of the networks that are still here."""
        with self._lock:
            freed = [each for each in networks if each in self._networks]
            self._networks = tuple(each for each in self._networks if each not in freed)
        for network in freed:
            network.free_all()


_leftovers = _Leftovers()


class _Health:
    """Tells one inference that hung from a BPU that no longer works. Thread-safe.

    Attributes:
        lost: Whether the BPU no longer works.
        failures: How many waits for an inference failed.
    """

    def __init__(self, limit: float) -> None:
        self.lost = False
        self.failures = 0
        self._ended = 0
        self._limit = limit
        self._first_timeout: float | None = None
        self._lock = threading.Lock()

    @property
    def hanging(self) -> bool:
        """Whether the latest inference timed out."""
        return self._first_timeout is not None

    @property
    def unsure(self) -> bool:
        """Whether an inference may still be running although the wait for it is over."""
        return self._ended < self.failures

    def answered(self, failures: int) -> None:
        """Record that an inference ended well.

        The BPU runs its tasks in order, so those whose waits failed before it have ended too.

        Args:
            failures: What `failures` was when it started.
        """
        if self._first_timeout is not None or self._ended < failures:
            with self._lock:
                self._first_timeout = None
                self._ended = max(self._ended, failures)

    def failed(self, *, timeout: bool) -> None:
        """Record that the wait for an inference failed, because of its time or otherwise."""
        with self._lock:
            self.failures += 1
            if not timeout:
                self._first_timeout = None
        if timeout:
            self.silent()

    def silent(self) -> None:
        """Record that an inference timed out, or could not start after one that did."""
        now = time.monotonic()
        with self._lock:
            if self._first_timeout is None:
                self._first_timeout = now
            elif now - self._first_timeout >= _LOST_AFTER * self._limit:
                self.lost = True


class _Slot:
    """An input tensor, an output tensor, and inference from one to the other."""

    def __init__(self, network: _Network) -> None:
        self._network = network
        self._milliseconds = max(1, math.ceil(network.timeout * 1e3))  # 0 would be forever
        self._abandoned: list[tuple[Tensor, Tensor]] = []
        self._set_up()

    def commit(self) -> None:
        try:
            for memory in self._written:
                self._network.library.call("hbSysFlushMem", memory, Cache.CLEAN)
        except DnnError as error:
            raise self._failure(error) from error

    def infer(self) -> NDArray[np.float32]:
        network, call, task = self._network, self._network.library.call, c_void_p()
        if network.health.lost:
            raise DeviceLostError("the BPU stopped answering")
        failures, leftovers = network.health.failures, _leftovers.now()
        try:
            with network.library.releasing("hbDNNReleaseTask", task):
                call(
                    "hbDNNInfer", byref(task), self._output_array, byref(self._input),
                    network.handle, byref(network.control),
                )  # fmt: skip
                call("hbDNNWaitTaskDone", task, self._milliseconds)
                network.health.answered(failures)
                call("hbSysFlushMem", self._read, Cache.INVALIDATE)
        except DnnError as error:
            raise self._failure(error) from error
        if leftovers:
            _leftovers.free(leftovers)
        if self._abandoned:
            # The BPU runs its tasks in order, so the ones that failed before this have ended.
            for tensors in self._abandoned:
                network.free(tensors)
            self._abandoned.clear()
        return network.output.logits(self._values)

    def _failure(self, error: DnnError) -> InferenceError:
        health, waited = self._network.health, error.call == "hbDNNWaitTaskDone"
        hung = waited and error.code == TIMEOUT
        if waited:
            health.failed(timeout=hung)
            self._leave_tensors()
        elif health.hanging:
            health.silent()
        if health.lost:
            return DeviceLostError(f"the BPU stopped answering ({error})")
        if hung:
            limit = self._network.timeout
            return InferenceTimeoutError(f"no answer within {limit:g} s ({error})")
        return InferenceError(str(error))

    def _leave_tensors(self) -> None:
        """Set the tensors aside, since the task may still read and write them."""
        self._abandoned.append((self._input, self._output))
        try:
            self._set_up()
        except DnnError:
            self._network.health.lost = True

    def _set_up(self) -> None:
        network = self._network
        self._input = network.tensor(network.input.properties, network.input.sizes)
        self._output = network.tensor(network.output.properties, (network.output.size,))
        self.nv12 = network.input.planes(self._input)
        self._values = network.output.values(self._output)
        # Arguments of the calls, made once because ctypes objects are slow to make.
        self._written = [
            ctypes.pointer(self._input.sysMem[n]) for n in range(len(network.input.sizes))
        ]
        self._read = ctypes.pointer(self._output.sysMem[0])
        self._output_array = byref(ctypes.pointer(self._output))
