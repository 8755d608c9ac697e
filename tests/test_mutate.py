"""A few mutations of the RTL, and the tools that find out which of them the checks catch; `make mutate` is the long
way."""

import json
import re
from dataclasses import replace

import pytest
from macaw_hw.config import named_config
from macaw_sim.fuzz.case import Mismatch
from macaw_sim.mutate import equivalence, presets, report
from macaw_sim.mutate.campaign import Campaign, Verdict
from macaw_sim.mutate.device import Mutant, choose, record, replay
from macaw_sim.mutate.netlist import UNITS, Mutation, generate, unit_of
from macaw_sim.tools import ToolError

N4 = named_config("n4")
COUNT = 18
FAST = {"read_latency": 5, "write_latency": 5}
real = presets.preset


@pytest.fixture(scope="module")
def netlist():
    return generate(N4, count=COUNT, seed=3)


@pytest.fixture
def campaign(netlist):
    campaign = Campaign(N4, netlist, seed=1, say=lambda text: None)
    campaign.path.unlink(missing_ok=True)
    campaign.verdicts = {mutation.number: Verdict() for mutation in netlist.mutations}
    return campaign


def cell(netlist, module, kind, connection):
    """Name of the first cell of a kind in a module with a connection."""
    body = re.search(rf"^module \\{re.escape(module)}\n(.*?)^end\n", netlist.prepared.read_text(), re.M | re.S)[1]
    cells = re.findall(rf"^  cell {re.escape(kind)} (\S+)\n(.*?)^  end\n", body, re.M | re.S)
    return next(name for name, inside in cells if f"    connect {connection}\n" in inside)


def mutation(number, module, mode, cell, port, bit=0):
    return Mutation(number, unit_of(module), mode, module, cell, port, bit, -1, "", ())


def test_same_seed_same_mutations(netlist):
    assert generate(N4, count=COUNT, seed=3) == netlist
    assert [mutation.number for mutation in netlist.mutations] == list(range(1, COUNT + 1))
    assert len({mutation.unit for mutation in netlist.mutations}) >= 15
    assert len({mutation.command for mutation in netlist.mutations}) == COUNT
    assert all(re.search(r"\.py:\d+", str(mutation)) for mutation in netlist.mutations)


def test_programs_catch_mutations(netlist, campaign):
    """The unchanged netlist passes, most of the others do not, and a second campaign knows what the first found."""
    campaign.run(("programs",))
    caught = [verdict for verdict in campaign.verdicts.values() if verdict.caught == "programs"]
    assert len(caught) >= COUNT // 2
    assert all(verdict.how for verdict in caught)
    again = Campaign(N4, netlist, seed=1, say=pytest.fail)
    assert again.verdicts == campaign.verdicts
    again.run(("programs",))


def test_a_wrong_netlist_is_refused(netlist, campaign):
    """What the unchanged device does not pass catches everything, and shows nothing."""
    def check(number, verdict):
        raise Mismatch("always")
    campaign._disturbed = lambda: check
    with pytest.raises(ValueError, match="netlist without mutation does not pass the stage 'disturbed': always"):
        campaign.run(("disturbed",))


def test_replay_repeats(netlist):
    """The unchanged device repeats each record, counters included; a wrong record is a mismatch."""
    device = Mutant(N4, netlist.verilog, 0, seed=4, **FAST)
    steps = record(device, legal=3, illegal=3, seed=4)
    device.close()
    assert any(step.races for step in steps)
    device = Mutant(N4, netlist.verilog, 0, seed=4, **FAST)
    replay(device, steps, pytest.fail)
    device.close()
    steps[0].dram[-1] ^= 1
    device = Mutant(N4, netlist.verilog, 0, seed=4, **FAST)
    with pytest.raises(Mismatch, match="legal program 0: 1 bytes of memory differ"):
        replay(device, steps)
    device.close()
    steps[0].dram[-1] ^= 1
    steps[0].counters["cycles"] += 1
    noticed = []
    device = Mutant(N4, netlist.verilog, 0, seed=4, **FAST)
    replay(device, steps, noticed.append)
    device.close()
    assert noticed == ["legal program 0: cycles"]


def test_proofs(netlist, tmp_path):
    """What a FIFO's memory reads matters, the constant that is added to an address is 1 already."""
    fifo = "macaw.store.setups"
    read = mutation(1, fifo, "inv", cell(netlist, fifo, "$memrd_v2", r"\DATA \r_data"), "DATA", 13)
    same = mutation(2, fifo, "const1", cell(netlist, fifo, "$add", r"\B 1'1"), "B")
    other = replace(same, number=3, mode="const0")
    found = equivalence.prove(netlist.prepared, [(read, fifo), (same, fifo), (other, fifo)], tmp_path)
    assert found == {1: "different", 2: "equivalent", 3: "different"}
    assert equivalence.contexts(fifo) == [fifo, "macaw.store"]


