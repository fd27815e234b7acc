"""Other courses' editions of the homework, a file per course, built on the homework's own classes."""
