"""The AXI4 memory model of the Verilator backend, pin by pin."""

import numpy as np
import pytest
from axi_pins import Bus

SIZE = 1 << 16
WIDTHS = (4, 8, 16, 32)
HALF = 1 << 31


@pytest.fixture(params=WIDTHS)
def width(request):
    return request.param


@pytest.fixture
def memory(rng):
    return rng.integers(0, 256, SIZE, dtype=np.uint8)


@pytest.mark.parametrize("latency", [1, 2, 40])
def test_read_latency_and_full_rate(memory, width, latency):
    bus = Bus(memory, width, read_latency=latency)
    bus.cycle()
    beats = bus.read(4096, 4096 // width if width > 8 else 256)
    assert [beat.delay for beat in beats] == list(range(latency, latency + len(beats)))
    assert b"".join(beat.data for beat in beats) == memory[4096:4096 + len(beats) * width].tobytes()
    assert [beat.last for beat in beats] == [0] * (len(beats) - 1) + [1]
    assert all(beat.resp == 0 for beat in beats)


@pytest.mark.parametrize("latency", [1, 2, 20])
def test_write_is_visible_with_its_response(memory, rng, width, latency):
    bus = Bus(memory, width, write_latency=latency)
    data = rng.integers(0, 256, 8 * width, dtype=np.uint8)
    before = memory.copy()
    seen = []
    cycle = bus.cycle
    def watched(**pins):
        seen.append((bus.pins.bvalid, (memory == before).all()))
        return cycle(**pins)
    bus.cycle = watched
    response = bus.write(8192, data.tobytes())
    assert response.delay == latency and response.resp == 0
    assert all(unchanged != valid for valid, unchanged in seen)
    before[8192:8192 + data.size] = data
    assert (memory == before).all()


def test_strobes(memory, rng, width):
    bus = Bus(memory, width)
    expected = memory.copy()
    data = rng.integers(0, 256, 16 * width, dtype=np.uint8)
    strobes = [0, (1 << width) - 1, *(int(x) for x in rng.integers(0, 1 << width, 14))]
    bus.write(512, data.tobytes(), strobes)
    for beat, strobe in enumerate(strobes):
        for lane in range(width):
            if strobe >> lane & 1:
                expected[512 + beat * width + lane] = data[beat * width + lane]
    assert (memory == expected).all()


def test_unaligned_burst_begins_inside_its_first_beat(memory, width):
    bus = Bus(memory, width)
    beats = bus.read(256 + width - 1, 2)
    assert b"".join(beat.data for beat in beats) == memory[256:256 + 2 * width].tobytes()
    bus.write(256 + width - 1, bytes(2 * width), [1 << width - 1, (1 << width) - 1])
    assert bus.violation == ""
    assert memory[256 + width - 1:256 + 2 * width].any() == 0 and memory[256:256 + width - 1].any()


@pytest.mark.parametrize("options", [{}, {"reorder": 1}, {"reorder": 1, "interleave": 1}],
                         ids=["in-order", "reorder", "interleave"])
@pytest.mark.parametrize("stall", [0, HALF], ids=["free", "stalls"])
def test_many_outstanding_reads(memory, rng, seed, width, options, stall):
    """Bursts of two ids: every beat is right and in order for its id, whatever the mix."""
    bus = Bus(memory, width, read_latency=9, seed=seed, stall=stall, outstanding=8, **options)
    todo = [(int(page) * 4096 + int(slot) * 16 * width, int(beats), int(id)) for page, slot, beats, id in zip(
        rng.integers(0, SIZE // 4096, 60), rng.integers(0, 4096 // 16 // 32, 60), rng.integers(1, 17, 60),
        rng.integers(0, 2, 60), strict=True)]
    expected = {id: [memory[a + i * width:a + (i + 1) * width].tobytes() + bytes([i == beats - 1])
                     for a, beats, own in todo if own == id for i in range(beats)] for id in (0, 1)}
    got = {0: [], 1: []}
    order, accepted, most, offered, held = [], 0, 0, None, None
    for _ in range(20000):
        p = bus.pins
        if not p.arvalid and todo and rng.random() < 0.7:
            p.araddr, offered, p.arid = todo.pop(0)
            p.arlen, p.arvalid = offered - 1, 1
        p.rready = int(rng.random() < 0.8)
        payload = (p.rid, p.rlast, p.rresp, bytes(p.rdata)) if p.rvalid else None
        assert held in (None, payload), "R changed before it was accepted"
        held = payload if p.rvalid and not p.rready else None
        moved = bus.cycle()
        if moved.ar:
            p.arvalid, accepted = 0, accepted + 1
        if moved.r:
            got[moved.r.id].append(moved.r.data + bytes([moved.r.last]))
            order.append(moved.r.id)
        most = max(most, accepted - sum(beat[-1] for id in got for beat in got[id]))
        if not todo and sum(map(len, got.values())) == sum(map(len, expected.values())):
            break
    assert got == expected
    assert bus.violation == ""
    # The beat that is on its way out belongs to no burst any more.
    assert 6 <= most <= 9


@pytest.mark.parametrize("options, expected", [({}, False), ({"reorder": 1}, True)])
def test_reads_overtake_only_if_told(memory, seed, options, expected):
    bus = Bus(memory, 8, read_latency=30, seed=seed, **options)
    bus.cycle()
    ids = [0, 1] * 8
    for id in ids:
        bus.cycle(arvalid=1, araddr=64 * id, arlen=3, arid=id)
    bus.pins.arvalid = 0
    beats = [bus.cycle(rready=1).r for _ in range(120)]
    order = [beat.id for beat in beats if beat and beat.last]
    assert sorted(order) == sorted(ids)
    assert (order != ids) == expected


@pytest.mark.parametrize("options, expected", [({}, False), ({"reorder": 1}, True)])
def test_responses_overtake_only_if_told(memory, seed, options, expected):
    bus = Bus(memory, 8, write_latency=40, seed=seed, **options)
    bus.cycle()
    ids = [0, 1] * 8
    for id in ids:
        bus.cycle(awvalid=1, awaddr=64, awlen=0, awid=id)
    bus.pins.awvalid = 0
    bus.pins.wlast = bus.pins.wvalid = 1
    order, sent = [], 0
    for cycle in range(200):
        moved = bus.cycle(bready=int(cycle > 100), wvalid=int(sent < len(ids)))
        sent += bool(moved.w)
        if moved.b:
            order.append(moved.b.id)
    assert sorted(order) == sorted(ids)
    assert (order != ids) == expected


def test_outstanding_writes_are_limited(memory):
    bus = Bus(memory, 8, outstanding=3)
    taken = sum(bool(bus.cycle(awvalid=1, awaddr=0, awlen=1).aw) for _ in range(20))
    assert taken == 3


@pytest.mark.parametrize("share", [0.25, 0.6])
def test_bandwidth(memory, share):
    bus = Bus(memory, 8, read_bandwidth=round(share * 65536), write_bandwidth=round(share * 65536))
    bus.cycle()
    beats = bus.read(0, 256)
    assert beats[-1].delay - beats[0].delay == pytest.approx(255 / share, abs=3)
    start = bus.time
    bus.write(0, bytes(2048))
    assert bus.time - start == pytest.approx(256 / share, abs=8)


def test_stalls_follow_the_seed(memory, seed):
    def times(seed, stall=HALF):
        bus = Bus(memory, 8, seed=seed, stall=stall)
        bus.read(0, 64)
        bus.write(0, bytes(512))
        bus.write(512, bytes(512))
        bus.read(512, 64)
        return bus.time
    assert times(seed) == times(seed)
    assert times(seed, 0) < times(seed)
    assert len({times(seed + i) for i in range(8)}) > 1


@pytest.mark.parametrize("response", [2, 3])
def test_injected_error(memory, width, response):
    bus = Bus(memory, width)
    before = memory.copy()
    # One byte of the third beat is enough to hit it.
    bus.inject(1024 + 3 * width - 1, 1024 + 3 * width, response, 3)
    assert [beat.resp for beat in bus.read(1024, 5)] == [0, 0, response, 0, 0]
    assert bus.write(1024, bytes(5 * width)).resp == response
    before[1024:1024 + 5 * width] = 0
    before[1024 + 2 * width:1024 + 3 * width] = memory[1024 + 2 * width:1024 + 3 * width]
    assert memory[1024 + 2 * width:1024 + 3 * width].any()
    assert (memory == before).all()


@pytest.mark.parametrize("directions", [1, 2])
def test_error_in_one_direction(memory, directions):
    bus = Bus(memory, 8)
    bus.inject(0, 8, 2, directions)
    assert bus.read(0, 1)[0].resp == (2 if directions == 1 else 0)
    assert bus.write(0, bytes(8)).resp == (2 if directions == 2 else 0)


@pytest.mark.parametrize("address", [SIZE, 1 << 31, (1 << 40) - 4096])
def test_beyond_the_memory(memory, width, address):
    bus = Bus(memory, width)
    before = memory.copy()
    assert [beat.resp for beat in bus.read(address, 2)] == [3, 3]
    assert bus.write(address, bytes(width)).resp == 3
    assert bus.read(SIZE - width, 1)[0].data == memory[-width:].tobytes()
    assert (memory == before).all()


def test_silence(memory):
    bus = Bus(memory, 8, read_latency=10)
    bus.cycle()
    bus.cycle(arvalid=1, araddr=0, arlen=7, rready=1)
    bus.pins.arvalid = 0
    bus.silent_from(bus.time)
    moved = [bus.cycle(arvalid=1, awvalid=1, wvalid=1, bready=1) for _ in range(300)]
    # What was ready already is still taken, once.
    assert sum(bool(m.ar) for m in moved) <= 1 and sum(bool(m.aw) for m in moved) <= 1
    assert not any(m.r or m.b or m.w for m in moved)
    bus.silent_from(bus.time + 5)
    moved = [bus.cycle(arvalid=0, awvalid=0, wvalid=0) for _ in range(300)]
    assert 0 < sum(m.r is not None for m in moved) <= 5
    bus.silent_from(1 << 60)
    assert any(bus.cycle().r for _ in range(5))


def test_reset_forgets(memory):
    bus = Bus(memory, 8, read_latency=10, outstanding=2)
    for _ in range(5):
        bus.cycle(arvalid=1, awvalid=1, arburst=0)
    assert bus.violation
    bus.reset()
    bus.idle()
    bus.pins.arburst = 1
    assert bus.violation == ""
    assert not any(bus.cycle(rready=1, bready=1).r for _ in range(50))
    assert bus.read(0, 1)[0].data == memory[:8].tobytes()
    assert bus.write(0, bytes(8)).resp == 0


def _hold(channel, **change):
    """Offer on a channel that is not ready (before the first cycle none is), then change the offer."""
    def run(bus):
        bus.cycle(**{f"{channel}valid": 1})
        bus.cycle(**change)
    return run


def _burst(channel, **pins):
    def run(bus):
        bus.cycle()
        bus.cycle(**{f"{channel}valid": 1}, **pins)
        bus.cycle(**{f"{channel}valid": 0})
    return run


def _beats(*lasts, strobe=0, address=0):
    def run(bus):
        bus.cycle()
        bus.cycle(awvalid=1, awlen=2, awaddr=address)
        bus.pins.awvalid = 0
        for last in lasts:
            while not bus.cycle(wvalid=1, wlast=last, wstrb=strobe).w:
                pass
    return run


@pytest.mark.parametrize("run, message", [
    (_hold("ar", arvalid=0), "ARVALID fell before ARREADY"),
    (_hold("ar", araddr=8), "AR changed before it was accepted"),
    (_hold("ar", arlen=1), "AR changed before it was accepted"),
    (_hold("ar", arid=1), "AR changed before it was accepted"),
    (_hold("aw", awvalid=0), "AWVALID fell before AWREADY"),
    (_hold("aw", awaddr=8), "AW changed before it was accepted"),
    (_hold("w", wvalid=0), "WVALID fell before WREADY"),
    (_hold("w", wdata=[1]), "W changed before it was accepted"),
    (_hold("w", wstrb=1), "W changed before it was accepted"),
    (_hold("w", wlast=1), "W changed before it was accepted"),
    (_burst("ar", arburst=0), "ARBURST is 0, not 1 (INCR), at address 0"),
    (_burst("aw", awburst=2), "AWBURST is 2, not 1 (INCR), at address 0"),
    (_burst("ar", arsize=1), "ARSIZE is 1: beats of 2 bytes on a bus of 8"),
    (_burst("aw", awsize=4), "AWSIZE is 4: beats of 16 bytes on a bus of 8"),
    (_burst("ar", arlock=1, araddr=64), "ARLOCK is set at address 0x40"),
    (_burst("ar", araddr=0x1FF8, arlen=1), "AR burst of 2 beats at address 0x1ff8 crosses 4 KiB"),
    (_burst("aw", awaddr=0xF01, awlen=32), "AW burst of 33 beats at address 0xf01 crosses 4 KiB"),
    (_beats(0, 1), "WLAST is 1 in beat 2 of 3"),
    (_beats(0, 0, 0), "WLAST is 0 in beat 3 of 3"),
    (_beats(0, strobe=0xF, address=3), "WSTRB selects bytes before the address of the burst"),
])
def test_violation(memory, run, message):
    bus = Bus(memory, 8)
    assert bus.violation == ""
    run(bus)
    assert bus.violation.startswith("cycle ") and bus.violation.split(": ", 1)[1] == message


@pytest.mark.parametrize("run", [
    _hold("ar"), _hold("aw"), _hold("w"),
    _burst("ar", araddr=0x1FF8, arlen=0), _burst("aw", awaddr=0xF00, awlen=31), _burst("ar", araddr=0x800, arlen=255),
    _beats(0, 0, 1, strobe=0xFF), _beats(0, strobe=0xF8, address=3), _beats(0, 0, 1, strobe=0),
])
def test_no_violation(memory, run):
    bus = Bus(memory, 8)
    run(bus)
    assert bus.violation == ""
