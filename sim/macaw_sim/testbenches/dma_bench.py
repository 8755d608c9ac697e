"""Everything around the DMA engine, cycle by cycle: bus slave, local memories, sequencer side.

One coroutine follows the clock. It checks the protocol of every port (what is offered stays until it is
taken, bursts keep to AXI4, strobes to the window), logs what is written, and stalls at random.
"""

from collections import deque

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge
from macaw_hw.isa import Fault

__all__ = ["Stalls", "Bench"]

_FROM_SLAVE = [f"m_axi_{name}" for name in ("arready", "rvalid", "rdata", "rresp", "rlast", "rid", "awready",
                                            "wready", "bvalid", "bresp", "bid")]


class Stalls:
    """Probabilities that a channel is not ready (not valid) in a cycle, and the latency of the memory."""

    def __init__(self, *, ar=0, r=0, aw=0, w=0, b=0, local=0, latency=(1, 1)):
        self.ar, self.r, self.aw, self.w, self.b, self.local, self.latency = ar, r, aw, w, b, local, latency


class Bench:
    """Drives `DmaTop`.

    Attributes
    ----------
    reads, writes : list of (address, beats, id), of (address, beats)
        Bursts accepted so far.
    local_log : list
        Events as in `dma_model.load_events`.
    bus : bool
        Whether this bench is the slave of the bus, too.
    bus_log : list of (address, byte)
        Bytes strobed so far, in order; the first ``acknowledged`` of them have their response.
    load_done, store_done : list of int
        For each `done` pulse, how long the log (of acknowledged bytes) was.
    """

    def __init__(self, dut, config, rng, region, local, *, bus=True):
        self.bus = bus
        self.dut, self.config, self.rng, self.region, self.local = dut, config, rng, region, local
        self.stalls = Stalls()
        self.read_errors, self.write_errors = set(), set()
        self.cycle = 0
        self.halted = False
        self.clear()

    def clear(self):
        """Forget what happened; everything is idle or in reset."""
        self.reads, self.writes, self.local_log, self.bus_log = [], [], [], []
        self.load_done, self.store_done = [], []
        self.instructions = {"load": deque(), "store": deque()}
        self.fetches, self.fetched = deque(), []
        self.read_queue, self.write_queue, self.responses = [], deque(), deque()
        self.write_beats, self.acknowledged = deque(), 0
        self.offered = {}
        self.read_beats = self.write_count = 0
        self.fault_at = {}

    async def start(self, window=None):
        """Clock, reset, and the follower of the clock."""
        dut = self.dut
        self.driven = {}
        self.tile_answer = {}
        for name in ("load__instruction__valid", "store__instruction__valid", "fetch__arvalid", "halt",
                     "load__instruction__payload", "store__instruction__payload",
                     "fetch__araddr", "fetch__arlen", "fetch__rready",
                     "load_vector__ready", "load_tile__ready", "store_vector__ready", "store_tile__ready",
                     "store_vector__data", "store_tile__data", "store_tile__exponent",
                     *(_FROM_SLAVE if self.bus else ())):
            self.drive(name, 0)
        self.set_window(*(window or (self.region.base, self.region.limit)))
        dut.rst.value = 1
        Clock(dut.clk, 10, unit="ns").start()
        await RisingEdge(dut.clk)
        await RisingEdge(dut.clk)
        dut.rst.value = 0
        cocotb.start_soon(self.follow())

    def set_window(self, base, limit):
        self.window = base, limit
        self.drive("window_base", base)
        self.drive("window_limit", limit)

    async def reset(self):
        """Reset the units; only legal while they are idle, since the bus is not reset."""
        assert self.get("load_idle") and self.get("store_idle")
        assert not (self.read_queue or self.write_queue or self.responses or self.write_beats)
        self.clear()
        self.dut.rst.value = 1
        for name in ("halt", "load__instruction__valid", "store__instruction__valid"):
            self.drive(name, 0)
        self.halted = False
        await RisingEdge(self.dut.clk)
        self.dut.rst.value = 0
        await RisingEdge(self.dut.clk)
        self.clear()

    def halt(self):
        self.halted = True
        self.drive("halt", 1)

    def drive(self, name, value):
        if self.driven.get(name) != value:
            self.driven[name] = value
            getattr(self.dut, name).value = value

    def get(self, name):
        return int(getattr(self.dut, name).value)

    def push(self, unit, instruction):
        self.instructions[unit].append(int.from_bytes(instruction, "little")
                                       & ((1 << len(self.dut.load__instruction__payload)) - 1))

    async def until(self, condition, limit=20000):
        """Wait for a condition; an error after ``limit`` cycles without a transfer."""
        quiet, before = 0, None
        while not condition():
            await RisingEdge(self.dut.clk)
            now = (len(self.local_log), self.read_beats, self.write_count, len(self.load_done), len(self.writes))
            quiet, before = (0 if now != before else quiet + 1), now
            assert quiet < limit, f"nothing happens since {limit} cycles"

    # One clock cycle.

    async def follow(self):
        while True:
            await RisingEdge(self.dut.clk)
            self.cycle += 1
            if self.dut.rst.value == 1:
                continue
            self._sequencer("load", self.load_done, len(self.local_log))
            self._sequencer("store", self.store_done, self.acknowledged)
            self._write_port("load_vector", ("row", "data"))
            self._write_port("load_tile", ("tile", "line", "exponent", "data"))
            self._read_ports()
            if self.bus:
                self._read_address()
                self._read_data()
                self._write_bus()
                self._fetch()

    def chance(self, probability):
        return probability and self.rng.random() < probability

    def latency(self):
        low, high = self.stalls.latency
        return low if low == high else int(self.rng.integers(low, high + 1))

    def stable(self, name, fields, taken):
        """What is offered stays until taken; halting may withdraw it from local memories."""
        offer = tuple(self.get(f"{name}{field}") for field in fields)
        if name in self.offered:
            assert offer == self.offered[name], f"{name} changed before it was taken"
        if taken:
            self.offered.pop(name, None)
        else:
            self.offered[name] = offer
        return offer

    def withdrawn(self, name):
        assert name not in self.offered or self.halted or self.fault_at, f"{name} was withdrawn"
        self.offered.pop(name, None)

    def _sequencer(self, unit, done, progress):
        fault = self.get(f"{unit}__fault")
        if self.get(f"{unit}__done"):
            assert fault == Fault.NONE, "done and fault in the same cycle"
            done.append(progress)
        if fault and unit not in self.fault_at:
            self.fault_at[unit] = self.cycle
        valid, queue = f"{unit}__instruction__valid", self.instructions[unit]
        if self.driven[valid] and self.get(f"{unit}__instruction__ready"):
            queue.popleft()
            self.drive(valid, 0)
        if queue and not self.driven[valid] and not self.chance(self.stalls.local):
            self.drive(f"{unit}__instruction__payload", queue[0])
            self.drive(valid, 1)

    def _write_port(self, name, fields):
        ready = self.driven[f"{name}__ready"]
        if self.get(f"{name}__valid"):
            offer = self.stable(f"{name}__", fields, ready)
            if ready:
                assert not ("load" in self.fault_at and self.cycle > self.fault_at["load"]), "write after fault"
                count = 4 * self.config.size if name == "load_vector" else self.config.size
                data = offer[-1].to_bytes(count, "little")
                self.local_log.append((name[5:], *offer[:-1], data))
        else:
            self.withdrawn(f"{name}__")
        self.drive(f"{name}__ready", int(not self.chance(self.stalls.local)))

    def _read_ports(self):
        rng, n = self.rng, self.config.size
        junk = int.from_bytes(rng.bytes(4 * n), "little")
        data = {"store_vector__data": junk, "store_tile__data": junk & ((1 << 8 * n) - 1),
                "store_tile__exponent": junk & 0x1FF, **self.tile_answer}
        self.tile_answer = {}
        for name, fields in (("store_vector", ("row",)), ("store_tile", ("tile", "line", "transpose"))):
            ready = self.driven[f"{name}__ready"]
            if not self.get(f"{name}__valid"):
                self.withdrawn(f"{name}__")
            else:
                place = self.stable(f"{name}__", fields, ready)
                if ready and name == "store_vector":
                    data["store_vector__data"] = int.from_bytes(self.local.vector[place[0]].tobytes(), "little")
                elif ready:
                    assert place[2] == 0
                    line = self.local.mantissas[place[0], place[1]]
                    self.tile_answer = {"store_tile__data": int.from_bytes(line.tobytes(), "little"),
                                        "store_tile__exponent": int(self.local.exponents[place[0]]) & 0x1FF}
            self.drive(f"{name}__ready", int(not self.chance(self.stalls.local)))
        for name, value in data.items():
            self.drive(name, value)

    def _burst(self, channel):
        """Checks and returns (address, beats) if one is accepted."""
        ready = self.driven[f"m_axi_{channel}ready"]
        if not self.get(f"m_axi_{channel}valid"):
            assert f"m_axi_{channel}" not in self.offered, f"{channel}valid was withdrawn"
            return None
        offer = self.stable(f"m_axi_{channel}", ("addr", "len", "id"), ready)
        if not ready:
            return None
        address, beats = offer[0], offer[1] + 1
        bus = self.config.bus_bytes
        assert address % bus == 0
        assert address // 4096 == (address + beats * bus - 1) // 4096, "burst crosses 4 KiB"
        return address, beats, offer[2]

    def _read_address(self):
        burst = self._burst("ar")
        if burst:
            self.reads.append(burst)
            self.read_queue.append([self.cycle + self.latency(), *burst, 0])
        self.drive("m_axi_arready", int(not self.chance(self.stalls.ar)))

    def _read_data(self):
        if self.driven["m_axi_rvalid"]:
            if not self.get("m_axi_rready"):
                return
            self.read_beats += 1
            self.drive("m_axi_rvalid", 0)
        if self.chance(self.stalls.r):
            return
        # Bursts of one id stay in order; those of different ids may mix.
        heads = [next((b for b in self.read_queue if b[3] == id), None) for id in (0, 1)]
        heads = [b for b in heads if b and b[0] <= self.cycle]
        if not heads:
            return
        burst = heads[int(self.rng.integers(len(heads)))] if len(heads) > 1 else heads[0]
        _, address, beats, id, beat = burst
        place = address + beat * self.config.bus_bytes
        self.drive("m_axi_rdata", int.from_bytes(self.region.read(place, self.config.bus_bytes).tobytes(), "little"))
        self.drive("m_axi_rresp", 2 if id == 0 and place in self.read_errors else 0)
        self.drive("m_axi_rid", id)
        self.drive("m_axi_rlast", int(beat + 1 == beats))
        self.drive("m_axi_rvalid", 1)
        burst[4] += 1
        if burst[4] == beats:
            self.read_queue.remove(burst)

    def _write_bus(self):
        bus = self.config.bus_bytes
        burst = self._burst("aw")
        if burst:
            self.writes.append(burst[:2])
            self.write_queue.append(burst[:2])
        self.drive("m_axi_awready", int(not self.chance(self.stalls.aw)))
        if self.get("m_axi_wvalid"):
            if self.driven["m_axi_wready"]:
                self.write_count += 1
                self.write_beats.append(self.stable("m_axi_w", ("data", "strb", "last"), True))
            else:
                self.stable("m_axi_w", ("data", "strb", "last"), False)
        else:
            assert "m_axi_w" not in self.offered, "wvalid was withdrawn"
        self.drive("m_axi_wready", int(not self.chance(self.stalls.w)))
        # A burst is over once all its beats are there.
        while self.write_queue and len(self.write_beats) >= self.write_queue[0][1]:
            address, beats = self.write_queue.popleft()
            response = 0
            for beat in range(beats):
                data, strobes, last = self.write_beats.popleft()
                assert last == (beat + 1 == beats), "wlast in the wrong beat"
                place = address + beat * bus
                response = 2 if place in self.write_errors else response
                for lane in range(bus):
                    if strobes >> lane & 1:
                        assert self.window[0] <= place + lane < self.window[1], "strobe outside of the window"
                        self.bus_log.append((place + lane, data >> 8 * lane & 0xFF))
            self.responses.append((self.cycle + self.latency(), response, len(self.bus_log)))
        if self.driven["m_axi_bvalid"]:
            if not self.get("m_axi_bready"):
                return
            self.acknowledged = self.responses.popleft()[2]
            self.drive("m_axi_bvalid", 0)
        if self.responses and self.responses[0][0] <= self.cycle and not self.chance(self.stalls.b):
            self.drive("m_axi_bresp", self.responses[0][1])
            self.drive("m_axi_bvalid", 1)

    def _fetch(self):
        """The other read master: requests in order, always ready."""
        self.drive("fetch__rready", 1)
        if self.get("fetch__rvalid") and self.driven["fetch__rready"]:
            self.fetched.append((self.get("fetch__rdata"), self.get("fetch__rlast")))
        if self.driven["fetch__arvalid"] and self.get("fetch__arready"):
            self.fetches.popleft()
            self.drive("fetch__arvalid", 0)
        if self.fetches and not self.driven["fetch__arvalid"]:
            self.drive("fetch__araddr", self.fetches[0][0])
            self.drive("fetch__arlen", self.fetches[0][1] - 1)
            self.drive("fetch__arvalid", 1)


