"""The shipped services under seeded schedules, in a world held in memory."""
