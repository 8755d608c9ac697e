"""AXI4-Lite slave and the state machine behind it."""

from amaranth.hdl import Cat, Mux, Signal
from macaw_hw import control as hardware
from macaw_hw.config import Config
from macaw_hw.isa import Fault
from macaw_hw.registers import COUNTERS, REGISTERS

from .bench import proof

__all__ = ["lite_bus", "lite_progress", "states", "watchdog"]

_SMALL = Config(size=4, address_width=20)


def _control(bench):
    """`Control` with any master that keeps the rules on the bus, and anything at all on the other side."""
    control = hardware.Control(config=_SMALL)
    bench.add("control", control, "bus")
    bus = control.bus
    bench.offer(bus.arvalid, bus.arready, bus.araddr, bus.arprot)
    bench.offer(bus.awvalid, bus.awready, bus.awaddr, bus.awprot)
    bench.offer(bus.wvalid, bus.wready, bus.wdata, bus.wstrb)
    return control, bus


def _pending(bench, name, begun, ended):
    """Requests without response: at most one, and a response only to one."""
    count = Signal(range(4), name=bench.unique(f"{name} pending"))
    bench.m.d.sync += count.eq(count + begun - ended)
    bench.check(f"{name}: at most one request without response", count <= 1)
    return count


@proof("AXI4-Lite slave: one response per request, held until taken; data and address in any order", reach=6)
def lite_bus(bench):
    _, bus = _control(bench)
    for name in ("rready", "bready"):
        bench.m.d.comb += getattr(bus, name).eq(bench.free(1, name))
    bench.stable("R", bus.rvalid, bus.rready, bus.rdata, bus.rresp)
    bench.stable("B", bus.bvalid, bus.bready, bus.bresp)
    response = bus.bvalid & bus.bready
    reads = _pending(bench, "read", bus.arvalid & bus.arready, bus.rvalid & bus.rready)
    addresses = _pending(bench, "write address", bus.awvalid & bus.awready, response)
    data = _pending(bench, "write data", bus.wvalid & bus.wready, response)
    bench.check("R only for a request", ~bus.rvalid | (reads != 0))
    bench.check("B only for address and data", ~bus.bvalid | ((addresses != 0) & (data != 0)))
    known = Cat(bus.rresp == value for value in (0, 2)).any() & Cat(bus.bresp == value for value in (0, 2)).any()
    bench.check("responses are OKAY or SLVERR", known)
    bench.reach("SLVERR on a read", bus.rvalid & (bus.rresp == 2))
    bench.reach("SLVERR on a write", bus.bvalid & (bus.bresp == 2))
    bench.reach("data before address", bus.wvalid & ~bus.awvalid & ~bench.past(bus.awvalid))


@proof("AXI4-Lite slave: a request is accepted and answered within 3 cycles of a master that takes responses, that "
       "of a counter within a round of the counters and 8 cycles", reach=6)
def lite_progress(bench):
    _, bus = _control(bench)
    bench.m.d.comb += [bus.rready.eq(1), bus.bready.eq(1)]
    first = REGISTERS[next(iter(COUNTERS))].offset
    counter = Signal()
    with bench.m.If(bus.arvalid & bus.arready):
        bench.m.d.sync += counter.eq(bus.araddr >= first)
    bench.within("read accepted", 3, bus.arvalid & ~counter, bus.arready)
    bench.within("read of a counter accepted", len(COUNTERS) + 8, bus.arvalid, bus.arready)
    bench.within("write accepted", 3, bus.awvalid & bus.wvalid, bus.awready & bus.wready)
    bench.reach("reads in a row", bench.past(bus.rvalid & bus.arvalid) & bus.arready & bus.arvalid)


@proof("Control: a program starts only when idle, keeps its registers, stops bursts until drained, then resets",
       reach=12)
def states(bench):
    control, bus = _control(bench)
    bench.m.d.comb += [bus.rready.eq(bench.free(1, "rready")), bus.bready.eq(bench.free(1, "bready"))]
    busy = control.running | control.halt | control.clear
    past = bench.past
    settings = Cat(control.program_address, control.program_length, control.window_base, control.window_limit)
    bench.check("running, halt and clear exclude each other", control.running + control.halt + control.clear <= 1)
    bench.check("settings stay while a program runs", ~past(busy) | (settings == past(settings)))
    bench.check("start only when idle", ~control.start | ~busy)
    bench.check("it runs only from the doorbell on", ~control.running | past(control.start | control.running))
    bench.check("a fault stops bursts at once", ~past(control.running & (control.fault != Fault.NONE)) | control.halt)
    bench.check("bursts stay stopped until drained", ~past(control.halt & ~control.drained) | control.halt)
    bench.check("reset follows a drain or the end of a program", ~control.clear | past(
        control.halt & control.drained | control.running & control.finished & (control.fault == Fault.NONE)))
    bench.check("a drain ends in the reset", ~past(control.halt & control.drained) | control.clear)
    bench.check("reset takes one cycle, then it is idle", ~past(control.clear) | ~busy)
    bench.reach("idle again after a fault", past(past(control.clear) & ~busy) & control.start)
    bench.reach("interrupt", control.irq)


@proof("Control: whatever the units do, the watchdog expires once nothing moved for as long as it says, and stays "
       "so until the program ends", reach=12)
def watchdog(bench):
    control, bus = _control(bench)
    bench.m.d.comb += [bus.rready.eq(bench.free(1, "rready")), bus.bready.eq(bench.free(1, "bready"))]
    register, past = REGISTERS["watchdog"], bench.past
    busy = control.running | control.halt | control.clear
    limit, quiet = Signal(32, init=register.reset), Signal(33)
    # A word is written in the cycle after it is accepted.
    written = past((bus.awvalid & bus.awready & bus.wvalid & bus.wready)
                   & (bus.awaddr[2:] == register.offset // 4)) & ~busy
    mask, word = past(Cat(strobe.replicate(8) for strobe in bus.wstrb)), past(bus.wdata)
    with bench.m.If(written):
        bench.m.d.sync += limit.eq((limit & ~mask) | (word & mask))
    bench.m.d.sync += quiet.eq(Mux(control.running & ~control.progress, quiet + 1, 0))
    bench.check("never quiet for longer than the watchdog",
                (limit == 0) | ~control.running | (quiet <= limit) | control.expired)
    bench.check("it expires only then",
                ~control.expired | past(control.expired) | past((limit != 0) & (quiet >= limit)))
    bench.check("it stays expired", ~past(control.expired & control.running) | control.expired | ~past(control.running))
    bench.reach("the watchdog expires", control.expired & (limit > 2))
