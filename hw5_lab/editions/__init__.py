"""The homework of other courses, a file each, as subclasses of the scripts' classes. They know no laboratory."""
