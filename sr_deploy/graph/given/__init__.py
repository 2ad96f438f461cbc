"""An ONNX graph that was given, whoever wrote it: read within bounds, understood by running it, put into one form.

read      the file, its hashes, its external data          → GivenFile
operators what no runtime or parser here takes, by node
ends      which tensors are the pictures, and their layout → one float32 NCHW RGB graph, "lr" to "sr"
float32   half-precision graphs computed in float32
opset     any operator set from 9 to 21 as the target's
free      a fixed size made free, and proved
network   all of it: GivenNetwork, what the checkpoint route has at the same place
"""
