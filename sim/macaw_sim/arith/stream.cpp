// Streams an array through a component of macaw_sim.arith.tops: one element per cycle where ready.

#include <cstdint>
#include <cstring>
#include <memory>

#include "Vmacaw.h"
#include "verilated.h"

namespace {

constexpr unsigned silence = 10000;  // cycles without an output after which none is expected
constexpr unsigned after = 100;      // cycles behind the last output in which no other may come

}  // namespace

extern "C" {

uint32_t stream_in_bytes() { return sizeof Vmacaw::i; }

uint32_t stream_out_bytes() { return sizeof Vmacaw::o; }

// Sends `count` elements of `in`, and stores what comes out, at most `limit` elements, in `out`.
// Returns the number of elements that came out; more than `limit` if there was one too many.
uint64_t stream_run(const uint8_t* in, uint64_t count, uint8_t* out, uint64_t limit) {
    VerilatedContext context;
    context.threads(1);
    auto top = std::make_unique<Vmacaw>(&context);
    auto edge = [&] {
        top->clk = 1;
        top->eval();
        top->clk = 0;
        top->eval();
    };
    top->clk = top->i_valid = 0;
    top->rst = 1;
    edge();
    edge();
    top->rst = 0;
    top->eval();
    uint64_t sent = 0, got = 0;
    for (unsigned idle = 0; got <= limit && idle < (got < limit ? silence : after); ++idle) {
        top->i_valid = sent < count;
        if (top->i_valid) memcpy(&top->i, in + sent * sizeof top->i, sizeof top->i);
        sent += top->i_valid && top->i_ready;
        edge();
        if (top->o_valid) {
            if (got < limit) memcpy(out + got * sizeof top->o, &top->o, sizeof top->o);
            ++got;
            idle = 0;
        }
    }
    top->final();
    return got;
}

}  // extern "C"
