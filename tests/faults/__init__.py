"""What a disk that fails, a kill, or a meddler may do to a run, done to it at every point."""
