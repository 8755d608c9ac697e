"""Accumulator: sums of the MAC array become float32 and are added to rows of the vector memory."""

from amaranth.hdl import Module, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from .float32 import FloatAdd, IntToFloat
from .interfaces import VectorRead, VectorWrite
from .mac_array import sum_shape
from .shifts import shift_multipliers

__all__ = ["result_layout", "Accumulator"]


def result_layout(config):
    """What accompanies a row through the array: where its result goes.

    Fields are ``row`` of the vector memory; ``fresh``: the old value is zero, whatever the memory holds;
    ``last``: with this row the instruction is complete.
    """
    return data.StructLayout({"row": ceil_log2(config.vector_rows), "fresh": 1, "last": 1})


class Accumulator(wiring.Component):
    """``row = row + sums * 2^scale`` on N lanes, one row per cycle, without backpressure.

    ::

        sums, scale --> IntToFloat -----------------+
                                                    |
        result.row --> acc_read --> [old or zero] --+--> FloatAdd --> acc_write

    Both ports of the vector memory must be ready always. The same row may come again, `loop` cycles later at
    the earliest, and then finds the result of the first time.

    Parameters
    ----------
    config : Config

    Members
    -------
    sums : array of N integers, scale : In(signed(10)), result : In(result_layout), valid : In(1)
        Input.
    acc_read : Out(VectorRead), acc_write : Out(VectorWrite)
        Vector memory.
    done : Out(1)
        The memory holds the row that had ``last``; `latency` cycles after ``valid``.
    """

    loop = FloatAdd.latency + 3
    """Cycles after which a row may come again: read, register, adder, write."""

    latency = IntToFloat.latency + FloatAdd.latency + 1

    def __init__(self, *, config):
        self._config = config
        super().__init__({
            "sums": In(sum_shape(config.size)).array(config.size), "scale": In(signed(10)),
            "result": In(result_layout(config)), "valid": In(1),
            "acc_read": Out(VectorRead(config)), "acc_write": Out(VectorWrite(config)),
            "done": Out(1),
        })

    @property
    def config(self):
        return self._config

    def elaborate(self, platform):
        m = Module()
        result, valid = [self.result], [self.valid]
        for stage in range(1, self.latency):
            result.append(Signal.like(self.result, name=f"result{stage}", reset_less=True))
            valid.append(Signal(name=f"valid{stage}"))
            m.d.sync += [result[stage].eq(result[stage - 1]), valid[stage].eq(valid[stage - 1])]

        add = IntToFloat.latency
        read, write = add - 2, add + FloatAdd.latency
        multipliers = shift_multipliers(self.config)
        width = sum_shape(self.config.size).width
        for lane in range(self.config.size):
            m.submodules[f"convert{lane}"] = convert = IntToFloat(
                width=width, multipliers=multipliers["convert"])
            m.submodules[f"add{lane}"] = adder = FloatAdd(multipliers=multipliers["accumulator"])
            old = Signal(32, name=f"old{lane}", reset_less=True)
            with m.If(result[read + 1].fresh):
                m.d.sync += old.eq(0)
            with m.Else():
                m.d.sync += old.eq(self.acc_read.data[lane])
            m.d.comb += [
                convert.p.eq(self.sums[lane]), convert.scale.eq(self.scale),
                adder.a.eq(old), adder.b.eq(convert.o),
                self.acc_write.data[lane].eq(adder.o),
            ]
        m.d.comb += [
            self.acc_read.row.eq(result[read].row), self.acc_read.valid.eq(valid[read] & ~result[read].fresh),
            self.acc_write.row.eq(result[write].row), self.acc_write.valid.eq(valid[write]),
        ]
        m.d.sync += self.done.eq(valid[write] & result[write].last)
        return m
