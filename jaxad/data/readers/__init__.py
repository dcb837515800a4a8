"""Files of users: what is in one of them, or one line that says what is wrong with it."""
