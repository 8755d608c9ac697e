// The bare MAC array with random data: the yardstick for the speed of the simulation.

#include <memory>

#include "Vmacaw.h"
#include "verilated.h"

#include "axi_memory.h"

namespace {

void fill(void* target, unsigned bytes, macaw::Random& random) {
    auto* to = static_cast<uint8_t*>(target);
    for (unsigned i = 0; i < bytes; i += 8) {
        uint64_t value = random.next();
        memcpy(to + i, &value, bytes - i < 8 ? bytes - i : 8);
    }
}

}  // namespace

// Run the array busily for some cycles: a row of activations and a row of weights in each. Returns the rows of sums that came out.
extern "C" __attribute__((visibility("default"))) uint64_t array_run(uint64_t cycles) {
    VerilatedContext context;
    context.threads(1);
    auto top = std::make_unique<Vmacaw>(&context);
    macaw::Random random(1);
    constexpr unsigned size = sizeof top->x;
    uint64_t rows = 0;
    top->clk = top->rst = 0;
    top->valid = top->load = 1;
    for (uint64_t cycle = 0; cycle < cycles; ++cycle) {
        fill(&top->x, size, random);
        fill(&top->weights, size, random);
        top->weight_row = cycle % size;
        top->first = cycle % size == 0;
        top->clk = 1;
        top->eval();
        top->clk = 0;
        top->eval();
        rows += top->o_valid;
    }
    top->final();
    return rows;
}
