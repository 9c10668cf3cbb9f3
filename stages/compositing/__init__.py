"""Pasting cut-outs: place and size, the floor's projection, layers and masks, colour and noise."""
