"""Sources of datasets in other people's layouts."""
