// Two AXI4 masters share a slave, in turn. An id gets one more bit on its way to the slave, the number of
// the master, by which the response finds back; the slave must answer writes in the order of their addresses.
//
// Reads of both masters may be outstanding together. Of writes, a burst passes as a whole before the next.
module axi_mux #(
    parameter ADDR_WIDTH = 32,
    parameter DATA_WIDTH = 32,
    parameter ID_WIDTH = 1
) (
    input  wire                      clk,
    input  wire                      rst,

    // Masters: bit or part 0 of each vector belongs to master 0, part 1 to master 1.
    input  wire [2*ID_WIDTH-1:0]     s_awid,
    input  wire [2*ADDR_WIDTH-1:0]   s_awaddr,
    input  wire [2*8-1:0]            s_awlen,
    input  wire [2*3-1:0]            s_awsize,
    input  wire [1:0]                s_awvalid,
    output wire [1:0]                s_awready,
    input  wire [2*DATA_WIDTH-1:0]   s_wdata,
    input  wire [2*DATA_WIDTH/8-1:0] s_wstrb,
    input  wire [1:0]                s_wlast,
    input  wire [1:0]                s_wvalid,
    output wire [1:0]                s_wready,
    output wire [2*ID_WIDTH-1:0]     s_bid,
    output wire [2*2-1:0]            s_bresp,
    output wire [1:0]                s_bvalid,
    input  wire [1:0]                s_bready,
    input  wire [2*ID_WIDTH-1:0]     s_arid,
    input  wire [2*ADDR_WIDTH-1:0]   s_araddr,
    input  wire [2*8-1:0]            s_arlen,
    input  wire [2*3-1:0]            s_arsize,
    input  wire [1:0]                s_arvalid,
    output wire [1:0]                s_arready,
    output wire [2*ID_WIDTH-1:0]     s_rid,
    output wire [2*DATA_WIDTH-1:0]   s_rdata,
    output wire [2*2-1:0]            s_rresp,
    output wire [1:0]                s_rlast,
    output wire [1:0]                s_rvalid,
    input  wire [1:0]                s_rready,

    // Slave
    output wire [ID_WIDTH:0]         m_awid,
    output wire [ADDR_WIDTH-1:0]     m_awaddr,
    output wire [7:0]                m_awlen,
    output wire [2:0]                m_awsize,
    output wire                      m_awvalid,
    input  wire                      m_awready,
    output wire [DATA_WIDTH-1:0]     m_wdata,
    output wire [DATA_WIDTH/8-1:0]   m_wstrb,
    output wire                      m_wlast,
    output wire                      m_wvalid,
    input  wire                      m_wready,
    input  wire [ID_WIDTH:0]         m_bid,
    input  wire [1:0]                m_bresp,
    input  wire                      m_bvalid,
    output wire                      m_bready,
    output wire [ID_WIDTH:0]         m_arid,
    output wire [ADDR_WIDTH-1:0]     m_araddr,
    output wire [7:0]                m_arlen,
    output wire [2:0]                m_arsize,
    output wire                      m_arvalid,
    input  wire                      m_arready,
    input  wire [ID_WIDTH:0]         m_rid,
    input  wire [DATA_WIDTH-1:0]     m_rdata,
    input  wire [1:0]                m_rresp,
    input  wire                      m_rlast,
    input  wire                      m_rvalid,
    output wire                      m_rready
);
    // Whose turn it is: the other master's after each address, and the same one's while an address waits.
    reg  ar_last, ar_waits, aw_last, aw_waits, w_open;
    wire ar = ar_waits ? ar_last : s_arvalid[1] && (!s_arvalid[0] || !ar_last);
    wire aw = aw_waits ? aw_last : s_awvalid[1] && (!s_awvalid[0] || !aw_last);

    always @(posedge clk) begin
        if (m_arvalid) begin
            ar_last <= ar;
            ar_waits <= !m_arready;
        end
        if (m_awvalid) begin
            aw_last <= aw;
            aw_waits <= !m_awready;
            if (m_awready) w_open <= 1'b1;
        end
        if (m_wvalid && m_wready && m_wlast) w_open <= 1'b0;
        if (rst) {ar_last, ar_waits, aw_last, aw_waits, w_open} <= 5'b0;
    end

    assign m_arvalid = |s_arvalid;
    assign m_arid = {ar, s_arid[ar*ID_WIDTH +: ID_WIDTH]};
    assign m_araddr = s_araddr[ar*ADDR_WIDTH +: ADDR_WIDTH];
    assign m_arlen = s_arlen[ar*8 +: 8];
    assign m_arsize = s_arsize[ar*3 +: 3];
    assign s_arready = {ar, !ar} & {2{m_arready}};

    wire r = m_rid[ID_WIDTH];
    assign s_rid = {2{m_rid[ID_WIDTH-1:0]}};
    assign s_rdata = {2{m_rdata}};
    assign s_rresp = {2{m_rresp}};
    assign s_rlast = {2{m_rlast}};
    assign s_rvalid = {r, !r} & {2{m_rvalid}};
    assign m_rready = s_rready[r];

    assign m_awvalid = |s_awvalid && !w_open;
    assign m_awid = {aw, s_awid[aw*ID_WIDTH +: ID_WIDTH]};
    assign m_awaddr = s_awaddr[aw*ADDR_WIDTH +: ADDR_WIDTH];
    assign m_awlen = s_awlen[aw*8 +: 8];
    assign m_awsize = s_awsize[aw*3 +: 3];
    assign s_awready = {aw, !aw} & {2{m_awready && !w_open}};

    assign m_wdata = s_wdata[aw_last*DATA_WIDTH +: DATA_WIDTH];
    assign m_wstrb = s_wstrb[aw_last*DATA_WIDTH/8 +: DATA_WIDTH/8];
    assign m_wlast = s_wlast[aw_last];
    assign m_wvalid = s_wvalid[aw_last] && w_open;
    assign s_wready = {aw_last, !aw_last} & {2{m_wready && w_open}};

    wire b = m_bid[ID_WIDTH];
    assign s_bid = {2{m_bid[ID_WIDTH-1:0]}};
    assign s_bresp = {2{m_bresp}};
    assign s_bvalid = {b, !b} & {2{m_bvalid}};
    assign m_bready = s_bready[b];
endmodule
