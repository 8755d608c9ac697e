// An AXI4 slave: memory with configurable timing and faults, which checks its master's protocol.
//
// It knows nothing of Verilator. In each clock cycle the owner calls cycle() with what the master drives;
// `out` holds what the slave drives in that cycle before the call, and in the next one after it.
//
// A write becomes visible in memory with its response and not before, so that a master that reads
// back, or tells someone, too early finds the old data.

#pragma once

#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

namespace macaw {

constexpr uint32_t kWhole = 1 << 16;  // a bandwidth of one beat per cycle

struct MemoryOptions {  // mirrored by _MemoryOptions in backend.py
    uint64_t seed;
    uint64_t silent_from;      // cycle from which nothing is accepted or answered any more
    uint32_t read_latency;     // cycles from the address to the first beat, at least 1
    uint32_t write_latency;    // cycles from the last beat to the response, at least 1
    uint32_t read_bandwidth;   // beats per kWhole cycles
    uint32_t write_bandwidth;
    uint32_t stall;            // probability that a channel begins to pause, times 2^32
    uint32_t outstanding;      // bursts accepted in each direction before the first has ended
    uint32_t reorder;          // bursts of different ids may overtake each other
    uint32_t interleave;       // and read beats of different ids may mix
};

struct Statistics {
    uint64_t bursts_read, beats_read, bursts_written, beats_written;
};

enum Channel : uint32_t { kAr = 1, kR = 2, kAw = 4, kW = 8, kB = 16 };

// What is watched is counted: read beats of id 0, read beats of the other ids, write bursts, as they are answered.
struct Watched {  // mirrored by _Watched in backend.py
    uint64_t counts[3];
    uint64_t struck;   // address of the first that was answered with the error asked for; all ones if none was
    uint64_t fetched;  // bytes read with the other ids
};

struct AddressChannel {
    bool valid;
    uint64_t address;
    uint32_t length, size, burst, lock, id;

    bool operator!=(const AddressChannel& o) const {
        return address != o.address || length != o.length || size != o.size || burst != o.burst
               || lock != o.lock || id != o.id;
    }
};

template <unsigned Bytes>
struct Master {
    AddressChannel ar, aw;
    bool wvalid, wlast, rready, bready;
    uint32_t wstrb;
    const void* wdata;
};

template <unsigned Bytes>
struct Slave {
    bool arready, awready, wready, rvalid, rlast, bvalid;
    uint32_t rid, rresp, bid, bresp;
    alignas(8) uint8_t rdata[Bytes];
};

// SplitMix64: any seed is a good one.
class Random {
public:
    explicit Random(uint64_t seed) : state_(seed) {}
    uint64_t next() {
        uint64_t z = state_ += 0x9E3779B97F4A7C15;
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
        z = (z ^ z >> 27) * 0x94D049BB133111EB;
        return z ^ z >> 31;
    }

private:
    uint64_t state_;
};

// Begins with a probability; lasts 1 to 4 cycles mostly, and up to 64 now and then.
class Pause {
public:
    bool operator()(uint32_t probability, Random& random) {
        if (left_) return --left_, true;
        if (!probability) return false;
        uint64_t r = random.next();
        if (r >> 32 >= probability) return false;
        left_ = r & 15 ? r >> 8 & 3 : r >> 8 & 63;
        return true;
    }

private:
    uint32_t left_ = 0;
};

// Beats per cycle; savings stay below two beats.
class Credit {
public:
    void grow(uint32_t bandwidth) { if ((value_ += bandwidth) >= 2 * kWhole) value_ = 2 * kWhole - 1; }
    bool enough() const { return value_ >= kWhole; }
    void spend() { value_ -= kWhole; }

private:
    uint32_t value_ = kWhole;
};

template <unsigned Bytes>
class AxiMemory {
public:
    static constexpr unsigned kMaxBeats = 256;
    static constexpr uint32_t kOkay = 0, kSlaveError = 2, kDecodeError = 3;
    enum Direction : uint32_t { kRead = 1, kWrite = 2 };

    Slave<Bytes> out{};
    Statistics statistics{};

