// The accelerator's Verilog with a clock, an AXI4-Lite master and an AXI4 memory, behind a C interface.
//
// The top module holds each input in a register (see build.py). What is written to a pin is what the
// accelerator sees in the next cycle, and its outputs are settled after each step. Therefore nothing
// between the pins and the first register has to be evaluated twice.

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "Vmacaw.h"
#include "verilated.h"
#if VM_TRACE_FST
#include "verilated_fst_c.h"
using Waveform = VerilatedFstC;
#elif VM_TRACE
#include "verilated_vcd_c.h"
using Waveform = VerilatedVcdC;
#endif

#include "axi_memory.h"

namespace {

using namespace macaw;

constexpr unsigned kBusBytes = sizeof(Vmacaw::m_axi_rdata);
constexpr uint64_t kPicosecondsPerCycle = 10000;
constexpr unsigned kResetCycles = 4;

// What a call that runs the clock ended with; mirrored by _Outcome in backend.py.
enum Outcome : int32_t { kLimit = 0, kDone = 1, kViolation = 2 };

// A read or a write of registers; mirrored by _Access in backend.py.
struct Access {
    uint32_t write, address, data, strobe;
    uint32_t address_delay, data_delay, response_delay;  // cycles since the channel was done with the access before
    uint32_t response;
    uint64_t cycle;  // in which the address was accepted
};

class Device {
public:
    Device(uint8_t* memory, uint64_t size, const MemoryOptions& options, unsigned threads)
        : memory_(memory, size), random_(options.seed ^ 0x5851F42D4C957F2D), stall_(options.stall) {
        context_.threads(threads);
#if VM_TRACE
        context_.traceEverOn(true);
#endif
        top_ = std::make_unique<Vmacaw>(&context_);
        memory_.configure(options);
        top_->clk = 0;
        top_->eval();
        reset();
    }

    ~Device() {
        close_waveform();
        top_->final();
    }

    AxiMemory<kBusBytes>& memory() { return memory_; }
    bool irq() const { return top_->irq; }
    uint64_t cycles() const { return cycles_; }

    void reset() {
        top_->s_axi_awvalid = top_->s_axi_wvalid = top_->s_axi_arvalid = 0;
        top_->s_axi_bready = top_->s_axi_rready = 0;
        top_->s_axi_awprot = top_->s_axi_arprot = 0;
        held_b_ = held_r_ = {};
        memory_.reset();
        drive();
        top_->rst = 1;
        for (unsigned i = 0; i < kResetCycles; ++i) step();
        if (top_->m_axi_arvalid || top_->m_axi_awvalid || top_->m_axi_wvalid)
            memory_.fail("a VALID of the master is high in reset");
        top_->rst = 0;
        step();
    }

    Outcome run(uint64_t limit) {
        while (!violated()) {
            if (irq()) return kDone;
            if (limit-- == 0) return kLimit;
            tick();
        }
        return kViolation;
    }

    // Writes and reads, each channel of the bus in order and by itself: accesses overlap as far as the slave allows.
    Outcome access(Access* list, uint32_t count, uint64_t limit) {
        std::vector<Access*> writes, reads;
        for (uint32_t i = 0; i < count; ++i) (list[i].write ? writes : reads).push_back(list + i);
        Place aw, w, b, ar, r;
        while (limit-- && !violated()) {
            bool valid = top_->s_axi_bvalid, taken = valid && top_->s_axi_bready;
            if (valid && b.next >= std::min(aw.next, w.next))
                memory_.fail("BVALID of the slave before address and data");
            check_held("B", held_b_, valid, top_->s_axi_bresp, taken);
            if (taken) writes[b.next]->response = top_->s_axi_bresp, b.advance();
            valid = top_->s_axi_rvalid, taken = valid && top_->s_axi_rready;
            if (valid && r.next >= ar.next) memory_.fail("RVALID of the slave before the address");
            check_held("R", held_r_, valid, uint64_t(top_->s_axi_rresp) << 32 | top_->s_axi_rdata, taken);
            if (taken) {
                reads[r.next]->data = top_->s_axi_rdata;
                reads[r.next]->response = top_->s_axi_rresp;
                r.advance();
            }
            offer(aw, writes, &Access::address_delay, top_->s_axi_awvalid, top_->s_axi_awready, [&](Access& a) {
                top_->s_axi_awaddr = a.address; });
            offer(w, writes, &Access::data_delay, top_->s_axi_wvalid, top_->s_axi_wready, [&](Access& a) {
                top_->s_axi_wdata = a.data, top_->s_axi_wstrb = a.strobe; });
            offer(ar, reads, &Access::address_delay, top_->s_axi_arvalid, top_->s_axi_arready, [&](Access& a) {
                top_->s_axi_araddr = a.address; });
            top_->s_axi_bready = due(b, writes, &Access::response_delay);
            top_->s_axi_rready = due(r, reads, &Access::response_delay);
            tick();
            if (b.next == writes.size() && r.next == reads.size()) return violated() ? kViolation : kDone;
        }
        return violated() ? kViolation : kLimit;
    }

