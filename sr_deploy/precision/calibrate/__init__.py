"""What tensors hold on real pictures, and the scales that follow."""
