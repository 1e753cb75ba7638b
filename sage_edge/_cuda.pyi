"""
What sage_edge does on an NVIDIA GPU. Use it through sage_edge.native.
"""
from __future__ import annotations
import collections.abc
import numpy
import sage_edge._core
import typing
import typing_extensions
__all__: list[str] = ['RefineLoop', 'TensorView', 'device_count', 'device_names', 'mapped_ring', 'refusal']
class TensorView:
    """
    An array in somebody else's memory, for any library that speaks DLPack
    or the CUDA array interface. Nothing is copied, and no stream is waited for: who uses it orders its work.
    
    Args:
        pointer: Where it begins.
        shape: Its axes, in C order.
        dtype: Anything NumPy takes as one: floats and integers.
        device: "cpu" or "cuda:N".
        owner: Kept alive as long as this view and every array made of it.
    
    Raises:
        ShapeError: The dtype or an axis cannot be used.
        ConfigError: No such device.
    """
    def __dlpack__(self, *, stream: typing.Any = None, max_version: typing.Any = None, dl_device: typing.Any = None, copy: typing.Any = None) -> typing_extensions.CapsuleType:
        ...
    def __dlpack_device__(self) -> tuple[int, int]:
        ...
    def __init__(self, pointer: typing.SupportsInt | typing.SupportsIndex, shape: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], dtype: typing.Any, *, device: str, owner: typing.Any) -> None:
        ...
    @property
    def __cuda_array_interface__(self) -> dict[str, typing.Any]:
        ...
    @property
    def dtype(self) -> numpy.dtype[typing.Any]:
        ...
    @property
    def pointer(self) -> int:
        ...
    @property
    def shape(self) -> tuple[int, ...]:
        ...