def test_proof_of_connections(netlist, tmp_path):
    """Three bits that are added give at most 3. Whatever the units do, which are cut out."""
    high = mutation(1, "macaw", "const0", cell(netlist, "macaw", "$add", r"\B \vector__done"), "Y", 2)
    alone, = equivalence.contexts("macaw")
    questions = [(high, alone), (replace(high, number=2, mode="const1"), alone)]
    assert equivalence.prove(netlist.prepared, questions, tmp_path) == {1: "equivalent", 2: "different"}
    assert equivalence.contexts("macaw.fetch.buffer") == [
        "macaw.fetch.buffer", "macaw.fetch", "macaw only fetch fetch.* control*"]
    assert equivalence.contexts("macaw.activation.operands.a")[1:4] == [
        "macaw.activation.operands", "macaw.activation only operands*",
        "macaw.activation only operands* results tile quantizer quantizer.tiles"]
    assert equivalence.contexts("macaw.matrix")[1:] == [
        "macaw only matrix matrix.delay matrix.loader matrix.streamer tile_memory*", "macaw.matrix"]
    assert equivalence.contexts("macaw.matrix.array.row0") == [
        "macaw.matrix.array.row0", "macaw.matrix.array", "macaw.matrix"]


def test_high_bits(netlist, monkeypatch):
    """Presets reach the high bits of counters, watchdog and index; without them the check fails."""
    device = Mutant(N4, netlist.verilog, 0, seed=4, **FAST)
    presets.check_high_bits(device, 4)
    for name, message in (("counts", r"cycles is 0x\w+ instead of 0x\w+"), ("quiet", "no interrupt within"),
                          ("index", "a program from instruction")):
        with monkeypatch.context() as patch, pytest.raises(Mismatch, match=message):
            patch.setattr(presets, "preset", lambda device, preset, value, name=name: real(
                device, preset, 0 if preset == name else value))
            presets.check_high_bits(device, 4)
        device.reset()
    device.close()


def test_presets_are_found():
    text = "\nmodule \\macaw.control (clk);\n  other <= a;\nendmodule\n"
    with pytest.raises(ToolError, match="^Yosys wrote quiet with 0 assignments instead of 1$"):
        presets.add_presets(text)


def test_report(netlist):
    verdicts = {mutation.number: Verdict() for mutation in netlist.mutations}
    first, second, third = netlist.mutations[:3]
    verdicts[first.number].caught = "programs"
    verdicts[second.number].equivalent = second.module
    verdicts[third.number].timing = "legal program 0: cycles"
    text = report.table(netlist.mutations, verdicts)
    assert f"caught: 1 of {COUNT - 1}" in text
    assert f"not noticed: {third.number} {third}\n    takes other cycles: legal program 0: cycles" in text
    assert str(first) not in text and str(second) not in text
    assert report.score(netlist.mutations, verdicts) == (1, COUNT - 1)


def test_units():
    assert unit_of("macaw.sequencer.load_queue.posts") == "queues"
    assert unit_of("macaw.sequencer.tokens") == "sequencer"
    assert unit_of("macaw.activation.lane3.add") == "float32"
    with pytest.raises(ValueError, match="^module macaw.new belongs to no unit: add it to "):
        unit_of("macaw.new")
    with pytest.raises(ValueError, match="^unit must be one of counters, .*, not 'dma'$"):
        generate(N4, count=1, seed=1, unit="dma")
    assert "top" in UNITS


def test_command_line(capsys, monkeypatch):
    from macaw_sim.mutate import __main__ as command
    monkeypatch.setattr("sys.argv", ["mutate", "--count", "0"])
    with pytest.raises(SystemExit):
        command.main()
    assert "--count must be at least 1, not 0" in capsys.readouterr().err


def test_choice_is_for_new_devices(netlist):
    """A device keeps the mutation that it was made with."""
    device = Mutant(N4, netlist.verilog, 0, seed=4, **FAST)
    steps = record(device, legal=2, seed=4)
    device.close()
    device = Mutant(N4, netlist.verilog, 0, seed=4, **FAST)
    choose(netlist.verilog, netlist.mutations[0].number)
    replay(device, steps, pytest.fail)
    device.close()
    assert json.loads((netlist.prepared.parent / "mutations.json").read_text())[0]["number"] == 1
