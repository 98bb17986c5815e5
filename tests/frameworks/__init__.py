"""What frameworks save, asked of the frameworks themselves."""
