// Macaw beside a memory and a host, in plain Verilog.
//
//                            +--> registers of Macaw, irq
//   host (AXI4-Lite) --> host_bridge                           axi_mux --> axi_ram
//                            +--> memory (master 0) ------------> |
//                                 Macaw's DMA (master 1) -------> |
//
// DATA_WIDTH is 8 * MACAW_CONFIG_BUS_BYTES of the generated header; the default is that of n4.
module soc #(
    parameter DATA_WIDTH = 32,
    parameter BYTES_LOG2 = 17
) (
    input  wire        clk,
    input  wire        rst,             // synchronous, active high, for all of the system

    input  wire [31:0] host_awaddr,
    input  wire [2:0]  host_awprot,
    input  wire        host_awvalid,
    output wire        host_awready,
    input  wire [31:0] host_wdata,
    input  wire [3:0]  host_wstrb,
    input  wire        host_wvalid,
    output wire        host_wready,
    output wire [1:0]  host_bresp,
    output wire        host_bvalid,
    input  wire        host_bready,
    input  wire [31:0] host_araddr,
    input  wire [2:0]  host_arprot,
    input  wire        host_arvalid,
    output wire        host_arready,
    output wire [31:0] host_rdata,
    output wire [1:0]  host_rresp,
    output wire        host_rvalid,
    input  wire        host_rready,

    output wire        irq              // a level, until the host clears irq_status
);
    localparam STROBES = DATA_WIDTH / 8;

    wire [11:0] reg_awaddr, reg_araddr;
    wire [2:0]  reg_awprot, reg_arprot;
    wire [31:0] reg_wdata, reg_rdata;
    wire [3:0]  reg_wstrb;
    wire [1:0]  reg_bresp, reg_rresp;
    wire        reg_awvalid, reg_awready, reg_wvalid, reg_wready, reg_bvalid, reg_bready;
    wire        reg_arvalid, reg_arready, reg_rvalid, reg_rready;

    // Memory, as both masters see it: part 0 is the bridge, part 1 Macaw.
    wire [1:0]              awid, bid, arid, rid;
    wire [2*32-1:0]         awaddr, araddr;
    wire [2*8-1:0]          awlen, arlen;
    wire [2*3-1:0]          awsize, arsize;
    wire [2*DATA_WIDTH-1:0] wdata, rdata;
    wire [2*STROBES-1:0]    wstrb;
    wire [2*2-1:0]          bresp, rresp;
    wire [1:0]              awvalid, awready, wlast, wvalid, wready, bvalid, bready;
    wire [1:0]              arvalid, arready, rlast, rvalid, rready;

    assign awid[0] = 1'b0;
    assign arid[0] = 1'b0;

    host_bridge #(.DATA_WIDTH(DATA_WIDTH)) host_bridge (
        .clk(clk), .rst(rst),
        .host_awaddr(host_awaddr), .host_awprot(host_awprot), .host_awvalid(host_awvalid),
        .host_awready(host_awready), .host_wdata(host_wdata), .host_wstrb(host_wstrb),
        .host_wvalid(host_wvalid), .host_wready(host_wready), .host_bresp(host_bresp),
        .host_bvalid(host_bvalid), .host_bready(host_bready), .host_araddr(host_araddr),
        .host_arprot(host_arprot), .host_arvalid(host_arvalid), .host_arready(host_arready),
        .host_rdata(host_rdata), .host_rresp(host_rresp), .host_rvalid(host_rvalid),
        .host_rready(host_rready),
        .reg_awaddr(reg_awaddr), .reg_awprot(reg_awprot), .reg_awvalid(reg_awvalid),
        .reg_awready(reg_awready), .reg_wdata(reg_wdata), .reg_wstrb(reg_wstrb),
        .reg_wvalid(reg_wvalid), .reg_wready(reg_wready), .reg_bresp(reg_bresp),
        .reg_bvalid(reg_bvalid), .reg_bready(reg_bready), .reg_araddr(reg_araddr),
        .reg_arprot(reg_arprot), .reg_arvalid(reg_arvalid), .reg_arready(reg_arready),
        .reg_rdata(reg_rdata), .reg_rresp(reg_rresp), .reg_rvalid(reg_rvalid),
        .reg_rready(reg_rready),
        .mem_awaddr(awaddr[31:0]), .mem_awlen(awlen[7:0]), .mem_awsize(awsize[2:0]),
        .mem_awvalid(awvalid[0]), .mem_awready(awready[0]), .mem_wdata(wdata[DATA_WIDTH-1:0]),
        .mem_wstrb(wstrb[STROBES-1:0]), .mem_wlast(wlast[0]), .mem_wvalid(wvalid[0]),
        .mem_wready(wready[0]), .mem_bresp(bresp[1:0]), .mem_bvalid(bvalid[0]),
        .mem_bready(bready[0]), .mem_araddr(araddr[31:0]), .mem_arlen(arlen[7:0]),
        .mem_arsize(arsize[2:0]), .mem_arvalid(arvalid[0]), .mem_arready(arready[0]),
        .mem_rdata(rdata[DATA_WIDTH-1:0]), .mem_rresp(rresp[1:0]), .mem_rvalid(rvalid[0]),
        .mem_rready(rready[0])
    );

    // The outputs that are left open are constants of Macaw: bursts that increment, of the full width
    // (SIZE), bufferable and non-cacheable (CACHE), with PROT, QOS and LOCK zero.
    macaw macaw (
        .clk(clk), .rst(rst), .irq(irq),
        .s_axi_awaddr(reg_awaddr), .s_axi_awprot(reg_awprot), .s_axi_awvalid(reg_awvalid),
        .s_axi_awready(reg_awready), .s_axi_wdata(reg_wdata), .s_axi_wstrb(reg_wstrb),
        .s_axi_wvalid(reg_wvalid), .s_axi_wready(reg_wready), .s_axi_bresp(reg_bresp),
        .s_axi_bvalid(reg_bvalid), .s_axi_bready(reg_bready), .s_axi_araddr(reg_araddr),
        .s_axi_arprot(reg_arprot), .s_axi_arvalid(reg_arvalid), .s_axi_arready(reg_arready),
        .s_axi_rdata(reg_rdata), .s_axi_rresp(reg_rresp), .s_axi_rvalid(reg_rvalid),
        .s_axi_rready(reg_rready),
        .m_axi_awid(awid[1]), .m_axi_awaddr(awaddr[63:32]), .m_axi_awlen(awlen[15:8]),
        .m_axi_awsize(awsize[5:3]), .m_axi_awburst(), .m_axi_awlock(), .m_axi_awcache(),
        .m_axi_awprot(), .m_axi_awqos(), .m_axi_awvalid(awvalid[1]), .m_axi_awready(awready[1]),
        .m_axi_wdata(wdata[2*DATA_WIDTH-1:DATA_WIDTH]), .m_axi_wstrb(wstrb[2*STROBES-1:STROBES]),
        .m_axi_wlast(wlast[1]), .m_axi_wvalid(wvalid[1]), .m_axi_wready(wready[1]),
        .m_axi_bid(bid[1]), .m_axi_bresp(bresp[3:2]), .m_axi_bvalid(bvalid[1]),
        .m_axi_bready(bready[1]), .m_axi_arid(arid[1]), .m_axi_araddr(araddr[63:32]),
        .m_axi_arlen(arlen[15:8]), .m_axi_arsize(arsize[5:3]), .m_axi_arburst(), .m_axi_arlock(),
        .m_axi_arcache(), .m_axi_arprot(), .m_axi_arqos(), .m_axi_arvalid(arvalid[1]),
        .m_axi_arready(arready[1]), .m_axi_rid(rid[1]),
        .m_axi_rdata(rdata[2*DATA_WIDTH-1:DATA_WIDTH]), .m_axi_rresp(rresp[3:2]),
        .m_axi_rlast(rlast[1]), .m_axi_rvalid(rvalid[1]), .m_axi_rready(rready[1])
    );

    wire [1:0]            m_awid, m_bid, m_arid, m_rid, m_bresp, m_rresp;
    wire [31:0]           m_awaddr, m_araddr;
    wire [7:0]            m_awlen, m_arlen;
    wire [2:0]            m_awsize, m_arsize;
    wire [DATA_WIDTH-1:0] m_wdata, m_rdata;
    wire [STROBES-1:0]    m_wstrb;
    wire                  m_awvalid, m_awready, m_wlast, m_wvalid, m_wready, m_bvalid, m_bready;
    wire                  m_arvalid, m_arready, m_rlast, m_rvalid, m_rready;

    axi_mux #(.DATA_WIDTH(DATA_WIDTH)) axi_mux (
        .clk(clk), .rst(rst),
        .s_awid(awid), .s_awaddr(awaddr), .s_awlen(awlen), .s_awsize(awsize), .s_awvalid(awvalid),
        .s_awready(awready), .s_wdata(wdata), .s_wstrb(wstrb), .s_wlast(wlast), .s_wvalid(wvalid),
        .s_wready(wready), .s_bid(bid), .s_bresp(bresp), .s_bvalid(bvalid), .s_bready(bready),
        .s_arid(arid), .s_araddr(araddr), .s_arlen(arlen), .s_arsize(arsize), .s_arvalid(arvalid),
        .s_arready(arready), .s_rid(rid), .s_rdata(rdata), .s_rresp(rresp), .s_rlast(rlast),
        .s_rvalid(rvalid), .s_rready(rready),
        .m_awid(m_awid), .m_awaddr(m_awaddr), .m_awlen(m_awlen), .m_awsize(m_awsize),
        .m_awvalid(m_awvalid), .m_awready(m_awready), .m_wdata(m_wdata), .m_wstrb(m_wstrb),
        .m_wlast(m_wlast), .m_wvalid(m_wvalid), .m_wready(m_wready), .m_bid(m_bid),
        .m_bresp(m_bresp), .m_bvalid(m_bvalid), .m_bready(m_bready), .m_arid(m_arid),
        .m_araddr(m_araddr), .m_arlen(m_arlen), .m_arsize(m_arsize), .m_arvalid(m_arvalid),
        .m_arready(m_arready), .m_rid(m_rid), .m_rdata(m_rdata), .m_rresp(m_rresp),
        .m_rlast(m_rlast), .m_rvalid(m_rvalid), .m_rready(m_rready)
    );

    axi_ram #(.DATA_WIDTH(DATA_WIDTH), .BYTES_LOG2(BYTES_LOG2)) axi_ram (
        .clk(clk), .rst(rst),
        .s_awid(m_awid), .s_awaddr(m_awaddr), .s_awlen(m_awlen), .s_awsize(m_awsize),
        .s_awvalid(m_awvalid), .s_awready(m_awready), .s_wdata(m_wdata), .s_wstrb(m_wstrb),
        .s_wlast(m_wlast), .s_wvalid(m_wvalid), .s_wready(m_wready), .s_bid(m_bid),
        .s_bresp(m_bresp), .s_bvalid(m_bvalid), .s_bready(m_bready), .s_arid(m_arid),
        .s_araddr(m_araddr), .s_arlen(m_arlen), .s_arsize(m_arsize), .s_arvalid(m_arvalid),
        .s_arready(m_arready), .s_rid(m_rid), .s_rdata(m_rdata), .s_rresp(m_rresp),
        .s_rlast(m_rlast), .s_rvalid(m_rvalid), .s_rready(m_rready)
    );
endmodule