    AxiMemory(uint8_t* memory, uint64_t size) : memory_(memory), size_(size), random_(0) {}

    void configure(const MemoryOptions& options) {
        options_ = options;
        random_ = Random(options.seed);
        writes_.resize(options.outstanding);
        reset();
    }

    // Forget all bursts and the violation; the master is in reset as well.
    void reset() {
        out = {};
        message_[0] = 0;
        reads_.clear();
        order_.clear();
        free_.clear();
        for (unsigned i = 0; i < writes_.size(); ++i) free_.push_back(i);
        current_read_ = -1;
        held_ar_ = held_aw_ = {};
        held_w_ = {};
    }

    void silent_from(uint64_t cycle, uint32_t channels = ~uint32_t(0)) {
        options_.silent_from = cycle;
        silent_channels_ = channels;
    }
    uint64_t now() const { return now_; }
    const char* violation() const { return message_; }

    void inject(uint64_t first, uint64_t end, uint32_t response, uint32_t directions) {
        errors_.push_back({first, end, response, directions});
    }
    void clear_errors() { errors_.clear(); }

    // Count from now on; the first..end-th of `stream` is answered with `response`. A struck burst writes nothing.
    void watch(uint32_t stream, uint64_t first, uint64_t end, uint32_t response) {
        watching_ = true;
        watched_ = {{0, 0, 0}, ~uint64_t(0), 0};
        fetched_.clear();
        strike_stream_ = stream, strike_ = {first, end, response, 0};
    }
    Watched watched() const {
        Watched w = watched_;
        w.fetched = fetched_.size();
        return w;
    }
    const uint8_t* fetched() const { return fetched_.data(); }

    void cycle(const Master<Bytes>& m) {
        ++now_;
        silent_ = now_ >= options_.silent_from ? silent_channels_ : 0;
        read_address(m.ar);
        read_data(m.rready);
        write_address(m.aw);
        write_data(m);
        write_response(m.bready);
    }

    void fail(const char* format, ...) {
        if (message_[0]) return;  // the first one is the cause of the others
        int n = snprintf(message_, sizeof message_, "cycle %llu: ", static_cast<unsigned long long>(now_));
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(message_ + n, sizeof message_ - n, format, arguments);
        va_end(arguments);
    }

private:
    struct Read {
        uint64_t address, ready;
        uint32_t left, id;
    };
    struct Write {
        uint64_t address, ready;
        uint32_t beats, received, id, first_lanes;
        uint32_t strobes[kMaxBeats];
        uint8_t data[kMaxBeats * Bytes];
    };
    struct ErrorRange {
        uint64_t first, end;
        uint32_t response, directions;
    };
    struct HeldData {
        bool valid, last;
        uint32_t strobe;
        uint8_t data[Bytes];
    };

    void read_address(const AddressChannel& ar) {
        check_held("AR", held_ar_, ar, out.arready);
        if (ar.valid && out.arready) {
            check_burst("AR", ar);
            reads_.push_back({ar.address & ~uint64_t(Bytes - 1), now_ + options_.read_latency, ar.length + 1, ar.id});
            ++statistics.bursts_read;
        }
        out.arready = !(silent_ & kAr) && reads_.size() < options_.outstanding && !pause_ar_(options_.stall, random_);
    }

    void read_data(bool ready) {
        read_credit_.grow(options_.read_bandwidth);
        if (out.rvalid) {
            if (!ready) return;
            out.rvalid = false;
            ++statistics.beats_read;
        }
        if (reads_.empty() || silent_ & kR || !read_credit_.enough()) return;
        if (current_read_ < 0 || options_.interleave) current_read_ = pick_read();
        if (current_read_ < 0 || pause_r_(options_.stall, random_)) return;
        Read& burst = reads_[current_read_];
        out.rvalid = true;
        out.rid = burst.id;
        out.rresp = response(burst.address, kRead);
        if (watching_) out.rresp = struck(burst.id != 0, burst.address, out.rresp);
        out.rlast = burst.left == 1;
        if (out.rresp == kOkay) memcpy(out.rdata, memory_ + burst.address, Bytes);
        else memset(out.rdata, 0xA5, Bytes);  // nothing that a master could mistake for its data
        if (watching_ && burst.id) fetched_.insert(fetched_.end(), out.rdata, out.rdata + Bytes);
        burst.address += Bytes;
        read_credit_.spend();
        if (--burst.left == 0) {
            reads_.erase(reads_.begin() + current_read_);
            current_read_ = -1;
        }
    }

