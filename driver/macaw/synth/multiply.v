// Multiplications of at most 8 x 8 signed bits without a DSP block, in 75 LUTs each.
//
// Each half of a CCU2C adds two products of bits, (A & B) + (C & D). So a chain of 9 bits adds one
// row, a * b[i], to half of what is there so far; the lowest bit is bit i of the product. Four rows
// make a half of the product, and one more chain adds the two halves:
//
//     a*b[0], a*b[1] -> low1 -> low2 -> low3 ----+
//                        a*b[2]  a*b[3]          +-> r
//     a*b[4], a*b[5] -> high1 -> high2 -> high3 -+
//                        a*b[6]   -a*b[7]
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

    wire [8:0] a;
    wire [7:0] b;
    \$pos #(.A_SIGNED(A_SIGNED), .A_WIDTH(A_WIDTH), .Y_WIDTH(9)) extend_a (.A(A), .Y(a));
    \$pos #(.A_SIGNED(B_SIGNED), .A_WIDTH(B_WIDTH), .Y_WIDTH(8)) extend_b (.A(B), .Y(b));

    wire [8:0] low1, low2, low3, high1, high2, high3;
    \$__add_ands #(.WIDTH(9)) add1 (a, {9{b[1]}}, {a[8], a[8:1]}, b[0], low1);
    \$__add_ands #(.WIDTH(9)) add2 (a, {9{b[2]}}, {low1[8], low1[8:1]}, 1'b1, low2);
    \$__add_ands #(.WIDTH(9)) add3 (a, {9{b[3]}}, {low2[8], low2[8:1]}, 1'b1, low3);
    \$__add_ands #(.WIDTH(9)) add5 (a, {9{b[5]}}, {a[8], a[8:1]}, b[4], high1);
    \$__add_ands #(.WIDTH(9)) add6 (a, {9{b[6]}}, {high1[8], high1[8:1]}, 1'b1, high2);
    \$__add_ands #(.WIDTH(9), .SUBTRACT(1)) add7 (
        a, {9{b[7]}}, {high2[8], high2[8:1]}, 1'b1, high3);
    wire [11:0] r;
    \$__add_ands #(.WIDTH(12)) add (
        {high3, high2[0], high1[0], a[0]}, {~11'b0, b[4]}, {{4{low3[8]}}, low3[8:1]}, 1'b1, r);
    wire signed [15:0] y = {r, low3[0], low2[0], low1[0], a[0] & b[0]};
    assign Y = y;
endmodule

// (C & D) + (A & B), or with SUBTRACT (C & D) - (A & B), where D is for all bits.
module \$__add_ands (A, B, C, D, Y);
    parameter WIDTH = 1;
    parameter SUBTRACT = 0;
    input [WIDTH-1:0] A, B, C;
    input D;
    output [WIDTH-1:0] Y;

    // The LUT of half 0 is 0, so that its carry is what the lowest four bits of INIT0 say.
    localparam [15:0] START = SUBTRACT ? 16'h000F : 16'h0000;
    localparam [15:0] ADD = SUBTRACT ? 16'h8777 : 16'h7888;
    localparam CELLS = WIDTH / 2 + 1;
    wire [2*CELLS-1:0] a = {A, 1'b0}, b = {B, 1'b0}, c = {C, 1'b0}, sum;
    assign Y = sum[WIDTH:1];
    wire [CELLS:0] carry;
    assign carry[0] = 1'bx;
    genvar i;
    generate for (i = 0; i < CELLS; i = i + 1) begin : pair
        CCU2C #(.INIT0(i == 0 ? START : ADD), .INIT1(ADD),
                .INJECT1_0("NO"), .INJECT1_1("NO")) add (
            .CIN(carry[i]), .COUT(carry[i+1]),
            .A0(a[2*i]), .B0(b[2*i]), .C0(c[2*i]), .D0(i == 0 ? 1'b1 : D), .S0(sum[2*i]),
            .A1(a[2*i+1]), .B1(b[2*i+1]), .C1(c[2*i+1]), .D1(D), .S1(sum[2*i+1]));
    end endgenerate
endmodule
