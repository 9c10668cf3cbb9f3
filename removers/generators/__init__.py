"""Removers that fill a hole in one run of a network: LaMa and MI-GAN."""
