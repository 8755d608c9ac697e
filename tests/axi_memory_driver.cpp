// Lets a Python test drive the pins of the AXI4 memory model directly, for every bus width.

#include "axi_memory.h"

using namespace macaw;

struct Pins {  // mirrored by Pins in test_axi_memory.py
    uint64_t araddr, awaddr;
    uint32_t arvalid, arlen, arsize, arburst, arlock, arid, rready;
    uint32_t awvalid, awlen, awsize, awburst, awlock, awid;
    uint32_t wvalid, wstrb, wlast, bready;
    uint32_t arready, awready, wready, rvalid, rid, rresp, rlast, bvalid, bid, bresp;
    uint8_t wdata[32], rdata[32];
};

struct Any {
    virtual ~Any() = default;
    virtual void cycle(Pins& pins) = 0;
    virtual void reset() = 0;
    virtual void inject(uint64_t first, uint64_t end, uint32_t response, uint32_t directions) = 0;
    virtual void silent_from(uint64_t cycle) = 0;
    virtual const char* violation() = 0;
};

template <unsigned Bytes>
struct Driver : Any {
    AxiMemory<Bytes> memory;

    Driver(uint8_t* data, uint64_t size, const MemoryOptions& options) : memory(data, size) {
        memory.configure(options);
    }
    void cycle(Pins& p) override {
        Master<Bytes> m;
        m.ar = {bool(p.arvalid), p.araddr, p.arlen, p.arsize, p.arburst, p.arlock, p.arid};
        m.aw = {bool(p.awvalid), p.awaddr, p.awlen, p.awsize, p.awburst, p.awlock, p.awid};
        m.wvalid = p.wvalid, m.wlast = p.wlast, m.rready = p.rready, m.bready = p.bready;
        m.wstrb = p.wstrb;
        m.wdata = p.wdata;
        memory.cycle(m);
        const auto& out = memory.out;
        p.arready = out.arready, p.awready = out.awready, p.wready = out.wready;
        p.rvalid = out.rvalid, p.rid = out.rid, p.rresp = out.rresp, p.rlast = out.rlast;
        p.bvalid = out.bvalid, p.bid = out.bid, p.bresp = out.bresp;
        memcpy(p.rdata, out.rdata, Bytes);
    }
    void reset() override { memory.reset(); }
    void inject(uint64_t first, uint64_t end, uint32_t response, uint32_t directions) override {
        memory.inject(first, end, response, directions);
    }
    void silent_from(uint64_t cycle) override { memory.silent_from(cycle); }
    const char* violation() override { return memory.violation(); }
};

extern "C" {
Any* memory_new(uint32_t bytes, uint8_t* data, uint64_t size, const MemoryOptions* options) {
    switch (bytes) {
        case 4: return new Driver<4>(data, size, *options);
        case 8: return new Driver<8>(data, size, *options);
        case 16: return new Driver<16>(data, size, *options);
        default: return new Driver<32>(data, size, *options);
    }
}
void memory_delete(Any* m) { delete m; }
void memory_cycle(Any* m, Pins* pins) { m->cycle(*pins); }
void memory_reset(Any* m) { m->reset(); }
void memory_inject(Any* m, uint64_t first, uint64_t end, uint32_t response, uint32_t directions) {
    m->inject(first, end, response, directions);
}
void memory_silent_from(Any* m, uint64_t cycle) { m->silent_from(cycle); }
const char* memory_violation(Any* m) { return m->violation(); }
}
