"""What a sweep will cost, before it runs and compared afterwards.

In: planned stages and finished ones. Out: seconds, device-hours and bytes.
"""
