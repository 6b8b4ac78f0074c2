"""Small classifiers, one for each data set whose images Inception was not made for.

In: a packed data set, or the name of a classifier that was trained. Out: the classifier's weights with their description, or
the classifier as an extractor. weights/ holds those that come with the package; a user's own lie below the data root.
"""