    // Record cycles first..last; false in a build without waveforms.
    bool record(const char* path, uint64_t first, uint64_t last) {
#if VM_TRACE
        close_waveform();
        path_ = path;
        first_ = first;
        last_ = last;
        return true;
#else
        (void)path, (void)first, (void)last;
        return false;
#endif
    }

    // What `events` showed: each change and its cycle, closed by a zero. With a target, the log is copied and emptied.
    uint64_t events(uint64_t (*target)[2]) {
        uint64_t count = log_.size() + 1;
        if (!target) return count;
        for (uint64_t i = 0; i < log_.size(); ++i) target[i][0] = log_[i].first, target[i][1] = log_[i].second;
        target[count - 1][0] = cycles_, target[count - 1][1] = 0;
        log_.clear();
        return count;
    }

private:
    bool violated() const { return memory_.violation()[0]; }
    bool go() { return !pause_(stall_, random_); }

    // How far a channel is in its list.
    struct Place {
        size_t next = 0;
        uint32_t waited = 0;
        void advance() { ++next, waited = 0; }
    };

    // Whether a channel goes on in this cycle: after the delay, and with stalls when it likes to.
    bool due(Place& place, const std::vector<Access*>& list, uint32_t Access::*delay) {
        return place.next < list.size() && place.waited++ >= list[place.next]->*delay && go();
    }

    // One channel of a master; `valid` is a pin and stays until `ready`.
    template <typename Pin, typename Drive>
    void offer(Place& place, std::vector<Access*>& list, uint32_t Access::*delay, Pin& valid, bool ready, Drive drive) {
        if (valid && ready) {
            if (delay == &Access::address_delay) list[place.next]->cycle = cycles_;
            place.advance();
            valid = 0;
        }
        if (!valid && due(place, list, delay)) valid = 1, drive(*list[place.next]);
    }

    void tick() {
        Master<kBusBytes> m;
        m.ar = {bool(top_->m_axi_arvalid), uint64_t(top_->m_axi_araddr), top_->m_axi_arlen, top_->m_axi_arsize,
                top_->m_axi_arburst, top_->m_axi_arlock, top_->m_axi_arid};
        m.aw = {bool(top_->m_axi_awvalid), uint64_t(top_->m_axi_awaddr), top_->m_axi_awlen, top_->m_axi_awsize,
                top_->m_axi_awburst, top_->m_axi_awlock, top_->m_axi_awid};
        m.wvalid = top_->m_axi_wvalid;
        m.wlast = top_->m_axi_wlast;
        m.wstrb = top_->m_axi_wstrb;
        m.wdata = &top_->m_axi_wdata;
        m.rready = top_->m_axi_rready;
        m.bready = top_->m_axi_bready;
        memory_.cycle(m);
        drive();
        step();
    }

    void step() {
        top_->clk = 1;
        evaluate();
        top_->clk = 0;
        evaluate();
        ++cycles_;
#ifdef MACAW_OBSERVE
        if (log_.empty() || log_.back().second != top_->events) log_.emplace_back(cycles_, top_->events);
#endif
    }

    void drive() {
        const auto& out = memory_.out;
        top_->m_axi_arready = out.arready;
        top_->m_axi_awready = out.awready;
        top_->m_axi_wready = out.wready;
        top_->m_axi_rvalid = out.rvalid;
        top_->m_axi_rid = out.rid;
        top_->m_axi_rresp = out.rresp;
        top_->m_axi_rlast = out.rlast;
        memcpy(&top_->m_axi_rdata, out.rdata, kBusBytes);
        top_->m_axi_bvalid = out.bvalid;
        top_->m_axi_bid = out.bid;
        top_->m_axi_bresp = out.bresp;
    }

    struct Held {
        bool valid = false;
        uint64_t payload = 0;
    };

