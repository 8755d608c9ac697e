"""A unit with one thing changed: a proof that cannot fail proves nothing."""

import importlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType

__all__ = ["Mutant", "MUTANTS"]


@dataclass(frozen=True)
class Mutant:
    """``old`` becomes ``new`` in the source of a module, and then a proof must fail.

    Parameters
    ----------
    proof : str
        Name of the proof.
    module : str
        Where the unit is.
    old, new : str
        Text of the source; ``old`` occurs exactly once.
    violates : str
        A part of the name of the property that is violated.
    """
    proof: str
    module: str
    old: str
    new: str
    violates: str

    @property
    def change(self):
        """One line for the table."""
        old, new = (" ".join(text.split()) for text in (self.old, self.new))
        return f"{old} -> {new or 'nothing'}"

    @contextmanager
    def applied(self):
        """While it lasts, the functions of the module and the methods of its classes are those of the changed source
        (but methods that call ``super()``)."""
        module = importlib.import_module(self.module)
        source = Path(module.__file__).read_text()
        if source.count(self.old) != 1:
            raise ValueError(f"{self.old!r} must occur once in {self.module}, not {source.count(self.old)} times")
        changed = {"__name__": self.module, "__package__": module.__package__}
        exec(compile(source.replace(self.old, self.new), module.__file__, "exec"), changed)
        saved, functions = [], []
        for name, new in changed.items():
            old = getattr(module, name, None)
            if isinstance(new, type) and new.__module__ == self.module and isinstance(old, type):
                for attribute, value in vars(new).items():
                    if isinstance(value, FunctionType) and value.__closure__ is None:
                        saved.append((old, attribute, vars(old)[attribute]))
                        # What the method looks up it finds in the module itself.
                        setattr(old, attribute, FunctionType(value.__code__, vars(module), attribute,
                                                             value.__defaults__))
            elif (isinstance(new, FunctionType) and new.__module__ == self.module and new.__closure__ is None
                  and isinstance(old, FunctionType) and old.__closure__ is None):
                # In place, since other modules have the function, too.
                functions.append((old, old.__code__))
                old.__code__ = new.__code__
        try:
            yield
        finally:
            for old, attribute, value in saved:
                setattr(old, attribute, value)
            for old, code in functions:
                old.__code__ = code


_AXI, _ADDRESS, _LOAD, _STORE = (f"macaw_hw.{name}" for name in ("axi", "dma_address", "dma_load", "dma_store"))
_SEQUENCER, _CONTROL, _FETCH = (f"macaw_hw.{name}" for name in ("sequencer", "control", "fetch"))
_FIFO, _BLOCK, _SHIFTS = "amaranth.lib.fifo", "macaw_hw.block_fifo", "macaw_hw.shifts"
_VECTOR, _TILE = "macaw_hw.vector_memory", "macaw_hw.tile_memory"

