"""Ray Train and DeepSpeed: from teacher data to a student."""
