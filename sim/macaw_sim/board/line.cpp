// A board's top level with a clock and a serial line, behind a C interface. The line is driven and sampled bit by
// bit, by a clock of its own whose rate may differ from that of the board.
//
// CLOCK, RX and TX are the names of the pins.

#include <cstdint>
#include <deque>
#include <memory>

#include "Vboard.h"
#include "verilated.h"

namespace {

constexpr uint64_t kFraction = 256;         // parts of a cycle in which the time of a bit is given
constexpr unsigned kBits = 10;              // start, eight of data, stop

class Line {
public:
    explicit Line(uint64_t bit) : bit_(bit), top_(std::make_unique<Vboard>(&context_)) {
        top_->RX = 1;
        top_->CLOCK = 0;
        top_->eval();
    }
    ~Line() { top_->final(); }

    void run(uint64_t cycles) {
        while (cycles--) {
            drive();
            top_->CLOCK = 1;
            top_->eval();
            top_->CLOCK = 0;
            top_->eval();
            sample();
            ++cycles_;
        }
    }

    uint64_t bit_;
    std::deque<uint8_t> to_board, from_board;
    uint64_t noise = 0;                     // cycles for which the pin of the board has the wrong level
    uint64_t cycles_ = 0, active_ = 0;      // now; when the line was last in use

private:
    void drive() {
        if (!sending_ && !to_board.empty()) {
            shift_ = unsigned(to_board.front()) << 1 | 1u << (kBits - 1);
            to_board.pop_front();
            sending_ = kBits;
            send_time_ = bit_;
        }
        bool level = sending_ ? shift_ & 1 : true;
        if (sending_) {
            active_ = cycles_;
            if (send_time_ <= kFraction) {
                send_time_ += bit_;
                shift_ >>= 1;
                --sending_;
            }
            send_time_ -= kFraction;
        }
        if (noise) {
            --noise;
            active_ = cycles_;
            level = !level;
        }
        top_->RX = level;
    }

    void sample() {
        if (!receiving_) {
            if (top_->TX) return;
            receiving_ = kBits;
            receive_time_ = bit_ / 2;
            received_ = 0;
        }
        active_ = cycles_;
        if (receive_time_ > kFraction) {
            receive_time_ -= kFraction;
            return;
        }
        receive_time_ += bit_ - kFraction;
        received_ |= unsigned(top_->TX) << (kBits - receiving_);
        if (--receiving_ == 0) from_board.push_back(uint8_t(received_ >> 1));
    }

    VerilatedContext context_;
    std::unique_ptr<Vboard> top_;
    unsigned sending_ = 0, shift_ = 0, receiving_ = 0, received_ = 0;
    uint64_t send_time_ = 0, receive_time_ = 0;
};

}  // namespace

#define BOARD_API extern "C" __attribute__((visibility("default")))

BOARD_API Line* board_new(uint64_t bit) { return new Line(bit); }
BOARD_API void board_delete(Line* line) { delete line; }
BOARD_API void board_send(Line* line, const uint8_t* data, uint64_t count) {
    line->to_board.insert(line->to_board.end(), data, data + count);
}
BOARD_API uint64_t board_run(Line* line, uint64_t cycles) {
    line->run(cycles);
    return line->from_board.size();
}
BOARD_API void board_receive(Line* line, uint8_t* data, uint64_t count) {
    while (count--) {
        *data++ = line->from_board.front();
        line->from_board.pop_front();
    }
}
// Cycles since the line was last in use; 0 while bytes wait to be sent.
BOARD_API uint64_t board_quiet(const Line* line) {
    return line->to_board.empty() ? line->cycles_ - line->active_ : 0;
}
BOARD_API void board_noise(Line* line, uint64_t cycles) { line->noise = cycles; }
BOARD_API uint64_t board_cycles(const Line* line) { return line->cycles_; }
