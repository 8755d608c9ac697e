// Multiplications of at most 8 x 8 signed bits without a DSP block, in 80 LUTs each.
//
// A half of a CCU2C adds two products of bits. So 4 chains multiply a by two bits of b each, 2 chains
// add those, and 1 the rest:
//
//     a * b[1:0]  a * b[3:2]  a * b[5:4]  a * b[7:6]
//         +-----------+           +-----------+
//             q03 (a * b[3:0])         q47
//              +-----------------------+
//
// The highest bit of b counts -2: instead of s = a * b[6] - 2 * a * b[7], its complement ~s =
// ~(a * b[6]) + 2 * a * b[7] is computed, which needs no carry in.
(* techmap_celltype = "$mul" *)
module multiply (A, B, Y);
    parameter A_SIGNED = 0;
    parameter B_SIGNED = 0;
    parameter A_WIDTH = 1;
    parameter B_WIDTH = 1;
    parameter Y_WIDTH = 1;
    (* force_downto *) input [A_WIDTH-1:0] A;
    (* force_downto *) input [B_WIDTH-1:0] B;
    (* force_downto *) output [Y_WIDTH-1:0] Y;

    wire [7:0] a, b;
    \$pos #(.A_SIGNED(A_SIGNED), .A_WIDTH(A_WIDTH), .Y_WIDTH(8)) extend_a (.A(A), .Y(a));
    \$pos #(.A_SIGNED(B_SIGNED), .A_WIDTH(B_WIDTH), .Y_WIDTH(8)) extend_b (.A(B), .Y(b));

    // Without the lowest bit, which needs no adder.
    wire [8:0] a1 = {{2{a[7]}}, a[7:1]}, a2 = {a[7], a};
    wire [8:0] p01, p23, p45, n67;
    \$__add_ands #(.WIDTH(9)) add01 (.A(a1), .B({9{b[0]}}), .C(a2), .D({9{b[1]}}), .Y(p01));
    \$__add_ands #(.WIDTH(9)) add23 (.A(a1), .B({9{b[2]}}), .C(a2), .D({9{b[3]}}), .Y(p23));
    \$__add_ands #(.WIDTH(9)) add45 (.A(a1), .B({9{b[4]}}), .C(a2), .D({9{b[5]}}), .Y(p45));
    \$__add_ands #(.WIDTH(9), .INVERT(1)) add67 (.A(a1), .B({9{b[6]}}), .C(a2), .D({9{b[7]}}), .Y(n67));
    // Without the lowest bits of the first, which go to the result as they are.
    localparam [11:0] ONES = ~12'b0;
    wire [9:0] q03, q47;
    \$__add_ands #(.WIDTH(10)) add03 (.A({p23, a[0]}), .B({ONES[8:0], b[2]}),
                               .C({{2{p01[8]}}, p01[8:1]}), .D(ONES[9:0]), .Y(q03));
    \$__add_ands #(.WIDTH(10), .INVERT(1)) add47 (.A({n67, ~(a[0] & b[6])}), .B(ONES[9:0]),
                               .C({{2{p45[8]}}, p45[8:1]}), .D(ONES[9:0]), .Y(q47));
    wire [11:0] r;
    \$__add_ands #(.WIDTH(12)) add07 (.A({q47, p45[0], a[0]}), .B({ONES[10:0], b[4]}),
                               .C({{4{q03[9]}}, q03[9:2]}), .D(ONES), .Y(r));
    wire signed [15:0] y = {r, q03[1:0], p01[0], a[0] & b[0]};
    assign Y = y;
endmodule

// (A & B) + (C & D), or with INVERT ~(A & B) + (C & D).
module \$__add_ands (A, B, C, D, Y);
    parameter WIDTH = 1;
    parameter INVERT = 0;
    input [WIDTH-1:0] A, B, C, D;
    output [WIDTH-1:0] Y;

    // The LUT of half 0 is 0, so that its carry is what the lowest four bits of INIT0 say: 0.
    localparam [15:0] INIT = INVERT ? 16'h8777 : 16'h7888;
    localparam CELLS = WIDTH / 2 + 1;
    wire [2*CELLS-1:0] a = {A, 1'b0}, b = {B, 1'b0}, c = {C, 1'b0}, d = {D, 1'b1}, sum;
    assign Y = sum[WIDTH:1];
    wire [CELLS:0] carry;
    assign carry[0] = 1'bx;
    genvar i;
    generate for (i = 0; i < CELLS; i = i + 1) begin : pair
        CCU2C #(.INIT0(i == 0 ? 16'h0000 : INIT), .INIT1(INIT),
                .INJECT1_0("NO"), .INJECT1_1("NO")) add (
            .CIN(carry[i]), .COUT(carry[i+1]),
            .A0(a[2*i]), .B0(b[2*i]), .C0(c[2*i]), .D0(d[2*i]), .S0(sum[2*i]),
            .A1(a[2*i+1]), .B1(b[2*i+1]), .C1(c[2*i+1]), .D1(d[2*i+1]), .S1(sum[2*i+1]));
    end endgenerate
endmodule
