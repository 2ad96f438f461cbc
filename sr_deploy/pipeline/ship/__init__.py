"""A deployment goes elsewhere: bundles, boards, Triton."""
