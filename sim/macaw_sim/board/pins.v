// The buffers at the pins of an ECP5, for simulation.
module IB(input wire I, output wire O);
  assign O = I;
endmodule

module OBZ(input wire I, input wire T, output wire O);
  assign O = T ? 1'bz : I;
endmodule
