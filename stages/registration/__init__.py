"""Registration of a pair: motion, resampling, exposure and noise; what lays `gt` on `input`'s pixel grid."""
