"""``distprof count``: loads one model from the user's code, runs it and counts it."""
