"""The store turned into tidy frames, statistics, tables, figures and an HTML page: a projection that can be made again."""
