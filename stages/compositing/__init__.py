"""Compositing of cut-outs: placement and scale, projection of the ground plane, layers, masks, colour and noise."""
