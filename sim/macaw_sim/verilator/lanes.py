"""Verilog that simulates faster: equal modules beside each other become one that loops over arrays.

The accelerator has N float32 lanes and N accumulators, each an instance of a module of its own
whose text is the same. Verilator makes N copies of their code, and each simulated cycle runs once
through all of it, so that the processor waits for instructions. `merge_lanes` replaces such
instances by one of a module in which a signal is an array with an element for each lane, and in
which one loop does for all lanes what their registers need. The compiler turns the loop into vector
instructions; several habits of the text below are what it needs for that:

* Elements are 32 or 64 bits wide, whatever the signal is. Bits above the signal's width are zero in
  a register, and anything in a temporary, where each use selects the bits that count.
* Temporaries are automatic variables with a value before the loop, else Verilator makes them
  members of a class.
* Elements are read at the beginning and written at the end of the loop, and choices are made with
  masks, so that the loop has no branches.
* Only registers that another module reads are assigned without blocking, as an array and
  after the loop.

A module that contains something that is not understood here leaves its instances as they are. Ports
and behaviour of the top module stay the same, in every cycle.
"""

import contextlib
import re

from .loop import Code, container
from .netlist import Unsupported, instances, modules, names, parse

__all__ = ["merge_lanes"]

_LEAST = 4
"""Instances that are worth a loop."""


def merge_lanes(verilog: str) -> str:
    """``verilog``, as Amaranth writes it, with merged lanes."""
    library = _Library(verilog)
    for parent, text in library.texts.items():
        groups: dict = {}
        for instance in instances(text):
            if instance.kind in library.parsed:
                groups.setdefault(library.equal(instance.kind), []).append(instance)
        changed = text
        for group in groups.values():
            if len(group) >= _LEAST:
                changed = _merge_group(library, parent, group, changed)
        verilog = verilog.replace(text, changed)
    return "\n".join([verilog, *library.added])


class _Library:
    """The modules of a text; ``added`` are the texts of merged ones."""

    def __init__(self, verilog):
        self.texts, self.parsed, self.added, self._classes, self._kinds = {}, {}, [], {}, {}
        for name, text, body in modules(verilog):
            self.texts[name] = text
            with contextlib.suppress(Unsupported):
                self.parsed[name] = parse(name, body)

    def equal(self, name):
        """A number that is the same for modules that differ only in names of modules."""
        if name not in self._classes:
            text = re.sub(r"dump_module\$\d+", "", self.texts[name]).replace(name, "", 1)
            for kind in {one.kind for one in instances(self.texts[name])} & self.texts.keys():
                text = text.replace(f"  {kind} ", f"  {self.equal(kind)} ")
            self._classes[name] = self._kinds.setdefault(text, len(self._kinds))
        return self._classes[name]

    def module(self, name):
        if name not in self.parsed:
            raise Unsupported(name)
        return self.parsed[name]


def _merge_group(library, parent, group, text):
    """``text``, of the module ``parent``, with one instance instead of those in ``group``."""
    first, count, added = group[0], len(group), len(library.added)
    module = library.module(first.kind)
    label = first.name.lstrip("\\")
    try:
        if any(port not in one.ports for one in group for port in module.inputs):
            raise Unsupported("open input")
        same = {port for port in module.inputs if len({one.ports[port] for one in group}) == 1}
        name = f"{_escaped(parent)}.{label}_lanes "
        merged = _Merged(library, module, name, count, same)
    except Unsupported:
        del library.added[added:]
        return text
    lines, ports = [], []
    for port in (*module.inputs, *module.outputs):
        if port not in merged.lanes:
            ports.append(f"    .{port} ({first.ports.get(port, '')} )")
            continue
        array, width = re.sub(r"\W", "_", f"{label}_lanes_{port}"), module.signals[port].width
        ports.append(f"    .{port} ({array})")
        lines.append(f"  wire [{container(width) - 1}:0] {array} [0:{count - 1}];")
        for i, one in enumerate(group):
            if port in module.inputs:
                lines.append(f"  assign {array}[{i}] = {one.ports[port]} ;")
            elif one.ports.get(port):
                lines.append(f"  assign {one.ports[port]} = {array}[{i}][{width - 1}:0];")
    lines.append(f"  {merged.name} \\{label}_lanes  (\n" + ",\n".join(ports) + "\n  );\n")
    for i, one in enumerate(group):
        text = text.replace(one.text, "" if i else "\n".join(lines))
    return text


