"""The teaching kit: the hand-out for students, and the grader of what they hand in."""
