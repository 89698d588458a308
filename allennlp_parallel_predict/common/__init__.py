"""What every other folder may use: messages, errors, and what is known of the machine."""
