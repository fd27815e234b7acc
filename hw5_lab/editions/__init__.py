"""Other editions of the homework, of other courses and our own, as subclasses of the scripts' classes.

They know no laboratory.
"""
