"""Reports of finished studies; reads what aejax/study has written and nothing else of it.

collect.py      results, grouped into facets and rows of repeated runs
columns.py      header, format and direction of each column
table.py        the table; compare.py: a paired test; provenance.py: where results come from
render.py       tables as Markdown, LaTeX, CSV, on the terminal
baselines.py    PCA beside every row, measured by pca.py
figures.py      drawing; panels.py: which figures; sheets.py: pictures; curves.py: training
page.py         report.html
write.py        all files of a report; finish.py: called at the end of a study
cli.py          `aejax report`
"""
