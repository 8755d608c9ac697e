// Block memory behind AXI4: incrementing bursts of any size, byte strobes, one burst at a time in each
// direction, one beat per cycle. An access beyond the end answers SLVERR.
//
// A word that is read in the cycle in which it is written is the old one.
module axi_ram #(
    parameter ADDR_WIDTH = 32,
    parameter DATA_WIDTH = 32,
    parameter ID_WIDTH = 2,
    parameter BYTES_LOG2 = 16               // size of the memory: 2 to this power, in bytes
) (
    input  wire                    clk,
    input  wire                    rst,

    input  wire [ID_WIDTH-1:0]     s_awid,
    input  wire [ADDR_WIDTH-1:0]   s_awaddr,
    input  wire [7:0]              s_awlen,
    input  wire [2:0]              s_awsize,
    input  wire                    s_awvalid,
    output wire                    s_awready,
    input  wire [DATA_WIDTH-1:0]   s_wdata,
    input  wire [DATA_WIDTH/8-1:0] s_wstrb,
    input  wire                    s_wlast,
    input  wire                    s_wvalid,
    output wire                    s_wready,
    output reg  [ID_WIDTH-1:0]     s_bid,
    output reg  [1:0]              s_bresp,
    output reg                     s_bvalid,
    input  wire                    s_bready,

    input  wire [ID_WIDTH-1:0]     s_arid,
    input  wire [ADDR_WIDTH-1:0]   s_araddr,
    input  wire [7:0]              s_arlen,
    input  wire [2:0]              s_arsize,
    input  wire                    s_arvalid,
    output wire                    s_arready,
    output reg  [ID_WIDTH-1:0]     s_rid,
    output reg  [DATA_WIDTH-1:0]   s_rdata,
    output reg  [1:0]              s_rresp,
    output reg                     s_rlast,
    output reg                     s_rvalid,
    input  wire                    s_rready
);
    localparam LANES = DATA_WIDTH / 8;
    localparam LANE_BITS = $clog2(LANES);
    localparam [1:0] OKAY = 2'b00, SLVERR = 2'b10;

    reg [DATA_WIDTH-1:0] memory [0:(1 << BYTES_LOG2) / LANES - 1];
`ifndef SYNTHESIS
    integer word;
    initial for (word = 0; word < (1 << BYTES_LOG2) / LANES; word = word + 1) memory[word] = 0;
`endif

    // Write: the address first, then its beats, then the response.
    reg                  w_open;
    reg [ADDR_WIDTH-1:0] w_addr;
    reg [2:0]            w_size;
    wire                 w_inside = (w_addr >> BYTES_LOG2) == 0;
    wire                 w_beat = s_wvalid && s_wready;
    integer              lane;

    assign s_awready = !w_open && !s_bvalid;
    assign s_wready = w_open;

    always @(posedge clk) begin
        if (s_bvalid && s_bready) s_bvalid <= 1'b0;
        if (s_awvalid && s_awready) begin
            w_open <= 1'b1;
            w_addr <= s_awaddr;
            w_size <= s_awsize;
            s_bid <= s_awid;
            s_bresp <= OKAY;
        end
        if (w_beat) begin
            w_addr <= ((w_addr >> w_size) + 1) << w_size;
            if (!w_inside) s_bresp <= SLVERR;
            if (s_wlast) begin
                w_open <= 1'b0;
                s_bvalid <= 1'b1;
            end
        end
        if (rst) begin
            w_open <= 1'b0;
            s_bvalid <= 1'b0;
        end
    end

    always @(posedge clk)
        for (lane = 0; lane < LANES; lane = lane + 1)
            if (w_beat && w_inside && s_wstrb[lane])
                memory[w_addr[BYTES_LOG2-1:LANE_BITS]][8*lane +: 8] <= s_wdata[8*lane +: 8];

    // Read: a beat is fetched whenever the one before is taken.
    reg [8:0]            r_left;
    reg [ADDR_WIDTH-1:0] r_addr;
    reg [2:0]            r_size;
    reg [ID_WIDTH-1:0]   r_id;
    wire                 r_step = r_left != 0 && (!s_rvalid || s_rready);

    assign s_arready = r_left == 0;

    always @(posedge clk) begin
        if (s_rvalid && s_rready) s_rvalid <= 1'b0;
        if (s_arvalid && s_arready) begin
            r_left <= s_arlen + 9'd1;
            r_addr <= s_araddr;
            r_size <= s_arsize;
            r_id <= s_arid;
        end
        if (r_step) begin
            r_left <= r_left - 9'd1;
            r_addr <= ((r_addr >> r_size) + 1) << r_size;
            s_rid <= r_id;
            s_rresp <= (r_addr >> BYTES_LOG2) == 0 ? OKAY : SLVERR;
            s_rlast <= r_left == 9'd1;
            s_rvalid <= 1'b1;
        end
        if (rst) begin
            r_left <= 9'd0;
            s_rvalid <= 1'b0;
        end
    end

    always @(posedge clk) if (r_step) s_rdata <= memory[r_addr[BYTES_LOG2-1:LANE_BITS]];
endmodule
