"""Reports of experiments, from their files alone. The modules in the order of the work:

reading             the experiment's files → frozen values
facts               those and all that follows from them: what report.json holds and every section shows
scores, effects     test scores over seeds, and what the parameters did: computed for the facts
summary             the head of the page, and report.json
result, adaptive, detail, search, parameters, cost    the sections: each the facts in words, tables and charts
blocks, style       what sections are built of, how values are written, and the look of charts
writer              the sections as HTML and as Markdown, by templates/
comparison          several searches side by side
"""