MUTANTS = (
    Mutant("read_arbiter", _AXI, "held.eq(~axi.arready)", "held.eq(0)", "AR: payload stays"),
    Mutant("read_arbiter", _AXI, "(last + offset) %", "offset %", "waits for at most"),
    Mutant("read_arbiter", _AXI, "axi.rvalid & (self.rid == index)", "axi.rvalid", "data"),
    Mutant("vector_arbitration", _VECTOR, "conflict &= other.row != port.row", "conflict &= 0", "a and b never share"),
    Mutant("vector_arbitration", _VECTOR, "enumerate(ports):\n                m.d.comb += port.ready.eq(~self._blocked("
           "port, ports[:i]))", "enumerate(ports):\n                m.d.comb += port.ready.eq(~self._blocked(port, "
           "ports[:i] + ports[i + 1:]))", "never waits"),
    Mutant("vector_arbitration", _VECTOR, "blocked |= getattr(self, first).valid", "blocked |= 0", "never goes along"),
    Mutant("vector_data_8", _VECTOR, "write_data = Mux(asks(name), data[name], write_data)", "write_data = data[name]",
           "reads what was written"),
    Mutant("vector_data", _VECTOR, "read_row.eq(row)", "read_row.eq(row ^ 1)", "reads what was written"),
    Mutant("tile_arbitration", _TILE, "for other in ports[:i]", "for other in ports[1:i]", "never share a bank"),
    Mutant("tile_data", _TILE, "number - self.read_line", "number + self.read_line", "reads what was written"),
    Mutant("token_counters_3", _SEQUENCER, "m.If(posted ^ taken)", "m.If(posted | taken)", "taken only if there"),
    Mutant("token_counters_3", _SEQUENCER, "append(count[-1])", "append(count[-2])", "overflows exactly"),
    Mutant("token_counters", _SEQUENCER, "Mux(posted, 1, -1)", "Mux(taken, 1, -1)", "overflows exactly"),
    Mutant("instruction_queue", _SEQUENCER, " & (flying != IN_FLIGHT)", "", "in the unit: "),
    Mutant("instruction_queue", _SEQUENCER, "present & (permitted | (self.wait == 0))", "present",
           "issued only with its tokens"),
    Mutant("instruction_queue", _SEQUENCER, "read.addr.eq(place)", "read.addr.eq(latest)", "in the unit"),
    Mutant("sequencer_dispatch", _SEQUENCER, "accepted.eq(valid & sound & ", "accepted.eq(valid & ", "only legal"),
    Mutant("sequencer_dispatch", _SEQUENCER, "unsound & Cat(queue.empty for queue in queues).all()", "unsound",
           "waits for all before"),
    Mutant("ring_fifo", "macaw_hw.ring_fifo", "self.w_rdy.eq(beyond != first)", "self.w_rdy.eq(1)",
           "never more than 4"),
    Mutant("sync_fifo_buffered", _FIFO, "self.w_rdy.eq(inner_level != inner_depth)", "self.w_rdy.eq(1)", "fifo: "),
    Mutant("block_fifo", _BLOCK, "self.room.eq(reserved != before)", "self.room.eq(1)", "never more"),
    Mutant("block_fifo", _BLOCK, "before.eq(first)", "before.eq(first - 1)", "room for"),
    Mutant("block_fifo", _BLOCK, "move.eq(fetched & (~self.r_rdy | self.r_en))", "move.eq(fetched)", "fifo: "),
    Mutant("block_fifo_distributed", _BLOCK, "waiting & (~self.r_rdy | self.r_en)", "waiting", "fifo: "),
    Mutant("shifts", _SHIFTS, "value[len(value) - i:].any() for", "value[len(value) - i + 1:].any() for", "leading"),
    Mutant("shifts", _SHIFTS, "(full[1] | ~full[2])", "full[1]", "bytes"),
    Mutant("shifts", _SHIFTS, "[:step + 7])", "[:step + 6])", "products"),
    Mutant("matrix_ports", "macaw_hw.matrix_control", "with m.If(issue):", "with m.If(self.w.valid):",
           "w: payload"),
    Mutant("activation_ports", "macaw_hw.operands", "with m.Elif(ready):", "with m.Elif(self.allow):",
           "valid stays"),
    Mutant("burst_splitter", _ADDRESS, "(run.final >= self.window_limit)", "(run.final > self.window_limit)",
           "window"),
    Mutant("burst_splitter", _ADDRESS, "run.first[width:], run.final[width:]", "run.first[width:]", "byte"),
    Mutant("burst_splitter_wide", _ADDRESS, "min(_PAGE, _BEATS", "min(2 * _PAGE, _BEATS", "4 KiB"),
    Mutant("lite_bus", _CONTROL, "bus.arready.eq(~reading & ~bus.rvalid)", "bus.arready.eq(~reading)", "one request"),
    Mutant("lite_bus", _CONTROL, "~writing & ~bus.bvalid", "~writing", "one request"),
    Mutant("states", _CONTROL, "if register.locked else 1", "if 0 else 1", "settings stay"),
    Mutant("states", _CONTROL, "with m.If(self.drained)", "with m.If(1)", "bursts stay stopped"),
    Mutant("watchdog", _CONTROL, "quiet.eq(quiet + 1)", "quiet.eq(quiet)", "never quiet"),
    Mutant("fetch_bus", _FETCH, "(end <= self.window_limit)", "(end <= self.window_limit + 1)", "inside the window"),
    Mutant("fetch_addresses", _FETCH, "address.eq(end), remaining", "address[:-1].eq(end), remaining",
           "each begins where"),
    Mutant("fetch_bus", _FETCH, "axi.arready) & ~self.halt", "axi.arready)", "halt"),
    Mutant("load_bus", _LOAD, "axi.arvalid.eq(issue & ~burst.fault)", "axi.arvalid.eq(issue)", "AR: "),
    Mutant("load_bus", _LOAD, "infos.w_rdy & ~closed & ~stop", "infos.w_rdy & ~closed", "halt"),
    Mutant("store_progress", "macaw_hw.dma_store_path", " & (step.cause != Cause.OUTSIDE), found", ", found",
           "until the bus moves"),
    Mutant("store_progress", _STORE, "demands.valid.eq(going)", "demands.valid.eq(0)", "moves"),
    Mutant("store_beats", _STORE, "need.burst_end.eq(final)", "need.burst_end.eq(final | first)", "W: "),
    Mutant("load_progress", _LOAD, "closed.eq(burst.fault)", "closed.eq(1)", "moves"),
    Mutant("load_drain", _LOAD, "axi.rready.eq(stop | (", "axi.rready.eq(~stop & (", "until the bus moves"),
    Mutant("byte_packer", "macaw_hw.dma_bytes", "Mux(beat.group_end, 0, following)", "following", "place"),
    Mutant("load_bursts", _LOAD, "infos.w_rdy & ~closed & ~stop", "~closed & ~stop", "an entry for each burst"),
    Mutant("store_bus", _STORE, "with m.If(axi.awready):\n            m.d.sync += axi.awvalid",
           "with m.If(1):\n            m.d.sync += axi.awvalid", "AW: valid stays"),
    Mutant("run_generator", _ADDRESS, "self.o.p.final.eq(first + span)", "self.o.p.final.eq(first - span)",
           "first byte"),
    Mutant("fetch_order_3", _FETCH, "(credit >= count)", "(credit != 0)", "finished only"),
    Mutant("fetch_fault", _FETCH, "(outside & empty)", "outside", "nothing is offered"),
    Mutant("fetch_progress", _FETCH, "Mux(request, count, 0) + taken", "Mux(request, count, 0)",
           "the next instruction"),
    Mutant("load_done", _LOAD, "closing.eq(word.last & whole)", "closing.eq(word.group_end & whole)", "idle once"),
    Mutant("store_ports", _STORE, "Mux(reserved, -1, 1)", "1", "lemma"),
    Mutant("store_done", _STORE, "control.done.eq(end.last)", "control.done.eq(1)", "idle once"),
    Mutant("instruction_queue_index", _SEQUENCER, "(finished & ~self.keep)", "done", "rows"),
    Mutant("instruction_queue_progress", _SEQUENCER, "more & ~present & ~reading",
           "more & ~present & ~reading & ~self.permit", "issue"),
    Mutant("lite_progress", _CONTROL, "with m.If(bus.rvalid & bus.rready)", "with m.If(bus.rvalid & ~bus.rready)",
           "read accepted"),
    Mutant("top_constants", "macaw_hw.accelerator", 'm_axi_{channel}burst").eq(1)', 'm_axi_{channel}burst").eq(2)',
           "INCR"),
)
