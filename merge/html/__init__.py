"""The report as one HTML page: self-contained, interactive, and without any request to a server.

:func:`~distprof.merge.html.page.render_page` draws the report's dataclasses.  Nothing is decided here.
"""