class _Merged:
    """A module, ``name``, that does what ``count`` instances of ``module`` do.

    It is added to the library, with what is inside. ``same`` are the inputs that do not differ
    between lanes; ``lanes`` are all signals that may, and so are arrays.
    """

    def __init__(self, library, module, name, count, same):
        self.library, self.module, self.name, self.count = library, module, name, count
        self.lanes = self._find_lanes(set(module.inputs) - same)
        self.drivers: dict = {}
        for logic in module.logic:
            if logic.writes & self.lanes:
                for signal in logic.writes:
                    self.drivers.setdefault(signal, []).append(logic)
        self.registers = {
            signal: value for signal, value in module.registers if signal in self.lanes}
        inner, inputs = self._instances()
        shown = [signal for signal in (*module.outputs, *inputs) if signal in self.lanes]
        self.visible = {signal for signal in shown if signal in self.registers}
        self.computed = {signal for signal in shown if signal in self.drivers}
        library.added.append("\n".join([
            f"module {name} (\n  " + ",\n  ".join(self._ports()) + ");",
            *self._declarations(), *self._shared(),
            *([self._loop("always_comb", sorted(self.computed), {})] if self.computed else []),
            *([self._loop("always @(posedge clk)", [], self.registers)] if self.registers else []),
            *inner, "endmodule\n"]))

    def _find_lanes(self, lanes):
        module = self.module
        for one in module.instances:
            outputs = self.library.module(one.kind).outputs
            lanes |= {value for port, value in one.ports.items() if port in outputs and value}
        size = None
        while size != len(lanes):
            size = len(lanes)
            for logic in module.logic:
                if logic.reads & lanes or logic.writes & lanes:
                    lanes |= logic.writes
            lanes |= {signal for signal, value in module.registers if names(value) & lanes}
        for signal in lanes:
            if signal not in module.signals or module.signals[signal].width > 64:
                raise Unsupported(signal)
        return lanes

    def _instances(self):
        """Text of the instances inside, which are merged too, and the signals that they read."""
        texts, used = [], []
        for one in self.module.instances:
            inner = self.library.module(one.kind)
            inputs = {port: value for port, value in one.ports.items() if port in inner.inputs}
            same = {port for port, value in inputs.items() if not names(value) & self.lanes}
            for port in inputs.keys() - same:
                if inputs[port] not in self.lanes:
                    raise Unsupported(inputs[port])
                used.append(inputs[port])
            name = f"{self.name.strip()}.{one.name.lstrip(chr(92))} "
            merged = _Merged(self.library, inner, name, self.count, same)
            texts.append(f"  {merged.name} {one.name} (" + ", ".join(
                f".{port} ({value} )" for port, value in one.ports.items()) + ");")
        return texts, used

    def _ports(self):
        for signal in (*self.module.inputs, *self.module.outputs):
            way = "input wire" if signal in self.module.inputs else "output wire"
            if signal in self.visible | self.computed:
                way = "output reg"
            yield f"{way} {self._shape(signal)}{self._init(signal) if way == 'output reg' else ''}"

    def _declarations(self):
        module, temporaries = self.module, self.drivers.keys() - self.computed
        for signal in module.signals:
            if signal in module.inputs or signal in module.outputs or signal in temporaries:
                continue
            held = signal not in self.lanes or signal in self.registers or signal in self.computed
            yield f"  {'reg' if held else 'wire'} {self._shape(signal)}{self._init(signal)};"

    def _shape(self, signal):
        shape = self.module.signals[signal]
        if signal in self.lanes:
            return f"[{container(shape.width) - 1}:0] {signal} [0:{self.count - 1}]"
        return f"[{shape.width - 1}:0] {signal} " if shape.ranged else f"{signal} "

    def _init(self, signal):
        init = self.module.signals[signal].init
        if init is None:
            return ""
        if signal in self.lanes:
            return f" = '{{default: {init}}}" if signal in self.registers else ""
        return f" = {init}"

    def _shared(self):
        """What is equal for all lanes, as it was."""
        for logic in self.module.logic:
            if not logic.writes & self.lanes:
                yield (f"  always_comb begin\n{logic.text}\n  end" if logic.process
                       else f"  assign {logic.text}")
        for signal, value in self.module.registers:
            if signal not in self.lanes:
                yield f"  always @(posedge clk)\n    {signal} <= {value};"

    def _loop(self, head, signals, registers):
        """A process that computes ``signals`` and what ``registers`` become, for each lane."""
        code = Code(self.module.signals, self.lanes)
        for logic in self._order(signals, registers):
            code.add(logic, partial=len(self.drivers[min(logic.writes)]) > 1)
        stores, after, arrays = [], [], []
        for signal in signals:
            stores.append(f"{signal} [lane__i] = {code.value(signal)};")
        for signal, value in registers.items():
            width = self.module.signals[signal].width
            following = code.new(width, code.translate(value))
            if signal in self.visible:
                arrays.append(f"[{container(width) - 1}:0] next_{following} [0:{self.count - 1}]")
                stores.append(f"next_{following}[lane__i] = {following}[{width - 1}:0];")
                after.append(f"{signal} <= next_{following};")
            else:
                stores.append(f"{signal} [lane__i] = {following}[{width - 1}:0];")
        return "\n".join([
            f"  {head} begin : \\{'step' if registers else 'show'} ",
            *(f"    reg {array};" for array in arrays),
            "    automatic reg [31:0] lane__i;",
            *(f"    automatic reg [{container(width) - 1}:0] {name};"
              for name, width in code.variables.items()),
            *(f"    {name} = 0;" for name in code.variables),
            "    /*verilator unroll_disable*/",
            f"    for (lane__i = 0; lane__i < 32'd{self.count}; lane__i = lane__i + 32'd1) begin",
            *(f"      {line}" for line in (*code.loads, *code.lines, *stores)),
            "    end",
            *(f"    {line}" for line in after), "  end"])

    def _order(self, signals, registers):
        """The logic that these need, each before what reads it."""
        order: list = []
        seen = set()

        def visit(wanted):
            for signal in sorted(wanted):
                for logic in self.drivers.get(signal, ()):
                    if id(logic) not in seen:
                        seen.add(id(logic))
                        visit(logic.reads)
                        order.append(logic)
        visit(signals)
        for value in registers.values():
            visit(names(value))
        return order


def _escaped(name):
    return name if name.startswith("\\") else f"\\{name}"
