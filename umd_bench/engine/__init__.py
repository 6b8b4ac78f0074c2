"""What is computed: noise schedules, corruption, the objective, the model, its training and its samplers."""
