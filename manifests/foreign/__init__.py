"""Readers of other people's containers: long JSON files, tars."""
