"""What happens at a time: delays, due times and schedules."""
