"""The model that judges candidates: network, training, calibration, scoring."""
