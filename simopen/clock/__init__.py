"""What time it really is, and doing something at an instant."""
