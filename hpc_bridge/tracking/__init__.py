"""Following a job from the queue to the told end of its flow run."""
