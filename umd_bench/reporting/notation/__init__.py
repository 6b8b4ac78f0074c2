"""How metrics and numbers are written for people.

In: the names and values that stages record. Out: headers with unit and direction, the order of columns, numbers as text.
"""
