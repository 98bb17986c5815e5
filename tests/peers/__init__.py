"""recast beside the libraries that load what it writes."""
