"""What simopen promises, measured. `make bench` runs all of it briefly; each module runs alone at full length."""
