// A 32-bit AXI4-Lite host reaches memory (AXI4, DATA_WIDTH bits) and the registers of Macaw (AXI4-Lite).
//
//   0x00000000 - 0x7FFFFFFF  memory
//   0x80000000 - 0xFFFFFFFF  registers, which repeat every 4096 bytes
//
// One read and one write at a time, independent of each other.
module host_bridge #(
    parameter ADDR_WIDTH = 32,
    parameter DATA_WIDTH = 32
) (
    input  wire                    clk,
    input  wire                    rst,

    input  wire [31:0]             host_awaddr,
    input  wire [2:0]              host_awprot,
    input  wire                    host_awvalid,
    output wire                    host_awready,
    input  wire [31:0]             host_wdata,
    input  wire [3:0]              host_wstrb,
    input  wire                    host_wvalid,
    output wire                    host_wready,
    output wire [1:0]              host_bresp,
    output wire                    host_bvalid,
    input  wire                    host_bready,
    input  wire [31:0]             host_araddr,
    input  wire [2:0]              host_arprot,
    input  wire                    host_arvalid,
    output wire                    host_arready,
    output wire [31:0]             host_rdata,
    output wire [1:0]              host_rresp,
    output wire                    host_rvalid,
    input  wire                    host_rready,

    output wire [11:0]             reg_awaddr,
    output wire [2:0]              reg_awprot,
    output wire                    reg_awvalid,
    input  wire                    reg_awready,
    output wire [31:0]             reg_wdata,
    output wire [3:0]              reg_wstrb,
    output wire                    reg_wvalid,
    input  wire                    reg_wready,
    input  wire [1:0]              reg_bresp,
    input  wire                    reg_bvalid,
    output wire                    reg_bready,
    output wire [11:0]             reg_araddr,
    output wire [2:0]              reg_arprot,
    output wire                    reg_arvalid,
    input  wire                    reg_arready,
    input  wire [31:0]             reg_rdata,
    input  wire [1:0]              reg_rresp,
    input  wire                    reg_rvalid,
    output wire                    reg_rready,

    output wire [ADDR_WIDTH-1:0]   mem_awaddr,
    output wire [7:0]              mem_awlen,
    output wire [2:0]              mem_awsize,
    output wire                    mem_awvalid,
    input  wire                    mem_awready,
    output wire [DATA_WIDTH-1:0]   mem_wdata,
    output wire [DATA_WIDTH/8-1:0] mem_wstrb,
    output wire                    mem_wlast,
    output wire                    mem_wvalid,
    input  wire                    mem_wready,
    input  wire [1:0]              mem_bresp,
    input  wire                    mem_bvalid,
    output wire                    mem_bready,
    output wire [ADDR_WIDTH-1:0]   mem_araddr,
    output wire [7:0]              mem_arlen,
    output wire [2:0]              mem_arsize,
    output wire                    mem_arvalid,
    input  wire                    mem_arready,
    input  wire [DATA_WIDTH-1:0]   mem_rdata,
    input  wire [1:0]              mem_rresp,
    input  wire                    mem_rvalid,
    output wire                    mem_rready
);
    localparam LANES = DATA_WIDTH / 8;
    localparam [LANES-1:0] LANE_MASK = LANES - 1;

    // Write: address and data are taken together, offered until each is accepted, then the response passes.
    reg        w_busy, aw_open, w_open;
    reg [31:0] w_addr, w_data;
    reg [3:0]  w_strobes;
    reg [2:0]  w_prot;
    wire       w_reg = w_addr[31];

    assign host_awready = !w_busy && host_awvalid && host_wvalid;
    assign host_wready = host_awready;
    assign {reg_awvalid, mem_awvalid} = {w_reg, !w_reg} & {2{aw_open}};
    assign {reg_wvalid, mem_wvalid} = {w_reg, !w_reg} & {2{w_open}};
    assign reg_awaddr = w_addr[11:0];
    assign reg_awprot = w_prot;
    assign reg_wdata = w_data;
    assign reg_wstrb = w_strobes;
    assign mem_awaddr = w_addr;
    assign mem_awlen = 8'd0;
    assign mem_awsize = 3'd2;
    assign mem_wdata = {DATA_WIDTH/32{w_data}};
    assign mem_wstrb = {{LANES-4{1'b0}}, w_strobes} << (w_addr & LANE_MASK & ~32'd3);
    assign mem_wlast = 1'b1;
    assign host_bvalid = w_busy && !aw_open && !w_open && (w_reg ? reg_bvalid : mem_bvalid);
    assign host_bresp = w_reg ? reg_bresp : mem_bresp;
    assign {reg_bready, mem_bready} = {w_reg, !w_reg} & {2{host_bvalid && host_bready}};

    always @(posedge clk) begin
        if (host_awready) begin
            {w_busy, aw_open, w_open} <= 3'b111;
            {w_addr, w_data, w_strobes, w_prot} <= {host_awaddr, host_wdata, host_wstrb, host_awprot};
        end
        if (reg_awvalid && reg_awready || mem_awvalid && mem_awready) aw_open <= 1'b0;
        if (reg_wvalid && reg_wready || mem_wvalid && mem_wready) w_open <= 1'b0;
        if (host_bvalid && host_bready) w_busy <= 1'b0;
        if (rst) {w_busy, aw_open, w_open} <= 3'b000;
    end

    // Read: the address is taken, offered until it is accepted, then the data pass.
    reg        r_busy, ar_open;
    reg [31:0] r_addr;
    reg [2:0]  r_prot;
    wire       r_reg = r_addr[31];

    assign host_arready = !r_busy;
    assign {reg_arvalid, mem_arvalid} = {r_reg, !r_reg} & {2{ar_open}};
    assign reg_araddr = r_addr[11:0];
    assign reg_arprot = r_prot;
    assign mem_araddr = r_addr;
    assign mem_arlen = 8'd0;
    assign mem_arsize = 3'd2;
    assign host_rvalid = r_busy && !ar_open && (r_reg ? reg_rvalid : mem_rvalid);
    assign host_rdata = r_reg ? reg_rdata : mem_rdata[8*(r_addr & LANE_MASK & ~32'd3) +: 32];
    assign host_rresp = r_reg ? reg_rresp : mem_rresp;
    assign {reg_rready, mem_rready} = {r_reg, !r_reg} & {2{host_rvalid && host_rready}};

    always @(posedge clk) begin
        if (host_arvalid && host_arready) begin
            {r_busy, ar_open} <= 2'b11;
            {r_addr, r_prot} <= {host_araddr, host_arprot};
        end
        if (reg_arvalid && reg_arready || mem_arvalid && mem_arready) ar_open <= 1'b0;
        if (host_rvalid && host_rready) r_busy <= 1'b0;
        if (rst) {r_busy, ar_open} <= 2'b00;
    end
endmodule