    // The oldest read, or any that is the oldest of its id; -1 if it has to wait for its latency.
    int pick_read() {
        int chosen = -1;
        unsigned candidates = 0;
        for (unsigned i = 0; i < reads_.size(); ++i) {
            bool oldest = true;
            for (unsigned j = 0; j < i; ++j) oldest &= reads_[j].id != reads_[i].id;
            if (oldest && reads_[i].ready <= now_ + 1 && random_.next() % ++candidates == 0) chosen = i;
            if (!options_.reorder && !options_.interleave) break;
        }
        return chosen;
    }

    void write_address(const AddressChannel& aw) {
        check_held("AW", held_aw_, aw, out.awready);
        if (aw.valid && out.awready) {
            check_burst("AW", aw);
            Write& burst = writes_[free_.back()];
            burst.address = aw.address & ~uint64_t(Bytes - 1);
            burst.beats = aw.length + 1;
            burst.received = 0;
            burst.id = aw.id;
            burst.first_lanes = ~uint32_t(0) << (aw.address & (Bytes - 1));
            order_.push_back(free_.back());
            free_.pop_back();
            ++statistics.bursts_written;
        }
        out.awready = !(silent_ & kAw) && !free_.empty() && !pause_aw_(options_.stall, random_);
    }

    void write_data(const Master<Bytes>& m) {
        write_credit_.grow(options_.write_bandwidth);
        if (held_w_.valid && (!m.wvalid || m.wlast != held_w_.last || m.wstrb != held_w_.strobe
                              || memcmp(m.wdata, held_w_.data, Bytes)))
            fail("%s", m.wvalid ? "W changed before it was accepted" : "WVALID fell before WREADY");
        held_w_.valid = m.wvalid && !out.wready;
        if (held_w_.valid) {
            held_w_.last = m.wlast;
            held_w_.strobe = m.wstrb;
            memcpy(held_w_.data, m.wdata, Bytes);
        }
        if (m.wvalid && out.wready) {
            accept_beat(*incomplete_write(), m);
            out.wready = false;
        }
        if (silent_ & kW) out.wready = false;
        else if (!out.wready && write_credit_.enough() && incomplete_write() && !pause_w_(options_.stall, random_)) {
            out.wready = true;
            write_credit_.spend();
        }
    }

    void accept_beat(Write& burst, const Master<Bytes>& m) {
        bool last = burst.received + 1 == burst.beats;
        if (m.wlast != last)
            fail("WLAST is %d in beat %u of %u", m.wlast, burst.received + 1, burst.beats);
        if (burst.received == 0 && (m.wstrb & ~burst.first_lanes))
            fail("WSTRB selects bytes before the address of the burst");
        memcpy(burst.data + burst.received * Bytes, m.wdata, Bytes);
        burst.strobes[burst.received++] = m.wstrb;
        burst.ready = now_ + options_.write_latency;
        ++statistics.beats_written;
    }

    Write* incomplete_write() {
        for (unsigned i : order_)
            if (writes_[i].received < writes_[i].beats) return &writes_[i];
        return nullptr;
    }

    void write_response(bool ready) {
        if (out.bvalid) {
            if (!ready) return;
            out.bvalid = false;
        }
        if (order_.empty() || silent_ & kB) return;
        int chosen = pick_write();
        if (chosen < 0 || pause_b_(options_.stall, random_)) return;
        Write& burst = writes_[order_[chosen]];
        out.bvalid = true;
        out.bid = burst.id;
        out.bresp = commit(burst);
        free_.push_back(order_[chosen]);
        order_.erase(order_.begin() + chosen);
    }

