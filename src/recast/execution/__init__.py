"""How it is done: everything that touches a disk."""
