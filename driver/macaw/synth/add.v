// Additions, subtractions and comparisons in carry chains of CCU2C, with fewer LUTs than by the map
// of Yosys: nextpnr adds a cell where a carry comes from logic, and one where logic reads it. Here
// both are halves of the chain itself.
(* techmap_celltype = "$alu" *)
module add (A, B, CI, BI, X, Y, CO);
    parameter A_SIGNED = 0;
    parameter B_SIGNED = 0;
    parameter A_WIDTH = 1;
    parameter B_WIDTH = 1;
    parameter Y_WIDTH = 1;
    parameter _TECHMAP_CONSTMSK_CI_ = 0;
    parameter _TECHMAP_CONSTVAL_CI_ = 0;
    parameter _TECHMAP_CONSTMSK_BI_ = 0;
    parameter _TECHMAP_CONSTVAL_BI_ = 0;
    (* force_downto *) input [A_WIDTH-1:0] A;
    (* force_downto *) input [B_WIDTH-1:0] B;
    input CI, BI;
    (* force_downto *) output [Y_WIDTH-1:0] X, Y, CO;

    wire _TECHMAP_FAIL_ = Y_WIDTH <= 4;    // shorter ones are smaller without a chain

    (* force_downto *) wire [Y_WIDTH-1:0] a, b, c;
    \$pos #(.A_SIGNED(A_SIGNED), .A_WIDTH(A_WIDTH), .Y_WIDTH(Y_WIDTH)) extend_a (.A(A), .Y(a));
    \$pos #(.A_SIGNED(B_SIGNED), .A_WIDTH(B_WIDTH), .Y_WIDTH(Y_WIDTH)) extend_b (.A(B), .Y(b));
    assign c = BI ? ~b : b;
    assign X = a ^ c;

    // The LUT of half 0 is 0, so that its carry is what A0, B0 and four lowest bits of INIT0 say:
    // CI, or, where that saves a cell because CI and BI are constant, the carry out of bit 0.
    localparam FIRST = _TECHMAP_CONSTMSK_CI_[0] && _TECHMAP_CONSTMSK_BI_[0] && Y_WIDTH % 2 == 0;
    localparam [1:0] KIND = {_TECHMAP_CONSTVAL_CI_[0], _TECHMAP_CONSTVAL_BI_[0]};
    localparam [15:0] START = !FIRST ? 16'h000A : KIND == 0 ? 16'h0008 : KIND == 1 ? 16'h0002 :
                              KIND == 2 ? 16'h000E : 16'h000B;
    localparam [15:0] ADD = 16'h96AA;     // A ^ B ^ C; without carry in, the carry is A
    localparam CELLS = (Y_WIDTH + 3 - FIRST) / 2;
    (* force_downto *) wire [2*CELLS-1:0] ha = FIRST ? a : {a, CI};
    (* force_downto *) wire [2*CELLS-1:0] hb = FIRST ? b : {b, 1'b0};
    (* force_downto *) wire [2*CELLS-1:0] invert = FIRST ? {Y_WIDTH{BI}} : {{Y_WIDTH{BI}}, 1'b0};
    (* force_downto *) wire [2*CELLS-1:0] sum;
    wire [CELLS:0] carry;
    assign carry[0] = 1'bx;
    genvar i;
    generate for (i = 0; i < CELLS; i = i + 1) begin : pair
        CCU2C #(.INIT0(i == 0 ? START : ADD), .INIT1(ADD),
                .INJECT1_0("NO"), .INJECT1_1("NO")) add (
            .CIN(carry[i]), .COUT(carry[i+1]),
            .A0(ha[2*i]), .B0(hb[2*i]), .C0(invert[2*i]), .D0(1'b1), .S0(sum[2*i]),
            .A1(ha[2*i+1]), .B1(hb[2*i+1]), .C1(invert[2*i+1]), .D1(1'b1), .S1(sum[2*i+1]));
    end endgenerate
    assign Y = FIRST ? {sum[Y_WIDTH-1:1], X[0] ^ CI} : sum[Y_WIDTH:1];

    // The last carry is the sum of the half after the highest bit, others follow from bit and sum.
    assign CO[Y_WIDTH-1] = sum[Y_WIDTH+1-FIRST];
    assign CO[Y_WIDTH-2:0] = (a & c) | (~Y & (a | c));
endmodule
