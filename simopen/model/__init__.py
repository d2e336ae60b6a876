"""Values that every room speaks of: endpoints, what is known of a NAT, estimates of the time, reports. No I/O."""