class RefineLoop:
    """
    Refines requests in slots on the GPU: the whole loop is there, the host hands in and takes out.
    
    A request has a row in the store from `hand_in` until `drive` returns it: its first state, context and energy terms are
    written there before, its best state is read from there after. One thread at a time.
    
    Args:
        ring: From `mapped_ring`; every state is published there. At least 4 records per slot. Kept alive by the loop.
        widths: Batches that are captured, rising; the last one is the number of slots.
        rows: Requests that may be under way, at least as many as slots.
        elements: Of a state.
        half: Whether states and directions are float16; float32 otherwise.
        terms: Energy terms of a state; its energy is their mean.
        context_bytes: What a step reads besides the state: bytes per request of each array.
        step_size: Of every step.
        lo: Lower bound of a state.
        hi: Upper bound of a state.
        plugin: Small integer that names the plugin in the records.
    
    Raises:
        ConfigError: A number makes no sense, or the ring is not mapped or too small.
        DeviceError: CUDA refuses, or is not there.
    """
    def __init__(self, ring: sage_edge._core.Ring, *, widths: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], rows: typing.SupportsInt | typing.SupportsIndex, elements: typing.SupportsInt | typing.SupportsIndex, half: bool, terms: typing.SupportsInt | typing.SupportsIndex, context_bytes: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], step_size: typing.SupportsFloat | typing.SupportsIndex, lo: typing.SupportsFloat | typing.SupportsIndex, hi: typing.SupportsFloat | typing.SupportsIndex, plugin: typing.SupportsInt | typing.SupportsIndex = 0) -> None:
        ...
    def copy(self, target: typing.SupportsInt | typing.SupportsIndex, source: typing.SupportsInt | typing.SupportsIndex, size_bytes: typing.SupportsInt | typing.SupportsIndex) -> None:
        """
        Enqueues a copy between any two addresses, host or device, beside the loop; `wait_copies` waits for it.
        
        Raises:
            DeviceError: CUDA refuses.
        """
    def drive(self, timeout_s: typing.SupportsFloat | typing.SupportsIndex) -> list[int]:
        """
        Keeps the loop going until some request is done or the time has passed, without the GIL.
        
        Returns:
            The rows that are done.
        
        Raises:
            DeviceError: The device failed; the loop is of no more use.
        """
    def hand_in(self, row: typing.SupportsInt | typing.SupportsIndex, run_id: typing.SupportsInt | typing.SupportsIndex, policy: sage_edge._core.HaltPolicy, *, charge_us: typing.SupportsFloat | typing.SupportsIndex = 0.0, branch: typing.SupportsInt | typing.SupportsIndex = 0) -> None:
        """
        Hands a request in whose row has been written. A loop that runs takes it with the next tick.
        
        Raises:
            ConfigError: The row is out of range or taken.
        """
    def limit(self, row: typing.SupportsInt | typing.SupportsIndex, max_steps: typing.SupportsInt | typing.SupportsIndex, deadline_ns: typing.SupportsInt | typing.SupportsIndex) -> None:
        """
        Changes the limits of a request that is under way.
        """
    def measure_body_ns(self, width: typing.SupportsInt | typing.SupportsIndex) -> int:
        """
        How long one pass of the engine takes at a width. For a loop that stands still.
        """
    def peek(self, row: typing.SupportsInt | typing.SupportsIndex, target: typing.SupportsInt | typing.SupportsIndex) -> tuple[int, int, float, float, float, int, str | None, float, float, float, float, float, bool, bool, int, int, bool] | None:
        """
        Stops the loop after its tick and copies the best state so far of a request; `drive` goes on.
        
        Args:
            row: The request's.
            target: Where the state is put: an address of the host or the device.
        
        Returns:
            Its run as the fields of RunSummary; None when it is in no slot.
        
        Raises:
            ConfigError: There is no such row.
            DeviceError: CUDA refuses.
        """
    def prepare(self, body: collections.abc.Callable[[int, int], None], mode: str = 'while_graph') -> None:
        """
        Runs and captures the step engine for each width.
        
        Args:
            body: Called as body(width, stream): puts the engine for the first `width` slots onto a raw CUDA stream, reading z,
                context and step_size and writing delta and energy_terms. What it uses stays alive and in place.
            mode: "while_graph", "host_graphs" or "launches"; where one does not work here the next one is taken, and
                `mode_reason` says why.
        
        Raises:
            DeviceError: Not even plain launches work.
        """
    def row(self, array: typing.SupportsInt | typing.SupportsIndex, row: typing.SupportsInt | typing.SupportsIndex) -> int:
        """
        Device address of a row of the store; array 0 holds states, 1, 2, ... the contexts.
        
        Raises:
            ConfigError: There is no such array or row.
        """
    def set_budget(self, row: typing.SupportsInt | typing.SupportsIndex, budget_us: typing.SupportsFloat | typing.SupportsIndex) -> None:
        """
        Changes what may be charged to a request that is under way, from its next decision on.
        """
    def set_margin_ns(self, margin_ns: typing.SupportsInt | typing.SupportsIndex) -> None:
        """
        Tells how long finishing an answer takes: deadlines are kept by so much.
        """
    def stop(self, row: typing.SupportsInt | typing.SupportsIndex, reason: str) -> None:
        """
        Ends a request before its next step, or before it gets a slot; `drive` still returns it.
        
        Raises:
            ConfigError: `reason` is none of HALT_REASONS.
        """
    def summary_fields(self, row: typing.SupportsInt | typing.SupportsIndex) -> tuple[int, int, float, float, float, int, str | None, float, float, float, float, float, bool, bool, int, int, bool]:
        """
        How the request in a row ended that `drive` has returned, as the fields of RunSummary.
        """
    def wait_copies(self) -> None:
        """
        Waits for every copy enqueued so far.
        """
    @property
    def context_addresses(self) -> list[int]:
        """
        Device address of each context, [slots, bytes].
        """
    @property
    def delta_address(self) -> int:
        """
        Device address of the directions, [slots, elements].
        """
    @property
    def energy_terms_address(self) -> int:
        """
        Device address of the energy terms, float32 [slots, terms].
        """
    @property
    def first_terms_address(self) -> int:
        """
        Device address of the energy terms of first states, float32 [rows, terms].
        """
    @property
    def live(self) -> int:
        """
        Live slots, by the last decision.
        """
    @property
    def mode(self) -> str:
        """
        How ticks follow each other.
        """
    @property
    def mode_reason(self) -> str:
        """
        Why not the mode that was wanted; empty: it is that one.
        """
    @property
    def slots(self) -> int:
        ...
    @property
    def step_size_address(self) -> int:
        """
        Device address of the step sizes, float32 [slots].
        """
    @property
    def ticks(self) -> int:
        """
        Ticks so far.
        """
    @property
    def under_way(self) -> int:
        """
        Requests handed in and not yet returned by `drive`.
        """
    @property
    def z_address(self) -> int:
        """
        Device address of the states, [slots, elements].
        """
def device_count() -> int:
    """
    CUDA devices that can be used here; 0 without a driver.
    """
def device_names() -> list[str]:
    """
    Name and compute capability of each CUDA device.
    """
def mapped_ring(capacity: typing.SupportsInt | typing.SupportsIndex) -> sage_edge._core.Ring:
    """
    A mailbox in page-locked memory, which a loop on the device writes and the host reads in place.
    
    Args:
        capacity: Records it holds, a power of two.
    
    Raises:
        ConfigError: The capacity is no power of two.
        DeviceError: The driver refuses, or is not there.
    """
def refusal() -> str:
    """
    Why no CUDA device can be used here; empty where one can.
    """
