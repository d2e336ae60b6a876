"""What runs over a punched stream."""
