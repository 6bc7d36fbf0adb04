"""What takes too long for a test: commands killed at random moments, and hours of `optimize`.

make faults FAULTS=100
make soak SOAK_MINUTES=120
"""
