"""What would load, asked of the libraries themselves."""
