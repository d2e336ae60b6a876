"""The lab's processes: what forks them, what they are told, and what they answer."""
