"""What `python -m fast_momentum bench` runs, and the asv suite too: problems, contenders, interleaved timing."""
