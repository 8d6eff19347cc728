"""The networks as plain mathematics: the diffusion transformer, the VAE, the text encoders, the samplers.

Quantisation, compilation and distribution wrap these modules from elsewhere.
"""
