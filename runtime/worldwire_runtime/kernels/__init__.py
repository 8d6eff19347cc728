"""Arithmetic of our own: definitions in plain torch, and Triton kernels that equal them, mostly for Hopper.

`rows`       numbers as 8-bit values and a scale per row, in plain torch (torch.compile fuses it)
`linear`     a linear layer of two such matrices: the definition, and the choice of the fastest equal of it
`gemm`       Triton: the matrix product with scales, bias, GELU or gate and residual in its epilogue
`prologue`   Triton: layer norm, modulation and quantisation in one pass
`turned`     Triton: norm and rotation of queries and keys in one pass
`attention`  attention with 8-bit scores and products: the definition and its preparation
`flash`      Triton: the kernel of `attention`
`short`      Triton: attention that is short in one direction, of 16 bits
`frustum`    Triton: what past cameras show of a view, and which show most
`gemm_specialised`  Gluon: `gemm` with roles for groups of warps, on Hopper alone
`tuning`     which tile sizes a kernel runs with on this GPU, measured once and kept on disk

Importing the package needs no Triton and no GPU; the kernels' modules are imported when first used.
"""