    int pick_write() {
        int chosen = -1;
        unsigned candidates = 0;
        for (unsigned i = 0; i < order_.size(); ++i) {
            const Write& burst = writes_[order_[i]];
            bool oldest = true;
            for (unsigned j = 0; j < i; ++j) oldest &= writes_[order_[j]].id != burst.id;
            if (oldest && burst.received == burst.beats && burst.ready <= now_ + 1
                && random_.next() % ++candidates == 0) chosen = i;
            if (!options_.reorder) break;
        }
        return chosen;
    }

    // Write the bytes that the strobes select; the worst response of all beats.
    uint32_t commit(const Write& burst) {
        constexpr uint32_t all = Bytes == 32 ? ~uint32_t(0) : (uint32_t(1) << (Bytes & 31)) - 1;
        uint32_t worst = watching_ ? struck(2, burst.address, kOkay) : kOkay;
        if (worst != kOkay) return worst;
        for (uint32_t beat = 0; beat < burst.beats; ++beat) {
            uint64_t address = burst.address + beat * Bytes;
            uint32_t status = response(address, kWrite);
            if (status > worst) worst = status;
            if (status != kOkay) continue;
            const uint8_t* source = burst.data + beat * Bytes;
            if (burst.strobes[beat] == all) { memcpy(memory_ + address, source, Bytes); continue; }
            for (unsigned lane = 0; lane < Bytes; ++lane)
                if (burst.strobes[beat] >> lane & 1) memory_[address + lane] = source[lane];
        }
        return worst;
    }

    // The response of one more of `stream`: the error asked for, or else `response`.
    uint32_t struck(uint32_t stream, uint64_t address, uint32_t response) {
        uint64_t number = watched_.counts[stream]++;
        if (stream != strike_stream_ || number < strike_.first || number >= strike_.end) return response;
        if (watched_.struck == ~uint64_t(0)) watched_.struck = address;
        return strike_.response;
    }

    uint32_t response(uint64_t address, Direction direction) const {
        if (address + Bytes > size_ || address + Bytes < address) return kDecodeError;
        for (const ErrorRange& e : errors_)
            if (e.directions & direction && address < e.end && address + Bytes > e.first) return e.response;
        return kOkay;
    }

    void check_held(const char* name, AddressChannel& held, const AddressChannel& now, bool ready) {
        if (held.valid && !now.valid) fail("%sVALID fell before %sREADY", name, name);
        if (held.valid && now.valid && now != held) fail("%s changed before it was accepted", name);
        if (now.valid && !ready) held = now;
        else held.valid = false;
    }

    void check_burst(const char* name, const AddressChannel& a) {
        auto address = static_cast<unsigned long long>(a.address);
        uint64_t first = a.address & ~uint64_t(Bytes - 1);
        if (a.burst != 1) fail("%sBURST is %u, not 1 (INCR), at address %#llx", name, a.burst, address);
        if (1u << a.size != Bytes)
            fail("%sSIZE is %u: beats of %u bytes on a bus of %u", name, a.size, 1u << a.size, Bytes);
        if (a.lock) fail("%sLOCK is set at address %#llx", name, address);
        if ((first & 4095) + (uint64_t(a.length) + 1) * Bytes > 4096)
            fail("%s burst of %u beats at address %#llx crosses 4 KiB", name, a.length + 1, address);
    }

    uint8_t* memory_;
    uint64_t size_;
    uint64_t now_ = 0;
    uint32_t silent_ = 0, silent_channels_ = ~uint32_t(0);  // sets of Channel
    MemoryOptions options_{};
    Random random_;
    Pause pause_ar_, pause_r_, pause_aw_, pause_w_, pause_b_;
    Credit read_credit_, write_credit_;
    std::vector<Read> reads_;
    int current_read_ = -1;
    std::vector<Write> writes_;                 // slots
    std::vector<unsigned> order_, free_;        // slots in use, oldest first, and not in use
    std::vector<ErrorRange> errors_;
    bool watching_ = false;
    Watched watched_{};
    std::vector<uint8_t> fetched_;
    uint32_t strike_stream_ = 0;
    ErrorRange strike_{};
    AddressChannel held_ar_{}, held_aw_{};      // offered in the last cycle and not taken
    HeldData held_w_{};
    char message_[256] = "";
};

}  // namespace macaw
