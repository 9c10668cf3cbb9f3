"""The discriminator, which judges candidates: network, training, calibration, scoring."""
