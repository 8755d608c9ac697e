"""The inside of a loop over lanes: straight-line Verilog on temporaries, from a module's logic."""

import re

from .netlist import TOKEN, Unsupported

__all__ = ["Code", "container"]

_WIDEST_CHOICE = 32


def container(width):
    """Bits of an element for a signal of ``width`` bits."""
    return 32 if width <= 32 else 64


class Code:
    """The inside of a loop: ``loads`` of elements, then ``lines``.

    ``variables`` are the widths of temporaries.
    """

    def __init__(self, signals, lanes):
        self.signals, self.lanes = signals, lanes
        self.loads, self.lines, self.variables, self._local = [], [], {}, {}

    def new(self, width, expression=None):
        """A temporary, with the value of an expression."""
        name = f"lane__{len(self.variables)}"
        self.variables[name] = width
        if expression is not None:
            self.lines.append(f"{name} = {expression};")
        return name

    def mask(self, condition):
        """A temporary of ones where the condition, of one bit, holds."""
        return self.new(32, f"{{32{{{condition}}}}}")

    def define(self, signal, name):
        """From now on, the temporary ``name`` holds the signal."""
        self._local[signal] = name

    def variable(self, signal):
        """The temporary that holds the signal; that of an array is loaded."""
        if signal not in self._local:
            width = self.signals[signal].width
            self.define(signal, self.new(width))
            self.loads.append(f"{self._local[signal]} = {signal} [lane__i][{width - 1}:0];")
        return self._local[signal]

    def value(self, signal):
        """An expression of the signal's width."""
        return f"{self.variable(signal)}[{self.signals[signal].width - 1}:0]"

    def translate(self, text):
        """An expression in terms of temporaries."""
        tokens = TOKEN.findall(text)
        for i, token in enumerate(tokens):
            if token in self.lanes:
                selected = "".join(tokens[i + 1:i + 3]).lstrip().startswith("[")
                tokens[i] = self.variable(token) if selected else self.value(token)
        return "".join(tokens)

    def add(self, logic, *, partial):
        """The work of a `Logic`; ``partial``: others drive further bits of what it writes."""
        if logic.process:
            for signal, name in _Choices(self, logic).block({}).items():
                self.define(signal, name)
        else:
            self._assign(logic, partial)

    def _assign(self, logic, partial):
        left, _, right = logic.text[:-1].partition(" = ")
        left = left.strip()
        if left in self.signals and not partial:
            width = self.signals[left].width
            right = self.translate(right)
            choice = _choice(right) if width <= _WIDEST_CHOICE else None
            if choice:
                condition, yes, no = choice
                mask = self.mask(f"({condition}) != 0")
                right = f"({yes} & {mask}) | ({no} & ~{mask})"
            self.define(left, self.new(width, right))
            return
        right = self.translate(right)
        for signal in sorted(logic.writes):
            if signal not in self._local:
                self.define(signal, self.new(self.signals[signal].width, "0"))
        self.lines.append("".join(self._local.get(token, token) if token in logic.writes else token
                                  for token in TOKEN.findall(left)) + f" = {right};")


def _choice(expression):
    """Condition and both values of an expression that is one choice between unsigned values, else None.

    Verilator would make branches of several choices with the same condition.
    """
    depth, places = 0, []
    for i, character in enumerate(expression):
        depth += (character in "([{") - (character in ")]}")
        if not depth and character in "?:":
            places.append((character, i))
    if [character for character, _ in places] != ["?", ":"] or "$signed" in expression:
        return None
    (_, question), (_, colon) = places
    return expression[:question], expression[question + 1:colon], expression[colon + 1:]


class _Choices:
    """A process as straight-line code: each branch is computed, then masks choose.

    Amaranth writes one statement per line: assignments, ``if`` chains and ``casez``, each complete.
    """

    def __init__(self, code, logic):
        self._code = code
        self._lines = [line.strip() for line in logic.text.split("\n")]

    def _next(self):
        return self._lines.pop(0)

    def block(self, values):
        """The temporaries that hold signals after the statements up to the end of the block."""
        values = dict(values)
        while self._lines and not re.match(r"end\b|endcase", self._lines[0]):
            self._statement(values)
        return values

    def _statement(self, values):
        line = self._next()
        if found := re.match(r"if \((.*)\) begin$", line):
            values.update(self._if(found[1], values))
        elif found := re.match(r"casez \((.*)\)$", line):
            values.update(self._case(found[1], values))
        elif found := re.match(r"(\\\S+ |[\w$]+) = (.*);$", line):
            signal = found[1].strip()
            if self._code.signals[signal].width > _WIDEST_CHOICE:
                raise Unsupported(line)
            values[signal] = self._new(signal, self._code.translate(found[2]))
        else:
            raise Unsupported(line)

    def _if(self, condition, values):
        mask = self._code.mask(f"({self._code.translate(condition)}) != 0")
        yes, line = self.block(values), self._next()
        if line == "end":
            no = values
        elif line == "end else begin":
            no = self.block(values)
            self._next()
        elif found := re.match(r"end else if \((.*)\) begin$", line):
            no = values | self._if(found[1], values)
        else:
            raise Unsupported(line)
        return self._choose(mask, yes, no)

    def _case(self, selector, values):
        selector = self._code.translate(selector)
        items, result = [], None
        while self._lines[0] != "endcase":
            label, inner = self._next(), dict(values)
            if self._lines[0] == "begin":
                self._next()
                inner = self.block(inner)
                self._next()
            else:
                self._statement(inner)
            if label == "default:":
                result = inner
            else:
                items.append((label, inner))
        self._next()
        if result is None:  # the last one where all cases are listed
            result = dict(values) or items.pop()[1]
        for label, inner in reversed(items):
            matches = [_match(selector, one) for one in label.rstrip(":").split(", ")]
            result = self._choose(self._code.mask(" || ".join(matches)), inner, result)
        return result

    def _choose(self, mask, yes, no):
        if yes.keys() != no.keys():
            raise Unsupported("latch")
        return {signal: yes[signal] if yes[signal] == no[signal] else self._new(
            signal, f"({yes[signal]} & {mask}) | ({no[signal]} & ~{mask})") for signal in yes}

    def _new(self, signal, expression):
        return self._code.new(self._code.signals[signal].width, expression)


def _match(selector, label):
    found = re.match(r"(\d+)'(?:b([01?]+)|h([0-9a-f]+))$", label)
    if not found:
        raise Unsupported(label)
    width = int(found[1])
    pattern = found[2] or f"{int(found[3], 16):0{width}b}"
    mask = "".join("01"[bit != "?"] for bit in pattern)
    return f"((({selector}) & {width}'b{mask}) == {width}'b{pattern.replace('?', '0')})"
