"""configs/*.yaml → RunConfig → the matrix of cells."""
