"""Removers that run elsewhere and are asked by HTTP."""
