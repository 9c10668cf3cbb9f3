"""Colours of decoded files as 8-bit sRGB: profiles, ranges of numbers, and pixels of 16 bits."""
