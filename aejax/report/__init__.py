"""Reports of finished studies, made from the files that aejax/study has written.

collect.py      reads results and groups them into facets and rows of repeated runs
columns.py      header, number format and direction of each column
table.py        the table of results
compare.py      a paired test against a reference
provenance.py   commands, versions and machines of the runs
render.py       tables as Markdown, LaTeX, CSV, on the terminal
baselines.py    PCA beside every row, measured by pca.py
panels.py       which figures there are, drawn by figures.py
sheets.py       sheets of originals over reconstructions
curves.py       training curves
page.py         report.html
write.py        writes all files of a report
finish.py       called at the end of a study
cli.py          `aejax report`
"""
