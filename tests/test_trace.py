"""Recordings of the RTL: what they say agrees with the device's counters and with the tokens of the program."""

import json

import numpy as np
import pytest
from macaw import plots, trace
from macaw.device import Device
from macaw.trace import Recording, TracedDevice, chrome
from macaw.workloads import Workload
from macaw_hw import sequencer
from macaw_hw.config import CONFIGS
from macaw_hw.events import EVENTS
from macaw_hw.isa import Queue
from macaw_hw.verilog import generate
from macaw_sim.verilator.build import cached_verilog

WORK = Workload(layers=(40, 24, 10), batch=16)


@pytest.fixture(scope="module")
def traced():
    """The recording of a training step, the counters of the device, and the program with its log."""
    with TracedDevice("n4", dram_bytes=WORK.memory) as device:
        logs = []
        take, run = device.backend.take_events, device.run
        device.backend.take_events = lambda: logs.append(take()) or logs[-1]
        device.run = lambda program, *options: logs.append(program) or run(program, *options)
        step = WORK.prepare(device)
        counters = step()
        program = [entry for entry in logs if not isinstance(entry, tuple)][-1]
        return device.recording, counters, program, logs[-1]


def test_agrees_with_the_counters(traced):
    recording, counters, program, _ = traced
    assert recording.cycles == counters["cycles"] > WORK.limit(CONFIGS["n4"]).cycles
    assert len(recording.instructions) == counters["instructions"] == len(program)
    for queue, states in recording.states.items():
        name = queue.name.lower()
        assert np.array_equal(sum(states.values()), np.ones(recording.cycles))
        assert states["memory"].sum() == counters[f"{name}_wait_memory"]
        assert recording.event(queue, "waiting").sum() == counters[f"{name}_wait_token"]
        idle = states["token"].sum() + states["idle"].sum()
        assert recording.cycles - idle == counters[f"{name}_busy"]


def test_waits_follow_the_tokens(traced):
    """No instruction is issued before those that post its tokens are done, and one that waits is issued right then."""
    recording, counters, program, _ = traced
    sources = recording.token_sources()
    waited = dict.fromkeys(Queue, 0)
    lines = program.disassemble().splitlines()
    for i in recording.instructions:
        assert i.text in lines[i.index]
        assert i.head <= i.issued <= i.start <= i.done
        assert [*(wait.start for wait in i.waits), i.issued] == [i.head, *(wait.end for wait in i.waits)]
        assert all(source.done < i.issued for source in sources[i.index])
        for wait in i.waits:
            assert wait.cause in trace.CAUSES
            if wait.cause == "token":
                waited[i.queue] += wait.end - wait.start
                assert wait.source in sources[i.index] and wait.end == wait.source.done + 1
    assert waited == {queue: counters[f"{queue.name.lower()}_wait_token"] for queue in Queue}
    assert trace.IN_FLIGHT == sequencer.IN_FLIGHT


def test_observing_changes_nothing(traced):
    """The same cycles without the port, and the same Verilog as ever."""
    _, counters, _, _ = traced
    with Device("n4", dram_bytes=WORK.memory) as device:
        assert WORK.prepare(device)() == counters
    plain, shown = (cached_verilog(CONFIGS["n4"], observe) for observe in (False, True))
    ports = [text.partition("module macaw(")[2].partition(";")[0] for text in (plain, shown)]
    assert "events" in ports[1] and "events" not in ports[0]
    assert plain == generate(CONFIGS["n4"])


def test_chrome(traced):
    recording = traced[0]
    content = json.loads(chrome(recording))
    spans = [event for event in content["traceEvents"] if event["ph"] == "X"]
    names = {(e["pid"], e["tid"]): e["args"]["name"] for e in content["traceEvents"] if e["name"] == "thread_name"}
    assert len(names) == 12 and {(e["pid"], e["tid"]) for e in spans} <= set(names)
    executed = [e for e in spans if e["tid"] == 1]
    assert sorted(e["args"]["index"] for e in executed) == list(range(len(recording.instructions)))
    for row in names:       # a row shows spans that follow each other
        own = sorted((e["ts"], e["ts"] + e["dur"]) for e in spans if (e["pid"], e["tid"]) == row)
        assert all(a[1] <= b[0] + 1 for a, b in zip(own, own[1:], strict=False))
        assert all(0 <= start < end <= recording.cycles for start, end in own)
    assert content["otherData"]["cycles"] == recording.cycles


def test_timeline(traced):
    picture = plots.timeline(traced[0], "a step")
    assert picture.startswith(b"\x89PNG") and 5_000 < len(picture) < 300_000


def test_a_lost_event_is_noticed(traced):
    _, _, program, (times, events) = traced
    bit = 1 << list(EVENTS).index("vector_done")
    changed = events.copy()
    changed[np.flatnonzero(events & bit)[3]] &= ~np.uint32(bit)
    with pytest.raises(ValueError, match="the VECTOR queue must show"):
        Recording(program, times, changed)
