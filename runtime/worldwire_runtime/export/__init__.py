"""A world's networks as ONNX graphs with INT8 quantise/dequantise nodes, and engines built from them.

`static`     layers whose inputs are rounded by scales that were fixed beforehand, as such graphs need it
`onnx`       a function of tensors to an ONNX file, and running that file by ONNX Runtime
`run`        the main path of `worldwire export`: the denoising step and the VAE decoder of a world
`tensorrt`   building engines of the exported graphs and running them
`engines`    a world that plays through a folder of graphs or engines

What has been executed: export, and the graphs under ONNX Runtime on a CPU. `tensorrt` has not been: its
native library was never at hand where this was written.
"""
