"""Rows whose masks people corrected: found by the source `corrections`, made anew after the stage `correct`."""