    void check_held(const char* name, Held& held, bool valid, uint64_t payload, bool taken) {
        if (held.valid && !valid) memory_.fail("%sVALID of the slave fell before %sREADY", name, name);
        if (held.valid && valid && payload != held.payload)
            memory_.fail("%s of the slave changed before %sREADY", name, name);
        held = {valid && !taken, payload};
    }

    void evaluate() {
        top_->eval();
#if VM_TRACE
        if (cycles_ < first_ || cycles_ > last_) return;
        if (!waveform_) {
            waveform_ = std::make_unique<Waveform>();
            top_->trace(waveform_.get(), 99);
            waveform_->open(path_.c_str());
        }
        waveform_->dump(cycles_ * kPicosecondsPerCycle + (top_->clk ? 0 : kPicosecondsPerCycle / 2));
        if (cycles_ == last_ && !top_->clk) close_waveform();
#endif
    }

    void close_waveform() {
#if VM_TRACE
        if (waveform_) waveform_->close();
        waveform_.reset();
        first_ = ~uint64_t(0), last_ = 0;
#endif
    }

    VerilatedContext context_;
    AxiMemory<kBusBytes> memory_;
    std::unique_ptr<Vmacaw> top_;
    uint64_t cycles_ = 0;
    Random random_;
    Pause pause_;
    uint32_t stall_;
    Held held_b_, held_r_;
    std::vector<std::pair<uint64_t, uint32_t>> log_;
#if VM_TRACE
    std::unique_ptr<Waveform> waveform_;
    std::string path_;
    uint64_t first_ = ~uint64_t(0), last_ = 0;
#endif
};

}  // namespace

#define MACAW_API extern "C" __attribute__((visibility("default")))

MACAW_API Device* macaw_new(uint8_t* memory, uint64_t size, const MemoryOptions* options, uint32_t threads) {
    return new Device(memory, size, *options, threads);
}
MACAW_API void macaw_delete(Device* d) { delete d; }
MACAW_API uint32_t macaw_bus_bytes() { return kBusBytes; }
MACAW_API void macaw_reset(Device* d) { d->reset(); }
MACAW_API int32_t macaw_run(Device* d, uint64_t limit) { return d->run(limit); }
MACAW_API int32_t macaw_access(Device* d, Access* list, uint32_t count, uint64_t limit) {
    return d->access(list, count, limit);
}
MACAW_API int32_t macaw_write(Device* d, uint32_t address, uint32_t value, uint64_t limit, uint32_t* response) {
    Access access{1, address, value, 15, 0, 0, 0, 0, 0};
    int32_t outcome = d->access(&access, 1, limit);
    *response = access.response;
    return outcome;
}
MACAW_API int32_t macaw_read(Device* d, uint32_t address, uint64_t limit, uint32_t* value, uint32_t* response) {
    Access access{0, address, 0, 0, 0, 0, 0, 0, 0};
    int32_t outcome = d->access(&access, 1, limit);
    *value = access.data;
    *response = access.response;
    return outcome;
}
MACAW_API uint64_t macaw_cycles(const Device* d) { return d->cycles(); }
MACAW_API const char* macaw_violation(Device* d) { return d->memory().violation(); }
MACAW_API void macaw_inject(Device* d, uint64_t first, uint64_t end, uint32_t response, uint32_t directions) {
    d->memory().inject(first, end, response, directions);
}
MACAW_API void macaw_clear_errors(Device* d) { d->memory().clear_errors(); }
MACAW_API void macaw_silent_after(Device* d, uint64_t cycles, uint32_t channels) {
    uint64_t now = d->memory().now();
    d->memory().silent_from(cycles > ~now ? ~uint64_t(0) : now + cycles, channels);
}
MACAW_API void macaw_watch(Device* d, uint32_t stream, uint64_t first, uint64_t end, uint32_t response) {
    d->memory().watch(stream, first, end, response);
}
MACAW_API void macaw_watched(Device* d, Watched* watched, uint8_t* fetched) {
    *watched = d->memory().watched();
    if (fetched && watched->fetched) memcpy(fetched, d->memory().fetched(), watched->fetched);
}
MACAW_API void macaw_statistics(Device* d, Statistics* statistics) { *statistics = d->memory().statistics; }
MACAW_API uint64_t macaw_events(Device* d, uint64_t (*target)[2]) { return d->events(target); }
MACAW_API int32_t macaw_record(Device* d, const char* path, uint64_t first, uint64_t last) {
    return d->record(path, first, last);
}
